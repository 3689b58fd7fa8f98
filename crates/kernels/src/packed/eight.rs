//! Products with weights that are held in 8 bits.
//!
//! A weight is s·q, q a whole number from −127 to 127 and s = max|w| / 127 over a block of a row's numbers;
//! what it is multiplied with is held in 16 bits, x = t·(256 h + l), so that a product's sums are whole
//! numbers,
//!
//! ```text
//! x·w = s t (256 Σ h q + Σ l q),
//! ```
//!
//! the same on every processor. What is lost is the rounding of the weights: the other factor has an
//! error below max|x| / 65,000. Decoding reads one byte a weight instead of two.
//!
//! Both operands lie in tiles of 1 KiB, 64 steps of the inner dimension deep and 16 rows or columns
//! wide: left row by row, once for h and once for l; right 16 groups of four inner steps, each 16
//! columns of four numbers. That is the layout of AMX's `tdpbssd` and of AVX-512's `vpdpbusd`.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::{Operands, Target, WIDE, written};
use crate::math::vectorised;
use crate::matmul::{Matrix, Threads};
use crate::processor::{Level, processor};
use crate::team::for_each_chunk;

/// Steps of the inner dimension in a tile.
const DEEP: usize = 64;

/// Most tiles of the inner dimension that share scales. Their sums stay far inside 32 bits.
const BLOCK: usize = 12;

/// Most of what a weight can be, and of what it is multiplied with: 127 · 256 + 127.
const MOST: [f32; 2] = [127.0, 32639.0];

/// 1,024 numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct EightBits([i8; WIDE * DEEP]);

/// An operand.
#[derive(Clone, Debug)]
pub(super) struct Eight {
    /// [blocks of 16, 2 on the left and 1 on the right, steps].
    tiles: Vec<EightBits>,
    /// [blocks of 16, blocks of the inner dimension, 16].
    scales: Vec<f32>,
    steps: usize,
}

/// The inner dimension's tiles that share scales: parts of about the same size.
pub(crate) fn blocks(steps: usize) -> impl Iterator<Item = Range<usize>> {
    let count = steps.div_ceil(BLOCK);
    (0..count).map(move |block| block * steps / count..(block + 1) * steps / count)
}

/// Tiles of an inner dimension.
pub(crate) fn steps(inner: usize) -> usize {
    inner.div_ceil(DEEP)
}

/// Numbers of the inner dimension in so many tiles.
pub(crate) fn numbers(steps: usize) -> usize {
    steps * DEEP
}

/// Memory of left operands that are used up.
#[derive(Debug, Default)]
pub(super) struct Spare {
    tiles: Vec<EightBits>,
    scales: Vec<f32>,
}

const ZEROS: EightBits = EightBits([0; WIDE * DEEP]);

impl Eight {
    /// `matrix` is [rows, inner].
    pub(super) fn left(
        matrix: Matrix<'_>,
        blocks: usize,
        threads: Threads,
        spare: &mut Spare,
    ) -> Self {
        let steps = steps(matrix.columns);
        let scales = std::mem::take(&mut spare.scales);
        let scales = all_scales(scales, matrix, blocks, MOST[1], threads);
        let mut tiles = std::mem::take(&mut spare.tiles);
        tiles.clear();
        tiles.resize(blocks * 2 * steps, ZEROS);
        let each = scales.len() / blocks.max(1);
        in_parts(&mut tiles, 2 * steps, threads, |block, tiles| {
            left_block(matrix, block * WIDE, &scales[block * each..][..each], tiles);
        });
        Self {
            tiles,
            scales,
            steps,
        }
    }

    /// `matrix` is [columns, inner].
    pub(super) fn right(matrix: Matrix<'_>, blocks: usize, threads: Threads) -> Self {
        let steps = steps(matrix.columns);
        let scales = all_scales(Vec::new(), matrix, blocks, MOST[0], threads);
        let each = scales.len() / blocks.max(1);
        let tiles = written(Vec::new(), blocks, steps, threads, |block, tiles| {
            right_block(matrix, block * WIDE, &scales[block * each..][..each], tiles);
        });
        Self {
            tiles,
            scales,
            steps,
        }
    }

    /// Its memory becomes spare.
    pub(super) fn give_back(self, spare: &mut Spare) {
        spare.tiles = self.tiles;
        spare.scales = self.scales;
    }

    /// Scales of a block of 16 and a block of the inner dimension.
    fn scales(&self, outer: usize, inner: usize) -> &[f32] {
        let inners = self.steps.div_ceil(BLOCK);
        &self.scales[(outer * inners + inner) * WIDE..][..WIDE]
    }
}

/// 64 numbers of a row from `start` on; zeros beyond its end.
fn part(matrix: &Matrix<'_>, row: usize, start: usize) -> [f32; DEEP] {
    let count = (matrix.columns - start).min(DEEP);
    let at = row * matrix.row_stride + start * matrix.column_stride;
    let mut part = [0.0; DEEP];
    if matrix.column_stride == 1 {
        let numbers = &matrix.data[at..at + count];
        match numbers.first_chunk() {
            Some(whole) => part = *whole,
            None => part[..count].copy_from_slice(numbers),
        }
        return part;
    }
    let numbers = matrix.data[at..].iter().step_by(matrix.column_stride);
    for (to, &from) in part[..count].iter_mut().zip(numbers) {
        *to = from;
    }
    part
}

/// Calls `work(part, numbers)` for parts of `each` numbers, if that is any.
fn in_parts<T: Send>(
    data: &mut [T],
    each: usize,
    threads: Threads,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    match threads {
        _ if each == 0 => {}
        Threads::All => for_each_chunk(data, each, work),
        Threads::One => {
            let parts = data.chunks_mut(each).enumerate();
            parts.for_each(|(part, data)| work(part, data));
        }
    }
}

/// Scales of all blocks, [blocks of 16, blocks of the inner dimension, 16], in the memory of `space`.
fn all_scales(
    mut space: Vec<f32>,
    matrix: Matrix<'_>,
    blocks: usize,
    most: f32,
    threads: Threads,
) -> Vec<f32> {
    let steps = steps(matrix.columns);
    let each = steps.div_ceil(BLOCK) * WIDE;
    space.clear();
    space.resize(blocks * each, 0.0);
    in_parts(&mut space, each, threads, |block, out| {
        scales(matrix, block * WIDE, steps, most, out);
    });
    space
}

/// Writes [blocks of the inner dimension, 16]. A block with a number that is not finite has a scale
/// that is not either, so that the product shows it.
fn scales(matrix: Matrix<'_>, first: usize, steps: usize, most: f32, out: &mut [f32]) {
    for (block, out) in blocks(steps).zip(out.chunks_exact_mut(WIDE)) {
        for (row, scale) in (first..).zip(out) {
            let mut largest = [0.0_f32; 16];
            // NaN is lost in a maximum, not in a sum.
            let mut sums = [0.0_f32; 16];
            if row < matrix.rows {
                for step in block.clone() {
                    let numbers = part(&matrix, row, step * DEEP);
                    vectorised(
                        #[inline(always)]
                        || {
                            for numbers in numbers.chunks_exact(16) {
                                for i in 0..16 {
                                    largest[i] = largest[i].max(numbers[i].abs());
                                    sums[i] += 0.0 * numbers[i];
                                }
                            }
                        },
                    );
                }
            }
            let largest = largest.iter().fold(0.0_f32, |most, &x| most.max(x));
            *scale = largest / most + sums.iter().sum::<f32>();
        }
    }
}

/// Calls `write(row, step, numbers over their scale, rounded)` for 16 rows from `first` on.
fn each_part(
    matrix: Matrix<'_>,
    first: usize,
    scales: &[f32],
    mut write: impl FnMut(usize, usize, &[i32; DEEP]),
) {
    let steps = steps(matrix.columns);
    for (block, scales) in blocks(steps).zip(scales.chunks_exact(WIDE)) {
        for (row, &scale) in scales.iter().enumerate() {
            if first + row >= matrix.rows {
                break;
            }
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            for step in block.clone() {
                let numbers = part(&matrix, first + row, step * DEEP);
                let mut whole = [0; DEEP];
                vectorised(
                    #[inline(always)]
                    || {
                        for (whole, &x) in whole.iter_mut().zip(&numbers) {
                            *whole = nearest(x * inverse);
                        }
                    },
                );
                write(row, step, &whole);
            }
        }
    }
}

/// The nearest whole number, of a number below 2²² in size: the sum has no digits below one.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    const DIGITS: f32 = (3 << 22) as f32;
    (x + DIGITS).to_bits() as i32 - DIGITS.to_bits() as i32
}

/// All tiles of a block as zeros, to be written.
fn zeroed(tiles: &mut [MaybeUninit<EightBits>]) -> Vec<&mut EightBits> {
    tiles.iter_mut().map(|tile| tile.write(ZEROS)).collect()
}

/// `tiles` are zeros.
fn left_block(matrix: Matrix<'_>, first: usize, scales: &[f32], tiles: &mut [EightBits]) {
    let steps = tiles.len() / 2;
    each_part(matrix, first, scales, |row, step, whole| {
        let at = row * DEEP..(row + 1) * DEEP;
        let (upper, lower) = tiles.split_at_mut(steps);
        let (high, low) = (&mut upper[step].0[at.clone()], &mut lower[step].0[at]);
        vectorised(
            #[inline(always)]
            || {
                for ((high, low), &x) in high.iter_mut().zip(low).zip(whole) {
                    // The lower byte, and what makes it from −128 to 127.
                    *low = x as i8;
                    *high = ((x + 128) >> 8) as i8;
                }
            },
        );
    });
}

fn right_block(
    matrix: Matrix<'_>,
    first: usize,
    scales: &[f32],
    tiles: &mut [MaybeUninit<EightBits>],
) {
    let mut tiles = zeroed(tiles);
    each_part(matrix, first, scales, |row, step, whole| {
        for (group, four) in whole.chunks_exact(4).enumerate() {
            let at = group * DEEP + 4 * row;
            for (to, &from) in tiles[step].0[at..at + 4].iter_mut().zip(four) {
                *to = from as i8;
            }
        }
    });
}

/// A micro-kernel: 16 rows of Σ h q over 16 rows of Σ l q, 32 columns each.
type Sums = unsafe fn(Operands<EightBits>, *mut i32);

/// One task: its part of the result, given in pairs of blocks.
pub(super) fn task(
    a: &Eight,
    b: &Eight,
    target: Target,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    let unit = Unit::begin(rows.len() == 1);
    let mut sums = Both([0; 32 * 32]);
    let row_blocks = 2 * rows.start..(2 * rows.end).min(target.rows.div_ceil(WIDE));
    for column in columns {
        for (index, inner) in blocks(a.steps).enumerate() {
            for row in row_blocks.clone() {
                let operands = Operands {
                    a: &raw const a.tiles[2 * row * a.steps + inner.start],
                    a_next: a.steps,
                    b: &raw const b.tiles[2 * column * b.steps + inner.start],
                    b_next: b.steps,
                    steps: inner.len(),
                    rows: 2,
                };
                // SAFETY: h and l of this block are inside `a`, as are both blocks of columns, whose
                // number is even, inside `b`.
                #[allow(unsafe_code)]
                unsafe {
                    (unit.sums)(operands, sums.0.as_mut_ptr());
                }
                let scales = [
                    a.scales(row, index),
                    b.scales(2 * column, index),
                    b.scales(2 * column + 1, index),
                ];
                let add = target.add || index > 0;
                put(&sums, scales, target, WIDE * row, 2 * WIDE * column, add);
            }
        }
    }
}

/// [32, 32].
#[repr(C, align(64))]
struct Both([i32; 32 * 32]);

/// Puts what the sums amount to into the target, from (`row`, `column`) on.
fn put(sums: &Both, scales: [&[f32]; 3], target: Target, row: usize, column: usize, add: bool) {
    let part = Part {
        // Inside the target, like all that is written.
        out: target.data.wrapping_add(row * target.stride + column),
        stride: target.stride,
        rows: WIDE.min(target.rows - row),
        columns: (2 * WIDE).min(target.columns - column),
        add,
    };
    // SAFETY: the part is inside the target; no other task writes it.
    #[allow(unsafe_code)]
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if processor().level >= Level::Avx512 {
            return avx512::put(sums, scales, part);
        }
        put_anywhere(sums, scales, part);
    }
}

/// Where the result of one micro-kernel goes.
#[derive(Clone, Copy)]
struct Part {
    out: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    add: bool,
}

/// For any processor.
///
/// # Safety
/// The part must be inside the result, and nobody else may use it.
#[allow(unsafe_code)]
unsafe fn put_anywhere(sums: &Both, [of_rows, left, right]: [&[f32]; 3], part: Part) {
    let (high, low) = sums.0.split_at(WIDE * 2 * WIDE);
    let sums = high.chunks_exact(2 * WIDE).zip(low.chunks_exact(2 * WIDE));
    for (i, (high, low)) in sums.take(part.rows).enumerate() {
        // SAFETY: the caller's.
        let out =
            unsafe { std::slice::from_raw_parts_mut(part.out.add(i * part.stride), part.columns) };
        let scales = left.iter().chain(right);
        let sums = high.iter().zip(low).zip(scales);
        for (out, ((&high, &low), scale)) in out.iter_mut().zip(sums) {
            let sum = (high as f32).mul_add(256.0, low as f32);
            let product = sum * (of_rows[i] * scale);
            *out = if part.add { *out + product } else { product };
        }
    }
}

/// The fastest micro-kernel of this processor, and the state that it needs while it is used.
struct Unit {
    sums: Sums,
    #[cfg(target_arch = "x86_64")]
    _tiles: Option<super::amx::Configured>,
}

impl Unit {
    /// `once`: every right tile is used once or twice.
    #[cfg(target_arch = "x86_64")]
    fn begin(once: bool) -> Self {
        match processor().level {
            Level::Amx => Self {
                sums: match once {
                    true => super::amx::eight_streamed,
                    false => super::amx::eight,
                },
                _tiles: Some(super::amx::Configured::begin()),
            },
            _ if processor().dot_int8 => Self {
                sums: avx512::sums,
                _tiles: None,
            },
            _ => Self { sums, _tiles: None },
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn begin(_once: bool) -> Self {
        Self { sums }
    }
}

/// What multiplies numbers of 8 bits here, in words.
pub(crate) fn unit() -> &'static str {
    match processor().level {
        Level::Amx => "AMX, numbers of 8 bits",
        _ if processor().dot_int8 => "AVX-512 VNNI",
        _ => "whole numbers, widened",
    }
}

/// For any processor.
///
/// # Safety
/// Both operands have `steps` tiles in two rows; there is room for 32 × 32 sums.
#[allow(unsafe_code)]
unsafe fn sums(o: Operands<EightBits>, out: *mut i32) {
    // SAFETY: the caller's.
    let (a, b, out) = unsafe {
        let tiles =
            |first, next| [0, next].map(|at| std::slice::from_raw_parts(first, at + o.steps));
        let out = std::slice::from_raw_parts_mut(out, 32 * 32);
        (tiles(o.a, o.a_next), tiles(o.b, o.b_next), out)
    };
    let halves = [(0, a[0]), (1, &a[1][o.a_next..])];
    for ((part, a), (half, b)) in halves
        .into_iter()
        .flat_map(|a| [(a, (0, b[0])), (a, (1, &b[1][o.b_next..]))])
    {
        vectorised(
            #[inline(always)]
            || {
                for row in 0..WIDE {
                    let mut sums = [0_i32; WIDE];
                    for (a, b) in a.iter().zip(b) {
                        let a = a.0[row * DEEP..(row + 1) * DEEP].chunks_exact(4);
                        for (a, b) in a.zip(b.0.chunks_exact(4 * WIDE)) {
                            for (column, sum) in sums.iter_mut().enumerate() {
                                for i in 0..4 {
                                    *sum += i32::from(a[i]) * i32::from(b[4 * column + i]);
                                }
                            }
                        }
                    }
                    let at = (part * WIDE + row) * 2 * WIDE + half * WIDE;
                    out[at..at + WIDE].copy_from_slice(&sums);
                }
            },
        );
    }
}

/// With AVX-512 VNNI, which multiplies unsigned with signed numbers: left numbers are moved up by 128,
/// and 128 Σ q is taken off again.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Both, DEEP, EightBits, Operands, Part, WIDE};

    /// # Safety
    /// As [`super::put_anywhere`]; the processor has AVX-512.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) unsafe fn put(sums: &Both, [of_rows, left, right]: [&[f32]; 3], part: Part) {
        let step = _mm512_set1_ps(256.0);
        for half in 0..2 {
            let count = part.columns.saturating_sub(half * WIDE).min(WIDE);
            let mask = ((1_u32 << count) - 1) as __mmask16;
            // SAFETY: 16 scales, 32 × 32 sums; what the mask leaves out of the part is not touched.
            unsafe {
                let scales = _mm512_loadu_ps([left, right][half][..WIDE].as_ptr());
                for (i, &of_row) in of_rows[..part.rows].iter().enumerate() {
                    let from = |row: usize| {
                        let sums = sums.0.as_ptr().add(row * 2 * WIDE + half * WIDE);
                        _mm512_cvtepi32_ps(_mm512_loadu_si512(sums.cast()))
                    };
                    let sum = _mm512_fmadd_ps(from(i), step, from(WIDE + i));
                    let scale = _mm512_mul_ps(_mm512_set1_ps(of_row), scales);
                    let mut product = _mm512_mul_ps(sum, scale);
                    let out = part.out.add(i * part.stride).wrapping_add(half * WIDE);
                    if part.add {
                        product = _mm512_add_ps(product, _mm512_maskz_loadu_ps(mask, out));
                    }
                    _mm512_mask_storeu_ps(out, mask, product);
                }
            }
        }
    }

    /// Rows whose sums are in registers together, for both blocks of columns.
    const ROWS: usize = 8;

    /// # Safety
    /// As [`super::sums`]; the processor has AVX-512 VNNI.
    pub(super) unsafe fn sums(o: Operands<EightBits>, out: *mut i32) {
        // SAFETY: the caller's.
        unsafe { with_instructions(o, out) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn with_instructions(o: Operands<EightBits>, out: *mut i32) {
        let up = _mm512_set1_epi8(-128);
        for rows in 0..2 * WIDE / ROWS {
            let (part, first) = (rows * ROWS / WIDE, rows * ROWS % WIDE);
            let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
            let mut of_columns = [_mm512_setzero_si512(); 2];
            for step in 0..o.steps {
                // SAFETY: the caller's.
                unsafe {
                    let a = o.a.add(part * o.a_next + step).cast::<i8>();
                    let b = [0, 1].map(|half| o.b.add(half * o.b_next + step).cast::<i8>());
                    for group in 0..DEEP / 4 {
                        let b = b.map(|b| _mm512_load_si512(b.add(group * 4 * WIDE).cast()));
                        for half in 0..2 {
                            of_columns[half] = _mm512_dpbusd_epi32(of_columns[half], up, b[half]);
                        }
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let four = a.add((first + row) * DEEP + 4 * group).cast::<i32>();
                            let four = _mm512_set1_epi32(four.read_unaligned());
                            // Adds 128 to each byte: its highest bit the other way round.
                            let four = _mm512_xor_si512(four, up);
                            for half in 0..2 {
                                sums[half] = _mm512_dpbusd_epi32(sums[half], four, b[half]);
                            }
                        }
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for half in 0..2 {
                    let sum = _mm512_sub_epi32(sums[half], of_columns[half]);
                    let at = (part * WIDE + first + row) * 2 * WIDE + half * WIDE;
                    // SAFETY: there is room for 32 × 32 sums.
                    unsafe { _mm512_storeu_si512(out.add(at).cast(), sum) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    /// What packed numbers stand for, [outer, inner].
    fn values(packed: &Eight, left: bool, outer: usize, inner: usize) -> Vec<f64> {
        let parts = 1 + usize::from(left);
        let mut values = Vec::new();
        for (i, j) in (0..outer).flat_map(|i| (0..inner).map(move |j| (i, j))) {
            let (step, within) = (j / DEEP, j % DEEP);
            let tile =
                |part: usize| &packed.tiles[(i / WIDE * parts + part) * packed.steps + step].0;
            let block = blocks(packed.steps)
                .position(|b| b.contains(&step))
                .unwrap();
            let scale = f64::from(packed.scales(i / WIDE, block)[i % WIDE]);
            let number = match left {
                true => {
                    let at = i % WIDE * DEEP + within;
                    256.0 * f64::from(tile(0)[at]) + f64::from(tile(1)[at])
                }
                false => f64::from(tile(0)[within / 4 * DEEP + 4 * (i % WIDE) + within % 4]),
            };
            values.push(scale * number);
        }
        values
    }

    /// Within half a step of the largest number of the block, on either side and from either orientation.
    #[test]
    fn numbers_come_back_within_half_a_step() {
        let (outer, inner) = (21, 1000);
        let (mut numbers, _) = random([outer, inner], 11);
        numbers[3 * inner..4 * inner].fill(0.0);
        let flipped: Vec<f32> = (0..outer * inner)
            .map(|i| numbers[i % outer * inner + i / outer])
            .collect();
        let matrices = [
            Matrix::new(&numbers, outer, inner, inner),
            Matrix::new(&flipped, inner, outer, outer).transposed(),
        ];
        for (matrix, left) in matrices.into_iter().flat_map(|m| [(m, false), (m, true)]) {
            let packed = match left {
                true => Eight::left(matrix, 2, Threads::One, &mut Spare::default()),
                false => Eight::right(matrix, 2, Threads::One),
            };
            let got = values(&packed, left, outer, inner);
            let most = f64::from(MOST[usize::from(left)]);
            for (i, (got, &want)) in got.iter().zip(&numbers).enumerate() {
                let row = &numbers[i / inner * inner..][..inner];
                let largest = row.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                // Half a step, and what scaling in f32 adds.
                let bound = 0.51 * f64::from(largest) / most;
                assert!((got - f64::from(want)).abs() <= bound, "{got} {want}");
            }
        }
    }

    /// Every processor's kernel gives the same whole numbers.
    #[test]
    fn micro_kernels_agree_exactly() {
        let (k, steps) = (192, 3);
        let (x, w) = (random([16, k], 3).0, random([32, k], 4).0);
        let a = Eight::left(
            Matrix::new(&x, 16, k, k),
            1,
            Threads::One,
            &mut Spare::default(),
        );
        let b = Eight::right(Matrix::new(&w, 32, k, k), 2, Threads::One);
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut kernels: Vec<(&str, Sums)> = vec![("portable", sums)];
        #[cfg(target_arch = "x86_64")]
        let _tiles = (processor().level == Level::Amx).then(super::super::amx::Configured::begin);
        #[cfg(target_arch = "x86_64")]
        {
            if processor().dot_int8 {
                kernels.push(("avx512", avx512::sums));
            }
            if processor().level == Level::Amx {
                kernels.push(("amx", super::super::amx::eight));
            }
        }
        let operands = Operands {
            a: &raw const a.tiles[0],
            a_next: steps,
            b: &raw const b.tiles[0],
            b_next: steps,
            steps,
            rows: 2,
        };
        let mut want = Both([7; 32 * 32]);
        for (index, (name, kernel)) in kernels.into_iter().enumerate() {
            let mut got = Both([9; 32 * 32]);
            // SAFETY: three tiles in two rows on either side, and room for all sums.
            #[allow(unsafe_code)]
            unsafe {
                kernel(operands, got.0.as_mut_ptr());
            }
            if index == 0 {
                let dot = |row: usize, column: usize| -> i32 {
                    let number = |j: usize| {
                        let a = i32::from(
                            a.tiles[row / WIDE * steps + j / DEEP].0[row % WIDE * DEEP + j % DEEP],
                        );
                        let at = j % DEEP / 4 * DEEP + 4 * (column % WIDE) + j % 4;
                        let b = b.tiles[column / WIDE * steps + j / DEEP].0[at];
                        a * i32::from(b)
                    };
                    (0..k).map(number).sum()
                };
                for i in 0..32 * 32 {
                    assert_eq!(got.0[i], dot(i / 32, i % 32), "{i}");
                }
                want = got;
            } else {
                assert_eq!(got.0, want.0, "{name}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_shows() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut numbers = [1.0; 70];
            numbers[5] = bad;
            let matrix = Matrix::new(&numbers, 1, 70, 70);
            let mut of = [0.0; WIDE];
            scales(matrix, 0, 2, 127.0, &mut of);
            assert!(!of[0].is_finite());
        }
    }
}
