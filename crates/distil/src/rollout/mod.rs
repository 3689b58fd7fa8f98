//! Where responses come from: sampling a model with a key–value cache.

mod generate;
pub(crate) mod on_policy;
mod sample;

pub(crate) use generate::uniform_of;
pub use generate::{Finish, Generation, Mixture, Prompt, Response, generate, generate_mixed};
pub use sample::{Drawn, draw};
