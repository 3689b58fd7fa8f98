//! The validated values as Rust types: every key optional, because no default has been filled in yet.
//! Filling them in, and refusing combinations that make no sense, is the work of the table's own file.

use std::path::PathBuf;

use serde::Deserialize;

use super::data::OnBadRow;
use super::models::Precision;
use super::train::Schedule;

/// A whole configuration before defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Given {
    pub(crate) seed: Option<u64>,
    pub(crate) teacher: GivenTeacher,
    pub(crate) student: GivenStudent,
    pub(crate) data: GivenData,
    /// Checked key by key; see `method`.
    pub(crate) method: toml::Table,
    pub(crate) train: GivenTrain,
    pub(crate) eval: GivenEval,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GivenTeacher {
    pub(crate) model: Option<String>,
    pub(crate) cache: Option<bool>,
    pub(crate) precision: Option<Precision>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GivenStudent {
    pub(crate) prune: GivenPrune,
    pub(crate) model: Option<String>,
    pub(crate) precision: Option<Precision>,
    pub(crate) sampling_precision: Option<Precision>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GivenPrune {
    pub(crate) layers: Option<usize>,
    pub(crate) keep: Option<Vec<usize>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GivenData {
    pub(crate) train: Option<Vec<PathBuf>>,
    pub(crate) eval: Option<PathBuf>,
    pub(crate) corpus: Option<Vec<PathBuf>>,
    pub(crate) template: Option<String>,
    pub(crate) max_prompt_tokens: Option<usize>,
    pub(crate) max_response_tokens: Option<usize>,
    pub(crate) on_bad_row: Option<OnBadRow>,
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GivenTrain {
    pub(crate) steps: Option<usize>,
    pub(crate) epochs: Option<f64>,
    pub(crate) tokens: Option<u64>,
    pub(crate) batch: Option<usize>,
    pub(crate) micro_batch_tokens: Option<usize>,
    pub(crate) learning_rate: Option<f64>,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) warmup_steps: Option<usize>,
    pub(crate) min_learning_rate_ratio: Option<f64>,
    pub(crate) weight_decay: Option<f64>,
    pub(crate) beta1: Option<f64>,
    pub(crate) beta2: Option<f64>,
    pub(crate) epsilon: Option<f64>,
    pub(crate) clip_norm: Option<f64>,
    pub(crate) checkpoint_every: Option<usize>,
    pub(crate) keep_last: Option<usize>,
    pub(crate) keep_best: Option<bool>,
    pub(crate) recompute: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GivenEval {
    pub(crate) every: Option<usize>,
    pub(crate) metrics: Option<Vec<String>>,
    pub(crate) best_metric: Option<String>,
    pub(crate) rows: Option<usize>,
    pub(crate) samples: Option<usize>,
    pub(crate) max_new_tokens: Option<usize>,
    pub(crate) batch: Option<usize>,
}
