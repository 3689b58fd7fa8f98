//! From data files to packed batches.
//!
//! ```text
//! read ──► shape ──► row ──► template ──► example ──► batch
//! files    recognised       prompt text   token ids   packed, in a shuffled order
//! ```

mod answers;
mod parquet;

pub mod batch;
pub mod counts;
pub mod example;
pub mod read;
pub mod row;
pub mod shape;
pub mod template;
