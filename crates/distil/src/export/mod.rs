//! A run for other tools: TensorBoard, spreadsheets and data frames, Weights & Biases, and the hub's
//! model card.
//!
//! All of it is made from the run's folder as [`Record`] reads it, finished or not. One thing has one
//! name in each format:
//!
//! ```text
//! metrics.jsonl                    CSV               TensorBoard, Weights & Biases
//! {"step": 1, "loss": …}           loss              train/loss
//! {"step": 1, "phases": {"a": …}}  phases.a          phases/a
//! {"step": 0, "eval": {"b": …}}    eval.b            eval/b
//! ```

pub mod card;
pub mod csv;
mod history;
mod protobuf;
pub mod tensorboard;
mod tfrecord;
pub mod wandb;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::record::Record;

/// Reads the runs in these folders, each stage of a schedule as a run of its own. No two have the same
/// name: where folders are called alike, the folder around them is part of the name.
///
/// # Errors
/// [`Error::Run`] if a folder is no run's folder, names cannot be told apart, or nothing was logged in
/// any of the runs; [`Error::Read`] if a file cannot be read.
pub fn records(paths: &[PathBuf]) -> Result<Vec<Record>> {
    let folders = paths.iter().flat_map(|path| Record::folders(path));
    let mut records: Vec<Record> = folders
        .map(|path| Record::read(&path))
        .collect::<Result<_>>()?;
    let count = |records: &[Record]| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for record in records {
            *counts.entry(record.name.clone()).or_default() += 1;
        }
        counts
    };
    let alike = count(&records);
    for record in &mut records {
        if alike.get(&record.name).is_some_and(|&count| count > 1)
            && let Some(around) = around(&record.path)
        {
            record.name = format!("{around}/{}", record.name);
        }
    }
    let alike = count(&records);
    let refuse = |record: &Record, what: String, fix: &str| {
        Err(Error::Run {
            path: record.path.clone(),
            what,
            fix: fix.to_owned(),
        })
    };
    if let Some(twice) = records
        .iter()
        .find(|record| alike.get(&record.name).is_some_and(|&count| count > 1))
    {
        let what = format!("two of the runs are called {}", twice.name);
        return refuse(twice, what, "export one of them by itself");
    }
    let empty =
        |record: &Record| record.metrics.steps.is_empty() && record.metrics.evaluations.is_empty();
    match records.first().filter(|_| records.iter().all(empty)) {
        Some(first) => {
            let what = "no step and no evaluation was logged".to_owned();
            refuse(first, what, "wait for the run's first step")
        }
        None => Ok(records),
    }
}

/// The name of the folder around a run's, or around that of the schedule whose stage it is.
fn around(run: &Path) -> Option<String> {
    let whole = std::fs::canonicalize(run).ok()?;
    let parent = whole.parent()?;
    let around = match parent.ends_with("stages") {
        true => parent.parent()?.parent()?,
        false => parent,
    };
    Some(around.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    /// A run's folder with this configuration and these lines of metrics.
    pub(crate) fn run(path: &Path, config: &str, metrics: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("config.toml"), config).unwrap();
        fs::write(path.join("metrics.jsonl"), metrics).unwrap();
    }

    const KD: &str = "[method]\nname = \"kd\"\n";
    const STEP: &str = "{\"step\":1,\"loss\":2.0}\n";

    #[test]
    fn names_tell_runs_apart() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        for name in ["a/run", "b/run", "c/both/stages/1-kd", "d/both/stages/1-kd"] {
            run(&path(name), KD, STEP);
        }
        run(&path("c/both/stages/2-gkd"), KD, STEP);
        let names = |paths: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(|name| path(name)).collect();
            let records = records(&paths)?;
            Ok::<_, Error>(records.into_iter().map(|r| r.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["a/run"]).unwrap(), ["run"]);
        assert_eq!(names(&["a/run", "b/run"]).unwrap(), ["a/run", "b/run"]);
        assert_eq!(
            names(&["c/both", "d/both"]).unwrap(),
            ["c/both/1-kd", "both/2-gkd", "d/both/1-kd"]
        );
        let twice = names(&["a/run", "a/run"]).unwrap_err().to_string();
        assert!(twice.contains("called a/run"), "{twice}");
    }

    #[test]
    fn a_run_without_a_step_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run");
        run(&path, KD, "{\"step\":1,\"lo");
        let error = records(std::slice::from_ref(&path)).unwrap_err();
        assert!(error.to_string().contains("first step"), "{error}");
        run(&path, KD, "{\"step\":0,\"eval\":{\"rouge_l\":0.5}}\n");
        assert_eq!(records(&[path]).unwrap().len(), 1);
    }
}
