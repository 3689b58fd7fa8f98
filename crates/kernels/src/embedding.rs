//! Token embedding: rows of a [vocabulary, width] matrix. Its gradient adds each row's gradient to
//! the row it was read from.

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use crate::host::{HostKernel, Output, View, host1, on_host, primitive, values};

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

/// Adds the gradient of embedded tokens to that of the embedding: `gradient[token_ids[i]] += d[i]`, in
/// place on the CPU where nobody else holds it.
///
/// # Shapes
/// `gradient` [vocabulary, width], `d_embedded` [tokens, width], both untracked → as `gradient`
pub fn add_embedding_gradient(
    gradient: Tensor<2>,
    d_embedded: Tensor<2>,
    token_ids: &[u32],
) -> Tensor<2> {
    if on_host(&gradient) {
        let d_embedded = primitive(d_embedded);
        let mut gradient = primitive(gradient);
        let rows = values(&d_embedded);
        scatter(gradient.storage_mut::<f32>(), rows, token_ids);
        return Tensor::from_primitive::<Flex>(gradient);
    }
    let ids: Vec<i64> = token_ids.iter().map(|&id| i64::from(id)).collect();
    let data = TensorData::new(ids, [token_ids.len()]);
    let ids = Tensor::<1, Int>::from_data(data, &gradient.device());
    gradient.select_assign(0, ids, d_embedded, IndexingUpdateOp::Add)
}

/// `rows` added to the rows `ids` of `total`.
fn scatter(total: &mut [f32], rows: &[f32], ids: &[u32]) {
    let width = rows.len() / ids.len().max(1);
    for (&id, row) in ids.iter().zip(rows.chunks_exact(width.max(1))) {
        let start = id as usize * width;
        for (total, part) in total[start..start + width].iter_mut().zip(row) {
            *total += part;
        }
    }
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
        let mut total = vec![0.0; inputs[0].data.len()];
        scatter(&mut total, grad, &self.ids);
        vec![total]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{force_portable, to_host};
    use crate::testing::{SWITCH, both_paths_agree, random};
    use burn::tensor::Device;

    #[test]
    fn kernel_equals_composition_and_differences() {
        both_paths_agree(
            &[random([6, 4], 8)],
            |t| embedding(t[0].clone(), &[3, 0, 3, 5]),
            1e-4,
        );
    }

    #[test]
    fn gradients_of_embedded_tokens_are_added_to_their_rows() {
        let _turn = SWITCH.lock().unwrap_or_else(|e| e.into_inner());
        let device = Device::flex();
        let tensor = |values: &[[f32; 2]]| {
            let flat: Vec<f32> = values.concat();
            Tensor::<2>::from_data(TensorData::new(flat, [values.len(), 2]), &device)
        };
        for portable in [false, true] {
            force_portable(portable);
            let gradient = tensor(&[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]);
            let d = tensor(&[[0.5, 0.0], [0.0, 10.0], [0.25, 0.0]]);
            let sum = add_embedding_gradient(gradient, d, &[2, 0, 2]);
            force_portable(false);
            assert_eq!(to_host(sum), [1.0, 11.0, 2.0, 2.0, 3.75, 3.0]);
        }
    }
}
