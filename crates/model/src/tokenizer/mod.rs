//! Text to token ids and back, as the model's own tokenizer does it.
//!
//! Two sources, one result. A Hugging Face directory carries `tokenizer.json`, which is used as it
//! is (`huggingface.rs`); a GGUF file carries a vocabulary, merges and the name of a pre-tokenizer,
//! from which the same byte-level BPE is built (`gguf.rs`). Either can be saved as a complete
//! Hugging Face tokenizer.
//!
//! # Prompt and response
//!
//! Training computes a loss on the response's tokens alone, and at generation time the model
//! continues exactly the prompt's tokens. [`Tokenizer::encode_pair`] therefore never lets a token
//! cross the boundary: "The capital is" + " Paris" must not be encoded jointly where that would
//! merge the prompt's end with the response's beginning, because the model would be trained on a
//! prompt that it never sees when it is asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::chat_template::ChatTemplate;
use crate::error::{ModelError, Result};
use crate::files;

mod check;
mod gguf;
mod huggingface;

/// The special tokens of `tokenizer_config.json` that templates may use as variables.
const NAMED_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// A tokenizer with its special tokens and chat template. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Tokenizer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tokenizer: tokenizers::Tokenizer,
    /// What is saved as `tokenizer_config.json`.
    config: Map<String, Value>,
    /// What the tokenizer puts in front of a text when asked to add special tokens: BOS or nothing.
    prefix: Vec<u32>,
    /// Whether a text may be encoded piece by piece. Not so where the tokenizer begins every text
    /// with a space of its own (SentencePiece).
    separable: bool,
    size: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    chat_template: Option<ChatTemplate>,
}

impl Tokenizer {
    /// Reads the tokenizer of a Hugging Face directory or of a `.gguf` file.
    ///
    /// # Errors
    /// [`ModelError::Read`] where a file cannot be read, [`ModelError::Format`] where it is
    /// damaged or contradicts itself, [`ModelError::Unsupported`] for kinds of tokenizers that
    /// are not implemented, [`ModelError::Template`] for a chat template that does not parse.
    pub fn open(path: &Path) -> Result<Self> {
        let (tokenizer, config) = if path.is_dir() {
            huggingface::read(path)?
        } else {
            gguf::read(path)?
        };
        Self::assemble(path, tokenizer, config)
    }

    /// Derives everything else from the pipeline and from `tokenizer_config.json`'s entries.
    fn assemble(
        path: &Path,
        tokenizer: tokenizers::Tokenizer,
        config: Map<String, Value>,
    ) -> Result<Self> {
        let special = special_tokens(&config);
        let named = |name: &str| match special.get(name) {
            None => Ok(None),
            Some(token) => {
                tokenizer
                    .token_to_id(token)
                    .map(Some)
                    .ok_or_else(|| ModelError::Format {
                        path: path.to_owned(),
                        what: format!("the {name} `{token}` is not in the vocabulary"),
                        fix: "correct tokenizer_config.json or fetch the model again".to_owned(),
                    })
            }
        };
        let (bos, eos, pad) = (
            named("bos_token")?,
            named("eos_token")?,
            named("pad_token")?,
        );
        let chat_template = chat_template_source(&config)
            .map(|source| ChatTemplate::new(source, &special))
            .transpose()
            .map_err(|error| ModelError::Format {
                path: path.to_owned(),
                what: error.to_string(),
                fix: "correct it in tokenizer_config.json or chat_template.jinja, or fetch the model \
                      again"
                    .to_owned(),
            })?;
        let size = tokenizer
            .get_vocab(true)
            .into_values()
            .max()
            .map_or(0, |largest| largest as usize + 1);
        let prefix = prefix(&tokenizer)?;
        let separable = [encode(&tokenizer, "\n")?, encode(&tokenizer, "a")?].concat()
            == encode(&tokenizer, "\na")?;
        Ok(Self(Arc::new(Inner {
            tokenizer,
            config,
            prefix,
            separable,
            size,
            bos,
            eos,
            pad,
            chat_template,
        })))
    }

    /// The ids of a text. Special tokens written in the text are recognised; none is added, so
    /// there is no BOS in front and no EOS at the end. Characters whose bytes a vocabulary lacks
    /// are left out, as `transformers` does (SmolLM2 has no token for a few control characters). A
    /// run of more than a million white-space characters may be cut elsewhere than there.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] where the tokenizer fails on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.0.tokenizer, text)
    }

    /// The ids of a prompt: [`Self::encode`] with BOS in front where the tokenizer adds one, unless
    /// the text begins with it already, as the output of many chat templates does.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text)?;
        if ids.starts_with(&self.0.prefix) {
            return Ok(ids);
        }
        Ok([self.0.prefix.as_slice(), ids.as_slice()].concat())
    }

    /// The ids of a prompt and of the response that continues it, in two lists. The prompt's are
    /// those of [`Self::encode_prompt`]; the two together decode to the whole text. No EOS is
    /// added.
    ///
    /// A tokenizer that begins every text with a space of its own would put that space between
    /// prompt and response. There the response's ids are what follows the prompt's in the encoding
    /// of the whole text; where that has other ids for the prompt, the response is encoded behind
    /// a line break, which is then taken off.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_pair(&self, prompt: &str, response: &str) -> Result<(Vec<u32>, Vec<u32>)> {
        let prompt_ids = self.encode_prompt(prompt)?;
        if self.0.separable || response.is_empty() {
            return Ok((prompt_ids, self.encode(response)?));
        }
        let whole = self.encode_prompt(&[prompt, response].concat())?;
        if let Some(rest) = whole.strip_prefix(prompt_ids.as_slice()) {
            return Ok((prompt_ids, rest.to_vec()));
        }
        let behind_break = self.encode(&["\n", response].concat())?;
        let response_ids = match behind_break.strip_prefix(self.encode("\n")?.as_slice()) {
            Some(rest) => rest.to_vec(),
            None => self.encode(response)?,
        };
        Ok((prompt_ids, response_ids))
    }

    /// The text of token ids; bytes that are no UTF-8 become U+FFFD. With `skip_special`, special
    /// tokens leave no text.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] for an id beyond the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.0.size) {
            return Err(ModelError::Tokenizer {
                what: format!("id {id} is beyond the vocabulary of {} tokens", self.0.size),
            });
        }
        self.0.tokenizer.decode(ids, skip_special).map_err(failed)
    }

    /// The largest id + 1. A model's output may be wider, padded for speed.
    pub fn vocabulary_size(&self) -> usize {
        self.0.size
    }

    /// The token with this id as the vocabulary spells it; byte-level vocabularies write a space
    /// as `Ġ`.
    pub fn token(&self, id: u32) -> Option<String> {
        self.0.tokenizer.id_to_token(id)
    }

    /// The id of a token as the vocabulary spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.0.tokenizer.token_to_id(token)
    }

    /// The token that begins a text, where the tokenizer names one; see [`Self::encode_prompt`]
    /// for whether it is added.
    pub fn bos(&self) -> Option<u32> {
        self.0.bos
    }

    /// The token that ends a text. A model's generation configuration may add more.
    pub fn eos(&self) -> Option<u32> {
        self.0.eos
    }

    /// The token that fills up batches, where the tokenizer names one.
    pub fn pad(&self) -> Option<u32> {
        self.0.pad
    }

    /// The model's chat template, where it has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.0.chat_template.as_ref()
    }

    /// The sha256 of the vocabulary, in lower-case hexadecimal: over every token in the order of
    /// ids, its id and its length in bytes (both little-endian, 4 bytes) and its text. Equal for
    /// two tokenizers whose ids mean the same tokens.
    pub fn fingerprint(&self) -> String {
        let vocabulary = self.0.tokenizer.get_vocab(true);
        let mut tokens: Vec<(u32, String)> = vocabulary
            .into_iter()
            .map(|(token, id)| (id, token))
            .collect();
        tokens.sort_unstable();
        let mut hash = Sha256::new();
        for (id, token) in tokens {
            hash.update(id.to_le_bytes());
            hash.update((token.len() as u32).to_le_bytes());
            hash.update(token);
        }
        format!("{:x}", hash.finalize())
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json`, with the chat template, into a folder
    /// that exists. Each file appears whole or not at all.
    ///
    /// # Errors
    /// [`ModelError::Write`] where a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let pipeline = self.0.tokenizer.to_string(true).map_err(failed)?;
        let config =
            serde_json::to_string_pretty(&self.0.config).map_err(|error| failed(error.into()))?;
        files::write_whole(&dir.join("tokenizer.json"), pipeline.as_bytes())?;
        files::write_whole(
            &dir.join("tokenizer_config.json"),
            format!("{config}\n").as_bytes(),
        )
    }
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode_fast(text, false).map_err(failed)?;
    Ok(encoding.get_ids().to_vec())
}

/// What the post-processor puts in front of a text. It is read off an example, because
/// post-processors come in many kinds and can be nested.
fn prefix(tokenizer: &tokenizers::Tokenizer) -> Result<Vec<u32>> {
    let plain = encode(tokenizer, "a")?;
    let encoding = tokenizer.encode_fast("a", true).map_err(failed)?;
    let full = encoding.get_ids();
    let at = full
        .windows(plain.len().max(1))
        .position(|window| window == plain);
    Ok(full.get(..at.unwrap_or(0)).unwrap_or_default().to_vec())
}

fn failed(error: tokenizers::Error) -> ModelError {
    ModelError::Tokenizer {
        what: error.to_string(),
    }
}

/// The named special tokens of a `tokenizer_config.json`: each a string, or an object with
/// `content`.
fn special_tokens(config: &Map<String, Value>) -> BTreeMap<String, String> {
    let text = |name: &str| {
        let token = config.get(name)?;
        token
            .as_str()
            .or_else(|| token.get("content")?.as_str())
            .map(str::to_owned)
    };
    NAMED_TOKENS
        .iter()
        .filter_map(|&name| Some((name.to_owned(), text(name)?)))
        .collect()
}

/// The chat template of a `tokenizer_config.json`: a string, or of several named ones `default`
/// or the only one. A blank one is none: it would ask the model nothing, whatever the prompt.
fn chat_template_source(config: &Map<String, Value>) -> Option<&str> {
    let source = written_template(config)?;
    (!source.trim().is_empty()).then_some(source)
}

fn written_template(config: &Map<String, Value>) -> Option<&str> {
    let named: Vec<(&str, &str)> = match config.get("chat_template")? {
        Value::String(source) => return Some(source),
        Value::Object(templates) => templates
            .iter()
            .filter_map(|(name, source)| Some((name.as_str(), source.as_str()?)))
            .collect(),
        Value::Array(templates) => templates
            .iter()
            .filter_map(|entry| {
                Some((
                    entry.get("name")?.as_str()?,
                    entry.get("template")?.as_str()?,
                ))
            })
            .collect(),
        _ => return None,
    };
    match named.as_slice() {
        [(_, source)] => Some(source),
        several => several
            .iter()
            .find(|(name, _)| *name == "default")
            .map(|(_, source)| *source),
    }
}

#[cfg(test)]
mod tests;
