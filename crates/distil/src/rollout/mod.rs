//! Where responses come from: sampling a model with a key–value cache.

mod generate;
mod sample;

pub use generate::{Finish, Generation, Prompt, Response, generate};
pub use sample::{Drawn, draw};
