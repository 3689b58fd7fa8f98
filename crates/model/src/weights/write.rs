//! Tensors to a safetensors file, one at a time: what is written needs no second copy in memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use burn::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensorError, View};

use crate::error::Result;
use crate::files;

/// A tensor to be written, in f32.
#[derive(Clone, Debug)]
pub enum Stored {
    /// One axis.
    Vector(Tensor<1>),
    /// Two axes.
    Matrix(Tensor<2>),
}

/// A tensor and its shape, which a [`View`] lends.
struct Shaped {
    tensor: Stored,
    shape: Vec<usize>,
}

impl View for Shaped {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data = match &self.tensor {
            Stored::Vector(tensor) => tensor.to_data(),
            Stored::Matrix(tensor) => tensor.to_data(),
        };
        Cow::Owned(data.as_bytes().to_vec())
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

/// Writes named tensors, whole or not at all. The same tensors give the same bytes.
///
/// # Errors
/// The folder cannot be written, or the disk is full; `path` is then what it was.
pub fn write_tensors(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Stored)>,
) -> Result<()> {
    let shaped = |(name, tensor): (String, Stored)| {
        let shape = match &tensor {
            Stored::Vector(tensor) => tensor.dims().to_vec(),
            Stored::Matrix(tensor) => tensor.dims().to_vec(),
        };
        (name, Shaped { tensor, shape })
    };
    let tensors: Vec<(String, Shaped)> = tensors.into_iter().map(shaped).collect();
    // transformers refuses a file whose metadata does not name its format.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    files::write_whole_by(path, |temporary| {
        let written = safetensors::serialize_to_file(tensors, Some(metadata), temporary);
        written.map_err(|error| match error {
            SafeTensorError::IoError(error) => error,
            other => io::Error::other(other.to_string()),
        })
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_a_failure_leaves_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let device = Device::flex();
        let matrix = TensorData::new(vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
        let tensors = || {
            let vector = Tensor::from_data(TensorData::new(vec![0.5_f32], [1]), &device);
            let matrix = Tensor::from_data(matrix.clone(), &device);
            [
                ("b".to_owned(), Stored::Vector(vector)),
                ("a".to_owned(), Stored::Matrix(matrix)),
            ]
        };
        write_tensors(&path, tensors()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let a = file.tensor("a").unwrap();
        assert_eq!(
            (a.shape(), a.data()),
            ([2, 3].as_slice(), matrix.as_bytes())
        );
        assert_eq!(file.tensor("b").unwrap().data(), 0.5_f32.to_le_bytes());
        let missing = folder.path().join("none/a.safetensors");
        assert!(write_tensors(&missing, tensors()).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
