//! A run that may be going on: what it wrote so far, and whether it still writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::growing::{Growing, News};
use super::metrics::{Metrics, MetricsFile};
use super::run::{Record, Sample, config, name};
use crate::error::Result;
use crate::event::steps_left;
use crate::lock::is_in_use;

/// A run that writes nothing for so long is no longer thought to run, unless its lock says so.
const PATIENCE: Duration = Duration::from_secs(60);

/// Or for so many of its own steps, if they are longer.
const STEPS_OF_PATIENCE: f64 = 10.0;

/// What a run writes to while it works.
const SIGNS_OF_LIFE: [&str; 10] = [
    "config.toml",
    "environment.json",
    "teacher-samples.partial.jsonl",
    "teacher-samples.jsonl",
    "student-samples.partial.jsonl",
    "student-samples.jsonl",
    "teacher-states.partial.f32",
    "metrics.jsonl",
    "samples.jsonl",
    "checkpoints",
];

/// A run's folder that is read again and again.
#[derive(Debug)]
pub struct Live {
    path: PathBuf,
    name: String,
    config: Option<toml::Table>,
    metrics: MetricsFile,
    sample_file: Growing,
    samples: Vec<Sample>,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The student is there.
    Finished,
    /// A process works in the folder, or wrote something not long ago.
    Running {
        /// Time since it wrote something.
        quiet: Duration,
    },
    /// There is no student, and nobody writes.
    Stopped {
        /// Time since something was written.
        quiet: Duration,
    },
}

impl Live {
    /// The runs in `path`: itself, or the stages of a schedule that were begun, in order. Nothing is
    /// read of them yet.
    ///
    /// # Errors
    /// [`Error::Run`](crate::Error::Run) if it is no run's folder, [`Error::Read`](crate::Error::Read)
    /// if its configuration cannot be read. A stage, or a schedule, in whose folder there is nothing
    /// yet is none.
    pub fn all(path: &Path) -> Result<Vec<Self>> {
        let folders = Record::folders(path);
        let schedule = path.join("stages").is_dir();
        folders
            .iter()
            .map(|path| Self::open(path, schedule))
            .collect()
    }

    fn open(path: &Path, may_be_empty: bool) -> Result<Self> {
        let empty = may_be_empty && !path.join("config.toml").exists();
        Ok(Self {
            path: path.to_owned(),
            name: name(path),
            config: match empty {
                true => None,
                false => Some(config(path)?),
            },
            metrics: MetricsFile::new(&path.join("metrics.jsonl")),
            sample_file: Growing::new(&path.join("samples.jsonl")),
            samples: Vec::new(),
        })
    }

    /// Reads what was added, `most` bytes of either file; says whether that was all.
    ///
    /// # Errors
    /// [`Error::Read`](crate::Error::Read) for a file that is there and cannot be read.
    pub fn update(&mut self, most: u64) -> Result<bool> {
        if self.config.is_none() {
            self.config = config(&self.path).ok();
        }
        let samples = &mut self.samples;
        let all = self.sample_file.read_on(most, &mut |news| match news {
            News::Afresh => samples.clear(),
            News::Line(line) => samples.extend(serde_json::from_str(line).ok()),
        })?;
        Ok(self.metrics.read_on(most)? && all)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to call it, as [`Record::name`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The method's name, once it is known.
    pub fn method(&self) -> Option<&str> {
        self.value("method", "name")?.as_str()
    }

    /// A value of the resolved configuration.
    pub fn value(&self, table: &str, key: &str) -> Option<&toml::Value> {
        self.config.as_ref()?.get(table)?.get(key)
    }

    /// What was logged, as far as it has been read.
    pub fn metrics(&self) -> &Metrics {
        self.metrics.metrics()
    }

    /// What was said, as far as it has been read.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Bytes of both files that are still to be read.
    pub fn unread(&self) -> u64 {
        self.metrics.unread() + self.sample_file.unread()
    }

    /// The newest step, and how many there will be.
    pub fn step(&self) -> Option<(usize, usize)> {
        let metrics = self.metrics();
        let step = *metrics.steps.last()?;
        Some((
            step,
            metrics.last("steps").map_or(step, |steps| steps as usize),
        ))
    }

    /// Steps that are still to come.
    pub fn steps_left(&self) -> Option<usize> {
        let (step, steps) = self.step()?;
        let most = self
            .value("train", "tokens")
            .and_then(toml::Value::as_integer);
        let most = most.and_then(|most| u64::try_from(most).ok());
        let tokens = self.metrics().last("tokens").unwrap_or_default() as u64;
        Some(steps_left(step, steps, tokens, most))
    }

    /// What a run does before its first step, as far as its folder shows it.
    pub fn preparation(&self) -> &'static str {
        let there = |name: &str| self.path.join(name).exists();
        if there("teacher-samples.partial.jsonl") {
            "the teacher answers the training prompts"
        } else if there("student-samples.partial.jsonl") {
            "the student answers the training prompts"
        } else if there("teacher-states.partial.f32") {
            "the teacher reads the training texts"
        } else {
            "models and data are read, or the student is measured as it starts"
        }
    }

    /// What the run is doing at the time `now`. `pace` is the time of one of its steps, in seconds.
    pub fn standing(&self, now: SystemTime, pace: Option<f64>) -> Standing {
        if self.path.join("student").exists() {
            return Standing::Finished;
        }
        let written = |name: &&str| fs::metadata(self.path.join(name)).ok()?.modified().ok();
        let newest = SIGNS_OF_LIFE.iter().filter_map(written).max();
        // A clock that runs behind the file's says that it was just written.
        let quiet = newest.map_or(Duration::ZERO, |at| {
            now.duration_since(at).unwrap_or_default()
        });
        let steps = Duration::try_from_secs_f64(pace.unwrap_or_default() * STEPS_OF_PATIENCE);
        match is_in_use(&self.path) || quiet <= PATIENCE.max(steps.unwrap_or_default()) {
            true => Standing::Running { quiet },
            false => Standing::Stopped { quiet },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_followed_from_nothing_to_its_end() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path();
        assert!(Live::all(path).is_err(), "it is no run");
        fs::write(
            path.join("config.toml"),
            "[method]\nname = \"kd\"\n[train]\ntokens = 50\n",
        )
        .unwrap();
        let mut live = Live::all(path).unwrap().remove(0);
        assert!(live.update(u64::MAX).unwrap());
        assert_eq!(
            (live.method(), live.step(), live.steps_left()),
            (Some("kd"), None, None)
        );
        let line = |step: usize| {
            format!(
                "{{\"step\":{step},\"steps\":90,\"tokens\":{}}}\n",
                10 * step
            )
        };
        fs::write(path.join("metrics.jsonl"), line(1) + &line(2)).unwrap();
        assert!(!live.update(5).unwrap(), "one line is more than 5 bytes");
        assert_eq!(live.step(), Some((1, 90)));
        assert!(live.unread() > 0);
        assert!(live.update(u64::MAX).unwrap());
        assert_eq!(live.step(), Some((2, 90)));
        assert_eq!(live.steps_left(), Some(3), "50 tokens at 10 a step");

        let now = SystemTime::now();
        let standing = |after: u64, pace| live.standing(now + Duration::from_secs(after), pace);
        assert!(matches!(standing(30, None), Standing::Running { .. }));
        assert!(matches!(standing(90, Some(1.0)), Standing::Stopped { .. }));
        assert!(matches!(standing(90, Some(20.0)), Standing::Running { .. }));
        assert!(matches!(
            standing(90, Some(f64::NAN)),
            Standing::Stopped { .. }
        ));
        assert!(matches!(
            live.standing(SystemTime::UNIX_EPOCH, None),
            Standing::Running {
                quiet: Duration::ZERO
            }
        ));
        fs::create_dir(path.join("student")).unwrap();
        assert_eq!(standing(90, None), Standing::Finished);
    }

    #[test]
    fn a_stage_that_has_just_begun_is_a_run() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("stages")).unwrap();
        assert_eq!(
            Live::all(home.path()).unwrap().len(),
            1,
            "a schedule without a stage"
        );
        let stage = home.path().join("stages/1-kd");
        fs::create_dir(&stage).unwrap();
        let mut live = Live::all(home.path()).unwrap().remove(0);
        assert!(live.update(u64::MAX).unwrap());
        assert_eq!(live.method(), None);
        fs::write(stage.join("config.toml"), "[method]\nname = \"kd\"\n").unwrap();
        live.update(u64::MAX).unwrap();
        assert_eq!(live.method(), Some("kd"));
    }
}
