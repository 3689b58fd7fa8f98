//! Matrix products on host slices: by tiles where the processor has them (`packed`), else by the
//! `gemm` crate.

use gemm::{Parallelism, gemm};

use crate::packed::{self, Exactness, Packed};
use crate::precision::Precision;

/// A matrix inside a slice: `data[row * row_stride + column * column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix whose rows are `row_stride` apart.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let matrix = Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        };
        assert!(extent(rows, columns, row_stride, 1) <= data.len());
        matrix
    }

    /// The same values read as the transposed matrix.
    pub(crate) fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// How a product meets what the destination holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    /// Overwrites it.
    Replace,
    /// Is added to it.
    Add,
}

/// Who computes a product.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    /// All threads of the pool.
    All,
    /// The calling thread, itself one of many.
    One,
}

/// Products of fewer multiplications than this are not worth packing.
const WORTH_PACKING: usize = 1 << 20;

/// `out = a · b` or `out += a · b`, with `out` row-major, rows `out_stride` apart.
///
/// # Panics
/// If the dimensions do not fit or a matrix leaves its slice.
pub(crate) fn matmul(
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    out_stride: usize,
    into: Into,
    precision: Precision,
) {
    let threads = Threads::All;
    let Some(exactness) = by_tiles(a, b, precision) else {
        return by_gemm(a, b, out, out_stride, 1.0, into, threads);
    };
    let columns = b.columns;
    let a = Packed::left(a, exactness, threads);
    let b = Packed::right(b, exactness, threads);
    packed::product(&a, &b, columns, out, out_stride, into, threads);
}

/// `a · b`, row-major.
///
/// # Panics
/// As [`matmul`].
pub(crate) fn multiplied(a: Matrix<'_>, b: Matrix<'_>, precision: Precision) -> Vec<f32> {
    if let Some(exactness) = by_tiles(a, b, precision) {
        let columns = b.columns;
        let a = Packed::left(a, exactness, Threads::All);
        let b = Packed::right(b, exactness, Threads::All);
        return packed::multiplied(&a, &b, columns);
    }
    let mut out = vec![0.0; a.rows * b.columns];
    by_gemm(a, b, &mut out, b.columns, 1.0, Into::Replace, Threads::All);
    out
}

/// How to pack the operands of a product, where it goes by tiles.
fn by_tiles(a: Matrix<'_>, b: Matrix<'_>, precision: Precision) -> Option<Exactness> {
    let worth_it = a.rows * b.columns * a.columns >= WORTH_PACKING;
    let exactness = precision.exactness();
    exactness.filter(|_| worth_it || precision != Precision::F32)
}

/// `out = scale · a · b` or `out += scale · a · b`, with `out` row-major, rows `out_stride` apart.
///
/// # Panics
/// If the dimensions do not fit or a matrix leaves its slice.
pub(crate) fn by_gemm(
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    out_stride: usize,
    scale: f32,
    into: Into,
    threads: Threads,
) {
    assert_eq!(a.columns, b.rows, "inner dimensions differ");
    assert!(extent(a.rows, b.columns, out_stride, 1) <= out.len());
    assert!(
        out_stride >= b.columns || a.rows <= 1,
        "rows of the result overlap"
    );
    if a.rows == 0 || b.columns == 0 {
        return;
    }
    let parallelism = match threads {
        // Below this many multiplications waking the pool costs more than it gives.
        Threads::All if a.rows * b.columns * a.columns > 1 << 18 => Parallelism::Rayon(0),
        _ => Parallelism::None,
    };
    // SAFETY: the assertions here and in `Matrix::new` keep every index of the three matrices
    // inside its slice; `out` is borrowed mutably, so it aliases neither input.
    #[allow(unsafe_code)]
    unsafe {
        gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            into == Into::Add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Number of values a strided matrix spans in its slice.
fn extent(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    (rows - 1) * row_stride + (columns - 1) * column_stride + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_scale_add_and_transpose() {
        // a = [[1,2,3],[4,5,6]], b = [[1,0],[0,1],[1,1]]
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        let mut out = vec![0.0; 4];
        let (ma, mb) = (Matrix::new(&a, 2, 3, 3), Matrix::new(&b, 3, 2, 2));
        by_gemm(ma, mb, &mut out, 2, 1.0, Into::Replace, Threads::One);
        assert_eq!(out, [4.0, 5.0, 10.0, 11.0]);
        by_gemm(ma, mb, &mut out, 2, 0.5, Into::Add, Threads::All);
        assert_eq!(out, [6.0, 7.5, 15.0, 16.5]);
        let mut square = vec![0.0; 9];
        let at = ma.transposed();
        by_gemm(at, ma, &mut square, 3, 1.0, Into::Replace, Threads::One);
        assert_eq!(
            square,
            [17.0, 22.0, 27.0, 22.0, 29.0, 36.0, 27.0, 36.0, 45.0]
        );
    }
}
