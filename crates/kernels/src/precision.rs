//! In which numbers matrix products are computed.

use burn::tensor::{DType, Tensor};

use crate::packed::{self, Exactness, eight};
use crate::processor::{Level, processor};

/// Number format of matrix products. Sums are f32 in either, and so is all that is no matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Both factors rounded to bf16.
    Bf16,
    /// Weights in 8 bits, the other factor in 16: only for networks that are asked. Products without a
    /// weight that was packed for it are those of bf16.
    Int8,
}

impl Precision {
    /// `x` with the numbers that a product of this precision sees, in f32: what the portable
    /// compositions multiply. On such devices bf16 costs no less than f32; it says the same.
    pub(crate) fn rounded(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::F32 => x,
            Self::Bf16 => x.cast(DType::BF16).cast(DType::F32),
            // 16 bits under a scale are as good as all.
            Self::Int8 => x,
        }
    }

    /// As [`Precision::rounded`], for a weight [out, in].
    pub(crate) fn rounded_weight(self, w: Tensor<2>) -> Tensor<2> {
        match self {
            Self::F32 | Self::Bf16 => self.rounded(w),
            Self::Int8 => {
                let [_, width] = w.dims();
                let blocks = eight::blocks(eight::steps(width)).map(|steps| {
                    let start = eight::numbers(steps.start);
                    let end = eight::numbers(steps.end).min(width);
                    let block = w.clone().narrow(1, start, end - start);
                    let scales = block.clone().abs().max_dim(1) / 127.0;
                    // A block of zeros has no scale to divide by.
                    let divisors = scales.clone() + scales.clone().equal_elem(0.0).float();
                    (block / divisors).round() * scales
                });
                Tensor::cat(blocks.collect(), 1)
            }
        }
    }

    /// How operands are packed for products of this precision; `None` where products do not go by
    /// tiles.
    pub(crate) fn exactness(self) -> Option<Exactness> {
        match self {
            Self::Bf16 | Self::Int8 => Some(Exactness::Rounded),
            Self::F32 => packed::makes_f32().then_some(Exactness::Whole),
        }
    }
}

/// Bytes of a weight of the output head while a pass goes over it, beside the weight itself: it is
/// packed once for all chunks, where products go by tiles.
pub fn packed_bytes(precision: Precision) -> usize {
    match precision.exactness() {
        Some(Exactness::Whole) => 6,
        Some(_) => 2,
        None => 0,
    }
}

/// What multiplies matrices of this precision on this machine, in words.
pub fn instruction_set(precision: Precision) -> &'static str {
    match (precision, processor().level) {
        (Precision::Bf16, _) => packed::unit(),
        (Precision::Int8, _) => eight::unit(),
        (Precision::F32, Level::Amx) => "AMX, six bf16 products each",
        (Precision::F32, Level::Avx512) => "AVX-512",
        (Precision::F32, Level::Avx2) => "AVX2",
        (Precision::F32, Level::Portable) => "portable",
    }
}
