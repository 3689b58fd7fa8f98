//! Products of a few rows with a large weight matrix: y = x Wᵀ with x [n, k], n small.
//!
//! What decoding does: every weight is read once for all rows, so memory traffic bounds it, and a
//! general matrix product that repacks the weights first is several times slower. Weight rows and
//! x rows are both contiguous along k; a tile of 3 × 8 inner products is kept in registers.
//!
//! Each inner product is summed in an order that depends on k alone: a row's result is the same
//! bits whatever the other rows are.

use pulp::{Simd, WithSimd};

use crate::math::arch;
use crate::matmul::Into;
use crate::team::for_each_chunk;

/// Most rows for which this is the faster way.
pub(crate) const MOST_ROWS: usize = 64;

/// Weight rows of a tile, and x rows of a tile.
const TILE: (usize, usize) = (3, 8);

/// Weight rows that stay in the first-level cache while all of x passes.
const BLOCK: usize = 4 * TILE.0;

/// Weight rows a task.
const TASK: usize = 16 * BLOCK;

/// `out` [n, m] = `x` [n, k] · `w` [m, k]ᵀ, or += that. `space` is working memory.
///
/// # Panics
/// If a slice is not of the size its shape says.
#[allow(clippy::too_many_arguments)]
pub(crate) fn few_rows(
    x: &[f32],
    n: usize,
    w: &[f32],
    m: usize,
    k: usize,
    out: &mut [f32],
    into: Into,
    space: &mut Vec<f32>,
) {
    assert!(x.len() == n * k && w.len() == m * k && out.len() == n * m);
    if out.is_empty() {
        return;
    }
    // Transposed while it is computed, so that each task writes a part of its own.
    let out_mn = space;
    out_mn.clear();
    out_mn.resize(m * n, 0.0);
    for_each_chunk(out_mn, TASK * n, |index, out| {
        let rows = index * TASK..(index * TASK + out.len() / n);
        let w = &w[rows.start * k..rows.end * k];
        arch().dispatch(Task { x, n, w, k, out });
    });
    for_each_chunk(out, m, |row, out| {
        for (column, out) in out.iter_mut().enumerate() {
            let sum = out_mn[column * n + row];
            *out = if into == Into::Add { *out + sum } else { sum };
        }
    });
}

struct Task<'a> {
    x: &'a [f32],
    n: usize,
    w: &'a [f32],
    k: usize,
    out: &'a mut [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, n, w, k, out } = self;
        if k == 0 {
            return;
        }
        let blocks = w.chunks(BLOCK * k).zip(out.chunks_mut(BLOCK * n));
        for (w, out) in blocks {
            let mut first = 0;
            for x in x.chunks(TILE.1 * k) {
                match x.len() / k {
                    8 => columns::<S, 8>(simd, w, x, k, n, first, out),
                    7 => columns::<S, 7>(simd, w, x, k, n, first, out),
                    6 => columns::<S, 6>(simd, w, x, k, n, first, out),
                    5 => columns::<S, 5>(simd, w, x, k, n, first, out),
                    4 => columns::<S, 4>(simd, w, x, k, n, first, out),
                    3 => columns::<S, 3>(simd, w, x, k, n, first, out),
                    2 => columns::<S, 2>(simd, w, x, k, n, first, out),
                    _ => columns::<S, 1>(simd, w, x, k, n, first, out),
                }
                first += TILE.1;
            }
        }
    }
}

/// A block of weight rows against C rows of x.
#[inline(always)]
fn columns<S: Simd, const C: usize>(
    simd: S,
    w: &[f32],
    x: &[f32],
    k: usize,
    n: usize,
    first: usize,
    out: &mut [f32],
) {
    let tiles = w.chunks(TILE.0 * k).zip(out.chunks_mut(TILE.0 * n));
    for (w, out) in tiles {
        match w.len() / k {
            3 => tile::<S, 3, C>(simd, w, x, k, n, first, out),
            2 => tile::<S, 2, C>(simd, w, x, k, n, first, out),
            _ => tile::<S, 1, C>(simd, w, x, k, n, first, out),
        }
    }
}

/// R × C inner products.
#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize>(
    simd: S,
    w: &[f32],
    x: &[f32],
    k: usize,
    n: usize,
    first: usize,
    out: &mut [f32],
) {
    let zero = simd.splat_f32s(0.0);
    let mut sums = [[zero; C]; R];
    let w_rows: [&[f32]; R] = std::array::from_fn(|r| &w[r * k..(r + 1) * k]);
    let x_rows: [&[f32]; C] = std::array::from_fn(|c| &x[c * k..(c + 1) * k]);
    let w_lanes = w_rows.map(|row| S::as_simd_f32s(row).0);
    let x_lanes = x_rows.map(|row| S::as_simd_f32s(row).0);
    let steps = k / S::F32_LANES;
    assert!(w_lanes.iter().chain(&x_lanes).all(|row| row.len() >= steps));
    for step in 0..steps {
        // SAFETY: the assertion above: every row has more than `step` vectors. A check in here
        // would make the compiler keep the sums in memory instead of registers.
        #[allow(unsafe_code)]
        let at = |row: &&[S::f32s]| unsafe { *row.get_unchecked(step) };
        for row in w_rows {
            // The same place in the next tile: memory is what this loop waits for.
            prefetch(row.as_ptr().wrapping_add(R * k + step * S::F32_LANES));
        }
        let w: [S::f32s; R] = std::array::from_fn(|r| at(&w_lanes[r]));
        for c in 0..C {
            let x = at(&x_lanes[c]);
            for r in 0..R {
                sums[r][c] = simd.mul_add_f32s(w[r], x, sums[r][c]);
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            let mut sum = simd.reduce_sum_f32s(sums[r][c]);
            for i in steps * S::F32_LANES..k {
                sum += w_rows[r][i] * x_rows[c][i];
            }
            out[r * n + first + c] = sum;
        }
    }
}

/// Asks for the cache line at `address`, which need not be valid.
#[inline(always)]
fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it reads nothing and cannot fault, whatever the address.
    #[allow(unsafe_code)]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn equals_the_obvious_product_for_every_remainder() {
        for (n, m, k) in [
            (1, 1, 1),
            (3, 7, 5),
            (8, 12, 16),
            (11, 200, 37),
            (33, 50, 64),
            (2, 3, 0),
        ] {
            let (x, w) = (random([n, k], 1).0, random([m, k], 2).0);
            let mut out = vec![9.0; n * m];
            few_rows(&x, n, &w, m, k, &mut out, Into::Replace, &mut Vec::new());
            for i in 0..n {
                for j in 0..m {
                    let want: f64 = (0..k)
                        .map(|l| f64::from(x[i * k + l]) * f64::from(w[j * k + l]))
                        .sum();
                    assert!(
                        (f64::from(out[i * m + j]) - want).abs() < 1e-5,
                        "{n} {m} {k}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_company() {
        let (m, k) = (70, 83);
        let (x, w) = (random([21, k], 3).0, random([m, k], 4).0);
        let mut together = vec![0.0; 21 * m];
        few_rows(
            &x,
            21,
            &w,
            m,
            k,
            &mut together,
            Into::Replace,
            &mut Vec::new(),
        );
        for row in 0..21 {
            let mut alone = vec![0.0; m];
            few_rows(
                &x[row * k..(row + 1) * k],
                1,
                &w,
                m,
                k,
                &mut alone,
                Into::Replace,
                &mut Vec::new(),
            );
            assert_eq!(alone, together[row * m..(row + 1) * m]);
        }
    }
}
