//! What a student is trained to make small: pure functions of numbers.
//!
//! Losses on the distribution of one position are [`distil_kernels::RowObjective`]s; losses on
//! sequence log-probabilities return their value and derivatives.

pub mod advantage;
mod divergence;
mod divergence_loss;
mod dpkd_token;
pub mod induced_reward;
pub mod look;
#[cfg(test)]
pub(crate) mod mdp;
pub mod minillm;
mod moment;
mod policy_gradient;
mod preference;

pub use divergence::{Divergences, divergences};
pub use divergence_loss::{DivergenceLoss, akl_weights};
pub use dpkd_token::DpkdTokenLoss;
pub use moment::{PolicyMoment, QFunction};
pub use policy_gradient::PolicyGradient;
pub use preference::{Pair, PreferenceLoss, PreferenceValue};

/// log σ(x) without overflow.
pub(crate) fn log_sigmoid(x: f64) -> f64 {
    match x >= 0.0 {
        true => -(-x).exp().ln_1p(),
        false => x - x.exp().ln_1p(),
    }
}

/// σ(x) without overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    log_sigmoid(x).exp()
}

#[cfg(test)]
pub(crate) mod testing;
