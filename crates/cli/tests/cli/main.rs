//! The binary, driven as a user drives it, with a tiny model that is made here.

mod bad_input;
mod evaluations;
mod home;
mod interruption;
mod real_model;
mod verbs;
