//! The micro-kernel for AVX-512 BF16: `vdpbf16ps` adds two products of bf16 numbers to each of 16
//! sums.

use std::arch::x86_64::{
    __m512bh, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use super::{DEEP, Operands, WIDE};

/// Rows whose sums are in registers at once.
const ROWS: usize = 8;

/// See [`super::Block`].
///
/// # Safety
/// As there; the processor must have AVX-512 BF16.
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn block(o: Operands, c: *mut f32, stride: usize, add: bool) {
    // SAFETY: the caller's; a tile is 16 × 32 numbers of two bytes.
    unsafe {
        for first in (0..o.rows * WIDE).step_by(ROWS) {
            let tile = o.a.add(first / WIDE * o.a_next);
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            for step in 0..o.steps {
                let a = (*tile.add(step)).0.as_ptr().add(first % WIDE * DEEP);
                let b0 = (*o.b.add(step)).0.as_ptr();
                let b1 = (*o.b.add(o.b_next + step)).0.as_ptr();
                for pair in 0..DEEP / 2 {
                    let at = pair * 2 * WIDE;
                    let b0: __m512bh = transmute(_mm512_loadu_si512(b0.add(at).cast()));
                    let b1: __m512bh = transmute(_mm512_loadu_si512(b1.add(at).cast()));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let a = a.add(row * DEEP + 2 * pair).cast::<i32>().read();
                        let a: __m512bh = transmute(_mm512_set1_epi32(a));
                        sums[0] = _mm512_dpbf16_ps(sums[0], a, b0);
                        sums[1] = _mm512_dpbf16_ps(sums[1], a, b1);
                    }
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (half, sum) in sums.into_iter().enumerate() {
                    let out = c.add((first + row) * stride + half * WIDE);
                    let sum = match add {
                        true => _mm512_add_ps(_mm512_loadu_ps(out), sum),
                        false => sum,
                    };
                    _mm512_storeu_ps(out, sum);
                }
            }
        }
    }
}
