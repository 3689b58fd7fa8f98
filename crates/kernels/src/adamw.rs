//! AdamW (Loshchilov & Hutter 2019), one pass over memory:
//! m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)g²,
//! w ← w − η·λ·w − η · (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε).
//!
//! The gradient is multiplied by a factor on the way in (global-norm clipping).

use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::host::{on_host, primitive, values};
use crate::math::{sum_of, vectorised};

/// Values a task works on.
const BLOCK: usize = 64 * 1024;

/// One step's numbers.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate η of this step.
    pub learning_rate: f32,
    /// Decay β₁ of the first moment.
    pub beta1: f32,
    /// Decay β₂ of the second moment.
    pub beta2: f32,
    /// ε added to the root.
    pub epsilon: f32,
    /// Decoupled weight decay λ.
    pub weight_decay: f32,
    /// Factor on the gradient (clipping).
    pub gradient_scale: f32,
    /// Number of this update, from 1.
    pub step: u32,
}

/// Updates one parameter; returns (parameter, first moment, second moment).
///
/// The tensors are untracked. On the CPU a tensor nobody else holds is updated in place.
pub fn adamw_step<const D: usize>(
    settings: &AdamW,
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    first: Tensor<D>,
    second: Tensor<D>,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let s = *settings;
    let correction1 = 1.0 - f64::from(s.beta1).powi(s.step as i32);
    let correction2 = 1.0 - f64::from(s.beta2).powi(s.step as i32);
    let rate = (f64::from(s.learning_rate) / correction1) as f32;
    let root = (1.0 / correction2.sqrt()) as f32;
    let decay = 1.0 - s.learning_rate * s.weight_decay;
    if on_host(&parameter) {
        let gradient = primitive(gradient);
        let mut tensors = [primitive(parameter), primitive(first), primitive(second)];
        update(&s, [rate, root, decay], &gradient, &mut tensors);
        let [p, m, v] = tensors.map(Tensor::from_primitive::<Flex>);
        return (p, m, v);
    }
    let g = gradient * s.gradient_scale;
    let m = first * s.beta1 + g.clone() * (1.0 - s.beta1);
    let v = second * s.beta2 + g.square() * (1.0 - s.beta2);
    let update = m.clone() * rate / (v.clone().sqrt() * root + s.epsilon);
    (parameter * decay - update, m, v)
}

fn update(
    s: &AdamW,
    [rate, root, decay]: [f32; 3],
    gradient: &FlexTensor,
    [p, m, v]: &mut [FlexTensor; 3],
) {
    let gradient = values(gradient);
    p.storage_mut::<f32>()
        .par_chunks_mut(BLOCK)
        .zip(m.storage_mut::<f32>().par_chunks_mut(BLOCK))
        .zip(v.storage_mut::<f32>().par_chunks_mut(BLOCK))
        .zip(gradient.par_chunks(BLOCK))
        .for_each(|(((p, m), v), g)| {
            vectorised(
                #[inline(always)]
                || {
                    for i in 0..g.len() {
                        let g = g[i] * s.gradient_scale;
                        m[i] = s.beta1 * m[i] + (1.0 - s.beta1) * g;
                        v[i] = s.beta2 * v[i] + (1.0 - s.beta2) * g * g;
                        p[i] = p[i] * decay - rate * m[i] / (v[i].sqrt() * root + s.epsilon);
                    }
                },
            );
        });
}

/// Σ x² of a tensor, in f64 over blocks of fixed size.
pub fn sum_of_squares<const D: usize>(tensor: &Tensor<D>) -> f64 {
    if on_host(tensor) {
        let tensor = primitive(tensor.clone());
        let blocks: Vec<f64> = values(&tensor)
            .par_chunks(4096)
            .map(|block| {
                vectorised(
                    #[inline(always)]
                    || f64::from(sum_of(block, |x| x * x)),
                )
            })
            .collect();
        return blocks.iter().sum();
    }
    f64::from(tensor.clone().square().sum().into_scalar::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::to_host;
    use burn::tensor::Device;

    /// Two steps by the definition, in f64, on one number.
    #[test]
    fn two_steps_equal_the_definition() {
        let (b1, b2, eps, lr, wd, clip) = (0.9, 0.99, 1e-8, 0.1, 0.01, 0.5);
        let gradients = [0.4, -1.0];
        let (mut w, mut m, mut v) = (2.0f64, 0.0f64, 0.0f64);
        for (t, g) in gradients.iter().enumerate() {
            let g = g * clip;
            m = b1 * m + (1.0 - b1) * g;
            v = b2 * v + (1.0 - b2) * g * g;
            let t = t as i32 + 1;
            let step = m / (1.0 - b1.powi(t)) / ((v / (1.0 - b2.powi(t))).sqrt() + eps);
            w = w - lr * wd * w - lr * step;
        }
        let device = Device::flex();
        let one = |x: f32| Tensor::<1>::from_floats([x], &device);
        let (mut p, mut m1, mut m2) = (one(2.0), one(0.0), one(0.0));
        for (t, g) in gradients.iter().enumerate() {
            let settings = AdamW {
                learning_rate: lr as f32,
                beta1: b1 as f32,
                beta2: b2 as f32,
                epsilon: eps as f32,
                weight_decay: wd as f32,
                gradient_scale: clip as f32,
                step: t as u32 + 1,
            };
            (p, m1, m2) = adamw_step(&settings, p, one(*g as f32), m1, m2);
        }
        assert!((f64::from(to_host(p)[0]) - w).abs() < 1e-6);
    }

    #[test]
    fn squares_are_summed() {
        let x = Tensor::<2>::from_floats([[3.0, 4.0], [0.0, 12.0]], &Device::flex());
        assert_eq!(sum_of_squares(&x), 169.0);
    }
}
