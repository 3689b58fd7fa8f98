//! Model weights on disk, memory-mapped: a Hugging Face directory of safetensors or a GGUF file, both under
//! Hugging Face's names, shapes and configuration keys.

mod dequant;
mod gguf;
mod gguf_config;
mod gguf_metadata;
mod gguf_names;
mod gguf_rope;
mod gguf_value;
mod mapped;
mod safetensors;
#[cfg(test)]
mod testing;
mod write;

use std::path::Path;

use serde_json::Value;

pub use self::gguf::GgufFile;
pub use self::gguf_value::GgufValue;
pub use self::safetensors::SafetensorsDir;
pub use self::write::{Stored, write_tensors};
use crate::error::{ModelError, Result};
use crate::files;

/// The weights and the configuration of a model. Tensors are read when they are asked for.
#[derive(Debug)]
pub enum Weights {
    /// A Hugging Face directory.
    Safetensors(SafetensorsDir),
    /// A GGUF file.
    Gguf(GgufFile),
}

impl Weights {
    /// Opens a Hugging Face directory or a .gguf file and checks that it is whole.
    ///
    /// # Errors
    /// Nothing is there, or it is damaged, incomplete, or of a format, architecture or tensor type that this
    /// crate does not read. Pickled PyTorch checkpoints are never read.
    pub fn open(path: &Path) -> Result<Self> {
        let facts = std::fs::metadata(path).map_err(|source| mapped::read_error(path, source))?;
        if facts.is_dir() {
            return SafetensorsDir::open(path).map(Self::Safetensors);
        }
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            return Err(ModelError::Format {
                path: path.to_owned(),
                what: "a safetensors file alone does not say which model it belongs to".to_owned(),
                fix: "give the folder that holds it and its config.json".to_owned(),
            });
        }
        let file = GgufFile::open(path)?;
        gguf_names::check(&file)?;
        Ok(Self::Gguf(file))
    }

    /// The directory or the file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Safetensors(dir) => dir.path(),
            Self::Gguf(file) => file.path(),
        }
    }

    /// The tensors' Hugging Face names, sorted.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Safetensors(dir) => dir.names(),
            Self::Gguf(file) => file.names(),
        }
    }

    /// The shape of a tensor, [out, in] for a matrix.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self {
            Self::Safetensors(dir) => dir.shape(name),
            Self::Gguf(file) => file.shape(name),
        }
    }

    /// The weights of a tensor, row-major in its shape, widened or dequantized.
    ///
    /// # Errors
    /// There is no such tensor, or it is of a type that cannot be read.
    pub fn load_f32(&self, name: &str) -> Result<Vec<f32>> {
        match self {
            Self::Safetensors(dir) => dir.load_f32(name),
            Self::Gguf(file) => file.load_f32(name),
        }
    }

    /// `config.json`, or what a GGUF file's metadata amounts to.
    ///
    /// # Errors
    /// The file is missing or not JSON; a GGUF file lacks a key or asks for what is not supported.
    pub fn config_json(&self) -> Result<Value> {
        match self {
            Self::Safetensors(dir) => dir.config_json(),
            Self::Gguf(file) => gguf_config::config_json(file),
        }
    }

    /// `generation_config.json`, or the begin, end and padding tokens of a GGUF file. None if there are none.
    ///
    /// # Errors
    /// The file is not JSON.
    pub fn generation_config_json(&self) -> Result<Option<Value>> {
        match self {
            Self::Safetensors(dir) => dir.generation_config_json(),
            Self::Gguf(file) => Ok(gguf_config::generation_config_json(file)),
        }
    }

    /// Name and sha256 (lower-case hexadecimal) of each weights file. Reads all of them.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn sha256(&self) -> Result<Vec<(String, String)>> {
        match self {
            Self::Safetensors(dir) => dir
                .files()
                .map(|(name, path)| Ok((name.to_owned(), files::sha256_of(path)?)))
                .collect(),
            Self::Gguf(file) => {
                let name = file
                    .path()
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                Ok(vec![(name, files::sha256_of(file.path())?)])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::testing::GgufWriter;

    #[test]
    fn a_directory_and_a_gguf_file_look_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let header = r#"{"model.norm.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let data = [1f32, 2.0].map(f32::to_le_bytes).concat();
        let bytes = [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            &data,
        ]
        .concat();
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        let mut writer = GgufWriter::new("llama");
        writer.tensor("output_norm.weight", &[2], &[1.0, 2.0]);
        let gguf = dir.path().join("model.gguf");
        std::fs::write(&gguf, writer.bytes()).unwrap();
        for path in [dir.path(), &gguf] {
            let weights = Weights::open(path).unwrap();
            assert_eq!(weights.path(), path);
            assert_eq!(weights.names(), ["model.norm.weight"]);
            assert_eq!(weights.shape("model.norm.weight"), Some(vec![2]));
            assert_eq!(weights.load_f32("model.norm.weight").unwrap(), [1.0, 2.0]);
            let [(name, digest)] = &weights.sha256().unwrap()[..] else {
                panic!("not one file")
            };
            assert!(name == "model.safetensors" || name == "model.gguf");
            assert_eq!(digest.len(), 64);
        }
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Weights::open(path).unwrap_err().to_string();
        assert!(refused(&dir.path().join("absent")).contains("absent"));
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, "x").unwrap();
        assert!(refused(&path).contains("give the folder"));
        let path = dir.path().join("gemma.gguf");
        std::fs::write(&path, GgufWriter::new("gemma3").bytes()).unwrap();
        assert!(refused(&path).contains("architecture `gemma3` is not supported"));
    }
}
