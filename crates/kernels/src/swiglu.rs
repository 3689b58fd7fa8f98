//! Gated activation of the feed-forward block (Shazeer 2020): y = silu(gate) ⊙ up, silu(x) = x σ(x).
//!
//! Backward: d up = dy · silu(gate),   d gate = dy · up · σ(gate) · (1 + gate · (1 − σ(gate))).

use burn::tensor::{Tensor, activation};
use rayon::prelude::*;

use crate::host::{HostKernel, Output, View, host2, on_host};
use crate::math::{exp, vectorised};

/// Values a task works on.
const BLOCK: usize = 16 * 1024;

/// silu(gate) ⊙ up.
///
/// # Shapes
/// `gate_nf`, `up_nf` [tokens, feed-forward width] → the same shape
pub fn swiglu(gate_nf: Tensor<2>, up_nf: Tensor<2>) -> Tensor<2> {
    if on_host(&gate_nf) {
        return host2(gate_nf, up_nf, SwiGlu);
    }
    activation::silu(gate_nf) * up_nf
}

/// silu(gate) ⊙ up, written over the gate.
pub(crate) fn gate(gate: &mut [f32], up: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (gate, &up) in gate.iter_mut().zip(up) {
                *gate = *gate * sigmoid(*gate) * up;
            }
        },
    );
}

#[derive(Debug)]
struct SwiGlu;

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

impl HostKernel for SwiGlu {
    fn forward(&self, inputs: &[View<'_>], _track: bool) -> Output {
        let mut data = vec![0.0; inputs[0].data.len()];
        data.par_chunks_mut(BLOCK)
            .zip(inputs[0].data.par_chunks(BLOCK))
            .zip(inputs[1].data.par_chunks(BLOCK))
            .for_each(|((y, gate), up)| {
                vectorised(
                    #[inline(always)]
                    || {
                        for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                            *y = gate * sigmoid(gate) * up;
                        }
                    },
                );
            });
        Output {
            data,
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
        let mut d_gate = vec![0.0; grad.len()];
        let mut d_up = vec![0.0; grad.len()];
        d_gate
            .par_chunks_mut(BLOCK)
            .zip(d_up.par_chunks_mut(BLOCK))
            .zip(inputs[0].data.par_chunks(BLOCK))
            .zip(inputs[1].data.par_chunks(BLOCK))
            .zip(grad.par_chunks(BLOCK))
            .for_each(|((((d_gate, d_up), gate), up), dy)| {
                vectorised(
                    #[inline(always)]
                    || {
                        for i in 0..dy.len() {
                            let s = sigmoid(gate[i]);
                            d_up[i] = dy[i] * gate[i] * s;
                            d_gate[i] = dy[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
                        }
                    },
                );
            });
        vec![d_gate, d_up]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{both_paths_agree, random};

    #[test]
    fn kernel_equals_composition_and_differences() {
        both_paths_agree(
            &[random([6, 11], 6), random([6, 11], 7)],
            |t| swiglu(t[0].clone(), t[1].clone()),
            2e-4,
        );
    }
}
