//! Hyperparameters of a GGUF file: typed reading of the metadata below the architecture's name, and sizes
//! held against the tensors' shapes. Errors name the key or the tensor.

use super::gguf::GgufFile;
use super::gguf_names::uniform;
use super::gguf_value::GgufValue;
use crate::error::{ModelError, Result};

/// Reads the metadata of one file.
pub(crate) struct Reader<'a> {
    /// The file.
    pub(crate) file: &'a GgufFile,
    /// `general.architecture`, with which the keys begin.
    pub(crate) architecture: &'a str,
}

impl<'a> Reader<'a> {
    /// The whole key.
    pub(crate) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// The value of a key, if there is one.
    pub(crate) fn optional(&self, key: &str) -> Option<&'a GgufValue> {
        self.file.metadata(&self.key(key))
    }

    /// The error of a file that contradicts itself.
    pub(crate) fn format(&self, what: String) -> ModelError {
        ModelError::Format {
            path: self.file.path().to_owned(),
            what,
            fix: "the file is damaged or was converted wrongly, fetch it again or convert the model anew".to_owned(),
        }
    }

    /// The error of a file that asks for what cannot be read.
    pub(crate) fn unsupported(&self, feature: String, fix: &str) -> ModelError {
        ModelError::Unsupported {
            path: self.file.path().to_owned(),
            feature,
            fix: fix.to_owned(),
        }
    }

    /// A size: a positive integer, the same in every layer.
    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.optional(key) else {
            return Ok(None);
        };
        if value.as_array().is_some_and(|values| !values.is_empty()) && uniform(value).is_none() {
            return Err(self.unsupported(
                format!(
                    "metadata `{}` that differs from layer to layer",
                    self.key(key)
                ),
                "all layers must have the same sizes",
            ));
        }
        match uniform(value) {
            Some(size) if size > 0 => Ok(Some(size)),
            _ => Err(self.format(format!(
                "metadata `{}` is not a positive integer",
                self.key(key)
            ))),
        }
    }

    /// The same, which must be there.
    pub(crate) fn size(&self, key: &str) -> Result<u64> {
        self.optional_size(key)?
            .ok_or_else(|| self.format(format!("metadata `{}` is missing", self.key(key))))
    }

    /// A positive, finite number.
    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.optional(key) else {
            return Ok(None);
        };
        match decimal(value) {
            Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
            _ => Err(self.format(format!(
                "metadata `{}` is not a positive number",
                self.key(key)
            ))),
        }
    }

    /// A tensor's dimension.
    pub(crate) fn dimension(&self, tensor: &str, axis: usize) -> Result<u64> {
        let size = self
            .file
            .tensor(tensor)
            .and_then(|tensor| tensor.shape.get(axis).copied());
        size.and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| {
                self.file
                    .tensor_error(tensor, "is missing or has too few dimensions")
            })
    }

    /// Refuses a file whose tensor does not have the size that its metadata announces.
    pub(crate) fn check_dimension(&self, tensor: &str, axis: usize, expected: u64) -> Result<()> {
        match self.dimension(tensor, axis)? {
            found if found == expected => Ok(()),
            found => Err(self.file.tensor_error(
                tensor,
                format!("has size {found} on axis {axis}, but the metadata says {expected}"),
            )),
        }
    }
}

/// A number as a person would have written it: 0.00001 and not the f32 next to it. Both are the same f32.
fn decimal(value: &GgufValue) -> Option<f64> {
    match value {
        GgufValue::F32(value) => value.to_string().parse().ok(),
        other => other.as_f64(),
    }
}
