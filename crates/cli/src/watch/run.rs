//! The run that is watched: its stages, and what was seen of them when they were last read.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use distil::record::{Live, Sample, Standing};

use super::curve;
use super::state::{Choices, State};
use crate::remaining::pace;

/// A run's folder, or that of a schedule.
#[derive(Debug)]
pub(crate) struct Run {
    path: PathBuf,
    /// Never empty.
    stages: Vec<Live>,
    /// Of the stage that was read last.
    pub(crate) standing: Standing,
    /// Seconds of one of its steps.
    pub(crate) pace: Option<f64>,
    /// What went wrong when it was read.
    pub(crate) trouble: Option<String>,
}

impl Run {
    /// # Errors
    /// It is no run's folder.
    pub(crate) fn open(path: &Path) -> distil::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            stages: Live::all(path)?,
            standing: Standing::Running {
                quiet: Duration::ZERO,
            },
            pace: None,
            trouble: None,
        })
    }

    /// Stages that were begun.
    pub(crate) fn stages(&self) -> &[Live] {
        &self.stages
    }

    /// The stage of this index, or the newest.
    pub(crate) fn stage(&self, index: Option<usize>) -> &Live {
        &self.stages[self.index(index)]
    }

    /// Its index.
    pub(crate) fn index(&self, index: Option<usize>) -> usize {
        let newest = self.stages.len() - 1;
        index.map_or(newest, |index| index.min(newest))
    }

    /// Seconds that the run still takes, evaluations not counted.
    pub(crate) fn left(&self, stage: &Live) -> Option<f64> {
        Some(self.pace? * stage.steps_left()? as f64)
    }

    /// What there is to choose from, as the user chose so far.
    pub(crate) fn choices(&self, state: &State) -> Choices {
        let stage = self.stage(state.stage);
        let mut evaluations: Vec<usize> = stage.samples().iter().map(|s| s.step).collect();
        evaluations.dedup();
        let shown = state.evaluation.or(evaluations.last().copied());
        let of_shown = |sample: &&Sample| Some(sample.step) == shown;
        Choices {
            curves: curve::names(stage.metrics()),
            steps: stage.metrics().steps.len(),
            samples: stage.samples().iter().filter(of_shown).count(),
            evaluations,
            stages: self.stages.len(),
        }
    }

    /// Looks for stages that have begun, and reads what was added to the one that is shown, `most`
    /// bytes of a file; says whether that was all. What goes wrong is kept for the user to see: it
    /// may be over with the next look.
    pub(crate) fn update(&mut self, shown: Option<usize>, most: u64) -> bool {
        self.trouble = None;
        match Live::all(&self.path) {
            Ok(found) => {
                for (place, stage) in found.into_iter().enumerate() {
                    match self.stages.get(place) {
                        Some(known) if known.path() == stage.path() => {}
                        Some(_) => self.stages[place] = stage,
                        None => self.stages.push(stage),
                    }
                }
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
        let index = self.index(shown);
        let stage = &mut self.stages[index];
        let all = stage.update(most).unwrap_or_else(|error| {
            self.trouble = Some(error.to_string());
            true
        });
        self.pace = stage.metrics().column("seconds").and_then(pace);
        self.standing = stage.standing(SystemTime::now(), self.pace);
        all
    }
}
