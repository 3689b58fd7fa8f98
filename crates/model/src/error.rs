//! Everything that can go wrong between a model reference and a loaded model.

use std::path::PathBuf;

/// What this crate reports. Each variant says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
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
    /// A file is not what its format says: truncated, corrupted, a value out of range.
    #[error("{}: {what}; {fix}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
        /// What the user can do.
        fix: String,
    },
    /// An architecture or a configuration feature this crate does not implement.
    #[error("{}: {feature} is not supported; {fix}", path.display())]
    Unsupported {
        /// The file that asks for it.
        path: PathBuf,
        /// The architecture, key or feature.
        feature: String,
        /// What is supported instead.
        fix: String,
    },
    /// A weight is missing, has another shape than the configuration says, or should not be there.
    #[error("{}: tensor `{name}` {what}", path.display())]
    Tensor {
        /// The weights' file or folder.
        path: PathBuf,
        /// The tensor's Hugging Face name.
        name: String,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// A model reference cannot be resolved.
    #[error("model `{reference}`: {what}; {fix}")]
    Reference {
        /// The reference as the user typed it.
        reference: String,
        /// What is wrong.
        what: String,
        /// What the user can do.
        fix: String,
    },
    /// A download failed.
    #[error("{url}: {what}; {fix}")]
    Download {
        /// What was asked for (never carries credentials).
        url: String,
        /// What happened.
        what: String,
        /// What the user can do.
        fix: String,
    },
    /// A file's sha256 is not the pinned one.
    #[error("{}: sha256 is {got}, expected {expected}; the file is damaged or not the one that was pinned, remove it and fetch it again", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Pinned digest, lower-case hexadecimal.
        expected: String,
        /// Digest of the file found.
        got: String,
    },
    /// A chat template does not parse or refuses its messages.
    #[error("chat template: {what}")]
    Template {
        /// The template engine's message.
        what: String,
    },
    /// Text cannot be encoded or ids cannot be decoded.
    #[error("tokenizer: {what}")]
    Tokenizer {
        /// The tokenizer's message.
        what: String,
    },
    /// A request that the model cannot serve (a layer that does not exist, a sequence over the context).
    #[error("{what}; {fix}")]
    Request {
        /// What was asked for.
        what: String,
        /// What the user can do.
        fix: String,
    },
}

/// What to do about a file that cannot be read, behind the system's reason; empty if that is unknown.
pub fn unreadable_fix(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match source.kind() {
        ErrorKind::NotFound => "; check the path",
        ErrorKind::IsADirectory => "; name a file",
        ErrorKind::NotADirectory => "; check the path: a part of it is a file",
        ErrorKind::PermissionDenied => "; you may not read it: change its permissions",
        ErrorKind::InvalidData => "; it is no text in UTF-8: save it so, or name another file",
        _ => "",
    }
}

/// What to do about a file or folder that cannot be written, behind the system's reason; empty if that is
/// unknown.
pub fn unwritable_fix(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room there, then go on",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; choose a folder that you may write to"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "; a file has that name or is a part of the path: choose another"
        }
        ErrorKind::NotFound => "; check the path",
        _ => "",
    }
}

impl ModelError {
    /// Whether the user's input is at fault (exit status 2) rather than the work (exit status 1).
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Write { .. } | Self::Download { .. })
    }
}

/// This crate's result.
pub type Result<T, E = ModelError> = std::result::Result<T, E>;
