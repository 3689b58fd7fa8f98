//! Root-mean-square norm (Zhang & Sennrich 2019): y = x / √(mean(x²) + ε) · w, over the last dimension.
//!
//! Backward, with r = 1/√(mean(x²) + ε) and d the width:
//! dx = r · (w ⊙ dy) − x · r³/d · Σⱼ wⱼ dyⱼ xⱼ,   dw = Σ over rows of dy ⊙ x · r.

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::host::{HostKernel, Output, View, host2, on_host};
use crate::math::{sum_of, vectorised};

/// Rows a task; also the grain of the weight gradient's sum, so that it does not depend on threads.
const BLOCK: usize = 64;

/// RMS norm over the last dimension.
///
/// # Shapes
/// `x` [rows, width], `weight` `[width]` → [rows, width]
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f32) -> Tensor<2> {
    if on_host(&x) {
        return host2(x, weight, RmsNorm { epsilon });
    }
    let mean_square = x.clone().square().mean_dim(1);
    x * (mean_square + epsilon).sqrt().recip() * weight.unsqueeze()
}

#[derive(Debug)]
struct RmsNorm {
    epsilon: f32,
}

impl HostKernel for RmsNorm {
    fn forward(&self, inputs: &[View<'_>], track: bool) -> Output {
        let [rows, width] = inputs[0].shape;
        let (x, w) = (inputs[0].data, inputs[1].data);
        let mut data = vec![0.0; rows * width];
        let mut inverse = vec![0.0; rows];
        data.par_chunks_mut(BLOCK * width)
            .zip(x.par_chunks(BLOCK * width))
            .zip(inverse.par_chunks_mut(BLOCK))
            .for_each(|((y, x), inverse)| {
                y.copy_from_slice(x);
                normalise(y, w, self.epsilon, |row, r| inverse[row] = r);
            });
        Output {
            data,
            shape: vec![rows, width],
            saved: if track { vec![inverse] } else { Vec::new() },
        }
    }

    fn backward(
        &self,
        inputs: &[View<'_>],
        saved: &[Vec<f32>],
        grad: &[f32],
        _needs: &[bool],
    ) -> Vec<Vec<f32>> {
        let [rows, width] = inputs[0].shape;
        let (x, w) = (inputs[0].data, inputs[1].data);
        let mut dx = vec![0.0; rows * width];
        let partial: Vec<Vec<f32>> = dx
            .par_chunks_mut(BLOCK * width)
            .zip(x.par_chunks(BLOCK * width))
            .zip(grad.par_chunks(BLOCK * width))
            .zip(saved[0].par_chunks(BLOCK))
            .map(|(((dx, x), dy), inverse)| {
                let mut dw = vec![0.0; width];
                vectorised(
                    #[inline(always)]
                    || {
                        let inputs = x.chunks_exact(width).zip(dy.chunks_exact(width));
                        let rows = dx.chunks_exact_mut(width).zip(inputs);
                        for ((dx, (x, dy)), &r) in rows.zip(inverse) {
                            backward_row(x, w, dy, r, dx, &mut dw);
                        }
                    },
                );
                dw
            })
            .collect();
        let mut dw = vec![0.0; width];
        for block in partial {
            for (total, part) in dw.iter_mut().zip(block) {
                *total += part;
            }
        }
        vec![dx, dw]
    }
}

/// Norms every row in place; `each` is told a row's number and its inverse root mean square.
pub(crate) fn normalise(x: &mut [f32], w: &[f32], epsilon: f32, mut each: impl FnMut(usize, f32)) {
    let width = w.len();
    vectorised(
        #[inline(always)]
        || {
            for (row, x) in x.chunks_exact_mut(width).enumerate() {
                let mean = sum_of(x, |x| x * x) / width as f32;
                let r = 1.0 / (mean + epsilon).sqrt();
                each(row, r);
                for (x, &w) in x.iter_mut().zip(w) {
                    *x = *x * r * w;
                }
            }
        },
    );
}

#[inline(always)]
fn backward_row(x: &[f32], w: &[f32], dy: &[f32], r: f32, dx: &mut [f32], dw: &mut [f32]) {
    let width = x.len();
    // dx holds w ⊙ dy until the projection on x is known.
    for i in 0..width {
        dx[i] = w[i] * dy[i];
        dw[i] += dy[i] * x[i] * r;
    }
    let projection = crate::math::sum_of2(dx, x, |a, b| a * b) * r * r / width as f32;
    for i in 0..width {
        dx[i] = r * (dx[i] - x[i] * projection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{both_paths_agree, random};

    #[test]
    fn kernel_equals_composition_and_differences() {
        both_paths_agree(
            &[random([70, 19], 3), random([1, 19], 4)],
            |t| rms_norm(t[0].clone(), t[1].clone().squeeze_dim(0), 1e-5),
            2e-3,
        );
    }
}
