//! A Hugging Face directory: `config.json` and safetensors, in one file or in shards with an index.
//!
//! ```text
//! header length u64, header (JSON: name → type, shape, byte range), data
//! model.safetensors.index.json: {"weight_map": {tensor name: shard file name}}
//! ```
//!
//! Source: the safetensors format description (huggingface/safetensors, README).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;

use super::dequant::{bf16_from_le, f16_from_le, f32_from_le};
use super::mapped::{MappedFile, read_error};
use crate::error::{ModelError, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// A longer header than any model has; the limit of the safetensors format.
const MAX_HEADER: u64 = 100_000_000;

/// What a user can do about weights that are not what the format says.
const FETCH_AGAIN: &str = "the file is damaged or was not fetched whole, fetch it again";

/// A Hugging Face directory with memory-mapped safetensors.
#[derive(Debug)]
pub struct SafetensorsDir {
    path: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Tensor>,
}

/// One weights file.
#[derive(Debug)]
struct Shard {
    /// Relative to the directory.
    name: String,
    file: MappedFile,
}

/// Where a tensor lies and what it is.
#[derive(Debug)]
struct Tensor {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Bytes of the shard.
    range: Range<usize>,
}

impl SafetensorsDir {
    /// Maps the weights of a directory and checks their headers: byte ranges match shapes, do not overlap,
    /// and fill the file; shards lie in the directory and hold exactly the tensors that the index lists.
    ///
    /// # Errors
    /// There are no safetensors (the message says how to convert what there is), or a file is missing,
    /// damaged, or not fetched whole.
    pub fn open(path: &Path) -> Result<Self> {
        let mut opened = Self {
            path: path.to_owned(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        if path.join(SINGLE).exists() {
            opened.add_shard(SINGLE)?;
        } else if path.join(INDEX).exists() {
            opened.add_indexed_shards()?;
        } else {
            return Err(no_weights(path));
        }
        Ok(opened)
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|tensor| tensor.shape.clone())
    }

    /// The weights of a tensor, row-major in its shape.
    ///
    /// # Errors
    /// There is no such tensor, or it is of another type than F32, F16 and BF16.
    pub fn load_f32(&self, name: &str) -> Result<Vec<f32>> {
        let wrong = |what: &str| ModelError::Tensor {
            path: self.path.clone(),
            name: name.to_owned(),
            what: what.to_owned(),
        };
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| wrong("is not in the weights"))?;
        let shard = self
            .shards
            .get(tensor.shard)
            .ok_or_else(|| wrong("is in no file"))?;
        let bytes = shard
            .file
            .bytes()
            .get(tensor.range.clone())
            .ok_or_else(|| wrong("lies outside its file"))?;
        let widen = match tensor.dtype {
            Dtype::F32 => f32_from_le,
            Dtype::F16 => f16_from_le,
            Dtype::BF16 => bf16_from_le,
            other => {
                return Err(ModelError::Unsupported {
                    path: shard.file.path().to_owned(),
                    feature: format!("type {other} of tensor `{name}`"),
                    fix: "save the model as float32, float16 or bfloat16".to_owned(),
                });
            }
        };
        let mut weights = vec![0.0; tensor.shape.iter().product()];
        widen(bytes, &mut weights);
        Ok(weights)
    }

    /// `config.json`.
    ///
    /// # Errors
    /// The file is missing or not JSON.
    pub fn config_json(&self) -> Result<Value> {
        read_json(&self.path.join("config.json"))
    }

    /// `generation_config.json`, if there is one.
    ///
    /// # Errors
    /// The file is not JSON.
    pub fn generation_config_json(&self) -> Result<Option<Value>> {
        let path = self.path.join("generation_config.json");
        if path.exists() {
            read_json(&path).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Names (relative to the directory) and paths of the weights files.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.shards
            .iter()
            .map(|shard| (shard.name.as_str(), shard.file.path()))
    }

    /// Maps one file and adds its tensors.
    fn add_shard(&mut self, name: &str) -> Result<()> {
        let file = MappedFile::open(&self.path.join(name))?;
        let format = |what| ModelError::Format {
            path: file.path().to_owned(),
            what,
            fix: FETCH_AGAIN.to_owned(),
        };
        let (data_start, metadata) = read_header(file.bytes()).map_err(format)?;
        for tensor_name in metadata.offset_keys() {
            let Some(info) = metadata.info(&tensor_name) else {
                continue;
            };
            let tensor = Tensor {
                shard: self.shards.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: data_start + info.data_offsets.0..data_start + info.data_offsets.1,
            };
            if self.tensors.insert(tensor_name.clone(), tensor).is_some() {
                return Err(format(format!(
                    "tensor `{tensor_name}` is in another file too"
                )));
            }
        }
        self.shards.push(Shard {
            name: name.to_owned(),
            file,
        });
        Ok(())
    }

    /// Reads the index and maps every shard it names.
    fn add_indexed_shards(&mut self) -> Result<()> {
        let path = self.path.join(INDEX);
        let weight_map = read_weight_map(&path)?;
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort_unstable();
        shards.dedup();
        for shard in shards {
            if !self.path.join(shard).exists() {
                return Err(ModelError::Format {
                    path: path.clone(),
                    what: format!("the shard `{shard}` that it lists is not in the folder"),
                    fix: "the model was not fetched whole, fetch the missing file into the same folder".to_owned(),
                });
            }
            self.add_shard(shard)?;
        }
        let shard_of = |tensor: &Tensor| {
            self.shards
                .get(tensor.shard)
                .map(|shard| shard.name.as_str())
        };
        for (name, shard) in &weight_map {
            if self.tensors.get(name).and_then(shard_of) != Some(shard) {
                return Err(ModelError::Tensor {
                    path: self.path.join(shard),
                    name: name.clone(),
                    what: format!(
                        "is not in this file, although {INDEX} says so; fetch the file again"
                    ),
                });
            }
        }
        match self
            .tensors
            .iter()
            .find(|(name, _)| !weight_map.contains_key(*name))
        {
            None => Ok(()),
            Some((name, tensor)) => Err(ModelError::Tensor {
                path: self.path.join(shard_of(tensor).unwrap_or_default()),
                name: name.clone(),
                what: format!(
                    "is not listed in {INDEX}; the folder mixes files of several models, fetch it again"
                ),
            }),
        }
    }
}

/// The byte at which the data begins, and the checked header; otherwise what is wrong.
fn read_header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let length = bytes
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .ok_or("the file ends within its header")?;
    if length > MAX_HEADER {
        return Err(
            "not a safetensors file (its header would be longer than the format allows)".to_owned(),
        );
    }
    let data_start = usize::try_from(length).map_err(|error| error.to_string())? + 8;
    let header = bytes
        .get(8..data_start)
        .ok_or("the file ends within its header")?;
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|error| format!("the header is not valid ({error})"))?;
    let data_len = bytes.len() - data_start;
    if metadata.data_len() != data_len {
        let needed = metadata.data_len();
        return Err(format!(
            "the header describes {needed} bytes of weights, but the file has {data_len}"
        ));
    }
    Ok((data_start, metadata))
}

/// Tensor name → shard file name.
fn read_weight_map(path: &Path) -> Result<BTreeMap<String, String>> {
    let index = read_json(path)?;
    let format = |what: String| ModelError::Format {
        path: path.to_owned(),
        what,
        fix: FETCH_AGAIN.to_owned(),
    };
    let entries = index.get("weight_map").and_then(Value::as_object);
    let entries = entries.filter(|entries| !entries.is_empty());
    let entries = entries.ok_or_else(|| format("`weight_map` is missing or empty".to_owned()))?;
    let mut weight_map = BTreeMap::new();
    for (name, shard) in entries {
        let shard = shard
            .as_str()
            .ok_or_else(|| format(format!("the shard of `{name}` is not a file name")))?;
        if shard.is_empty()
            || !Path::new(shard)
                .components()
                .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(format(format!(
                "the shard `{shard}` of `{name}` is not a file in this folder"
            )));
        }
        weight_map.insert(name.clone(), shard.to_owned());
    }
    Ok(weight_map)
}

/// A JSON file.
fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(|source| read_error(path, source))?;
    serde_json::from_slice(&text).map_err(|error| ModelError::Format {
        path: path.to_owned(),
        what: format!("not valid JSON ({error})"),
        fix: "correct the file or fetch it again".to_owned(),
    })
}

/// Says what a directory without safetensors has instead, and what to do.
fn no_weights(path: &Path) -> ModelError {
    let names: Vec<String> = match std::fs::read_dir(path) {
        Err(source) => return read_error(path, source),
        Ok(entries) => entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect(),
    };
    let ends_with = |endings: &[&str]| {
        names
            .iter()
            .filter(|name| endings.iter().any(|end| name.ends_with(end)))
            .min()
    };
    let shown = path.display();
    if let Some(name) = ends_with(&[".gguf"]) {
        return ModelError::Format {
            path: path.to_owned(),
            what: format!("no {SINGLE} in this folder, but `{name}`"),
            fix: format!("give the file itself: {}", path.join(name).display()),
        };
    }
    if let Some(name) = ends_with(&[".bin", ".pt", ".pth", ".ckpt", ".index.json"]) {
        return ModelError::Unsupported {
            path: path.to_owned(),
            feature: format!(
                "a PyTorch checkpoint (`{name}`; such files can run code when they are read)"
            ),
            fix: format!(
                "if you trust it, convert it to safetensors once: python -c \"from transformers import \
                 AutoModelForCausalLM as M; M.from_pretrained('{shown}').save_pretrained('{shown}')\""
            ),
        };
    }
    ModelError::Format {
        path: path.to_owned(),
        what: format!("neither {SINGLE} nor {INDEX} in this folder"),
        fix: "give a Hugging Face model directory or a .gguf file".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A safetensors file with this header and data.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            data,
        ]
        .concat()
    }

    /// One tensor `name` of two f32.
    fn one(name: &str, values: [f32; 2]) -> Vec<u8> {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#);
        file(&header, &values.map(f32::to_le_bytes).concat())
    }

    fn folder(files: &[(&str, &[u8])]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    fn open(files: &[(&str, &[u8])]) -> Result<SafetensorsDir> {
        SafetensorsDir::open(folder(files).path())
    }

    fn refused(files: &[(&str, &[u8])]) -> String {
        open(files).unwrap_err().to_string()
    }

    #[test]
    fn all_three_types_are_widened() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},
            "a":{"dtype":"F16","shape":[2],"data_offsets":[8,12]},
            "c":{"dtype":"BF16","shape":[2,1],"data_offsets":[12,16]},
            "d":{"dtype":"I64","shape":[],"data_offsets":[16,24]}}"#;
        let mut data = [1.5f32, -1e-40].map(f32::to_le_bytes).concat();
        // f16: 0.5 and the smallest subnormal, 2^-24; bf16: 1.0 and −3.140625.
        data.extend([0x00, 0x38, 0x01, 0x00, 0x80, 0x3f, 0x49, 0xc0]);
        data.extend([0; 8]);
        let bytes = file(header, &data);
        let dir = open(&[(SINGLE, &bytes)]).unwrap();
        assert_eq!(dir.names(), ["a", "b", "c", "d"]);
        assert_eq!(
            (dir.shape("b"), dir.shape("c"), dir.shape("x")),
            (Some(vec![1, 2]), Some(vec![2, 1]), None)
        );
        assert_eq!(dir.load_f32("b").unwrap(), [1.5, -1e-40]);
        assert_eq!(dir.load_f32("a").unwrap(), [0.5, 2f32.powi(-24)]);
        assert_eq!(dir.load_f32("c").unwrap(), [1.0, -3.140625]);
        assert!(
            dir.load_f32("d")
                .unwrap_err()
                .to_string()
                .contains("type I64 of tensor `d`")
        );
        assert!(
            dir.load_f32("x")
                .unwrap_err()
                .to_string()
                .contains("tensor `x`")
        );
    }

    #[test]
    fn damaged_files_are_refused_with_their_path() {
        let whole = one("a", [1.0, 2.0]);
        for length in 1..whole.len() {
            let message = refused(&[(SINGLE, &whole[..length])]);
            assert!(
                message.contains(SINGLE) && message.contains("fetch it again"),
                "{message}"
            );
        }
        let longer = [&whole[..], &[0]].concat();
        assert!(refused(&[(SINGLE, &longer)]).contains("8 bytes of weights, but the file has 9"));
        let refused_header = |header: &str| refused(&[(SINGLE, &file(header, &[0; 16]))]);
        assert!(refused_header("{").contains("header is not valid"));
        // Overlapping; another size than its shape; sizes that overflow together.
        let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
            "b":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}}"#;
        assert!(refused_header(overlap).contains("invalid offset"));
        let shape = r#"{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}"#;
        assert!(refused_header(shape).contains("header is not valid"));
        let half = 1u64 << 60;
        let huge: Vec<String> = (0..16u64)
            .map(|i| {
                let to = if i == 15 { u64::MAX } else { half * (i + 1) };
                let size = to - half * i;
                format!(
                    r#""{i:02}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{},{to}]}}"#,
                    half * i
                )
            })
            .collect();
        let message = refused_header(&format!("{{{}}}", huge.join(",")));
        assert!(message.contains("18446744073709551615 bytes"), "{message}");
        assert!(
            refused(&[(SINGLE, b"PK\x03\x04\xff\xff\xff\xff and so on")])
                .contains("not a safetensors file")
        );
    }

    #[test]
    fn shards_are_joined_by_their_index() {
        let index =
            br#"{"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
        let (first, second) = (one("a", [1.0, 2.0]), one("b", [3.0, 4.0]));
        let dir = open(&[
            (INDEX, index),
            ("1.safetensors", &first),
            ("2.safetensors", &second),
        ])
        .unwrap();
        assert_eq!(dir.names(), ["a", "b"]);
        assert_eq!(dir.load_f32("b").unwrap(), [3.0, 4.0]);
        assert_eq!(
            dir.files().map(|(name, _)| name).collect::<Vec<_>>(),
            ["1.safetensors", "2.safetensors"]
        );

        let message = refused(&[(INDEX, index), ("1.safetensors", &first)]);
        assert!(
            message.contains("`2.safetensors`") && message.contains("fetch the missing file"),
            "{message}"
        );
        let message = refused(&[
            (INDEX, index),
            ("1.safetensors", &first),
            ("2.safetensors", &first),
        ]);
        assert!(
            message.contains("2.safetensors") && message.contains("another file too"),
            "{message}"
        );
        let other = one("c", [3.0, 4.0]);
        let message = refused(&[
            (INDEX, index),
            ("1.safetensors", &first),
            ("2.safetensors", &other),
        ]);
        assert!(
            message.contains("2.safetensors: tensor `b` is not in this file"),
            "{message}"
        );
        let short = br#"{"weight_map": {"a": "1.safetensors"}}"#;
        let both = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"z":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        let message = refused(&[(INDEX, short), ("1.safetensors", &file(both, &[0; 2]))]);
        assert!(
            message.contains("1.safetensors: tensor `z` is not listed"),
            "{message}"
        );
    }

    #[test]
    fn an_index_cannot_lead_out_of_its_folder() {
        for shard in ["../1.safetensors", "/etc/passwd", "a/../../b", ".", ""] {
            let index = format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
            let message = refused(&[(INDEX, index.as_bytes())]);
            assert!(
                message.contains(INDEX) && message.contains("not a file in this folder"),
                "{message}"
            );
        }
        for index in [
            r#"{"weight_map": {}}"#,
            "{}",
            r#"{"weight_map": {"a": 1}}"#,
            "{",
        ] {
            assert!(refused(&[(INDEX, index.as_bytes())]).contains(INDEX));
        }
    }

    #[test]
    fn folders_without_safetensors_say_what_to_do() {
        let message = refused(&[("pytorch_model.bin", b"x"), ("config.json", b"{}")]);
        assert!(
            message.contains("`pytorch_model.bin`") && message.contains("save_pretrained"),
            "{message}"
        );
        assert!(refused(&[("m.Q4_1.gguf", b"x")]).contains("give the file itself"));
        assert!(refused(&[("readme.md", b"x")]).contains("neither model.safetensors"));
    }

    #[test]
    fn configurations_are_read_or_named() {
        let weights = one("a", [1.0, 2.0]);
        let files = [
            (SINGLE, &weights[..]),
            ("config.json", b"{\"a\": 1}"),
            ("generation_config.json", b"{"),
        ];
        let dir = folder(&files);
        let opened = SafetensorsDir::open(dir.path()).unwrap();
        assert_eq!(opened.config_json().unwrap()["a"], 1);
        let message = opened.generation_config_json().unwrap_err().to_string();
        assert!(
            message.contains("generation_config.json: not valid JSON"),
            "{message}"
        );
        let dir = folder(&files[..1]);
        let opened = SafetensorsDir::open(dir.path()).unwrap();
        assert!(
            opened
                .config_json()
                .unwrap_err()
                .to_string()
                .contains("config.json")
        );
        assert_eq!(opened.generation_config_json().unwrap(), None);
    }
}
