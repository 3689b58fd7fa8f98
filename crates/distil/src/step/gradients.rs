//! The gradient of one optimiser step, summed over its micro-batches.

use burn::tensor::Tensor;
use distil_kernels::{add_embedding_gradient, add_in_place, sum_of_squares};
use distil_model::{Llama, Parameter, Trail};

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
    /// Adds d `loss` / d parameters of `student`, for a loss on the hidden states that came with
    /// `trail` from [`Llama::tracked`].
    pub fn add(&mut self, student: &Llama, loss: Tensor<1>, trail: Trail) {
        let mut parameters = student.clone();
        let mut parameters = parameters.parameters();
        self.slots.resize_with(parameters.len(), || None);
        let slots = &mut self.slots;
        let ids = trail.ids.clone();
        let embedded = student.backward(loss, trail, &mut |found| {
            for (slot, (_, parameter)) in slots.iter_mut().zip(&mut parameters) {
                match parameter {
                    Parameter::Vector(tensor) => {
                        let Some(new) = tensor.grad_remove(found) else {
                            continue;
                        };
                        *slot = Some(Gradient::Vector(match slot.take() {
                            Some(Gradient::Vector(sum)) => add_in_place(sum, new),
                            _ => new,
                        }));
                    }
                    Parameter::Matrix(tensor) => {
                        let Some(new) = tensor.grad_remove(found) else {
                            continue;
                        };
                        *slot = Some(Gradient::Matrix(match slot.take() {
                            Some(Gradient::Matrix(sum)) => add_in_place(sum, new),
                            _ => new,
                        }));
                    }
                }
            }
        });
        let first = self.slots.first_mut();
        if let (Some(embedded), Some(slot)) = (embedded, first) {
            let sum = match slot.take() {
                Some(Gradient::Matrix(sum)) => sum,
                _ => {
                    let config = student.config();
                    let shape = [config.vocabulary, config.width];
                    Tensor::zeros(shape, &embedded.device())
                }
            };
            let sum = add_embedding_gradient(sum, embedded, &ids);
            *slot = Some(Gradient::Matrix(sum));
        }
    }

    /// Adds the gradient of the output head, [vocabulary, width]: of the embedding, where the head is
    /// tied to it.
    pub fn add_head(&mut self, student: &Llama, d_weight: Tensor<2>) {
        let count = student.clone().parameters().len();
        self.slots.resize_with(count, || None);
        let slot = match student.config().tied {
            true => self.slots.first_mut(),
            false => self.slots.last_mut(),
        };
        if let Some(slot) = slot {
            *slot = Some(Gradient::Matrix(match slot.take() {
                Some(Gradient::Matrix(sum)) => add_in_place(sum, d_weight),
                _ => d_weight,
            }));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{tiny_network, untied_network};
    use burn::tensor::{Device, TensorData};
    use distil_model::Tokens;

    const IDS: [u32; 7] = [3, 1, 4, 1, 5, 9, 2];

    /// Uneven weights of the final hidden states, so that no gradient is a plain sum.
    fn weights() -> Tensor<2> {
        let values: Vec<f32> = (0..7 * 16).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
        Tensor::from_data(TensorData::new(values, [7, 16]), &Device::flex())
    }

    /// The head's gradient goes to the embedding where that is the head, else to the head; that of the
    /// embedded tokens to the embedding in either.
    #[test]
    fn the_heads_gradient_goes_to_its_own_parameter() {
        for network in [tiny_network(1), untied_network(1)] {
            let tied = network.config().tied;
            let student = network.trainable();
            let tokens = Tokens {
                ids: &IDS,
                positions: &[0, 1, 2, 3, 4, 5, 6],
                segments: std::slice::from_ref(&(0..7)),
            };
            let mut gradients = Gradients::default();
            gradients.add_head(&student, Tensor::ones([24, 16], &Device::flex()));
            let (hidden, trail) = student.tracked(tokens);
            gradients.add(
                &student,
                (hidden * Tensor::from_inner(weights())).sum(),
                trail,
            );
            let values = gradients.values();
            let (embedding, last) = (&values[0], &values[values.len() - 1]);
            // Row 0 was not among the tokens.
            let untouched = if tied { 1.0 } else { 0.0 };
            assert!(embedding[..16].iter().all(|&g| g == untouched), "{tied}");
            assert!(embedding[3 * 16..4 * 16].iter().any(|&g| g != untouched));
            assert_eq!(last.iter().all(|&g| g == 1.0), !tied);
        }
    }

    /// The embedding's gradient without autodiff, and layers that are computed again, give what
    /// autodiff gives of the whole network.
    #[test]
    fn a_trail_gives_the_gradients_of_autodiff() {
        let student = tiny_network(1).trainable();
        let tokens = Tokens {
            ids: &IDS,
            positions: &[0, 1, 2, 0, 1, 2, 3],
            segments: &[0..3, 3..7],
        };
        let loss = |hidden: Tensor<2>| (hidden * Tensor::from_inner(weights())).sum();
        let mut found = loss(student.hidden(tokens)).backward();
        let mut parameters = student.clone();
        let want: Vec<Vec<f32>> = parameters
            .parameters()
            .into_iter()
            .map(|(_, parameter)| match parameter {
                Parameter::Vector(t) => t.grad_remove(&mut found).map(distil_kernels::to_host),
                Parameter::Matrix(t) => t.grad_remove(&mut found).map(distil_kernels::to_host),
            })
            .map(Option::unwrap_or_default)
            .collect();
        for recompute in [false, true] {
            let student = student.clone().with_recompute(recompute);
            let mut gradients = Gradients::default();
            for _twice in 0..2 {
                let (hidden, trail) = student.tracked(tokens);
                gradients.add(&student, loss(hidden), trail);
            }
            for (got, want) in gradients.values().iter().zip(&want) {
                assert_eq!(got.len(), want.len());
                for (got, want) in got.iter().zip(want) {
                    let off = (got - 2.0 * want).abs();
                    assert!(off < 1e-4 * want.abs().max(1.0), "{got} {want}");
                }
            }
        }
    }
}
