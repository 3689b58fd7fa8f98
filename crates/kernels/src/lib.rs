//! The hot tensor operations of distil.
//!
//! One file an operation, each with its formula, a portable composition of Burn operations that
//! runs on every device, and a hand-written kernel with a hand-written backward for Burn's CPU
//! backend (Flex). Both give the same numbers; the tests hold them together. Which one runs is
//! decided by the tensor's device, or by [`force_portable`].
//!
//! Shapes use one legend: `n` tokens, `d` width, `f` feed-forward width, `h` query heads,
//! `g` key–value heads, `e` head dimension, `v` vocabulary; `x_nd` is `[tokens, width]`, row-major.

mod adamw;
mod attention;
mod embedding;
mod few_rows;
mod head;
mod host;
mod layer;
mod linear;
pub mod math;
mod matmul;
mod packed;
mod precision;
mod processor;
mod rms_norm;
mod rope;
mod sum;
mod swiglu;
mod team;
mod weight;

pub use adamw::{AdamW, adamw_step, sum_of_squares};
pub use attention::{Heads, KvCache, attention};
pub use embedding::{add_embedding_gradient, embedding};
pub use head::{
    CrossEntropy, HeadPass, RowObjective, RowTerms, TeacherHead, attach_gradient, head_pass,
    head_rows,
};
pub use host::{force_portable, is_portable, to_host};
pub use layer::{HostLayer, LayerParameters, Pass, run_layers};
pub use linear::linear;
pub use precision::{Precision, instruction_set, packed_bytes};
pub use rms_norm::rms_norm;
pub use rope::{RopeTable, rope};
pub use sum::add_in_place;
pub use swiglu::swiglu;
pub use team::together;
pub use weight::{PackedWeight, Weight};

#[cfg(test)]
mod testing;
