//! From strided f32 matrices to tiles of bf16.

use std::mem::MaybeUninit;

use pulp::bytemuck;

use super::{DEEP, Tile, WIDE, round};
use crate::math::vectorised;
use crate::matmul::Matrix;
#[cfg(target_arch = "x86_64")]
use crate::processor::processor;

/// Pairs of numbers in a tile's row.
const PAIRS: usize = DEEP / 2;

/// Packs 16 rows of `matrix` [outer, inner], from row `first` on, into `tiles`: for every 32 columns
/// the numbers as sums of `PARTS` tiles. What lies outside the matrix becomes 0. `paired` gives the
/// layout of a right operand. Writes every tile.
pub(super) fn block<const PARTS: usize>(
    matrix: Matrix<'_>,
    first: usize,
    tiles: &mut [MaybeUninit<Tile>],
    paired: bool,
) {
    // The layout that falls out of the source without exchanging rows and columns.
    let by_rows = matrix.column_stride == 1;
    debug_assert!(by_rows || matrix.row_stride == 1);
    let rows = matrix.rows.saturating_sub(first).min(WIDE);
    let stride = matrix.row_stride.max(matrix.column_stride);
    for (step, tiles) in tiles.chunks_exact_mut(PARTS).enumerate() {
        let columns = (matrix.columns - step * DEEP).min(DEEP);
        let start = first * matrix.row_stride + step * DEEP * matrix.column_stride;
        let source = Source {
            data: matrix.data.get(start..).unwrap_or(&[]),
            stride,
            rows,
            columns,
        };
        #[cfg(target_arch = "x86_64")]
        if processor().dot_bf16 {
            // SAFETY: the processor has AVX-512 BF16; `Matrix` keeps all its numbers in its slice.
            #[allow(unsafe_code)]
            unsafe {
                match by_rows {
                    true => avx512::by_row(source, tiles, paired),
                    false => avx512::by_pair(source, tiles, !paired),
                }
            }
            continue;
        }
        vectorised(
            #[inline(always)]
            || {
                let mut written = tiles.iter_mut().map(|t| t.write(Tile([0; WIDE * DEEP])));
                let mut tiles: [&mut Tile; PARTS] =
                    std::array::from_fn(|_| written.next().expect("as many as parts"));
                match by_rows {
                    true => by_row(source, &mut tiles),
                    false => by_pair(source, &mut tiles),
                }
                if by_rows == paired {
                    for tile in tiles {
                        transpose(bytemuck::cast_mut(&mut tile.0));
                    }
                }
            },
        );
    }
}

/// The part of a matrix that a tile holds: `rows` × `columns` numbers, of which the rows, or else
/// the columns, are `stride` apart.
#[derive(Clone, Copy)]
struct Source<'a> {
    data: &'a [f32],
    stride: usize,
    rows: usize,
    columns: usize,
}

/// The next bf16 part of each number; what is left of it stays. The subtraction is exact: the rest
/// has fewer digits than f32.
#[inline(always)]
fn split<const N: usize>(numbers: &mut [f32; N]) -> [u16; N] {
    // Loops, not `map`: that is not inlined, and then not vectorised.
    let mut part = [0; N];
    for i in 0..N {
        part[i] = round(numbers[i]);
        numbers[i] -= f32::from_bits(u32::from(part[i]) << 16);
    }
    part
}

/// The first `count` numbers of a slice, then zeros.
#[inline(always)]
fn take<const N: usize>(source: &[f32], count: usize) -> [f32; N] {
    let mut numbers = [0.0; N];
    match source.first_chunk::<N>() {
        Some(whole) if count == N => numbers = *whole,
        _ => numbers[..count].copy_from_slice(&source[..count]),
    }
    numbers
}

/// Row after row: `data[row · stride + column]`.
#[inline(always)]
fn by_row(source: Source<'_>, tiles: &mut [&mut Tile]) {
    for row in 0..source.rows {
        let mut numbers: [f32; DEEP] = take(&source.data[row * source.stride..], source.columns);
        for tile in tiles.iter_mut() {
            tile.0[row * DEEP..][..DEEP].copy_from_slice(&split(&mut numbers));
        }
    }
}

/// Pairs of columns, each 16 rows of two numbers: `data[column · stride + row]`.
#[inline(always)]
fn by_pair(source: Source<'_>, tiles: &mut [&mut Tile]) {
    let column = |index: usize| -> [f32; WIDE] {
        match index < source.columns && source.rows > 0 {
            true => take(&source.data[index * source.stride..], source.rows),
            false => [0.0; WIDE],
        }
    };
    for pair in 0..PAIRS {
        let (mut even, mut odd) = (column(2 * pair), column(2 * pair + 1));
        for tile in tiles.iter_mut() {
            let (low, high) = (split(&mut even), split(&mut odd));
            for i in 0..WIDE {
                tile.0[2 * (pair * WIDE + i)] = low[i];
                tile.0[2 * (pair * WIDE + i) + 1] = high[i];
            }
        }
    }
}

/// Exchanges rows and columns of 16 × 16 pairs.
#[inline(always)]
fn transpose(tile: &mut [u32; WIDE * PAIRS]) {
    for row in 0..WIDE {
        for column in 0..row {
            tile.swap(row * WIDE + column, column * WIDE + row);
        }
    }
}

/// The same with AVX-512 BF16.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512 {
    use std::arch::x86_64::*;
    use std::mem::{MaybeUninit, transmute};

    use super::{DEEP, PAIRS, Source, Tile, WIDE};

    /// Up to 16 numbers, then zeros.
    ///
    /// # Safety
    /// `data` must hold `count` numbers from `start` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn load(data: &[f32], start: usize, count: usize) -> __m512 {
        let mask = ((1_u32 << count) - 1) as __mmask16;
        // SAFETY: the caller's; what the mask leaves out is not read.
        unsafe { _mm512_maskz_loadu_ps(mask, data.as_ptr().wrapping_add(start)) }
    }

    /// 16 numbers of bf16 in the lower halves of 16 words.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn rounded(x: __m512) -> __m512i {
        // SAFETY: both types are 256 bits.
        let halves: __m256i = unsafe { transmute(_mm512_cvtneps_pbh(x)) };
        _mm512_cvtepu16_epi32(halves)
    }

    /// What rounding left of `x`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn rest(x: __m512, rounded: __m512i) -> __m512 {
        _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(rounded)))
    }

    /// # Safety
    /// The processor has AVX-512 BF16, and the source its numbers.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn by_row(source: Source<'_>, tiles: &mut [MaybeUninit<Tile>], turn: bool) {
        let Source {
            data,
            stride,
            rows,
            columns,
        } = source;
        let widths = [columns.min(16), columns.saturating_sub(16)];
        let mut left = [[_mm512_setzero_ps(); 2]; WIDE];
        for (row, left) in left.iter_mut().enumerate().take(rows) {
            let start = row * stride;
            // SAFETY: the caller's.
            *left = unsafe {
                [
                    load(data, start, widths[0]),
                    load(data, start + 16, widths[1]),
                ]
            };
        }
        for tile in tiles {
            let mut out = [_mm512_setzero_si512(); WIDE];
            for (out, left) in out.iter_mut().zip(&mut left) {
                let (low, high) = (rounded(left[0]), rounded(left[1]));
                // SAFETY: both types are 512 bits.
                *out = unsafe {
                    transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(left[1], left[0]))
                };
                *left = [rest(left[0], low), rest(left[1], high)];
            }
            store(out, tile, turn);
        }
    }

    /// # Safety
    /// As [`by_row`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn by_pair(source: Source<'_>, tiles: &mut [MaybeUninit<Tile>], turn: bool) {
        let Source {
            data,
            stride,
            rows,
            columns,
        } = source;
        let mut left = [[_mm512_setzero_ps(); 2]; PAIRS];
        for column in 0..columns {
            // SAFETY: the caller's.
            left[column / 2][column % 2] = unsafe { load(data, column * stride, rows) };
        }
        for tile in tiles {
            let mut out = [_mm512_setzero_si512(); WIDE];
            for (out, left) in out.iter_mut().zip(&mut left) {
                let (low, high) = (rounded(left[0]), rounded(left[1]));
                *out = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
                *left = [rest(left[0], low), rest(left[1], high)];
            }
            store(out, tile, turn);
        }
    }

    /// Writes 16 rows of pairs, rows and columns exchanged if `turn`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn store(mut rows: [__m512i; WIDE], tile: &mut MaybeUninit<Tile>, turn: bool) {
        if turn {
            rows = transpose(rows);
        }
        let out = tile.as_mut_ptr().cast::<u16>();
        for (i, row) in rows.into_iter().enumerate() {
            // SAFETY: a tile is 16 rows of 64 bytes.
            unsafe { _mm512_storeu_si512(out.add(i * DEEP).cast(), row) };
        }
    }

    /// Four rounds of exchanges between registers: of single pairs, of two, of four and of eight.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn transpose(mut rows: [__m512i; WIDE]) -> [__m512i; WIDE] {
        let mut next = rows;
        for i in 0..8 {
            next[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            next[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        for i in 0..4 {
            let (a, b) = (4 * i, 4 * i + 2);
            rows[4 * i] = _mm512_unpacklo_epi64(next[a], next[b]);
            rows[4 * i + 1] = _mm512_unpackhi_epi64(next[a], next[b]);
            rows[4 * i + 2] = _mm512_unpacklo_epi64(next[a + 1], next[b + 1]);
            rows[4 * i + 3] = _mm512_unpackhi_epi64(next[a + 1], next[b + 1]);
        }
        // rows[4g + j] holds column 4q + j of source rows 4g … 4g + 3 in its quarter q.
        for j in 0..4 {
            let low = _mm512_shuffle_i32x4::<0x44>(rows[j], rows[4 + j]);
            let high = _mm512_shuffle_i32x4::<0xee>(rows[j], rows[4 + j]);
            let low2 = _mm512_shuffle_i32x4::<0x44>(rows[8 + j], rows[12 + j]);
            let high2 = _mm512_shuffle_i32x4::<0xee>(rows[8 + j], rows[12 + j]);
            next[j] = _mm512_shuffle_i32x4::<0x88>(low, low2);
            next[4 + j] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
            next[8 + j] = _mm512_shuffle_i32x4::<0x88>(high, high2);
            next[12 + j] = _mm512_shuffle_i32x4::<0xdd>(high, high2);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every layout of a matrix with ragged edges, number by number; the sum of the parts is the
    /// number, or what it rounds to.
    #[test]
    fn every_number_has_its_place() {
        let (rows, columns) = (21, 43);
        let number = |row: usize, column: usize| (row * 64 + column) as f32 * 1.001 + 0.37;
        let by_row: Vec<f32> = (0..rows * columns)
            .map(|i| number(i / columns, i % columns))
            .collect();
        let by_column: Vec<f32> = (0..rows * columns)
            .map(|i| number(i % rows, i / rows))
            .collect();
        let matrices = [
            Matrix::new(&by_row, rows, columns, columns),
            Matrix::new(&by_column, columns, rows, rows).transposed(),
        ];
        for (matrix, paired) in matrices.into_iter().flat_map(|m| [(m, false), (m, true)]) {
            for parts in [1, 3] {
                let mut tiles = vec![MaybeUninit::new(Tile([9; WIDE * DEEP])); 2 * parts];
                for first in [0, 16, 32] {
                    match parts {
                        1 => block::<1>(matrix, first, &mut tiles, paired),
                        _ => block::<3>(matrix, first, &mut tiles, paired),
                    }
                    for (row, column) in (0..16).flat_map(|r| (0..64).map(move |c| (r, c))) {
                        let at = match paired {
                            false => row * DEEP + column % DEEP,
                            true => column % DEEP / 2 * 2 * WIDE + 2 * row + column % 2,
                        };
                        let part = |part: usize| {
                            // SAFETY: every tile was initialised above.
                            #[allow(unsafe_code)]
                            let tile = unsafe { tiles[column / DEEP * parts + part].assume_init() };
                            f32::from_bits(u32::from(tile.0[at]) << 16)
                        };
                        let got: f32 = (0..parts).map(part).sum();
                        let inside = first + row < rows && column < columns;
                        let want = if inside {
                            number(first + row, column)
                        } else {
                            0.0
                        };
                        let rounded = f32::from_bits(u32::from(round(want)) << 16);
                        assert_eq!(got, if parts == 1 { rounded } else { want });
                    }
                }
            }
        }
    }
}
