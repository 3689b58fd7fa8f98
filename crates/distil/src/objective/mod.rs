//! What a student is trained to make small: pure functions of numbers.
//!
//! Losses on the distribution of one position are [`distil_kernels::RowObjective`]s; losses on
//! sequence log-probabilities return their value and derivatives.

mod divergence;
mod dpkd_token;
mod forward_kl;
mod moment;
mod preference;

pub use divergence::{Divergences, divergences};
pub use dpkd_token::DpkdTokenLoss;
pub use forward_kl::ForwardKl;
pub use moment::{PolicyMoment, QFunction};
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
