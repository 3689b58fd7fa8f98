//! The gradient of one optimiser step, summed over its micro-batches.

use burn::tensor::Tensor;
use distil_kernels::sum_of_squares;
use distil_model::{Llama, Parameter};

/// The gradient of one parameter, by its rank.
#[derive(Clone, Debug)]
pub(crate) enum Gradient {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
}

/// A gradient for each parameter, in the order of [`Llama::parameters`].
#[derive(Debug, Default)]
pub struct Gradients {
    slots: Vec<Option<Gradient>>,
}

impl Gradients {
    /// Adds d `loss` / d parameters of `student`, whose parameters are tracked.
    pub fn add(&mut self, student: &Llama, loss: Tensor<1>) {
        let mut found = loss.backward();
        let mut student = student.clone();
        let parameters = student.parameters();
        self.slots.resize_with(parameters.len(), || None);
        for (slot, (_, parameter)) in self.slots.iter_mut().zip(parameters) {
            match parameter {
                Parameter::Vector(tensor) => {
                    let Some(new) = tensor.grad_remove(&mut found) else {
                        continue;
                    };
                    *slot = Some(Gradient::Vector(match slot.take() {
                        Some(Gradient::Vector(sum)) => sum + new,
                        _ => new,
                    }));
                }
                Parameter::Matrix(tensor) => {
                    let Some(new) = tensor.grad_remove(&mut found) else {
                        continue;
                    };
                    *slot = Some(Gradient::Matrix(match slot.take() {
                        Some(Gradient::Matrix(sum)) => sum + new,
                        _ => new,
                    }));
                }
            }
        }
    }

    /// Euclidean norm of the whole gradient.
    pub fn norm(&self) -> f64 {
        let squares = self.slots.iter().flatten().map(|gradient| match gradient {
            Gradient::Vector(tensor) => sum_of_squares(tensor),
            Gradient::Matrix(tensor) => sum_of_squares(tensor),
        });
        squares.sum::<f64>().sqrt()
    }

    /// Every gradient's values; empty for a parameter without one.
    #[cfg(test)]
    pub(crate) fn values(&self) -> Vec<Vec<f32>> {
        let values = |slot: &Option<Gradient>| match slot {
            Some(Gradient::Vector(tensor)) => distil_kernels::to_host(tensor.clone()),
            Some(Gradient::Matrix(tensor)) => distil_kernels::to_host(tensor.clone()),
            None => Vec::new(),
        };
        self.slots.iter().map(values).collect()
    }

    pub(crate) fn into_slots(self) -> Vec<Option<Gradient>> {
        self.slots
    }
}
