//! What `distil watch` shows. The run as it was last read ([`run`]) and what the user chose
//! ([`state`]) decide every cell of the screen ([`draw`]); nothing else does.

pub(crate) mod curve;
pub(crate) mod draw;
pub(crate) mod panels;
pub(crate) mod plot;
mod question;
pub(crate) mod run;
pub(crate) mod state;
pub(crate) mod summary;
#[cfg(test)]
mod tests;
pub(crate) mod text;
