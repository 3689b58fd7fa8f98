//! What the machine can do at most, measured: the bounds that every figure is a share of.
//!
//! Training is matrix products, bounded by the matrix rate. Decoding reads all weights once a step
//! for the whole batch, bounded by the memory's bandwidth until the batch makes it matrix work.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use distil_kernels::math::{sum_of, vectorised};
use rayon::prelude::*;

/// Bounds of this machine with the threads in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roof {
    /// f32 matrix rate, in 10⁹ floating-point operations per second.
    pub gflops: f64,
    /// Rate at which memory is read, in bytes per second.
    pub bytes_per_second: f64,
}

impl Roof {
    /// Measures both, in about a second: the best of several tries, because whatever disturbs a try
    /// can only make it slower.
    pub fn measure() -> Self {
        Self {
            gflops: matrix_rate(),
            bytes_per_second: read_rate(),
        }
    }

    /// The least time, in seconds, for work of so many floating-point operations that reads so
    /// many bytes.
    pub fn seconds(&self, operations: f64, bytes: f64) -> f64 {
        (operations / (self.gflops * 1e9)).max(bytes / self.bytes_per_second)
    }
}

fn best_of(tries: usize, mut work: impl FnMut()) -> f64 {
    let seconds = (0..tries).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min).max(1e-9)
}

fn matrix_rate() -> f64 {
    let device = Device::flex();
    let (rows, inner, columns) = (1024_usize, 1536_usize, 1536_usize);
    let random = |shape| Tensor::<2>::random(shape, Distribution::Default, &device);
    let (a, b) = (random([rows, inner]), random([columns, inner]));
    let seconds = best_of(6, || {
        std::hint::black_box(distil_kernels::linear(a.clone(), b.clone(), None));
    });
    2.0 * (rows * inner * columns) as f64 / seconds / 1e9
}

fn read_rate() -> f64 {
    // Far more than any cache holds.
    let values = vec![1.0_f32; 48 << 20];
    let seconds = best_of(4, || {
        let sum: f32 = values
            .par_chunks(1 << 18)
            .map(|block| {
                vectorised(
                    #[inline(always)]
                    || sum_of(block, |x| x),
                )
            })
            .sum();
        std::hint::black_box(sum);
    });
    (values.len() * size_of::<f32>()) as f64 / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_both_bounds_holds() {
        let roof = Roof {
            gflops: 2.0,
            bytes_per_second: 1e6,
        };
        assert_eq!(roof.seconds(4e9, 1e6), 2.0);
        assert_eq!(roof.seconds(4e9, 3e6), 3.0);
    }
}
