//! Token embedding: rows of a [vocabulary, width] matrix. Its gradient adds each row's gradient to
//! the row it was read from.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use crate::host::{HostKernel, Output, View, host1, on_host};

/// The rows `token_ids` of `weight`.
///
/// # Shapes
/// `weight_vd` [vocabulary, width] → [tokens, width]
///
/// # Panics
/// If an id is outside the vocabulary; callers check ids where they enter.
pub fn embedding(weight_vd: Tensor<2>, token_ids: &[u32]) -> Tensor<2> {
    if on_host(&weight_vd) {
        let ids = Arc::from(token_ids);
        return host1(weight_vd, Embedding { ids });
    }
    let ids: Vec<i64> = token_ids.iter().map(|&id| i64::from(id)).collect();
    let data = TensorData::new(ids, [token_ids.len()]);
    let ids = Tensor::<1, Int>::from_data(data, &weight_vd.device());
    weight_vd.select(0, ids)
}

#[derive(Debug)]
struct Embedding {
    ids: Arc<[u32]>,
}

impl HostKernel for Embedding {
    fn forward(&self, inputs: &[View<'_>], _track: bool) -> Output {
        let width = inputs[0].shape[1];
        let mut data = Vec::with_capacity(self.ids.len() * width);
        for &id in self.ids.iter() {
            let start = id as usize * width;
            data.extend_from_slice(&inputs[0].data[start..start + width]);
        }
        Output {
            data,
            shape: vec![self.ids.len(), width],
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
        let width = inputs[0].shape[1];
        let mut total = vec![0.0; inputs[0].data.len()];
        for (&id, grad) in self.ids.iter().zip(grad.chunks_exact(width)) {
            let start = id as usize * width;
            for (total, part) in total[start..start + width].iter_mut().zip(grad) {
                *total += part;
            }
        }
        vec![total]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{both_paths_agree, random};

    #[test]
    fn kernel_equals_composition_and_differences() {
        both_paths_agree(
            &[random([6, 4], 8)],
            |t| embedding(t[0].clone(), &[3, 0, 3, 5]),
            1e-4,
        );
    }
}
