//! The networks of a run: student, teacher, and what some methods keep beside them.

use distil_model::Llama;

use crate::config::Method;
use crate::error::Result;

/// The networks of a run.
pub(super) struct Networks<'a> {
    pub(super) student: &'a Llama,
    pub(super) teacher: Option<&'a Llama>,
    pub(super) third: Option<ThirdNetwork>,
}

/// A network besides student and teacher.
pub(super) struct ThirdNetwork {
    /// What it is, in memory and in checkpoints.
    pub(super) what: [&'static str; 2],
    pub(super) network: Llama,
    /// Parameters that are not the network's.
    more: usize,
    /// Whether it is trained: it then has a gradient and AdamW's two moments.
    pub(super) trained: bool,
}

impl ThirdNetwork {
    pub(super) fn parameters(&self) -> u64 {
        (self.network.size() + self.more) as u64
    }
}

pub(super) fn third_network(method: &Method, student: &Llama) -> Result<Option<ThirdNetwork>> {
    let total = student.config().layers;
    // Layers are of one size: which of them are kept does not matter here.
    let with_layers = |layers: usize| -> Result<Llama> {
        let keep: Vec<usize> = (0..layers.min(total)).collect();
        Ok(student.with_layers(&keep)?)
    };
    Ok(match method {
        Method::Pbkd(settings) => Some(ThirdNetwork {
            what: [
                "reward model, its gradient and moments",
                "reward model in checkpoints",
            ],
            network: with_layers(settings.reward_layers)?,
            more: student.config().width + 1,
            trained: true,
        }),
        Method::MmPbkd(settings) => Some(ThirdNetwork {
            what: [
                "Q-function, its gradient and moments",
                "Q-function in checkpoints",
            ],
            network: with_layers(settings.q_layers)?,
            more: 0,
            trained: true,
        }),
        Method::Llmr(settings) if settings.sync_every > 1 => Some(ThirdNetwork {
            what: [
                "policy that lags behind",
                "policy that lags behind in checkpoints",
            ],
            network: student.clone(),
            more: 0,
            trained: false,
        }),
        _ => None,
    })
}
