//! Checkpoints: `checkpoints/step-N/` with the student as a Hugging Face directory, the optimiser's
//! moments and `state.json`. A checkpoint appears whole or not at all.
//!
//! Random streams and the data's order are functions of the seed and the step, so the step is all
//! of them there is to keep.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use distil_model::{Model, files};
use serde::{Deserialize, Serialize};

use super::collapse::Collapse;
use crate::error::{Error, Result};
use crate::method::Method;
use crate::step::Optimizer;

/// What to do about a checkpoint that cannot be read.
const DAMAGED: &str = "remove this checkpoint's folder to resume from the one before";

/// What a run knows besides weights and moments.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// Optimiser steps made.
    pub(crate) step: usize,
    /// Response tokens trained on.
    pub(crate) tokens: u64,
    /// Seconds spent training, evaluation excluded.
    pub(crate) seconds: f64,
    /// Seconds spent before the first step on what the method needs, the teacher's samples above
    /// all; without those of a process that was killed before its first checkpoint.
    #[serde(default)]
    pub(crate) preparation_seconds: f64,
    /// What is watched for a collapse.
    #[serde(default)]
    pub(crate) collapse: Collapse,
    /// Metrics before the first step.
    pub(crate) start: Vec<(String, f64)>,
    /// Metrics of the newest evaluation.
    pub(crate) latest: Vec<(String, f64)>,
    /// The best checkpoint so far and its metric.
    pub(crate) best: Option<Best>,
}

/// A checkpoint and the metric that made it best.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Best {
    pub(crate) step: usize,
    pub(crate) value: f64,
    pub(crate) metrics: Vec<(String, f64)>,
}

/// The folder of a step.
pub(crate) fn path_of(run: &Path, step: usize) -> PathBuf {
    run.join("checkpoints").join(format!("step-{step}"))
}

/// Writes the checkpoint of `state.step`.
pub(crate) fn save(
    run: &Path,
    student: &Model,
    optimizer: &Optimizer,
    method: &dyn Method,
    state: &State,
) -> Result<PathBuf> {
    let path = path_of(run, state.step);
    if path.exists() {
        return Ok(path);
    }
    files::folder_whole(&path, |inside| -> Result<()> {
        student.save_into(inside)?;
        optimizer.save(&inside.join("optimizer.safetensors"))?;
        method.save(inside)?;
        let text = serde_json::to_string_pretty(state).unwrap_or_default();
        files::write_whole(&inside.join("state.json"), text.as_bytes())?;
        Ok(())
    })?;
    Ok(path)
}

/// The newest checkpoint's step.
pub(crate) fn newest(run: &Path) -> Option<usize> {
    steps(run).into_iter().max()
}

/// Removes what a kill left of a checkpoint that was being written or removed.
pub(crate) fn clear_leftovers(run: &Path) {
    let entries = fs::read_dir(run.join("checkpoints"))
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with(".step-") {
            // What cannot be removed only takes room.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Steps that have a checkpoint.
fn steps(run: &Path) -> Vec<usize> {
    let entries = fs::read_dir(run.join("checkpoints"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("step-")?
                .parse()
                .ok()
        })
        .collect()
}

/// Opens the model of the checkpoint in `path`.
///
/// # Errors
/// [`Error::Run`] if it is damaged.
pub(super) fn open(path: &Path, device: &Device) -> Result<Model> {
    Model::open(path, device).map_err(|error| Error::Run {
        what: format!("the checkpoint's model is damaged ({error})"),
        fix: DAMAGED.into(),
        path: path.to_owned(),
    })
}

/// Reads `state.json` of a step.
pub(crate) fn read_state(run: &Path, step: usize) -> Result<State> {
    let path = path_of(run, step).join("state.json");
    let text = fs::read_to_string(&path).map_err(|source| Error::Read {
        path: path.clone(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|e| Error::Run {
        path,
        what: format!("the checkpoint's state is damaged ({e})"),
        fix: DAMAGED.into(),
    })
}

/// Removes all but the newest `keep_last` checkpoints and the best one.
pub(crate) fn prune(run: &Path, keep_last: usize, best: Option<usize>) -> Result<()> {
    let mut steps = steps(run);
    steps.sort_unstable();
    let old = steps.len().saturating_sub(keep_last);
    for &step in steps[..old].iter().filter(|&&step| Some(step) != best) {
        let path = path_of(run, step);
        // Renamed first: a half-removed folder must not look like a checkpoint.
        let doomed = path.with_file_name(format!(".step-{step}.removed"));
        let removed = fs::rename(&path, &doomed).and_then(|()| fs::remove_dir_all(&doomed));
        removed.map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}
