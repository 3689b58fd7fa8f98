//! Everything that can go wrong in a distillation run.

use std::path::PathBuf;

use distil_model::{ModelError, unreadable_fix, unwritable_fix};

/// What this crate reports. Each variant says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model could not be resolved, loaded or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}{}", path.display(), unreadable_fix(source))]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file or folder could not be written (a full disk, missing rights).
    #[error("cannot write {}: {source}{}", path.display(), unwritable_fix(source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A row of a data file is malformed.
    #[error("{}:{line}: {what}; {fix}", path.display())]
    Row {
        /// The data file.
        path: PathBuf,
        /// Line of the file, or row number in formats without lines, from 1.
        line: usize,
        /// What was found.
        what: String,
        /// What the user can do.
        fix: String,
    },
    /// A data set cannot be used as a whole (empty, every row over the limit).
    #[error("{}: {what}; {fix}", path.display())]
    Data {
        /// The data file.
        path: PathBuf,
        /// What was found.
        what: String,
        /// What the user can do.
        fix: String,
    },
    /// A configuration key is unknown, misspelt, of the wrong type or out of range.
    #[error("{place}: {what}; {fix}")]
    Config {
        /// File, line and key as far as known, e.g. `run.toml:12: method.beta`.
        place: String,
        /// What is wrong.
        what: String,
        /// What the user can do.
        fix: String,
    },
    /// A run's folder is not what it should be (exists already, damaged, another configuration).
    #[error("{}: {what}; {fix}", path.display())]
    Run {
        /// The folder or file.
        path: PathBuf,
        /// What was found.
        what: String,
        /// What the user can do.
        fix: String,
    },
    /// Two models or a model and a request do not go together.
    #[error("{what}; {fix}")]
    Mismatch {
        /// What does not fit.
        what: String,
        /// What the user can do.
        fix: String,
    },
    /// A model that was asked to generate has weights that make no numbers.
    #[error(
        "the model's logits are not numbers; its weights are damaged, or training made it diverge: \
         check where they come from"
    )]
    Logits,
    /// Training produced a value that is not finite.
    #[error(
        "step {step}: {term} is not finite (rows {rows:?}); lower train.learning_rate, or look at these rows"
    )]
    NotFinite {
        /// Optimiser step, from 1.
        step: usize,
        /// The loss term or the gradient.
        term: String,
        /// Rows of the training files that made it, counted from 0 over all files.
        rows: Vec<usize>,
    },
}

impl Error {
    /// Whether the user's input is at fault (exit status 2) rather than the work (exit status 1).
    pub fn is_input(&self) -> bool {
        match self {
            Self::Model(e) => e.is_input(),
            Self::Write { .. } | Self::NotFinite { .. } => false,
            _ => true,
        }
    }
}

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
