//! Reward- and preference-guided knowledge distillation of language models.
//!
//! The modules are the rooms a batch travels through:
//! data → rollout → teacher → objective → method → train → eval → report.

pub mod bench;
pub mod config;
pub mod data;
mod error;
pub mod eval;
pub mod event;
pub mod export;
mod lock;
pub mod method;
pub mod objective;
pub mod plan;
pub mod quickstart;
pub mod record;
pub mod report;
pub mod reward;
pub(crate) mod reward_model;
pub mod rollout;
pub mod score;
pub mod step;
pub mod teacher;
#[cfg(test)]
mod testing;
pub mod train;

pub use error::{Error, Result};
