//! What every kernel's test does: the host kernel against the portable composition, and its
//! gradient against central differences.

use std::sync::Mutex;

use burn::tensor::{Device, Tensor, TensorData};

use crate::host::{force_portable, to_host};

/// The portable switch is one for the process: tests that turn it take turns.
pub(crate) static SWITCH: Mutex<()> = Mutex::new(());

/// A matrix of reproducible values in about [−1, 1].
pub(crate) fn random([rows, columns]: [usize; 2], seed: u64) -> (Vec<f32>, [usize; 2]) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values = (0..rows * columns)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    (values, [rows, columns])
}

type Values = (Vec<f32>, [usize; 2]);

fn value_and_gradients(
    inputs: &[Values],
    f: &dyn Fn(&[Tensor<2>]) -> Tensor<2>,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let device = Device::flex().autodiff();
    let tensors: Vec<Tensor<2>> = inputs
        .iter()
        .map(|(v, s)| Tensor::from_data(TensorData::new(v.clone(), *s), &device).require_grad())
        .collect();
    let out = f(&tensors);
    let value = to_host(out.clone().inner());
    let gradients = weighted(out).backward();
    let grads = tensors
        .iter()
        .map(|t| to_host(t.grad(&gradients).expect("every input is tracked")))
        .collect();
    (value, grads)
}

/// Σ cᵢⱼ yᵢⱼ with fixed uneven weights, so that no gradient is a plain sum.
fn weighted(y: Tensor<2>) -> Tensor<1> {
    let [rows, columns] = y.dims();
    let (weights, shape) = random([rows, columns], 99);
    let weights = Tensor::<2>::from_data(TensorData::new(weights, shape), &y.device());
    (y * weights).sum()
}

/// Host kernel = portable composition (values and gradients to 2e-5), and both gradients =
/// central differences of the portable value to `tolerance`.
pub(crate) fn both_paths_agree(
    inputs: &[Values],
    f: impl Fn(&[Tensor<2>]) -> Tensor<2>,
    tolerance: f32,
) {
    let _turn = SWITCH.lock().unwrap_or_else(|e| e.into_inner());
    let (value, grads) = value_and_gradients(inputs, &f);
    force_portable(true);
    let (portable_value, portable_grads) = value_and_gradients(inputs, &f);
    force_portable(false);
    close(&value, &portable_value, 2e-5);
    for (a, b) in grads.iter().zip(&portable_grads) {
        close(a, b, 2e-5);
    }
    let device = Device::flex();
    let evaluate = |inputs: &[Values]| -> f32 {
        let tensors: Vec<Tensor<2>> = inputs
            .iter()
            .map(|(v, s)| Tensor::from_data(TensorData::new(v.clone(), *s), &device))
            .collect();
        weighted(f(&tensors)).into_scalar::<f32>()
    };
    let step = 1e-2;
    for (which, grad) in grads.iter().enumerate() {
        let count = grad.len();
        for entry in [0, count / 3, count / 2, count - 1] {
            let mut moved = inputs.to_vec();
            moved[which].0[entry] += step;
            let up = evaluate(&moved);
            moved[which].0[entry] -= 2.0 * step;
            let down = evaluate(&moved);
            let slope = (up - down) / (2.0 * step);
            let error = (slope - grad[entry]).abs();
            assert!(
                error <= tolerance * (1.0 + slope.abs()),
                "input {which} entry {entry}: difference {slope}, gradient {}",
                grad[entry]
            );
        }
    }
}

/// Entry by entry within `tolerance` of the larger of 1 and the value.
pub(crate) fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!(
            (x - y).abs() <= tolerance * y.abs().max(1.0),
            "entry {i}: {x} against {y}"
        );
    }
}
