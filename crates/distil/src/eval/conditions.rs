//! What answers depend on. An answer that was generated earlier is taken for one of now only if all of
//! it is the same:
//!
//! - the data and the weights, by sha256,
//! - the model's configuration, its tokenizer, and the tokens that end an answer, by sha256,
//! - the template and the prompt that it made of the row,
//! - precision and length limit,
//! - seed and temperature, which are the run's.
//!
//! A row's sample depends on its seed and its row alone, so it does not matter when the row was answered.
//! (Rows that are computed together may round differently in the last bit; where a draw falls on the
//! very edge of two tokens, that could show.)

use std::fmt::Display;
use std::path::Path;

use distil_model::Model;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::outcome::FORMAT;
use super::protocol::Run;
use crate::config::Precision;
use crate::error::Result;

/// What answers depend on, beside the row and the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// sha256 of the data, see [`data_sha256`].
    pub data_sha256: String,
    /// sha256 of the model's weights file, or of the list of its files' if there are several.
    pub weights_sha256: String,
    /// sha256 of its vocabulary and of the tokens that end an answer.
    pub tokenizer_sha256: String,
    /// sha256 of its configuration files; none where the weights file has the configuration in it, and
    /// in evaluations of versions that did not note it.
    #[serde(default)]
    pub config_sha256: Option<String>,
    /// Number format of its matrix products.
    pub precision: Precision,
    /// How a row becomes a prompt.
    pub template: String,
    /// Length limit of answers, in tokens.
    pub max_new_tokens: usize,
}

/// What an evaluation is of: the part of its file that says what may be taken from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub format: u64,
    /// What the student's answers depend on.
    #[serde(flatten)]
    pub conditions: Conditions,
    /// As `weights_sha256`, of the teacher.
    pub teacher_sha256: Option<String>,
    /// The runs.
    pub runs: Vec<Run>,
}

impl Header {
    /// None if it is of another format.
    pub(crate) fn of_this_format(self) -> Option<Self> {
        (self.format == FORMAT).then_some(self)
    }
}

impl Conditions {
    /// What is different in `other`, if anything: "the template was chat and is alpaca".
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let (was, is) = (self, other);
        // What one side did not note may be the same.
        let noted = was.config_sha256.as_ref().zip(is.config_sha256.as_ref());
        let pairs: [(&str, &dyn Display, &dyn Display); 7] = [
            ("the data's sha256", &was.data_sha256, &is.data_sha256),
            (
                "the weights' sha256",
                &was.weights_sha256,
                &is.weights_sha256,
            ),
            (
                "the tokenizer's sha256",
                &was.tokenizer_sha256,
                &is.tokenizer_sha256,
            ),
            (
                "the sha256 of the model's configuration files",
                &noted.map_or("", |(was, _)| was),
                &noted.map_or("", |(_, is)| is),
            ),
            ("the template", &was.template, &is.template),
            ("the precision", &was.precision.name(), &is.precision.name()),
            (
                "the longest answer, in tokens,",
                &was.max_new_tokens,
                &is.max_new_tokens,
            ),
        ];
        let texts = pairs.map(|(name, was, is)| (name, was.to_string(), is.to_string()));
        let different = texts.into_iter().find(|(_, was, is)| was != is);
        different.map(|(name, was, is)| format!("{name} was {was} and is {is}"))
    }
}

/// The sha256 of a model's weights: of the one file, or of the lines `name digest` of several.
///
/// # Errors
/// A file cannot be read.
pub fn weights_sha256(model: &Model) -> Result<String> {
    let files = distil_model::weights::Weights::open(model.path())?.sha256()?;
    Ok(match &files[..] {
        [(_, digest)] => digest.clone(),
        _ => of_list(&files),
    })
}

/// The sha256 of a model's vocabulary and of the tokens that end its answers.
pub fn tokenizer_sha256(model: &Model) -> String {
    let stops = model.stop_ids.iter().map(|id| format!(" {id}"));
    hash(std::iter::once(model.tokenizer.fingerprint()).chain(stops))
}

/// The sha256 of the lines `name digest` of a folder's `config.json`, `tokenizer.json` and
/// `tokenizer_config.json`: how weights become a network, and how texts become tokens. None of a
/// `.gguf`, which has all that in the weights file.
///
/// # Errors
/// A file cannot be read.
pub fn config_sha256(model: &Model) -> Result<Option<String>> {
    if !model.path().is_dir() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        let path = model.path().join(name);
        if path.exists() {
            files.push((name.to_owned(), file_sha256(&path)?));
        }
    }
    Ok(Some(of_list(&files)))
}

/// The sha256 of a data file, or, where its references stand in a file of their own, of the digests of
/// both.
///
/// # Errors
/// A file cannot be read.
pub fn data_sha256(data: &Path, references: Option<&Path>) -> Result<String> {
    let data = file_sha256(data)?;
    match references {
        None => Ok(data),
        Some(references) => Ok(hash([data, file_sha256(references)?].into_iter())),
    }
}

fn file_sha256(path: &Path) -> Result<String> {
    Ok(distil_model::files::sha256_of(path)?)
}

fn of_list(files: &[(String, String)]) -> String {
    let lines = files.iter();
    hash(lines.map(|(name, digest)| format!("{name} {digest}\n")))
}

fn hash(parts: impl Iterator<Item = String>) -> String {
    let mut hash = Sha256::new();
    parts.for_each(|part| hash.update(part));
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::eval::testing::{STUDENT, TEACHER, model};

    #[test]
    fn a_models_hash_is_of_its_weights_and_its_vocabulary() {
        let (student, teacher) = (model(STUDENT), model(TEACHER));
        assert_eq!(tokenizer_sha256(&student), tokenizer_sha256(&teacher));
        let mut stops = student.clone();
        stops.stop_ids.push(5);
        assert_ne!(tokenizer_sha256(&student), tokenizer_sha256(&stops));
        assert_eq!(tokenizer_sha256(&student).len(), 64);
    }

    /// The same weights with other rotary angles, or with another splitting of texts, are another model.
    #[test]
    fn a_models_configuration_counts_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        model(STUDENT).save(&path).unwrap();
        let opened = || Model::open(&path, &burn::tensor::Device::flex()).unwrap();
        let (weights, before) = (weights_sha256(&opened()).unwrap(), config_sha256(&opened()));
        let before = before.unwrap().unwrap();
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            let file = path.join(name);
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, format!("{text} ")).unwrap();
            let after = config_sha256(&opened()).unwrap().unwrap();
            assert_ne!(before, after, "{name}");
            fs::write(&file, text).unwrap();
        }
        assert_eq!(config_sha256(&opened()).unwrap(), Some(before));
        assert_eq!(weights_sha256(&opened()).unwrap(), weights);
    }

    #[test]
    fn what_was_not_noted_is_no_difference() {
        let conditions = |config: Option<&str>| Conditions {
            data_sha256: "d".into(),
            weights_sha256: "w".into(),
            tokenizer_sha256: "t".into(),
            config_sha256: config.map(str::to_owned),
            precision: Precision::F32,
            template: "chat".into(),
            max_new_tokens: 5,
        };
        let difference =
            |was: Option<&str>, is: Option<&str>| conditions(was).difference(&conditions(is));
        assert_eq!(difference(None, Some("a")), None);
        assert_eq!(difference(Some("a"), Some("a")), None);
        assert_eq!(
            difference(Some("a"), Some("b")).unwrap(),
            "the sha256 of the model's configuration files was a and is b"
        );
    }
}
