//! The configuration of `distil train`: a TOML file, and `--set table.key=value` laid over it.
//!
//! It is read in three stages, each with its own types. *Typed*: the values and where they stand
//! (`document`). *Validated*: every value is one that its key allows (`check`, against the list in
//! `keys`; the result is `given`, all optional). *Resolved*: [`Config`], every key with its default, no
//! combination that makes no sense. The resolved configuration is written beside every run
//! ([`Config::to_toml`]) and read back when the run is resumed ([`Config::from_resolved`]).
//!
//! Relative paths in the file start from the file's folder, relative paths in overrides from the current
//! folder; resolved paths are absolute, so that a run can be resumed from anywhere.

mod check;
mod combinations;
mod data;
mod document;
mod eval;
mod given;
mod keys;
mod method;
mod models;
mod paths;
mod reference;
mod suggest;
mod train;
mod write;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use data::{Data, OnBadRow};
pub use eval::Eval;
pub use keys::{Interval, KEYS, Key, Kind, Owner, Preset, TABLES};
pub use method::{
    Baseline, DistiLlm, Divergence, DivergenceTerm, Dpkd, DpkdForm, DpkdSequence, DpkdToken, Gkd,
    JudgeKind, JudgeSettings, Kd, Llmr, LmSource, Method, MiniLlm, MmPbkd, PairSource, Pairs, Pbkd,
    PbkdMode, PreferenceKind, Reference, Responses, RewardBaseline, Rollout, Sampling, SeqKd,
    StateValue, TeacherInSteps, TokenLoss, Unfinished,
};
pub use models::{Precision, Prune, Start, Student, Teacher};
pub use reference::{reference, reference_of};
pub use train::{Length, Schedule, Train};

use crate::eval::metric::metric;
use crate::{Error, Result};
use document::Document;
use given::Given;
use paths::{Bases, References};

/// A resolved configuration: every key has its value, and the values go together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Start of every random stream.
    pub seed: u64,
    /// The model that is distilled; only `sft` does without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Teacher>,
    /// The model that is trained: what it starts from, and how it is computed.
    pub student: Student,
    /// Prompts and responses.
    pub data: Data,
    /// How the student learns.
    pub method: Method,
    /// The optimiser and its loop.
    pub train: Train,
    /// Evaluation during training.
    pub eval: Eval,
}

impl Config {
    /// Reads the configuration `path`, with `overrides` of the form `table.key=value` laid over it. A
    /// value is TOML; a bare word is text. An override of `train.steps` displaces the file's
    /// `train.epochs` and the other way round; likewise the three ways to start a student.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read; [`Error::Config`], with file, line and key or with the
    /// override, if a key is unknown, a value is not allowed, or values do not go together.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::parse(&read(path)?, path, overrides)
    }

    /// As [`Config::load`], of a text that need not be on disk: `path` says where it would be, for error
    /// messages and as the start of relative paths.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self> {
        build(text, path, overrides, References::MayBeRelative)
    }

    /// Reads a resolved configuration, as [`Config::to_toml`] wrote it: the same configuration again. A
    /// key that is newer than the file has its default.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_resolved(path: &Path) -> Result<Self> {
        build(&read(path)?, path, &[], References::Absolute)
    }

    /// Whether an evaluation asks the teacher something.
    pub(crate) fn measures_with_teacher(&self) -> bool {
        let needs = |name: &String| metric(name).is_some_and(|metric| metric.needs_teacher());
        self.data.eval.is_some() && self.eval.metrics.iter().any(needs)
    }

    /// What a run asks of the teacher after its preparation.
    pub(crate) fn teacher_in_steps(&self) -> TeacherInSteps {
        let cached = self.teacher.as_ref().is_some_and(|teacher| teacher.cache);
        match self.measures_with_teacher() {
            true => TeacherInSteps::Whole,
            false => self.method.teacher_in_steps(cached),
        }
    }

    /// The configuration as TOML, every key in a fixed order; keys that are not set stand as comments.
    pub fn to_toml(&self) -> String {
        write::to_toml(self)
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// One stage of a schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its folder's name inside the run's `stages/`: number and method.
    pub name: String,
    /// What it does. From the second stage on, `student.start` stands in for the one before's
    /// student.
    pub config: Config,
}

/// What a configuration file describes.
#[derive(Debug, Clone, PartialEq)]
pub enum Runs {
    /// One run.
    One(Box<Config>),
    /// A schedule of `[[stage]]`s, each starting from the student of the one before.
    Stages(Vec<Stage>),
}

impl Runs {
    /// Reads the configuration `path`, with or without stages. A stage's keys are laid over those
    /// outside of the stages; overrides come last, `table.key=value` for every stage and
    /// `stage.2.table.key=value` for one.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::parse(&read(path)?, path, overrides)
    }

    /// As [`Runs::load`], of a text.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self> {
        let documents = Document::stages(text, path, overrides)?;
        if documents.is_empty() {
            let config = Config::parse(text, path, overrides)?;
            return Ok(Self::One(Box::new(config)));
        }
        let stage = |(index, document)| {
            let config = resolved(document, path, References::MayBeRelative)?;
            let name = format!("{}-{}", index + 1, config.method.name());
            Ok(Stage { name, config })
        };
        let stages = documents.into_iter().enumerate().map(stage);
        Ok(Self::Stages(stages.collect::<Result<_>>()?))
    }
}

fn build(text: &str, path: &Path, overrides: &[String], references: References) -> Result<Config> {
    resolved(Document::new(text, path, overrides)?, path, references)
}

fn resolved(mut document: Document, path: &Path, references: References) -> Result<Config> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let bases = Bases {
        file: absolute(folder.unwrap_or(Path::new(".")))?,
        overrides: absolute(Path::new("."))?,
    };
    check::check(&mut document, &bases, references)?;
    let given = Given::deserialize(document.nested()).map_err(|error| Error::Config {
        place: path.display().to_string(),
        what: error.message().to_owned(),
        fix: "compare with the list of keys in the book".into(),
    })?;
    resolve(given, &document)
}

fn absolute(folder: &Path) -> Result<PathBuf> {
    std::path::absolute(folder).map_err(|source| Error::Read {
        path: folder.to_owned(),
        source,
    })
}

fn resolve(given: Given, document: &Document) -> Result<Config> {
    let data = data::resolve(given.data, document)?;
    let method = method::resolve(given.method, &data, document)?;
    let teacher = models::teacher(given.teacher, &method, document)?;
    let student = models::student(given.student, teacher.as_ref(), document)?;
    let eval = eval::resolve(given.eval, &data, teacher.is_some(), document)?;
    let train = train::resolve(given.train, &data, &method, &eval, document)?;
    let config = Config {
        seed: given.seed.unwrap_or(0),
        teacher,
        student,
        data,
        method,
        train,
        eval,
    };
    combinations::check(&config, document)?;
    Ok(config)
}

#[cfg(test)]
mod tests;
