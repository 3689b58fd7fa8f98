//! The binary, driven as a user drives it, with a tiny model that is made here.

mod bad_input;
mod evaluations;
mod export;
mod home;
mod interruption;
mod plan;
mod real_model;
mod verbs;
mod watch;
