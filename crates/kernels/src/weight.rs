//! A weight matrix as products use it: values on a device, or packed once for many products.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::host::{on_host, primitive};
use crate::matmul::{Into, Matrix, Threads};
use crate::packed::{self, Exactness, Packed, product};
use crate::precision::Precision;

/// A weight matrix W [out, in] of y = x Wᵀ. Cloning shares the values.
// A model has a few hundred: a box would save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Weight {
    /// Values on a device, which can be trained; products compute in the given precision.
    Plain(Tensor<2>, Precision),
    /// Rounded to bf16 and packed for the CPU's products. Half the memory and, where few rows are
    /// multiplied, half the time; no gradient.
    Packed(Arc<PackedWeight>),
}

/// A [`Weight`] packed for products on the CPU.
#[derive(Debug)]
pub struct PackedWeight {
    /// The right operand Wᵀ.
    tiles: Packed,
    shape: [usize; 2],
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
            Self::Packed(_) => Precision::Bf16,
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

    /// The weight for many products without gradients: packed, where it is a matrix on the CPU of
    /// bf16 products; else as it is, untracked.
    pub fn packed(&self) -> Self {
        match self {
            Self::Plain(tensor, Precision::Bf16) if on_host(tensor) => {
                let shape = tensor.dims();
                let values = primitive(tensor.clone());
                let values = values
                    .as_slice::<f32>()
                    .expect("`primitive` makes contiguous f32 tensors");
                let packed = PackedWeight::new(values, shape, Exactness::Rounded);
                Self::Packed(Arc::new(packed))
            }
            _ => self.inner(),
        }
    }
}

impl From<Tensor<2>> for Weight {
    fn from(tensor: Tensor<2>) -> Self {
        Self::Plain(tensor, Precision::F32)
    }
}

impl PackedWeight {
    pub(crate) fn new(values: &[f32], shape: [usize; 2], exactness: Exactness) -> Self {
        let [out, width] = shape;
        let weight = Matrix::new(values, out, width, width).transposed();
        Self {
            tiles: Packed::right(weight, exactness, Threads::All),
            shape,
        }
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
