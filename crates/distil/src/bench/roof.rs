//! What the machine can do at most, measured: the bounds that every figure is a share of.
//!
//! Training is matrix products, bounded by the matrix rate. Decoding reads all weights once a step
//! for the whole batch, bounded by the memory's bandwidth until the batch makes it matrix work.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use distil_kernels::math::{sum_of, vectorised};
use distil_kernels::{Precision, Weight, linear};
use rayon::prelude::*;

/// Bounds of this machine with the threads in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roof {
    /// Matrix rate, in 10⁹ floating-point operations per second.
    pub gflops: f64,
    /// Rate at which memory is read, in bytes per second.
    pub bytes_per_second: f64,
}

impl Roof {
    /// Measures both for f32.
    pub fn measure() -> Self {
        Self::measure_in(Precision::F32)
    }

    /// Measures both for matrix products of a precision, in about a second: the best of several
    /// tries, because whatever disturbs a try can only make it slower.
    pub fn measure_in(precision: Precision) -> Self {
        Self {
            gflops: matrix_rate(precision),
            bytes_per_second: read_rate(),
        }
    }

    /// The least time, in seconds, for work of so many floating-point operations that reads so
    /// many bytes.
    pub fn seconds(&self, operations: f64, bytes: f64) -> f64 {
        (operations / (self.gflops * 1e9)).max(bytes / self.bytes_per_second)
    }
}

/// Tries of each measurement.
const TRIES: usize = 6;

/// Seconds after which no further try is begun: a slow machine needs no repetition to be seen.
const LONG_ENOUGH: f64 = 0.3;

/// Seconds of the best try.
fn best_try(mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
        if begin.elapsed().as_secs_f64() > LONG_ENOUGH {
            break;
        }
    }
    best.max(1e-9)
}

/// Rows, inner dimension and columns of the products that are tried.
const SHAPES: [[usize; 3]; 3] = [[1024, 1536, 1536], [2048, 576, 1536], [2048, 2048, 2048]];

/// 10⁹ floating-point operations a second of linear layers, of the shape that is fastest.
pub(super) fn matrix_rate(precision: Precision) -> f64 {
    let rates = SHAPES.map(|shape| rate_of(shape, precision));
    rates.into_iter().fold(0.0, f64::max)
}

fn rate_of([rows, inner, columns]: [usize; 3], precision: Precision) -> f64 {
    let device = Device::flex();
    let random = |shape| Tensor::<2>::random(shape, Distribution::Default, &device);
    let x = random([rows, inner]);
    let weight = Weight::Plain(random([columns, inner]), precision).packed();
    let seconds = best_try(|| {
        std::hint::black_box(linear(x.clone(), &weight, None));
    });
    2.0 * (rows * inner * columns) as f64 / seconds / 1e9
}

/// Bytes read from memory a second.
pub(super) fn read_rate() -> f64 {
    // Far more than any cache holds.
    let values = vec![1.0_f32; 48 << 20];
    let seconds = best_try(|| {
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

    #[test]
    fn a_long_try_is_not_repeated() {
        let mut tries = 0;
        best_try(|| {
            tries += 1;
            std::thread::sleep(std::time::Duration::from_secs_f64(LONG_ENOUGH));
        });
        assert_eq!(tries, 1);
    }
}
