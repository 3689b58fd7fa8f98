//! `[data]`: where prompts and responses come from, and which rows are used.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::given::GivenData;
use crate::Result;

/// Prompts and responses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Data {
    /// Training files, absolute paths, at least one.
    pub train: Vec<PathBuf>,
    /// Held-out file, absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<PathBuf>,
    /// Text for DPKD's language-modelling term, absolute paths; empty if the method does not read it.
    pub corpus: Vec<PathBuf>,
    /// `chat`, `alpaca`, or the text of a Jinja template.
    pub template: String,
    /// Rows with a longer prompt, in tokens, are left out and counted.
    pub max_prompt_tokens: usize,
    /// Rows with a longer response, in tokens, are left out and counted.
    pub max_response_tokens: usize,
    /// What a malformed row does.
    pub on_bad_row: OnBadRow,
    /// Most training rows used; `None` is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// What a malformed row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadRow {
    /// It ends the run, with file and line.
    Error,
    /// It is left out and counted.
    Skip,
}

impl OnBadRow {
    /// The name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Skip => "skip",
        }
    }
}

pub(crate) fn resolve(given: GivenData, document: &Document) -> Result<Data> {
    let train = given.train.unwrap_or_default();
    if train.is_empty() {
        let fix = "add [data] train = [\"train.jsonl\"]";
        return Err(document.refuse("data.train", "there are no training files", fix));
    }
    if let Some(eval) = given.eval.as_ref().filter(|eval| train.contains(eval)) {
        let what = format!(
            "{} is also in data.train, so it would measure what was learnt by heart",
            eval.display()
        );
        return Err(document.refuse(
            "data.eval",
            what,
            "name a file with other rows, or remove the key",
        ));
    }
    Ok(Data {
        train,
        eval: given.eval,
        corpus: given.corpus.unwrap_or_default(),
        template: given.template.unwrap_or_else(|| "chat".into()),
        max_prompt_tokens: given.max_prompt_tokens.unwrap_or(256),
        max_response_tokens: given.max_response_tokens.unwrap_or(256),
        on_bad_row: given.on_bad_row.unwrap_or(OnBadRow::Error),
        limit: given.limit,
    })
}
