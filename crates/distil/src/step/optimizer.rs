//! AdamW over a network's parameters, and its state on disk. Norms and biases are not decayed.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use distil_kernels::{AdamW, adamw_step};
use distil_model::{Llama, ModelError, Parameter, Stored, write_tensors};

use super::gradients::{Gradient, Gradients};
use crate::config::Train;
use crate::error::{Error, Result};

/// First and second moment of one parameter.
#[derive(Clone, Debug)]
enum Moments {
    Vector(Tensor<1>, Tensor<1>),
    Matrix(Tensor<2>, Tensor<2>),
}

/// The optimiser's state; the teacher has none.
#[derive(Debug)]
pub(crate) struct Optimizer {
    settings: Train,
    names: Vec<String>,
    moments: Vec<Moments>,
    /// Updates made.
    step: u32,
}

impl Optimizer {
    /// Zero moments for every parameter of `student`.
    pub(crate) fn new(settings: &Train, student: &Llama) -> Self {
        let mut student = student.frozen();
        let (names, moments) = student
            .parameters()
            .into_iter()
            .map(|(name, parameter)| {
                let moments = match parameter {
                    Parameter::Vector(t) => Moments::Vector(t.zeros_like(), t.zeros_like()),
                    Parameter::Matrix(t) => Moments::Matrix(t.zeros_like(), t.zeros_like()),
                };
                (name, moments)
            })
            .unzip();
        Self {
            settings: settings.clone(),
            names,
            moments,
            step: 0,
        }
    }

    /// One update of every parameter that has a gradient.
    pub(crate) fn update(
        &mut self,
        student: &mut Llama,
        gradients: Gradients,
        learning_rate: f64,
        gradient_scale: f64,
    ) {
        self.step += 1;
        let step = AdamW {
            learning_rate: learning_rate as f32,
            beta1: self.settings.beta1 as f32,
            beta2: self.settings.beta2 as f32,
            epsilon: self.settings.epsilon as f32,
            weight_decay: self.settings.weight_decay as f32,
            gradient_scale: gradient_scale as f32,
            step: self.step,
        };
        let undecayed = AdamW {
            weight_decay: 0.0,
            ..step
        };
        let slots = gradients.into_slots().into_iter().zip(&mut self.moments);
        for ((_, parameter), (gradient, moments)) in student.parameters().into_iter().zip(slots) {
            match (parameter, gradient, moments) {
                (Parameter::Vector(t), Some(Gradient::Vector(g)), Moments::Vector(m, v)) => {
                    updated(&undecayed, t, g, m, v);
                }
                (Parameter::Matrix(t), Some(Gradient::Matrix(g)), Moments::Matrix(m, v)) => {
                    updated(&step, t, g, m, v);
                }
                _ => {}
            }
        }
    }

    /// Writes the moments as a safetensors file: `NAME.first` and `NAME.second`.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let named = self.names.iter().zip(&self.moments);
        let tensors = named.flat_map(|(name, moments)| {
            let [first, second] = match moments {
                Moments::Vector(m, v) => [m, v].map(|tensor| Stored::Vector(tensor.clone())),
                Moments::Matrix(m, v) => [m, v].map(|tensor| Stored::Matrix(tensor.clone())),
            };
            [
                (format!("{name}.first"), first),
                (format!("{name}.second"), second),
            ]
        });
        Ok(write_tensors(path, tensors)?)
    }

    /// Reads what [`Optimizer::save`] wrote, after `step` updates.
    pub(crate) fn load(&mut self, path: &Path, step: u32) -> Result<()> {
        let damaged = |what: String| Error::Run {
            path: path.to_owned(),
            what,
            fix: "the checkpoint is damaged: remove its folder to resume from the one before"
                .into(),
        };
        let bytes = std::fs::read(path).map_err(|source| ModelError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file = safetensors::SafeTensors::deserialize(&bytes)
            .map_err(|e| damaged(format!("not a whole safetensors file ({e})")))?;
        let read = |name: String, shape: &[usize]| -> Result<TensorData> {
            let tensor = file.tensor(&name).map_err(|e| damaged(e.to_string()))?;
            if tensor.shape() != shape || tensor.dtype() != safetensors::Dtype::F32 {
                return Err(damaged(format!("`{name}` is of another shape or type")));
            }
            let values = tensor
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Ok(TensorData::new(
                values.collect::<Vec<f32>>(),
                shape.to_vec(),
            ))
        };
        for (name, moments) in self.names.iter().zip(&mut self.moments) {
            let names = [format!("{name}.first"), format!("{name}.second")];
            let [first, second] = names;
            match moments {
                Moments::Vector(m, v) => {
                    let (shape, device) = (m.dims(), m.device());
                    *m = Tensor::from_data(read(first, &shape)?, &device);
                    *v = Tensor::from_data(read(second, &shape)?, &device);
                }
                Moments::Matrix(m, v) => {
                    let (shape, device) = (m.dims(), m.device());
                    *m = Tensor::from_data(read(first, &shape)?, &device);
                    *v = Tensor::from_data(read(second, &shape)?, &device);
                }
            }
        }
        self.step = step;
        Ok(())
    }
}

/// Replaces a tracked parameter and its moments by their updated values. The old tensors are given
/// up first, so that the kernel can work in place.
fn updated<const D: usize>(
    settings: &AdamW,
    parameter: &mut Tensor<D>,
    gradient: Tensor<D>,
    first: &mut Tensor<D>,
    second: &mut Tensor<D>,
) {
    let (m, v) = (first.extract(), second.extract());
    let (mut new_m, mut new_v) = (None, None);
    parameter.inplace(|p| {
        let (p, m, v) = adamw_step(settings, p.inner(), gradient, m, v);
        (new_m, new_v) = (Some(m), Some(v));
        Tensor::from_inner(p).require_grad()
    });
    if let (Some(m), Some(v)) = (new_m, new_v) {
        (*first, *second) = (m, v);
    }
}
