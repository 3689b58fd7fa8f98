//! A model as users handle it: network, tokenizer and the tokens that end a response, from one
//! folder or file; and its way out as a Hugging Face directory.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use distil_kernels::Weight;
use serde_json::{Value, json};

use crate::config::Config;
use crate::error::{ModelError, Result};
use crate::files;
use crate::llama::Llama;
use crate::tokenizer::Tokenizer;
use crate::weights::{Weights, write_tensors};

/// A network with its tokenizer. Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct Model {
    /// The network.
    pub network: Llama,
    /// The tokenizer, with the chat template if there is one.
    pub tokenizer: Tokenizer,
    /// Tokens that end a response: the tokenizer's EOS first, then those of `generation_config.json`.
    pub stop_ids: Vec<u32>,
    generation_config: Option<Value>,
    path: PathBuf,
}

/// All of a model but its weights, which stay on the disk until [`Outline::load`].
#[derive(Clone, Debug)]
pub struct Outline {
    /// The network's shape.
    pub config: Config,
    /// As [`Model::tokenizer`].
    pub tokenizer: Tokenizer,
    /// As [`Model::stop_ids`].
    pub stop_ids: Vec<u32>,
    generation_config: Option<Value>,
    path: PathBuf,
}

impl Outline {
    /// Reads configuration and tokenizer of a Hugging Face directory or a `.gguf` file.
    ///
    /// # Errors
    /// They are missing, damaged, not supported, or do not belong together.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(&Weights::open(path)?)
    }

    fn of(weights: &Weights) -> Result<Self> {
        let path = weights.path();
        let tokenizer = Tokenizer::open(path)?;
        let generation_config = weights.generation_config_json()?;
        let config = Config::from_json(weights.config_json()?, path)?;
        let (tokens, rows) = (tokenizer.vocabulary_size(), config.vocabulary);
        if tokens > rows {
            return Err(ModelError::Format {
                path: path.to_owned(),
                what: format!(
                    "the tokenizer has ids up to {} but the network only {rows} rows",
                    tokens - 1
                ),
                fix: "use the tokenizer the model was published with".into(),
            });
        }
        let mut stop_ids: Vec<u32> = tokenizer.eos().into_iter().collect();
        let configured = generation_config
            .as_ref()
            .and_then(|c| c.get("eos_token_id"));
        for id in configured.into_iter().flat_map(ids) {
            if !stop_ids.contains(&id) {
                stop_ids.push(id);
            }
        }
        Ok(Self {
            config,
            tokenizer,
            stop_ids,
            generation_config,
            path: path.to_owned(),
        })
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// They are missing, damaged, or not those of the configuration.
    pub fn load(&self, device: &Device) -> Result<Model> {
        self.load_from(&Weights::open(&self.path)?, device)
    }

    fn load_from(&self, weights: &Weights, device: &Device) -> Result<Model> {
        let network = Llama::load(weights, device)?;
        Ok(Model {
            network: network.with_tokens(self.tokenizer.vocabulary_size()),
            tokenizer: self.tokenizer.clone(),
            stop_ids: self.stop_ids.clone(),
            generation_config: self.generation_config.clone(),
            path: self.path.clone(),
        })
    }

    /// Reads the weights of the output head alone, [vocabulary, width].
    ///
    /// # Errors
    /// As [`Outline::load`].
    pub fn load_head(&self, device: &Device) -> Result<Weight> {
        Llama::load_head(&Weights::open(&self.path)?, device)
    }

    /// Where the model is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`Model::eos`].
    ///
    /// # Errors
    /// As [`Model::eos`].
    pub fn eos(&self) -> Result<u32> {
        first_stop(&self.stop_ids, &self.path)
    }
}

impl Model {
    /// Opens a Hugging Face directory or a `.gguf` file.
    ///
    /// # Errors
    /// Weights, configuration or tokenizer are missing, damaged, not supported, or do not belong
    /// together.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let weights = Weights::open(path)?;
        Outline::of(&weights)?.load_from(&weights, device)
    }

    /// Where the model was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token appended to every complete response.
    ///
    /// # Errors
    /// The model has none: it could not be taught to stop.
    pub fn eos(&self) -> Result<u32> {
        first_stop(&self.stop_ids, &self.path)
    }

    /// This model with another network of the same vocabulary.
    pub fn with_network(&self, network: Llama) -> Self {
        Self {
            network,
            ..self.clone()
        }
    }

    /// Writes a new Hugging Face directory in f32: config.json, model.safetensors, tokenizer.json,
    /// tokenizer_config.json, generation_config.json. It appears whole or not at all.
    ///
    /// # Errors
    /// `dir` exists already or cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        files::folder_whole(dir, |inside| self.save_into(inside))
    }

    /// As [`Model::save`], into an existing folder, file by file.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save_into(&self, dir: &Path) -> Result<()> {
        let text = |value: &Value| format!("{value:#}\n").into_bytes();
        let mut config = self.network.config().to_json();
        if let (Some(object), Some(eos)) = (config.as_object_mut(), self.stop_ids.first())
            && object.get("eos_token_id").is_none_or(Value::is_null)
        {
            object.insert("eos_token_id".into(), json!(eos));
        }
        files::write_whole(&dir.join("config.json"), &text(&config))?;
        let generation = match &self.generation_config {
            Some(generation) => generation.clone(),
            None => json!({
                "bos_token_id": self.tokenizer.bos(),
                "eos_token_id": self.stop_ids,
                "pad_token_id": self.tokenizer.pad(),
            }),
        };
        files::write_whole(&dir.join("generation_config.json"), &text(&generation))?;
        self.tokenizer.save(dir)?;
        let mut network = self.network.frozen();
        let parameters = network.parameters().into_iter();
        let tensors = parameters.map(|(name, parameter)| (name, parameter.stored()));
        write_tensors(&dir.join("model.safetensors"), tensors)
    }
}

/// The token appended to every complete response.
fn first_stop(stop_ids: &[u32], path: &Path) -> Result<u32> {
    stop_ids.first().copied().ok_or_else(|| ModelError::Format {
        path: path.to_owned(),
        what: "the tokenizer names no end-of-sequence token".into(),
        fix: "set eos_token in tokenizer_config.json or eos_token_id in generation_config.json"
            .into(),
    })
}

/// One id or a list of ids.
fn ids(value: &Value) -> Vec<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}
