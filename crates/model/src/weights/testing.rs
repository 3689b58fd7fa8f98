//! Writes tiny GGUF files for tests.

use std::path::Path;

use super::gguf::GgufFile;
use super::gguf_value::GgufValue;
use super::mapped::MappedFile;

/// A GGUF file in the making. Fields are open, so that a test can say what is wrong with its file.
#[derive(Clone)]
pub(crate) struct GgufWriter {
    pub(crate) version: u32,
    pub(crate) alignment: usize,
    pub(crate) metadata: Vec<(String, GgufValue)>,
    pub(crate) tensors: Vec<GgufTestTensor>,
}

/// A tensor as it is written.
#[derive(Clone)]
pub(crate) struct GgufTestTensor {
    pub(crate) name: String,
    /// Fastest first.
    pub(crate) dimensions: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
    /// Instead of the place where the data is.
    pub(crate) offset: Option<u64>,
}

impl GgufWriter {
    /// Nothing but the architecture.
    pub(crate) fn new(architecture: &str) -> Self {
        let metadata = vec![(
            "general.architecture".to_owned(),
            GgufValue::String(architecture.to_owned()),
        )];
        Self {
            version: 3,
            alignment: 32,
            metadata,
            tensors: Vec::new(),
        }
    }

    /// A whole model: one layer, width 8, two heads of 4, one key head, feed-forward width 12, 5 tokens.
    /// Every weight of a tensor is the number of its row.
    pub(crate) fn model(architecture: &str) -> Self {
        let mut writer = Self::new(architecture);
        for (key, value) in [
            ("block_count", 1),
            ("context_length", 64),
            ("embedding_length", 8),
            ("feed_forward_length", 12),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ] {
            writer.set(&format!("{architecture}.{key}"), GgufValue::U32(value));
        }
        writer.set(
            &format!("{architecture}.attention.layer_norm_rms_epsilon"),
            GgufValue::F32(1e-5),
        );
        for (name, rows, width) in [
            ("token_embd.weight", 5, 8),
            ("blk.0.attn_norm.weight", 1, 8),
            ("blk.0.attn_q.weight", 8, 8),
            ("blk.0.attn_k.weight", 4, 8),
            ("blk.0.attn_v.weight", 4, 8),
            ("blk.0.attn_output.weight", 8, 8),
            ("blk.0.ffn_norm.weight", 1, 8),
            ("blk.0.ffn_gate.weight", 12, 8),
            ("blk.0.ffn_up.weight", 12, 8),
            ("blk.0.ffn_down.weight", 8, 12),
            ("output_norm.weight", 1, 8),
        ] {
            let values: Vec<f32> = (0..rows).flat_map(|row| vec![row as f32; width]).collect();
            let dimensions = if rows == 1 {
                vec![width as u64]
            } else {
                vec![width as u64, rows as u64]
            };
            writer.tensor(name, &dimensions, &values);
        }
        writer
    }

    /// Sets a metadata value, in place of an earlier one.
    pub(crate) fn set(&mut self, key: &str, value: GgufValue) {
        self.metadata.retain(|(other, _)| other != key);
        self.metadata.push((key.to_owned(), value));
    }

    /// Removes a metadata value.
    pub(crate) fn remove(&mut self, key: &str) {
        self.metadata.retain(|(other, _)| other != key);
    }

    /// Adds an f32 tensor, dimensions fastest first.
    pub(crate) fn tensor(&mut self, name: &str, dimensions: &[u64], values: &[f32]) {
        let data = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.raw_tensor(name, dimensions, 0, data);
    }

    /// Adds a tensor of any type.
    pub(crate) fn raw_tensor(&mut self, name: &str, dimensions: &[u64], kind: u32, data: Vec<u8>) {
        let dimensions = dimensions.to_vec();
        self.tensors.push(GgufTestTensor {
            name: name.to_owned(),
            dimensions,
            kind,
            data,
            offset: None,
        });
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut file, key);
            file.extend(type_of(value).to_le_bytes());
            put_value(&mut file, value);
        }
        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            put_string(&mut file, &tensor.name);
            file.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor
                .dimensions
                .iter()
                .for_each(|size| file.extend(size.to_le_bytes()));
            file.extend(tensor.kind.to_le_bytes());
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            file.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend(data);
        file
    }

    /// The file, read again.
    pub(crate) fn read(&self) -> crate::error::Result<GgufFile> {
        read(&self.bytes())
    }
}

/// A file with these bytes, read.
pub(crate) fn read(bytes: &[u8]) -> crate::error::Result<GgufFile> {
    GgufFile::from_mapped(MappedFile::from_bytes(Path::new("tiny.gguf"), bytes))
}

fn put_string(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

fn type_of(value: &GgufValue) -> u32 {
    match value {
        GgufValue::U8(_) => 0,
        GgufValue::I8(_) => 1,
        GgufValue::U16(_) => 2,
        GgufValue::I16(_) => 3,
        GgufValue::U32(_) => 4,
        GgufValue::I32(_) => 5,
        GgufValue::F32(_) => 6,
        GgufValue::Bool(_) => 7,
        GgufValue::String(_) => 8,
        GgufValue::Array(_) => 9,
        GgufValue::U64(_) => 10,
        GgufValue::I64(_) => 11,
        GgufValue::F64(_) => 12,
    }
}

fn put_value(file: &mut Vec<u8>, value: &GgufValue) {
    match value {
        GgufValue::U8(value) => file.extend(value.to_le_bytes()),
        GgufValue::I8(value) => file.extend(value.to_le_bytes()),
        GgufValue::U16(value) => file.extend(value.to_le_bytes()),
        GgufValue::I16(value) => file.extend(value.to_le_bytes()),
        GgufValue::U32(value) => file.extend(value.to_le_bytes()),
        GgufValue::I32(value) => file.extend(value.to_le_bytes()),
        GgufValue::F32(value) => file.extend(value.to_le_bytes()),
        GgufValue::Bool(value) => file.push(u8::from(*value)),
        GgufValue::String(text) => put_string(file, text),
        GgufValue::U64(value) => file.extend(value.to_le_bytes()),
        GgufValue::I64(value) => file.extend(value.to_le_bytes()),
        GgufValue::F64(value) => file.extend(value.to_le_bytes()),
        GgufValue::Array(values) => {
            file.extend(values.first().map_or(0, type_of).to_le_bytes());
            file.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| put_value(file, value));
        }
    }
}
