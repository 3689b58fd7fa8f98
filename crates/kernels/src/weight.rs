//! A weight matrix as products use it: values on a device, or packed once for many products.

use std::borrow::Cow;
use std::sync::Arc;

use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::few_rows::{MOST_ROWS, few_rows};
use crate::host::{on_host, primitive, values};
use crate::matmul::{Into, Matrix, Threads, matmul};
use crate::packed::{self, Exactness, Packed, Spare, product};
use crate::precision::Precision;

/// A weight matrix W [out, in] of y = x Wᵀ. Cloning shares the values.
// A model has a few hundred: a box would save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Weight {
    /// Values on a device, which can be trained; products compute in the given precision.
    Plain(Tensor<2>, Precision),
    /// Rounded to bf16 or 8 bits and packed for the CPU's products. Half or a quarter of the memory
    /// and, where few rows are multiplied, of the time; no gradient.
    Packed(Arc<PackedWeight>),
}

/// A [`Weight`] packed for products on the CPU.
#[derive(Debug)]
pub struct PackedWeight {
    /// The right operand Wᵀ.
    tiles: Packed,
    shape: [usize; 2],
    precision: Precision,
}

impl Weight {
    /// [out, in].
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Plain(tensor, _) => tensor.dims(),
            Self::Packed(packed) => packed.shape,
        }
    }

    /// The values, if they are plain.
    pub fn tensor(&self) -> Option<&Tensor<2>> {
        match self {
            Self::Plain(tensor, _) => Some(tensor),
            Self::Packed(_) => None,
        }
    }

    /// In which precision products with it are computed.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Plain(_, precision) => *precision,
            Self::Packed(packed) => packed.precision,
        }
    }

    /// The same weight, products with it computed in `precision`; a packed one stays as it is.
    pub fn in_precision(self, precision: Precision) -> Self {
        match self {
            Self::Plain(tensor, _) => Self::Plain(tensor, precision),
            Self::Packed(_) => self,
        }
    }

    /// The same weight, untracked.
    pub fn inner(&self) -> Self {
        match self {
            Self::Plain(tensor, precision) => {
                Self::Plain(tensor.clone().without_autodiff(), *precision)
            }
            Self::Packed(_) => self.clone(),
        }
    }

    /// The weight for many products without gradients: packed, where it is a matrix on the CPU whose
    /// products are not f32; else as it is, untracked.
    pub fn packed(&self) -> Self {
        match self {
            Self::Plain(tensor, precision) if on_host(tensor) && *precision != Precision::F32 => {
                let shape = tensor.dims();
                let plain = primitive(tensor.clone());
                let packed = PackedWeight::new(values(&plain), shape, *precision);
                Self::Packed(Arc::new(
                    packed.expect("these precisions are packed everywhere"),
                ))
            }
            _ => self.inner(),
        }
    }
}

/// Memory that products use again.
#[derive(Debug, Default)]
pub(crate) struct ProductSpace {
    /// Of the operands that are packed.
    packed: Spare,
    /// Of products of few rows.
    few_rows: Vec<f32>,
}

/// The left operand of products with several weights.
pub(crate) struct Operand<'a> {
    x: Matrix<'a>,
    values: &'a [f32],
    packed: Option<Packed>,
}

impl<'a> Operand<'a> {
    /// `x` [n, in] for products with weights like `weight`, packed if theirs go by tiles.
    pub(crate) fn new(
        x: &'a [f32],
        n: usize,
        weight: &HostWeight,
        space: &mut ProductSpace,
    ) -> Self {
        let width = x.len() / n.max(1);
        let matrix = Matrix::new(x, n, width, width);
        let exactness = match weight {
            HostWeight::Packed(weight) => Some(weight.exactness()),
            HostWeight::Plain(_) if n > MOST_ROWS => Precision::F32.exactness(),
            HostWeight::Plain(_) => None,
        };
        let packed = exactness
            .map(|exactness| Packed::left_in(matrix, exactness, Threads::All, &mut space.packed));
        Self {
            x: matrix,
            values: x,
            packed,
        }
    }

    /// Its memory is for the next one.
    pub(crate) fn give_back(self, space: &mut ProductSpace) {
        if let Some(packed) = self.packed {
            packed.give_back(&mut space.packed);
        }
    }
}

/// A [`Weight`] on the host.
#[derive(Clone, Debug)]
pub(crate) enum HostWeight {
    Plain(FlexTensor),
    Packed(Arc<PackedWeight>),
}

impl HostWeight {
    pub(crate) fn new(weight: &Weight) -> Self {
        match weight.packed() {
            Weight::Plain(tensor, _) => Self::Plain(primitive(tensor)),
            Weight::Packed(packed) => Self::Packed(packed),
        }
    }

    /// `out` of W [out, in].
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Plain(tensor) => tensor.layout().shape()[0],
            Self::Packed(packed) => packed.shape[0],
        }
    }

    /// `out` [n, out] = x Wᵀ, or += x Wᵀ.
    pub(crate) fn apply(
        &self,
        operand: &Operand<'_>,
        out: &mut [f32],
        into: Into,
        space: &mut ProductSpace,
    ) {
        let n = operand.x.rows;
        // What the operand was packed for may have been another kind of weight.
        let packed_as = |exactness: Exactness| {
            let packed = operand.packed.as_ref();
            match packed.filter(|x| x.exactness() == exactness) {
                Some(x) => Cow::Borrowed(x),
                None => Cow::Owned(Packed::left(operand.x, exactness, Threads::All)),
            }
        };
        match self {
            Self::Packed(weight) => {
                let x = packed_as(weight.exactness());
                let columns = weight.shape[0];
                product(&x, &weight.tiles, columns, out, columns, into, Threads::All);
            }
            Self::Plain(weight) => {
                let w = values(weight);
                let (columns, width) = (out.len() / n.max(1), operand.x.columns);
                if n <= MOST_ROWS {
                    let (x, space) = (operand.values, &mut space.few_rows);
                    return few_rows(x, n, w, columns, width, out, into, space);
                }
                let w = Matrix::new(w, columns, width, width).transposed();
                match Precision::F32.exactness() {
                    Some(exactness) => {
                        let w = Packed::right(w, exactness, Threads::All);
                        let x = packed_as(exactness);
                        product(&x, &w, columns, out, columns, into, Threads::All);
                    }
                    None => matmul(operand.x, w, out, columns, into, Precision::F32),
                }
            }
        }
    }
}

impl From<Tensor<2>> for Weight {
    fn from(tensor: Tensor<2>) -> Self {
        Self::Plain(tensor, Precision::F32)
    }
}

impl PackedWeight {
    /// `None` where products of this precision do not go by tiles.
    pub(crate) fn new(values: &[f32], shape: [usize; 2], precision: Precision) -> Option<Self> {
        let [out, width] = shape;
        let weight = Matrix::new(values, out, width, width).transposed();
        let exactness = match precision {
            Precision::Int8 => Exactness::Eight,
            _ => precision.exactness()?,
        };
        Some(Self {
            tiles: Packed::right(weight, exactness, Threads::All),
            shape,
            precision,
        })
    }

    pub(crate) fn exactness(&self) -> Exactness {
        self.tiles.exactness()
    }

    /// `out` of W [out, in].
    pub(crate) fn rows(&self) -> usize {
        self.shape[0]
    }

    /// `x` · Wᵀ.
    pub(crate) fn multiplied(&self, x: Matrix<'_>) -> Vec<f32> {
        let x = Packed::left(x, self.exactness(), Threads::All);
        packed::multiplied(&x, &self.tiles, self.shape[0])
    }

    /// `out` [rows, columns] = `x` · (the first `columns` rows of W)ᵀ.
    pub(crate) fn multiply(&self, x: Matrix<'_>, columns: usize, out: &mut [f32]) {
        let x = Packed::left(x, self.exactness(), Threads::All);
        product(
            &x,
            &self.tiles,
            columns,
            out,
            columns,
            Into::Replace,
            Threads::All,
        );
    }
}
