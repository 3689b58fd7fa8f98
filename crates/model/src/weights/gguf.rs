//! GGUF, the single-file format of llama.cpp: metadata (hyperparameters and tokenizer) and tensors.
//!
//! ```text
//! "GGUF", version u32 (2 or 3), tensors u64, metadata entries u64
//! entries:  key string, type u32, value
//! tensors:  name string, dimensions u32, that many u64 (fastest first), type u32, offset u64
//! padding to `general.alignment` (32 unless given), then the data; offsets count from here
//! ```
//!
//! Only little-endian files are read. Source: the GGUF specification (ggml, `docs/gguf.md`).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use super::dequant::{TensorType, type_name};
use super::gguf_names;
use super::gguf_value::{Cursor, GgufValue, Parsed};
use super::mapped::MappedFile;
use crate::error::{ModelError, Result};

/// The most metadata values a file may have: a vocabulary of a quarter of a million tokens needs a third.
const MAX_VALUES: usize = 1 << 22;

/// What a user can do about a file that is not what its format says.
const FETCH_AGAIN: &str = "the file is damaged or was not fetched whole, fetch it again";

/// A memory-mapped GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    file: MappedFile,
    metadata: HashMap<String, GgufValue>,
    /// By GGUF name.
    tensors: HashMap<String, GgufTensor>,
    /// Hugging Face name → GGUF name, for the tensors that have one.
    names: BTreeMap<String, String>,
}

/// Where a tensor lies and what it is.
#[derive(Debug)]
pub(crate) struct GgufTensor {
    /// Row-major: the slowest dimension first, unlike in the file.
    pub(crate) shape: Vec<usize>,
    kind: TensorType,
    /// Weights in the tensor: the product of `shape`.
    len: usize,
    /// Bytes of the file.
    range: Range<usize>,
}

impl GgufFile {
    /// Maps a file and checks its header: every string, count and offset lies within the file, every tensor
    /// is of a type that can be read, and no two tensors overlap. Tensor names and the architecture are not
    /// looked at yet, so that a tokenizer can be read from any file.
    ///
    /// # Errors
    /// The file cannot be read, is damaged or not fetched whole, is big-endian, of version 1, one part of
    /// several, or has a tensor of another type than F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K
    /// to Q6_K.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_mapped(MappedFile::open(path)?)
    }

    pub(super) fn from_mapped(file: MappedFile) -> Result<Self> {
        check_version(&file)?;
        let format = |what| ModelError::Format {
            path: file.path().to_owned(),
            what,
            fix: FETCH_AGAIN.to_owned(),
        };
        let (metadata, entries, data_start) = read_header(file.bytes()).map_err(format)?;
        if metadata
            .get("split.count")
            .and_then(GgufValue::as_u64)
            .is_some_and(|count| count > 1)
        {
            return Err(ModelError::Unsupported {
                path: file.path().to_owned(),
                feature: "a GGUF model split into several files".to_owned(),
                fix: "join the parts with llama.cpp's `llama-gguf-split --merge`".to_owned(),
            });
        }
        let mut tensors = HashMap::with_capacity(entries.len());
        for entry in entries {
            let kind = TensorType::from_id(entry.kind).ok_or_else(|| ModelError::Unsupported {
                path: file.path().to_owned(),
                feature: format!("type {} of tensor `{}`", type_name(entry.kind), entry.name),
                fix: format!("use a file with {}", TensorType::supported()),
            })?;
            let tensor = locate(&entry, kind, data_start, file.bytes().len());
            let tensor =
                tensor.map_err(|what| format(format!("tensor `{}` {what}", entry.name)))?;
            if let Some(name) = tensors
                .insert(entry.name.clone(), tensor)
                .map(|_| entry.name)
            {
                return Err(format(format!("tensor `{name}` is listed twice")));
            }
        }
        check_overlap(&tensors).map_err(format)?;
        let mut opened = Self {
            file,
            metadata,
            tensors,
            names: BTreeMap::new(),
        };
        opened.names = gguf_names::by_hugging_face_name(&opened);
        Ok(opened)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The metadata value of `key`, for example `tokenizer.ggml.tokens`.
    pub fn metadata(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// All metadata keys, in no particular order.
    pub fn metadata_keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// `general.architecture`, for example `llama`; empty if the file does not say.
    pub fn architecture(&self) -> &str {
        self.metadata("general.architecture")
            .and_then(GgufValue::as_str)
            .unwrap_or_default()
    }

    /// The tensors' names in the file, in no particular order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensors' Hugging Face names, sorted. Tensors that have none are left out; [`super::Weights::open`]
    /// refuses such files.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// The shape of a tensor by its Hugging Face name, [out, in] for a matrix.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensor(self.names.get(name)?)
            .map(|tensor| tensor.shape.clone())
    }

    /// The weights of a tensor by its Hugging Face name, row-major in its shape, dequantized, with the rows
    /// in Hugging Face's order.
    ///
    /// # Errors
    /// There is no such tensor, or its rows do not divide into the heads that the metadata announces.
    pub fn load_f32(&self, name: &str) -> Result<Vec<f32>> {
        let absent = || self.tensor_error(name, "is not in the file");
        let gguf_name = self.names.get(name).ok_or_else(absent)?;
        let tensor = self.tensor(gguf_name).ok_or_else(absent)?;
        let weights = self.dequantize(gguf_name, tensor)?;
        gguf_names::hugging_face_rows(self, name, gguf_name, weights)
    }

    /// A tensor by its name in the file.
    pub(crate) fn tensor(&self, gguf_name: &str) -> Option<&GgufTensor> {
        self.tensors.get(gguf_name)
    }

    /// The weights of a tensor as they lie in the file.
    pub(crate) fn dequantize(&self, gguf_name: &str, tensor: &GgufTensor) -> Result<Vec<f32>> {
        let outside = || self.tensor_error(gguf_name, "lies outside the file");
        let bytes = self
            .file
            .bytes()
            .get(tensor.range.clone())
            .ok_or_else(outside)?;
        let mut weights = vec![0.0; tensor.len];
        tensor.kind.dequantize(bytes, &mut weights);
        Ok(weights)
    }

    /// What is wrong with a tensor of this file.
    pub(crate) fn tensor_error(&self, name: &str, what: impl Into<String>) -> ModelError {
        ModelError::Tensor {
            path: self.path().to_owned(),
            name: name.to_owned(),
            what: what.into(),
        }
    }
}

/// Magic number, byte order and version.
fn check_version(file: &MappedFile) -> Result<()> {
    let bytes = file.bytes();
    let path = file.path().to_owned();
    if bytes.get(..4) != Some(b"GGUF") {
        return Err(ModelError::Format {
            path,
            what: "not a GGUF file (it does not begin with `GGUF`)".to_owned(),
            fix: "give a .gguf file, or a Hugging Face directory with safetensors".to_owned(),
        });
    }
    let version = bytes
        .get(4..8)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes);
    let feature = match version {
        2 | 3 => return Ok(()),
        // Read in the wrong byte order, a small number has its lower half empty.
        big if big & 0xffff == 0 && big != 0 => "big-endian GGUF".to_owned(),
        other => format!("GGUF version {other}"),
    };
    Err(ModelError::Unsupported {
        path,
        feature,
        fix:
            "convert the model again with a current llama.cpp, to a little-endian GGUF of version 3"
                .to_owned(),
    })
}

/// A line of the table of tensors.
struct Entry {
    name: String,
    /// Fastest first, as in the file.
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
}

/// Metadata, the table of tensors, and the byte at which the data begins.
fn read_header(bytes: &[u8]) -> Parsed<(HashMap<String, GgufValue>, Vec<Entry>, usize)> {
    let mut cursor = Cursor::new(bytes, MAX_VALUES);
    cursor.array::<8>()?;
    // The smallest tensor entry: an empty name, one dimension; the smallest metadata entry: one byte.
    let tensors = cursor.count(8 + 4 + 8 + 4 + 8, "tensors")?;
    let entries = cursor.count(8 + 4 + 1, "metadata entries")?;
    let mut metadata = HashMap::new();
    for _ in 0..entries {
        let key = cursor.string()?;
        let value = cursor
            .value()
            .map_err(|what| format!("metadata `{key}`: {what}"))?;
        if metadata.contains_key(&key) {
            return Err(format!("metadata `{key}` is given twice"));
        }
        metadata.insert(key, value);
    }
    let mut table = Vec::new();
    for _ in 0..tensors {
        let name = cursor.string()?;
        let rank = cursor.u32()?;
        if !(1..=4).contains(&rank) {
            return Err(format!("tensor `{name}` has {rank} dimensions, not 1 to 4"));
        }
        let dimensions = (0..rank).map(|_| cursor.u64()).collect::<Parsed<_>>()?;
        table.push(Entry {
            name,
            dimensions,
            kind: cursor.u32()?,
            offset: cursor.u64()?,
        });
    }
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(value) => value
            .as_u64()
            .filter(|alignment| alignment.is_power_of_two() && *alignment <= 1 << 20)
            .and_then(|alignment| usize::try_from(alignment).ok())
            .ok_or("metadata `general.alignment` is not a power of two up to a million")?,
    };
    let data_start = cursor.position().checked_next_multiple_of(alignment);
    let data_start = data_start.ok_or("the header is longer than memory can be")?;
    if let Some(entry) = table
        .iter()
        .find(|entry| entry.offset % alignment as u64 != 0)
    {
        return Err(format!(
            "tensor `{}` does not begin at a multiple of {alignment} bytes",
            entry.name
        ));
    }
    Ok((metadata, table, data_start))
}

/// Shape and byte range of a tensor, checked against the file's length; otherwise what is wrong.
fn locate(
    entry: &Entry,
    kind: TensorType,
    data_start: usize,
    file_len: usize,
) -> Parsed<GgufTensor> {
    let too_large = || format!("has an impossible shape ({:?})", entry.dimensions);
    let mut shape = Vec::with_capacity(entry.dimensions.len());
    for dimension in entry.dimensions.iter().rev() {
        shape.push(
            usize::try_from(*dimension)
                .ok()
                .filter(|size| *size > 0)
                .ok_or_else(too_large)?,
        );
    }
    let len = shape
        .iter()
        .try_fold(1usize, |product, size| product.checked_mul(*size))
        .ok_or_else(too_large)?;
    let (block_len, block_bytes) = kind.block();
    let row = shape.last().copied().unwrap_or(1);
    if row % block_len != 0 {
        return Err(format!(
            "has rows of {row} weights, which is not a multiple of its type's block ({block_len})"
        ));
    }
    let size = (len / block_len)
        .checked_mul(block_bytes)
        .ok_or_else(too_large)?;
    let start = usize::try_from(entry.offset)
        .ok()
        .and_then(|offset| data_start.checked_add(offset));
    let end = start.and_then(|start| start.checked_add(size));
    match (start, end) {
        (Some(start), Some(end)) if end <= file_len => Ok(GgufTensor {
            shape,
            kind,
            len,
            range: start..end,
        }),
        _ => Err(format!(
            "should end at byte {}, but the file has {file_len}",
            end.map_or("2^64".to_owned(), |end| end.to_string())
        )),
    }
}

/// No byte belongs to two tensors.
fn check_overlap(tensors: &HashMap<String, GgufTensor>) -> Parsed<()> {
    let mut ranges: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (tensor.range.start, tensor.range.end, name))
        .collect();
    ranges.sort_unstable();
    for (first, second) in ranges.iter().zip(ranges.iter().skip(1)) {
        if second.0 < first.1 {
            return Err(format!("tensors `{}` and `{}` overlap", first.2, second.2));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::testing::{GgufWriter, read};
    use crate::weights::{gguf_config, gguf_names};

    /// The message of the error that a file causes.
    fn refused(writer: &GgufWriter) -> String {
        writer.read().unwrap_err().to_string()
    }

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let mut writer = GgufWriter::model("qwen2");
        writer.set(
            "tokenizer.ggml.tokens",
            GgufValue::Array(vec![GgufValue::String("a".to_owned()); 5]),
        );
        for (version, alignment) in [(2, 32), (3, 8), (3, 256)] {
            (writer.version, writer.alignment) = (version, alignment);
            writer.set("general.alignment", GgufValue::U32(alignment as u32));
            let file = writer.read().unwrap();
            assert_eq!(file.architecture(), "qwen2");
            assert_eq!(
                file.metadata("tokenizer.ggml.tokens")
                    .unwrap()
                    .as_array()
                    .unwrap()
                    .len(),
                5
            );
            assert_eq!(file.metadata("tokenizer.ggml.model"), None);
            assert_eq!(file.names().len(), writer.tensors.len());
            assert_eq!(
                file.shape("model.layers.0.mlp.down_proj.weight"),
                Some(vec![8, 12])
            );
            let down: Vec<f32> = (0..96u8).map(|i| f32::from(i / 12)).collect();
            assert_eq!(
                file.load_f32("model.layers.0.mlp.down_proj.weight")
                    .unwrap(),
                down
            );
            assert!(
                file.load_f32("lm_head.weight")
                    .unwrap_err()
                    .to_string()
                    .contains("lm_head.weight")
            );
        }
    }

    #[test]
    fn quantized_rows_have_the_length_of_their_blocks() {
        let mut writer = GgufWriter::new("llama");
        // Q8_0: d = 2 (f16 0x4000), q = 1, −1, 0 …
        let mut block = vec![0, 0x40, 1, 0xff];
        block.resize(34, 0);
        writer.raw_tensor(
            "output.weight",
            &[32, 2],
            8,
            [block.clone(), block].concat(),
        );
        let weights = writer.read().unwrap().load_f32("lm_head.weight").unwrap();
        assert_eq!(
            (weights.len(), &weights[..3], &weights[32..35]),
            (64, &[2.0, -2.0, 0.0][..], &[2.0, -2.0, 0.0][..])
        );
        writer.tensors[0].dimensions = vec![16, 4];
        assert!(refused(&writer).contains("rows of 16 weights"));
    }

    #[test]
    fn what_is_not_read_is_named() {
        let mut writer = GgufWriter::new("llama");
        writer.raw_tensor("output.weight", &[256, 1], 23, vec![0; 136]);
        let message = refused(&writer);
        assert!(
            message.contains("IQ4_XS of tensor `output.weight`") && message.contains("Q6_K"),
            "{message}"
        );
        let mut writer = GgufWriter::new("llama");
        writer.set("split.count", GgufValue::U16(3));
        assert!(refused(&writer).contains("llama-gguf-split --merge"));
        for (version, expected) in [
            (1, "GGUF version 1"),
            (4, "GGUF version 4"),
            (3u32.swap_bytes(), "big-endian"),
        ] {
            let mut writer = GgufWriter::new("llama");
            writer.version = version;
            assert!(refused(&writer).contains(expected));
        }
        let message = read(b"PK\x03\x04 a zip file").unwrap_err().to_string();
        assert!(message.contains("not a GGUF file"), "{message}");
    }

    #[test]
    fn shapes_and_offsets_that_cannot_be_are_refused() {
        let with = |change: &dyn Fn(&mut GgufWriter)| {
            let mut writer = GgufWriter::model("llama");
            change(&mut writer);
            refused(&writer)
        };
        assert!(
            with(&|w| w.tensors[0].dimensions = vec![u64::MAX, 2]).contains("impossible shape")
        );
        assert!(
            with(&|w| w.tensors[0].dimensions = vec![1 << 40, 1 << 40])
                .contains("impossible shape")
        );
        assert!(with(&|w| w.tensors[0].dimensions = vec![0, 5]).contains("impossible shape"));
        assert!(with(&|w| w.tensors[0].dimensions = vec![8; 5]).contains("5 dimensions"));
        assert!(with(&|w| w.tensors[0].dimensions = vec![]).contains("0 dimensions"));
        assert!(with(&|w| w.tensors[0].dimensions = vec![8, 1 << 30]).contains("but the file has"));
        assert!(with(&|w| w.tensors[0].offset = Some(!31)).contains("but the file has"));
        assert!(with(&|w| w.tensors[0].offset = Some(1 << 40)).contains("but the file has"));
        assert!(with(&|w| w.tensors[0].offset = Some(8)).contains("multiple of 32"));
        assert!(with(&|w| w.tensors[2].offset = Some(0)).contains("overlap"));
        assert!(with(&|w| w.tensors[1].name = w.tensors[0].name.clone()).contains("twice"));
        assert!(with(&|w| w.metadata.push(w.metadata[0].clone())).contains("twice"));
        for alignment in [
            GgufValue::U32(0),
            GgufValue::U32(24),
            GgufValue::U64(1 << 63),
            GgufValue::F32(32.0),
        ] {
            assert!(
                with(&|w| w.set("general.alignment", alignment.clone())).contains("power of two")
            );
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let bytes = GgufWriter::model("llama").bytes();
        for length in 1..bytes.len() {
            assert!(
                read(&bytes[..length]).is_err(),
                "cut to {length} of {} bytes",
                bytes.len()
            );
        }
        assert!(read(&bytes).is_ok());
    }

    /// Everything a caller can ask of a file; only that it returns matters here.
    fn exercise(bytes: &[u8]) -> bool {
        let Ok(file) = read(bytes) else { return false };
        let _ = gguf_names::check(&file);
        let _ = gguf_config::config_json(&file);
        let _ = gguf_config::generation_config_json(&file);
        for name in file.names() {
            let loaded = file.load_f32(&name).map(|weights| weights.len());
            let shape = file.shape(&name).unwrap();
            assert!(loaded.is_err() || loaded.unwrap() == shape.iter().product::<usize>());
        }
        true
    }

    #[test]
    fn damaged_files_never_panic() {
        let mut writer = GgufWriter::model("llama");
        writer.set(
            "tokenizer.ggml.tokens",
            GgufValue::Array(vec![GgufValue::String("ab".to_owned()); 5]),
        );
        writer.set("llama.rope.freq_base", GgufValue::F32(10000.0));
        writer.set("llama.rope.dimension_count", GgufValue::U32(4));
        writer.tensor("rope_freqs.weight", &[2], &[1.0, 8.0]);
        writer.raw_tensor("output.weight", &[32, 5], 2, vec![7; 90]);
        let whole = writer.bytes();
        assert!(exercise(&whole));
        let header = whole.len() - 2500;
        // A linear congruential generator (Knuth's MMIX), so that every run tries the same files.
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        let interesting = [
            0,
            1,
            2,
            31,
            32,
            255,
            0x7fff_ffff,
            0xffff_ffff,
            1 << 32,
            1 << 61,
            1 << 63,
            u64::MAX - 7,
            u64::MAX,
        ];
        let mut readable = 0;
        for _ in 0..4000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random(3) {
                let at = random(header);
                match random(4) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = random(256) as u8,
                    2 => {
                        let value = interesting[random(interesting.len())].to_le_bytes();
                        let width = [4, 8][random(2)];
                        bytes[at..at + width].copy_from_slice(&value[..width]);
                    }
                    _ => {
                        bytes.remove(at);
                    }
                }
            }
            readable += usize::from(exercise(&bytes));
        }
        // Enough of them must get past the header, or nothing behind it was tried.
        assert!(
            (100..3900).contains(&readable),
            "{readable} of 4000 were readable"
        );
    }
}
