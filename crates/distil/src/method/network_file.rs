//! A second network in a checkpoint: the reward model of PbKD, the Q-function of MM-PbKD.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use distil_model::{Llama, Parameter, Stored, write_tensors};

use crate::error::{Error, Result};

/// Writes the network's parameters and these tensors as one safetensors file.
pub(crate) fn save(path: &Path, network: &Llama, more: Vec<(String, Stored)>) -> Result<()> {
    let mut network = network.frozen();
    let parameters = network.parameters().into_iter();
    let parameters = parameters.map(|(name, parameter)| (name, parameter.stored()));
    Ok(write_tensors(path, more.into_iter().chain(parameters))?)
}

/// Reads what [`save`] wrote into `network`, which becomes tracked, and each of `more` by name.
pub(crate) fn load(
    path: &Path,
    network: &mut Llama,
    more: &mut [(&str, &mut Tensor<1>)],
) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let file = safetensors::SafeTensors::deserialize(&bytes)
        .map_err(|e| damaged(path, format!("not a whole safetensors file ({e})")))?;
    let read = |name: &str, shape: Vec<usize>| -> Result<TensorData> {
        let tensor = file
            .tensor(name)
            .map_err(|e| damaged(path, e.to_string()))?;
        if tensor.shape() != shape || tensor.dtype() != safetensors::Dtype::F32 {
            return Err(damaged(
                path,
                format!("`{name}` is of another shape or type"),
            ));
        }
        let values = tensor.data().chunks_exact(4);
        let values: Vec<f32> = values
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        Ok(TensorData::new(values, shape))
    };
    let mut changed = network.frozen();
    for (name, parameter) in changed.parameters() {
        match parameter {
            Parameter::Vector(t) => {
                *t = Tensor::from_data(read(&name, t.dims().to_vec())?, &t.device())
            }
            Parameter::Matrix(t) => {
                *t = Tensor::from_data(read(&name, t.dims().to_vec())?, &t.device())
            }
        }
    }
    for (name, tensor) in more {
        let data = read(name, tensor.dims().to_vec())?;
        **tensor = Tensor::from_data(data, &tensor.device());
    }
    *network = changed.trainable();
    Ok(())
}

/// The error that a file of a checkpoint is not what was written.
pub(crate) fn damaged(path: &Path, what: String) -> Error {
    Error::Run {
        path: path.to_owned(),
        what,
        fix: "the checkpoint is damaged: remove its folder to resume from the one before".into(),
    }
}
