//! Linear layer in Hugging Face layout: y = x Wᵀ (+ b), W is [out, in].
//!
//! The CPU kernel multiplies by the transposed view (nothing is copied) and returns the weight's
//! gradient in the weight's own layout.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;

use crate::few_rows::{MOST_ROWS, few_rows};
use crate::host::{HostKernel, Output, View, host2, on_host, primitive, values};
use crate::matmul::{Into, Matrix, multiplied};
use crate::precision::Precision;
use crate::weight::{PackedWeight, Weight};

/// y = x Wᵀ + b, the product computed in the weight's precision. On the CPU so are the products of its
/// gradients, where the portable composition rounds their results instead of their factors.
///
/// # Shapes
/// `x_nd` [tokens, in], `weight` [out, in], `bias` `[out]` → [tokens, out]
///
/// # Panics
/// If the shapes do not fit.
pub fn linear(x_nd: Tensor<2>, weight: &Weight, bias: Option<Tensor<1>>) -> Tensor<2> {
    let product = match weight {
        Weight::Packed(packed) => packed_linear(x_nd, packed),
        Weight::Plain(weight, precision) if on_host(&x_nd) => {
            let precision = *precision;
            host2(x_nd, weight.clone(), Linear { precision })
        }
        Weight::Plain(weight, precision) => {
            let (x, w) = (x_nd, weight.clone());
            precision
                .rounded(x)
                .matmul(precision.rounded_weight(w).transpose())
        }
    };
    match bias {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

fn packed_linear(x_nd: Tensor<2>, weight: &PackedWeight) -> Tensor<2> {
    let [n, width] = x_nd.dims();
    let x = primitive(x_nd);
    let data = weight.multiplied(Matrix::new(values(&x), n, width, width));
    let result = FlexTensor::from_data(TensorData::new(data, [n, weight.rows()]));
    Tensor::from_primitive::<Flex>(result)
}

#[derive(Debug)]
struct Linear {
    precision: Precision,
}

impl HostKernel for Linear {
    fn forward(&self, inputs: &[View<'_>], _track: bool) -> Output {
        let ([n, width], [out, _]) = (inputs[0].shape, inputs[1].shape);
        let data = if n <= MOST_ROWS && self.precision == Precision::F32 {
            let mut data = vec![0.0; n * out];
            let (x, w) = (inputs[0].data, inputs[1].data);
            let space = &mut Vec::new();
            few_rows(x, n, w, out, width, &mut data, Into::Replace, space);
            data
        } else {
            let (x, w) = (matrix(inputs[0]), matrix(inputs[1]));
            multiplied(x, w.transposed(), self.precision)
        };
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
        let ([n, _], [out, _]) = (inputs[0].shape, inputs[1].shape);
        let dy = Matrix::new(grad, n, out, out);
        let dx = match needs[0] {
            true => multiplied(dy, matrix(inputs[1]), self.precision),
            false => Vec::new(),
        };
        let dw = match needs[1] {
            true => multiplied(dy.transposed(), matrix(inputs[0]), self.precision),
            false => Vec::new(),
        };
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
    use crate::host::force_portable;
    use crate::testing::{SWITCH, both_paths_agree, close, random};
    use burn::tensor::Device;

    #[test]
    fn kernel_equals_composition_and_differences() {
        both_paths_agree(
            &[random([5, 7], 1), random([3, 7], 2)],
            |t| {
                let bias = t[1].clone().sum_dim(1).squeeze_dim(1);
                linear(t[0].clone(), &t[1].clone().into(), Some(bias))
            },
            1e-4,
        );
    }

    /// Large enough for products by tiles, where the processor has them.
    #[test]
    fn large_products_and_their_gradients_equal_the_composition() {
        both_paths_agree(
            &[random([130, 97], 1), random([113, 97], 2)],
            |t| linear(t[0].clone(), &t[1].clone().into(), None),
            2e-2,
        );
    }

    /// Both forms round the same factors; sums are f32 in either.
    #[test]
    fn products_in_bf16_equal_the_composition_and_differ_from_f32() {
        let _turn = SWITCH.lock().unwrap_or_else(|e| e.into_inner());
        let tensor = |(values, shape): (Vec<f32>, [usize; 2])| {
            Tensor::<2>::from_data(TensorData::new(values, shape), &Device::flex())
        };
        let (x, w) = (tensor(random([33, 70], 1)), tensor(random([50, 70], 2)));
        let product = |precision, portable| {
            force_portable(portable);
            let product = linear(x.clone(), &Weight::Plain(w.clone(), precision), None);
            force_portable(false);
            crate::to_host(product)
        };
        let rounded = product(Precision::Bf16, false);
        close(&rounded, &product(Precision::Bf16, true), 1e-5);
        let exact = product(Precision::F32, false);
        let off = |(a, b): (&f32, &f32)| (a - b).abs();
        let furthest = exact.iter().zip(&rounded).map(off).fold(0.0, f32::max);
        assert!(furthest > 1e-3, "{furthest}");
    }

    #[test]
    fn a_packed_weight_gives_the_products_of_the_rounded_one() {
        let _turn = SWITCH.lock().unwrap_or_else(|e| e.into_inner());
        let tensor = |(values, shape): (Vec<f32>, [usize; 2])| {
            Tensor::<2>::from_data(TensorData::new(values, shape), &Device::flex())
        };
        let (x, w) = (tensor(random([9, 1000], 1)), tensor(random([50, 1000], 2)));
        for (precision, within) in [(Precision::Bf16, 1e-5), (Precision::Int8, 1e-3)] {
            let plain = Weight::Plain(w.clone(), precision);
            let packed = plain.packed();
            assert_eq!(packed.tensor().is_none(), !crate::is_portable());
            assert_eq!(packed.dims(), [50, 1000]);
            assert_eq!(packed.precision(), precision);
            let got = crate::to_host(linear(x.clone(), &packed, None));
            force_portable(true);
            let composition = crate::to_host(linear(x.clone(), &plain, None));
            force_portable(false);
            close(&got, &composition, within);
            let exact = Weight::Plain(w.clone(), Precision::F32);
            let exact = crate::to_host(linear(x.clone(), &exact, None));
            let off = |(a, b): (&f32, &f32)| (a - b).abs();
            let furthest = exact.iter().zip(&got).map(off).fold(0.0, f32::max);
            assert!(furthest > 2.0 * within, "{precision:?} {furthest}");
        }
    }
}
