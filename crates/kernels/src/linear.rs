//! Linear layer in Hugging Face layout: y = x Wᵀ (+ b), W is [out, in].
//!
//! The CPU kernel multiplies by the transposed view (nothing is copied) and returns the weight's
//! gradient in the weight's own layout.

use burn::tensor::Tensor;

use crate::few_rows::{MOST_ROWS, few_rows};
use crate::host::{HostKernel, Output, View, host2, on_host};
use crate::matmul::{Into, Matrix, Threads, matmul};

/// y = x Wᵀ + b.
///
/// # Shapes
/// `x_nd` [tokens, in], `weight` [out, in], `bias` `[out]` → [tokens, out]
///
/// # Panics
/// If the shapes do not fit.
pub fn linear(x_nd: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let product = if on_host(&x_nd) {
        host2(x_nd, weight, Linear)
    } else {
        x_nd.matmul(weight.transpose())
    };
    match bias {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

#[derive(Debug)]
struct Linear;

impl HostKernel for Linear {
    fn forward(&self, inputs: &[View<'_>], _track: bool) -> Output {
        let ([n, width], [out, _]) = (inputs[0].shape, inputs[1].shape);
        let mut data = vec![0.0; n * out];
        if n <= MOST_ROWS {
            few_rows(inputs[0].data, n, inputs[1].data, out, width, &mut data);
        } else {
            let (x, w) = (matrix(inputs[0]), matrix(inputs[1]));
            let wt = w.transposed();
            matmul(x, wt, &mut data, out, 1.0, Into::Replace, Threads::All);
        }
        Output {
            data,
            shape: vec![n, out],
            saved: Vec::new(),
        }
    }

    fn backward(
        &self,
        inputs: &[View<'_>],
        _saved: &[Vec<f32>],
        grad: &[f32],
        needs: &[bool],
    ) -> Vec<Vec<f32>> {
        let ([n, width], [out, _]) = (inputs[0].shape, inputs[1].shape);
        let dy = Matrix::new(grad, n, out, out);
        let mut dx = Vec::new();
        if needs[0] {
            dx = vec![0.0; n * width];
            matmul(
                dy,
                matrix(inputs[1]),
                &mut dx,
                width,
                1.0,
                Into::Replace,
                Threads::All,
            );
        }
        let mut dw = Vec::new();
        if needs[1] {
            dw = vec![0.0; out * width];
            let dyt = dy.transposed();
            matmul(
                dyt,
                matrix(inputs[0]),
                &mut dw,
                width,
                1.0,
                Into::Replace,
                Threads::All,
            );
        }
        vec![dx, dw]
    }
}

fn matrix(view: View<'_>) -> Matrix<'_> {
    let [rows, columns] = view.shape;
    Matrix::new(view.data, rows, columns, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{both_paths_agree, random};

    #[test]
    fn kernel_equals_composition_and_differences() {
        both_paths_agree(
            &[random([5, 7], 1), random([3, 7], 2)],
            |t| {
                linear(
                    t[0].clone(),
                    t[1].clone(),
                    Some(t[1].clone().sum_dim(1).squeeze_dim(1)),
                )
            },
            1e-4,
        );
    }
}
