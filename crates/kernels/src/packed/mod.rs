//! Matrix products on tiles of bf16 numbers, with sums in f32.
//!
//! Both operands are packed into tiles of 1 KiB, 32 steps of the inner dimension deep and 16 rows
//! (or columns) wide, in the layout of AMX's tile registers. Every instruction set works on these
//! tiles, so a weight is packed once and read by all: AMX where there is (`amx.rs`), AVX-512 BF16
//! (`avx512.rs`), else products of the widened numbers in f32 (`widened.rs`). A product of two bf16
//! numbers is exact in f32, so the three differ only in how they round sums.
//!
//! With AMX, f32 products are made of bf16 ones, too (Henry, Tang & Heinecke 2019,
//! "Leveraging the bfloat16 Artificial Intelligence Datatype for Higher-Precision Computations"):
//! x = x₁ + x₂ + x₃, three bf16 numbers of 8 bits each, hold the 24 bits of an f32 number, and
//! x·y = x₁y₁ + x₁y₂ + x₂y₁ + x₁y₃ + x₂y₂ + x₃y₁ up to terms of 2⁻²⁵ x·y, less than f32 rounds. Six
//! tile products take less time than one f32 product by the other instructions.
//!
//! The inner dimension is summed in blocks of fixed size: a result does not depend on the number
//! of threads, nor on how many other rows are computed with it.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod eight;
mod pack;
mod widened;

use std::mem::MaybeUninit;
use std::ops::Range;

use eight::Eight;

use crate::matmul::{Into, Matrix, Threads};
use crate::processor::{Level, processor};
use crate::team::{for_each, for_each_chunk};

/// Rows of a left tile, and columns of a right tile.
const WIDE: usize = 16;

/// Steps of the inner dimension in a tile.
const DEEP: usize = 32;

/// Most tiles of the inner dimension that are multiplied before the next part of the result is
/// begun: two rows of left and two of right tiles (48 KiB) then fit the first-level cache.
const INNER_BLOCK: usize = 12;

/// Most pairs of tile rows a task works on: what it reads again for every column stays in the
/// second-level cache.
const TASK_ROWS: usize = 8;

/// 16 × 32 numbers of bf16. Left: row by row. Right: 16 pairs of inner steps, each 16 columns of
/// two numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [u16; WIDE * DEEP]);

/// How exactly numbers are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exactness {
    /// Rounded to bf16.
    Rounded,
    /// As the sum of three bf16 numbers: all of f32. Only for AMX.
    Whole,
    /// Weights in 8 bits, see `eight.rs`.
    Eight,
}

impl Exactness {
    /// Tiles that hold 16 × 32 numbers.
    fn parts(self) -> usize {
        match self {
            Self::Rounded => 1,
            Self::Whole => 3,
            Self::Eight => unreachable!("packed by `eight.rs`"),
        }
    }
}

/// A packed operand.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    tiles: Tiles,
    exactness: Exactness,
    /// Rows of a left operand, columns of a right one.
    outer: usize,
    /// The inner dimension.
    inner: usize,
    /// Blocks of 16 rows or columns: even, except for one block alone on the left.
    blocks: usize,
    /// Tiles of the inner dimension.
    steps: usize,
}

/// The numbers of a packed operand.
#[derive(Clone, Debug)]
enum Tiles {
    /// `[blocks, steps, parts]`.
    Bf16(Vec<Tile>),
    /// Of [`Exactness::Eight`].
    Eight(Eight),
}

/// Memory of left operands that are used up, for the next ones.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    tiles: Vec<Tile>,
    eight: eight::Spare,
}

impl Packed {
    /// The left operand of a product: `matrix` is [rows, inner].
    pub(crate) fn left(matrix: Matrix<'_>, exactness: Exactness, threads: Threads) -> Self {
        Self::left_in(matrix, exactness, threads, &mut Spare::default())
    }

    /// As [`Packed::left`], in spare memory.
    pub(crate) fn left_in(
        matrix: Matrix<'_>,
        exactness: Exactness,
        threads: Threads,
        spare: &mut Spare,
    ) -> Self {
        let blocks = matrix.rows.div_ceil(WIDE);
        let blocks = if blocks > 1 {
            blocks.next_multiple_of(2)
        } else {
            blocks
        };
        Self::pack(matrix, blocks, exactness, threads, false, spare)
    }

    /// Its memory becomes spare.
    pub(crate) fn give_back(self, spare: &mut Spare) {
        match self.tiles {
            Tiles::Bf16(tiles) => spare.tiles = tiles,
            Tiles::Eight(eight) => eight.give_back(&mut spare.eight),
        }
    }

    /// The right operand of a product: `matrix` is [inner, columns].
    pub(crate) fn right(matrix: Matrix<'_>, exactness: Exactness, threads: Threads) -> Self {
        let blocks = matrix.columns.div_ceil(WIDE).next_multiple_of(2);
        let spare = &mut Spare::default();
        Self::pack(matrix.transposed(), blocks, exactness, threads, true, spare)
    }

    /// How exactly its numbers are held.
    pub(crate) fn exactness(&self) -> Exactness {
        self.exactness
    }

    /// `matrix` is [outer, inner] for either side.
    fn pack(
        matrix: Matrix<'_>,
        blocks: usize,
        exactness: Exactness,
        threads: Threads,
        paired: bool,
        spare: &mut Spare,
    ) -> Self {
        let steps = match exactness {
            Exactness::Eight => eight::steps(matrix.columns),
            _ => matrix.columns.div_ceil(DEEP),
        };
        let first = |block: usize| block * WIDE;
        let bf16 = std::mem::take(&mut spare.tiles);
        let tiles = match exactness {
            Exactness::Rounded => {
                Tiles::Bf16(written(bf16, blocks, steps, threads, |block, tiles| {
                    pack::block::<1>(matrix, first(block), tiles, paired);
                }))
            }
            Exactness::Whole => {
                Tiles::Bf16(written(bf16, blocks, 3 * steps, threads, |block, tiles| {
                    pack::block::<3>(matrix, first(block), tiles, paired);
                }))
            }
            Exactness::Eight if paired => Tiles::Eight(Eight::right(matrix, blocks, threads)),
            Exactness::Eight => {
                Tiles::Eight(Eight::left(matrix, blocks, threads, &mut spare.eight))
            }
        };
        Self {
            tiles,
            exactness,
            outer: matrix.rows,
            inner: matrix.columns,
            blocks,
            steps,
        }
    }
}

/// `blocks` times `each` tiles, of which `write` writes every one, block by block; in the memory of
/// `tiles`, whatever was in it.
fn written<T: Send>(
    mut tiles: Vec<T>,
    blocks: usize,
    each: usize,
    threads: Threads,
    write: impl Fn(usize, &mut [MaybeUninit<T>]) + Sync,
) -> Vec<T> {
    let count = blocks * each;
    tiles.clear();
    tiles.reserve_exact(count);
    let unwritten = &mut tiles.spare_capacity_mut()[..count];
    if each > 0 {
        match threads {
            Threads::All => for_each_chunk(unwritten, each, write),
            Threads::One => {
                let parts = unwritten.chunks_mut(each).enumerate();
                parts.for_each(|(block, tiles)| write(block, tiles));
            }
        }
    }
    // SAFETY: `write` has written every tile.
    #[allow(unsafe_code)]
    unsafe {
        tiles.set_len(count);
    }
    tiles
}

/// A micro-kernel: adds to 32 × 32 numbers (16 × 32 where `rows` is 1) the products of `steps`
/// tiles. `a` and `b` point to the first tile of the upper and the left block; the second block of
/// each begins `a_next` and `b_next` tiles later. `c` is row-major, rows `stride` apart; it is
/// overwritten unless `add`.
type Block = unsafe fn(Operands, *mut f32, usize, bool);

/// The tiles of one micro-kernel's work.
#[derive(Clone, Copy)]
struct Operands<T = Tile> {
    a: *const T,
    a_next: usize,
    b: *const T,
    b_next: usize,
    steps: usize,
    /// Blocks of rows: 1 or 2.
    rows: usize,
}

/// The result of a product, which tasks write in parts that do not overlap.
#[derive(Clone, Copy)]
struct Target {
    data: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    add: bool,
}

// SAFETY: tasks write disjoint parts, see `product`.
#[allow(unsafe_code)]
unsafe impl Send for Target {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl Sync for Target {}

/// `a` · `b`, with the first `columns` columns of `b`: [rows, `columns`].
///
/// # Panics
/// If the dimensions do not fit.
pub(crate) fn multiplied(a: &Packed, b: &Packed, columns: usize) -> Vec<f32> {
    let count = a.outer * columns;
    if a.inner == 0 {
        return vec![0.0; count];
    }
    let mut out: Vec<f32> = Vec::with_capacity(count);
    let target = Target {
        data: out.as_mut_ptr(),
        stride: columns,
        rows: a.outer,
        columns,
        add: false,
    };
    fill(a, b, target, Threads::All);
    // SAFETY: `fill` has written every number.
    #[allow(unsafe_code)]
    unsafe {
        out.set_len(count);
    }
    out
}

/// `out` [rows, `columns`] = `a` · `b`, or `out` += `a` · `b`, with the first `columns` columns of
/// `b`; rows of `out` are `stride` apart.
///
/// # Panics
/// If the dimensions do not fit.
pub(crate) fn product(
    a: &Packed,
    b: &Packed,
    columns: usize,
    out: &mut [f32],
    stride: usize,
    into: Into,
    threads: Threads,
) {
    let rows = a.outer;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(stride >= columns && out.len() >= (rows - 1) * stride + columns);
    if a.inner == 0 {
        if into == Into::Replace {
            out.chunks_mut(stride)
                .for_each(|row| row[..columns].fill(0.0));
        }
        return;
    }
    let target = Target {
        data: out.as_mut_ptr(),
        stride,
        rows,
        columns,
        add: into == Into::Add,
    };
    fill(a, b, target, threads);
}

/// Writes the whole target; the inner dimension is not 0.
fn fill(a: &Packed, b: &Packed, target: Target, threads: Threads) {
    assert_eq!(a.inner, b.inner, "inner dimensions differ");
    assert_eq!(a.exactness, b.exactness, "operands are packed differently");
    assert!(
        target.columns <= b.outer,
        "more columns than the operand has"
    );
    let columns = target.columns;
    if target.rows == 0 || columns == 0 {
        return;
    }
    let row_pairs = a.blocks.div_ceil(2);
    let column_pairs = columns.div_ceil(2 * WIDE);
    let work = row_pairs * column_pairs * a.steps;
    let tasks = Tasks::new(row_pairs, column_pairs, work, threads);
    let run = |index: usize| {
        let [rows, columns] = tasks.at(index);
        task(a, b, target, rows, columns);
    };
    match threads {
        Threads::All => for_each(tasks.count(), run),
        Threads::One => (0..tasks.count()).for_each(run),
    }
}

/// Tile steps below which a finer division among threads costs more than it evens out.
const EVENED_OUT: usize = 1 << 14;

/// How a result is divided among tasks: ranges of row pairs and of column pairs that cover it once.
#[derive(Clone, Copy)]
struct Tasks {
    rows: usize,
    columns: usize,
    /// Parts of the rows, and of the columns.
    bands: usize,
    parts: usize,
}

impl Tasks {
    /// `work` is what the whole result amounts to, in steps of a micro-kernel.
    fn new(rows: usize, columns: usize, work: usize, threads: Threads) -> Self {
        let bands = rows.div_ceil(TASK_ROWS);
        let each = if work < EVENED_OUT { 1 } else { 4 };
        let wanted = match threads {
            Threads::All => each * rayon::current_num_threads(),
            Threads::One => 1,
        };
        Self {
            rows,
            columns,
            bands,
            parts: wanted.div_ceil(bands).clamp(1, columns),
        }
    }

    fn count(self) -> usize {
        self.bands * self.parts
    }

    /// The rows and columns of a task.
    fn at(self, index: usize) -> [Range<usize>; 2] {
        let (part, band) = (index / self.bands, index % self.bands);
        let share = |i: usize, of: usize, all: usize| i * all / of..(i + 1) * all / of;
        [
            share(band, self.bands, self.rows),
            share(part, self.parts, self.columns),
        ]
    }
}

/// One task: its part of the result, the inner dimension block by block.
fn task(a: &Packed, b: &Packed, target: Target, rows: Range<usize>, columns: Range<usize>) {
    let (left, right) = match (&a.tiles, &b.tiles) {
        (Tiles::Bf16(left), Tiles::Bf16(right)) => (left, right),
        (Tiles::Eight(left), Tiles::Eight(right)) => {
            return eight::task(left, right, target, rows, columns);
        }
        _ => unreachable!("operands are packed alike"),
    };
    let unit = Unit::begin(a.exactness, a.blocks <= 2);
    let parts = a.exactness.parts();
    let tile = |of: &Packed, tiles: &[Tile], block: usize, step: usize| {
        &raw const tiles[(block * of.steps + step) * parts]
    };
    let blocks = a.steps.div_ceil(INNER_BLOCK);
    for block in 0..blocks {
        let first = block * a.steps / blocks;
        let steps = (block + 1) * a.steps / blocks - first;
        let add = target.add || first > 0;
        for column in columns.clone() {
            for row in rows.clone() {
                let operands = Operands {
                    a: tile(a, left, 2 * row, first),
                    a_next: a.steps * parts,
                    b: tile(b, right, 2 * column, first),
                    b_next: b.steps * parts,
                    steps,
                    rows: (a.blocks - 2 * row).min(2),
                };
                // SAFETY: block 2·row and, where there are two, the one after it are inside `a`, as
                // are both of `b`, whose number is even; each has `first + steps` tiles. Tasks'
                // ranges do not overlap, so nobody else writes here.
                #[allow(unsafe_code)]
                unsafe {
                    write(
                        unit.block,
                        operands,
                        target,
                        2 * WIDE * row,
                        2 * WIDE * column,
                        add,
                    );
                }
            }
        }
    }
}

/// Runs a micro-kernel on the result's part that begins at (`row`, `column`); where that reaches
/// over the edge, by way of a buffer.
///
/// # Safety
/// As the micro-kernel; no other thread may touch this part of the target.
#[allow(unsafe_code)]
unsafe fn write(
    block: Block,
    operands: Operands,
    target: Target,
    row: usize,
    column: usize,
    add: bool,
) {
    let (height, width) = (operands.rows * WIDE, 2 * WIDE);
    let start = row * target.stride + column;
    if row + height <= target.rows && column + width <= target.columns {
        // SAFETY: the whole part is inside the target.
        unsafe { block(operands, target.data.add(start), target.stride, add) };
        return;
    }
    let kept = [
        height.min(target.rows - row),
        width.min(target.columns - column),
    ];
    let row_of = |i: usize| {
        // SAFETY: these rows and columns are inside the target.
        unsafe {
            std::slice::from_raw_parts_mut(target.data.add(start + i * target.stride), kept[1])
        }
    };
    let mut part = [0.0f32; 4 * WIDE * WIDE];
    if add {
        // Summed on as inside the target, so that a number does not depend on where the edge is.
        for (i, part) in part.chunks_exact_mut(width).take(kept[0]).enumerate() {
            part[..kept[1]].copy_from_slice(row_of(i));
        }
    }
    // SAFETY: the buffer holds 32 × 32 numbers.
    unsafe { block(operands, part.as_mut_ptr(), width, add) };
    for (i, part) in part.chunks_exact(width).take(kept[0]).enumerate() {
        row_of(i).copy_from_slice(&part[..kept[1]]);
    }
}

/// The fastest micro-kernel of this processor, and the state that it needs while it is used.
struct Unit {
    block: Block,
    #[cfg(target_arch = "x86_64")]
    _tiles: Option<amx::Configured>,
}

impl Unit {
    /// `once`: every right tile is used once.
    #[cfg(target_arch = "x86_64")]
    fn begin(exactness: Exactness, once: bool) -> Self {
        let processor = processor();
        match processor.level {
            Level::Amx => Self {
                block: match exactness {
                    Exactness::Rounded if once => amx::streamed,
                    Exactness::Rounded => amx::rounded,
                    Exactness::Whole => amx::whole,
                    Exactness::Eight => unreachable!("has micro-kernels of its own"),
                },
                _tiles: Some(amx::Configured::begin()),
            },
            _ if exactness == Exactness::Whole => unreachable!("packed so for AMX only"),
            _ if processor.dot_bf16 => Self {
                block: avx512::block,
                _tiles: None,
            },
            _ => Self {
                block: widened::block,
                _tiles: None,
            },
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn begin(_exactness: Exactness, _once: bool) -> Self {
        Self {
            block: widened::block,
        }
    }
}

/// What multiplies bf16 numbers here, in words.
pub(crate) fn unit() -> &'static str {
    let processor = processor();
    match processor.level {
        Level::Amx => "AMX",
        _ if processor.dot_bf16 => "AVX-512 BF16",
        _ => "bf16 widened to f32",
    }
}

/// Whether f32 products are best made of bf16 ones here.
pub(crate) fn makes_f32() -> bool {
    processor().level == Level::Amx
}

/// `x` rounded to bf16, to nearest, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    // A NaN's payload could carry into infinity.
    if x.is_nan() {
        (bits >> 16) as u16 | 0x40
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    fn widen(x: f32) -> f64 {
        f64::from(f32::from_bits(u32::from(round(x)) << 16))
    }

    /// Every micro-kernel that this processor has.
    fn blocks() -> Vec<(&'static str, Block)> {
        let mut blocks: Vec<(&'static str, Block)> = vec![("widened", widened::block)];
        #[cfg(target_arch = "x86_64")]
        {
            if processor().dot_bf16 {
                blocks.push(("avx512", avx512::block));
            }
            if processor().level == Level::Amx {
                blocks.push(("amx", amx::rounded));
            }
        }
        blocks
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        assert_eq!(round(1.0), 0x3f80);
        assert_eq!(round(f32::from_bits(0x3f80_8000)), 0x3f80, "tie to even");
        assert_eq!(round(f32::from_bits(0x3f81_8000)), 0x3f82, "tie to even");
        assert_eq!(round(f32::from_bits(0x3f80_8001)), 0x3f81);
        assert_eq!(round(f32::INFINITY), 0x7f80);
        assert_eq!(round(f32::MAX), 0x7f80);
        assert!(widen(f32::from_bits(0x7fff_ffff)).is_nan());
        assert_eq!(round(-0.0), 0x8000);
    }

    /// The transpose of a matrix, as values of its own.
    fn flipped(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * columns];
        for i in 0..rows {
            for j in 0..columns {
                out[j * rows + i] = data[i * columns + j];
            }
        }
        out
    }

    /// Against sums in f64, for shapes with and without remainders, operands of either orientation,
    /// replacing and adding.
    #[test]
    fn equals_the_product_in_f64() {
        let shapes = [
            (1, 1, 1),
            (16, 32, 32),
            (17, 33, 5),
            (70, 1100, 45),
            (300, 40, 64),
            (3, 0, 2),
        ];
        for ((m, k, n), exactness) in shapes.into_iter().flat_map(|shape| {
            let whole = makes_f32().then_some(Exactness::Whole);
            [Some(Exactness::Rounded), whole].map(|exactness| (shape, exactness))
        }) {
            let Some(exactness) = exactness else { continue };
            let number = |x| match exactness {
                Exactness::Rounded => widen(x),
                _ => f64::from(x),
            };
            let (x, w) = (random([m, k], 1).0, random([n, k], 2).0);
            let (xt, wt) = (flipped(&x, m, k), flipped(&w, n, k));
            let by_row = (
                Matrix::new(&x, m, k, k),
                Matrix::new(&w, n, k, k).transposed(),
            );
            let by_column = (
                Matrix::new(&xt, k, m, m).transposed(),
                Matrix::new(&wt, k, n, n),
            );
            for ((a, b), threads) in [(by_row, Threads::All), (by_column, Threads::One)] {
                let a = Packed::left(a, exactness, threads);
                let b = Packed::right(b, exactness, threads);
                let stride = n + 3;
                let mut out = vec![1.0; m * stride];
                product(&a, &b, n, &mut out, stride, Into::Replace, threads);
                product(&a, &b, n, &mut out, stride, Into::Add, threads);
                for (i, row) in out.chunks_exact(stride).enumerate() {
                    for (j, &got) in row[..n].iter().enumerate() {
                        let want: f64 = (0..k)
                            .map(|l| number(x[i * k + l]) * number(w[j * k + l]))
                            .sum();
                        let off = (f64::from(got) - 2.0 * want).abs();
                        assert!(off < 1e-4, "{exactness:?} {m} {k} {n}: {got}, off by {off}");
                    }
                    assert!(row[n..].iter().all(|&x| x == 1.0), "wrote beside it");
                }
            }
        }
    }

    /// The split into three is about as exact as f32: errors against f64 are below three times those of the
    /// usual f32 product of the same numbers.
    #[test]
    fn whole_numbers_are_as_exact_as_f32() {
        if !makes_f32() {
            return;
        }
        let (m, k, n) = (64, 576, 96);
        let (x, w) = (random([m, k], 7).0, random([n, k], 8).0);
        let (a, b) = (
            Matrix::new(&x, m, k, k),
            Matrix::new(&w, n, k, k).transposed(),
        );
        let mut split = vec![0.0; m * n];
        let (pa, pb) = (
            Packed::left(a, Exactness::Whole, Threads::One),
            Packed::right(b, Exactness::Whole, Threads::One),
        );
        product(&pa, &pb, n, &mut split, n, Into::Replace, Threads::One);
        let mut usual = vec![0.0; m * n];
        crate::matmul::by_gemm(a, b, &mut usual, n, 1.0, Into::Replace, Threads::One);
        let error = |got: &[f32]| {
            let squares = got.iter().enumerate().map(|(index, &got)| {
                let (i, j) = (index / n, index % n);
                let want: f64 = (0..k)
                    .map(|l| f64::from(x[i * k + l]) * f64::from(w[j * k + l]))
                    .sum();
                (f64::from(got) - want).powi(2)
            });
            (squares.sum::<f64>() / (m * n) as f64).sqrt()
        };
        let (split, usual) = (error(&split), error(&usual));
        assert!(split < 3.0 * usual, "{split:e} against {usual:e}");
    }

    fn first(packed: &Packed) -> *const Tile {
        match &packed.tiles {
            Tiles::Bf16(tiles) => &raw const tiles[0],
            Tiles::Eight(_) => unreachable!("packed in bf16"),
        }
    }

    /// Weights in 8 bits: errors of the size that half a step of their rounding makes in sums of
    /// independent terms, whatever the shape; exactly the same for a row alone and in company.
    #[test]
    fn products_in_eight_bits_are_as_exact_as_their_weights() {
        for (m, k, n) in [(1, 576, 64), (33, 1100, 45), (300, 40, 70)] {
            let (x, w) = (random([m, k], 1).0, random([n, k], 2).0);
            let weight = Matrix::new(&w, n, k, k).transposed();
            let right = Packed::right(weight, Exactness::Eight, Threads::All);
            let left = |rows: Range<usize>| {
                let x = Matrix::new(&x[rows.start * k..rows.end * k], rows.len(), k, k);
                Packed::left(x, Exactness::Eight, Threads::One)
            };
            let got = multiplied(&left(0..m), &right, n);
            let largest = w.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            // Rounding errors are spread evenly over a step; x over ±1 has a mean square of a third
            // at most. Six deviations.
            let deviation = f64::from(largest) / 127.0 / 12f64.sqrt() * (k as f64 / 3.0).sqrt();
            for (index, &got) in got.iter().enumerate() {
                let (i, j) = (index / n, index % n);
                let want: f64 = (0..k)
                    .map(|l| f64::from(x[i * k + l]) * f64::from(w[j * k + l]))
                    .sum();
                let off = (f64::from(got) - want).abs();
                assert!(
                    off < 6.0 * deviation,
                    "{m} {k} {n}: off by {off}, {deviation}"
                );
            }
            let last = multiplied(&left(m - 1..m), &right, n);
            assert_eq!(last, got[(m - 1) * n..]);
            let mut twice = vec![0.0; m * n];
            for into in [Into::Replace, Into::Add] {
                product(&left(0..m), &right, n, &mut twice, n, into, Threads::All);
            }
            assert!(
                twice
                    .iter()
                    .zip(&got)
                    .all(|(twice, once)| (twice - 2.0 * once).abs() < 1e-4)
            );
        }
    }

    #[test]
    fn micro_kernels_agree() {
        let (k, steps) = (96, 3);
        let (x, w) = (random([32, k], 3).0, random([32, k], 4).0);
        let (a, b) = (Matrix::new(&x, 32, k, k), Matrix::new(&w, 32, k, k));
        let a = Packed::left(a, Exactness::Rounded, Threads::One);
        let b = Packed::right(b.transposed(), Exactness::Rounded, Threads::One);
        #[cfg(target_arch = "x86_64")]
        let _tiles = (processor().level == Level::Amx).then(amx::Configured::begin);
        for rows in [1, 2] {
            let mut results = Vec::new();
            for (name, block) in blocks() {
                let operands = Operands {
                    a: first(&a),
                    a_next: steps,
                    b: first(&b),
                    b_next: steps,
                    steps,
                    rows,
                };
                let mut out = vec![0.5; 32 * 40];
                // SAFETY: two blocks of three tiles each, and 32 rows of 40 numbers.
                #[allow(unsafe_code)]
                unsafe {
                    block(operands, out.as_mut_ptr(), 40, true);
                }
                results.push((name, out));
            }
            for (name, out) in &results[1..] {
                for (got, want) in out.iter().zip(&results[0].1) {
                    assert!((got - want).abs() < 1e-5, "{name}: {got} {want}");
                }
            }
        }
    }

    /// Rows of a batch do not change each other: invariant 6 rests on it.
    #[test]
    fn a_row_does_not_depend_on_its_company() {
        let (k, n) = (1100, 70);
        let (x, w) = (random([50, k], 5).0, random([n, k], 6).0);
        let weight = Matrix::new(&w, n, k, k).transposed();
        let b = Packed::right(weight, Exactness::Rounded, Threads::All);
        let run = |rows: Range<usize>| {
            let x = Matrix::new(&x[rows.start * k..rows.end * k], rows.len(), k, k);
            let a = Packed::left(x, Exactness::Rounded, Threads::All);
            let mut out = vec![0.0; rows.len() * n];
            product(&a, &b, n, &mut out, n, Into::Replace, Threads::All);
            out
        };
        let together = run(0..50);
        for row in [0, 15, 16, 31, 49] {
            assert_eq!(run(row..row + 1), together[row * n..(row + 1) * n]);
        }
    }
}
