//! Decoder-only language models for distil: weights in and out, tokenizers and chat templates,
//! model references, and the Llama family of networks.

pub mod chat_template;
pub mod config;
mod error;
pub mod files;
pub mod llama;
mod model;
pub mod prune;
pub mod reference;
pub mod tokenizer;
pub mod weights;

#[cfg(test)]
mod golden;

pub use error::{ModelError, Result, unreadable_fix, unwritable_fix};
pub use llama::{Llama, Parameter, Tokens, Trail};
pub use model::{Model, Outline};
pub use tokenizer::Tokenizer;
pub use weights::{Stored, write_tensors};
