//! The micro-kernel for processors without bf16 products: both numbers widened to f32, whose upper
//! half a bf16 number is, and multiplied there. What is left of bf16 is half the memory traffic.

use pulp::{Simd, WithSimd};

use super::{DEEP, Operands, WIDE};
use crate::math::arch;

/// Rows whose sums are in registers at once.
const ROWS: usize = 4;

/// See [`super::Block`].
///
/// # Safety
/// As there.
#[allow(unsafe_code)]
pub(super) unsafe fn block(o: Operands, c: *mut f32, stride: usize, add: bool) {
    let mut part = [0.0; 4 * WIDE * WIDE];
    // SAFETY: the caller's.
    let strip = |first, next: usize| unsafe {
        let tiles = std::slice::from_raw_parts::<super::Tile>(first, next + o.steps);
        [&tiles[..o.steps], &tiles[next..]]
    };
    let a = strip(o.a, (o.rows - 1) * o.a_next);
    let b = strip(o.b, o.b_next);
    for (row_block, a) in a.into_iter().enumerate().take(o.rows) {
        for (column_block, b) in b.into_iter().enumerate() {
            let part = &mut part[row_block * 2 * WIDE * WIDE + column_block * WIDE..];
            arch().dispatch(Pair { a, b, part });
        }
    }
    for (row, part) in part.chunks_exact(2 * WIDE).take(o.rows * WIDE).enumerate() {
        // SAFETY: the caller's: 32 numbers in each row of the result.
        let out = unsafe { std::slice::from_raw_parts_mut(c.add(row * stride), 2 * WIDE) };
        for (out, &part) in out.iter_mut().zip(part) {
            *out = if add { *out + part } else { part };
        }
    }
}

/// The product of one row of tiles with one column of tiles; rows of `part` are 32 apart.
struct Pair<'a> {
    a: &'a [super::Tile],
    b: &'a [super::Tile],
    part: &'a mut [f32],
}

impl WithSimd for Pair<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // A right tile's row is 16 pairs: as many vectors as 16 sums are.
        for first in (0..WIDE).step_by(ROWS) {
            for lane in (0..WIDE).step_by(S::F32_LANES) {
                let mut sums = [simd.splat_f32s(0.0); ROWS];
                for (a, b) in self.a.iter().zip(self.b) {
                    for pair in 0..DEEP / 2 {
                        let mut pairs = [0_u32; WIDE];
                        let at = pair * 2 * WIDE + 2 * lane;
                        for (i, pair) in pairs.iter_mut().enumerate().take(S::F32_LANES) {
                            *pair =
                                u32::from(b.0[at + 2 * i]) | u32::from(b.0[at + 2 * i + 1]) << 16;
                        }
                        let (lanes, _) = S::as_simd_u32s(&pairs);
                        let low = simd.wrapping_dyn_shl_u32s(lanes[0], simd.splat_u32s(16));
                        let high = simd.and_u32s(lanes[0], simd.splat_u32s(0xffff_0000));
                        let (low, high) = (
                            simd.transmute_f32s_u32s(low),
                            simd.transmute_f32s_u32s(high),
                        );
                        for (row, sum) in sums.iter_mut().enumerate() {
                            let at = (first + row) * DEEP + 2 * pair;
                            let widen =
                                |x: u16| simd.splat_f32s(f32::from_bits(u32::from(x) << 16));
                            *sum = simd.mul_add_f32s(widen(a.0[at]), low, *sum);
                            *sum = simd.mul_add_f32s(widen(a.0[at + 1]), high, *sum);
                        }
                    }
                }
                for (row, sum) in sums.into_iter().enumerate() {
                    let start = (first + row) * 2 * WIDE + lane;
                    let mut out = [0.0; WIDE];
                    let (lanes, _) = S::as_mut_simd_f32s(&mut out);
                    lanes[0] = sum;
                    self.part[start..start + S::F32_LANES].copy_from_slice(&out[..S::F32_LANES]);
                }
            }
        }
    }
}
