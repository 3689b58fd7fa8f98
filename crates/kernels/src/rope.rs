//! Rotary position embedding (Su et al. 2021) in the half-split form of Hugging Face models:
//! for each head with halves (a, b) at position t, (a cos − b sin, b cos + a sin), with angle t · ωᵢ.
//!
//! A rotation's gradient is the rotation by the opposite angle.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::host::{HostKernel, Output, View, host1, on_host};
use crate::math::vectorised;

/// Rows a task works on.
const ROWS: usize = 64;

/// Cosines and sines of a batch's positions, shared by every layer.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// [tokens, half] row-major.
    cos: Arc<Vec<f32>>,
    /// [tokens, half] row-major.
    sin: Arc<Vec<f32>>,
    half: usize,
}

impl RopeTable {
    /// The table of `positions` for the angular frequencies ω (`frequencies`, one for each pair of
    /// a head's dimensions, in radians a position).
    ///
    /// Frequency and angle are rounded to f32 as in transformers and vLLM: models are trained and
    /// served with these angles. With exact angles log-probabilities of a 135M model differ by 1e-4 after
    /// 200 tokens, four times as much as all other rounding together.
    pub fn new(positions: &[u32], frequencies: &[f64]) -> Self {
        let mut cos = Vec::with_capacity(positions.len() * frequencies.len());
        let mut sin = Vec::with_capacity(positions.len() * frequencies.len());
        for &position in positions {
            for &frequency in frequencies {
                let angle = position as f32 * frequency as f32;
                let (s, c) = f64::from(angle).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        Self {
            cos: Arc::new(cos),
            sin: Arc::new(sin),
            half: frequencies.len(),
        }
    }

    /// Rotates rows of `width` in place, which begin with the table's row `first`; by the opposite
    /// angle where `direction` is −1.
    pub(crate) fn rotate(&self, x: &mut [f32], width: usize, first: usize, direction: f32) {
        let half = self.half;
        vectorised(
            #[inline(always)]
            || {
                for (row, x) in x.chunks_exact_mut(width).enumerate() {
                    let row = first + row;
                    let cos = &self.cos[row * half..(row + 1) * half];
                    let sin = &self.sin[row * half..(row + 1) * half];
                    for head in x.chunks_exact_mut(2 * half) {
                        let (a, b) = head.split_at_mut(half);
                        for i in 0..half {
                            let s = sin[i] * direction;
                            (a[i], b[i]) = (a[i] * cos[i] - b[i] * s, b[i] * cos[i] + a[i] * s);
                        }
                    }
                }
            },
        );
    }

    /// Number of tokens the table was made for.
    pub fn tokens(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }
}

/// Rotates every head of `x`.
///
/// # Shapes
/// `x` [tokens, heads · 2 · half], `table` of as many tokens → the same shape
///
/// # Panics
/// If the table was made for another number of tokens.
pub fn rope(x: Tensor<2>, table: &RopeTable) -> Tensor<2> {
    let [n, width] = x.dims();
    assert_eq!(n, table.tokens(), "the table was made for another batch");
    if on_host(&x) {
        return host1(
            x,
            Rope {
                table: table.clone(),
            },
        );
    }
    let (half, device) = (table.half, x.device());
    let heads = width / (2 * half);
    let constant = |values: &Arc<Vec<f32>>| -> Tensor<3> {
        let data = TensorData::new(values.as_ref().clone(), [n, 1, half]);
        Tensor::from_data(data, &device)
    };
    let (cos, sin) = (constant(&table.cos), constant(&table.sin));
    let x = x.reshape([n, heads, 2 * half]);
    let (a, b) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos + a * sin;
    Tensor::cat(vec![first, second], 2).reshape([n, width])
}

#[derive(Debug)]
struct Rope {
    table: RopeTable,
}

impl Rope {
    fn rotate(&self, x: &[f32], [rows, width]: [usize; 2], direction: f32) -> Vec<f32> {
        let mut out = x.to_vec();
        debug_assert_eq!(out.len(), rows * width);
        out.par_chunks_mut(ROWS * width)
            .enumerate()
            .for_each(|(block, out)| self.table.rotate(out, width, block * ROWS, direction));
        out
    }
}

impl HostKernel for Rope {
    fn forward(&self, inputs: &[View<'_>], _track: bool) -> Output {
        Output {
            data: self.rotate(inputs[0].data, inputs[0].shape, 1.0),
            shape: inputs[0].shape.to_vec(),
            saved: Vec::new(),
        }
    }

    fn backward(
        &self,
        inputs: &[View<'_>],
        _saved: &[Vec<f32>],
        grad: &[f32],
        _needs: &[bool],
    ) -> Vec<Vec<f32>> {
        vec![self.rotate(grad, inputs[0].shape, -1.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{both_paths_agree, random};

    #[test]
    fn kernel_equals_composition_and_differences() {
        let table = RopeTable::new(&[0, 1, 2, 0, 9], &[1.0, 0.1, 0.01]);
        both_paths_agree(&[random([5, 12], 5)], |t| rope(t[0].clone(), &table), 1e-4);
    }
}
