//! Reward- and preference-guided knowledge distillation of language models.
//!
//! The modules are the rooms a batch travels through:
//! data → rollout → teacher → objective → method → train → eval.

pub mod config;
pub mod data;
mod error;
pub mod eval;

pub use error::{Error, Result};
