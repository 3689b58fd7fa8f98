//! Vectorised arithmetic on rows of f32.
//!
//! Every function runs with the widest instruction set the processor has (found at run time);
//! sums are kept in 16 lanes, so that a row's result does not depend on which one that is
//! beyond the last bit, nor on the number of threads.

use pulp::Arch;

#[cfg(target_arch = "x86_64")]
use crate::processor::{Level, processor};

const LANES: usize = 16;

/// Runs `f` compiled for the best instruction set of this machine.
#[inline(always)]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    struct Call<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Call<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    arch().dispatch(Call(f))
}

/// The widest vectors of this machine that may be used.
#[inline(always)]
pub(crate) fn arch() -> Arch {
    // Without a limit, `pulp` remembers what it found.
    #[cfg(target_arch = "x86_64")]
    if let Some(limited) = limited_arch() {
        return limited;
    }
    Arch::new()
}

/// Vectors narrower than the machine's, where `DISTIL_INSTRUCTIONS` asks for that.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn limited_arch() -> Option<Arch> {
    match processor().level {
        Level::Avx512 | Level::Amx => None,
        Level::Avx2 => pulp::x86::V3::try_new().map(Arch::V3),
        Level::Portable => Some(Arch::Scalar),
    }
}

/// eˣ for f32 to about 2 units in the last place; saturates instead of overflowing
/// (below −87.3 the result is about 1.2e-38).
///
/// Cody–Waite reduction by ln 2 and a degree-6 polynomial (minimax coefficients of Cephes' `expf`).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer in the low bits
    let x = x.clamp(-87.336_54, 88.722_83);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    // n = 128 only where x is at its upper clamp: split the scale so that neither half overflows.
    let half = exponent >> 1;
    let scale = |e: i32| f32::from_bits(((e + 127) << 23) as u32);
    y * scale(half) * scale(exponent - half)
}

/// Largest value of a row; −∞ for an empty one. NaN is ignored.
pub fn max(row: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || max_inner(row),
    )
}

/// [`max`], inside [`vectorised`].
#[inline(always)]
pub(crate) fn max_inner(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    rest.iter()
        .chain(&lanes)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max)
}

/// Values summed in f32 before the sum goes on in f64: a long row's small values would otherwise be
/// lost one by one against a large sum (a softmax over 50,000 tokens has a long tail).
const BLOCK: usize = 64 * LANES;

/// Sum of f(x) over a row.
#[inline(always)]
pub fn sum_of(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut total = 0.0f64;
    for block in row.chunks(BLOCK) {
        let mut lanes = [0.0f32; LANES];
        let chunks = block.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane += f(x);
            }
        }
        let tail: f32 = rest.iter().map(|&x| f(x)).sum();
        total += f64::from(lanes.iter().sum::<f32>() + tail);
    }
    total as f32
}

/// Sum of f(x, y) over two rows of the same length.
#[inline(always)]
pub fn sum_of2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut total = 0.0f64;
    for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
        let mut lanes = [0.0f32; LANES];
        let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let (ra, rb) = (ca.remainder(), cb.remainder());
        for (x, y) in ca.zip(cb) {
            for i in 0..LANES {
                lanes[i] += f(x[i], y[i]);
            }
        }
        let tail: f32 = ra.iter().zip(rb).map(|(&x, &y)| f(x, y)).sum();
        total += f64::from(lanes.iter().sum::<f32>() + tail);
    }
    total as f32
}

/// Sum of a row.
pub fn sum(row: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || sum_of(row, |x| x),
    )
}

/// Σ exp(x − shift) of a row.
pub fn sum_of_exp(row: &[f32], shift: f32) -> f32 {
    vectorised(
        #[inline(always)]
        || sum_of(row, |x| exp(x - shift)),
    )
}

/// Inner product of two rows.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || sum_of2(a, b, |x, y| x * y),
    )
}

/// log Σ exp(x) of a row, in nats; exact to rounding for any finite row.
pub fn log_sum_exp(row: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let m = max_inner(row);
            m + sum_of(row, |x| exp(x - m)).ln()
        },
    )
}

/// exp(x − shift) written over the row.
pub fn exp_minus(row: &mut [f32], shift: f32) {
    vectorised(
        #[inline(always)]
        || {
            for x in row.iter_mut() {
                *x = exp(*x - shift);
            }
        },
    )
}

/// Index of the largest value, the first where several are equal; 0 for an empty row.
pub fn argmax(row: &[f32]) -> usize {
    let m = max(row);
    row.iter().position(|&x| x == m).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_libm_everywhere() {
        let mut worst = 0.0f64;
        for i in -87_000..88_700 {
            let x = i as f32 * 1e-3;
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / want - 1.0).abs());
        }
        assert!(worst < 3e-7, "relative error {worst:e}");
        assert!(exp(-1e4) < 2e-38 && exp(1e4).is_finite());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn reductions_agree_with_the_obvious_ones() {
        let row: Vec<f32> = (0..1003)
            .map(|i| ((i * 37) % 101) as f32 / 7.0 - 5.0)
            .collect();
        let want = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        assert!((f64::from(log_sum_exp(&row)) - want).abs() < 1e-6);
        assert_eq!(max(&row), row.iter().copied().fold(f32::MIN, f32::max));
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(dot(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), 32.0);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }

    /// One likely token before a tail of 50,000 unlikely ones: each is below half a unit in the
    /// last place of 1, together they are not.
    #[test]
    fn a_long_tail_is_not_lost() {
        let mut row = vec![-18.0f32; 50_000];
        row[0] = 0.0;
        let want = (1.0 + 49_999.0 * (-18.0f64).exp()).ln();
        assert!((f64::from(log_sum_exp(&row)) - want).abs() < 3e-6);
    }
}
