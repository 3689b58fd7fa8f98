//! A run as one thing: configuration, environment, what was logged, what was said, what came of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::metrics::{Metrics, MetricsFile};
use crate::error::{Error, Result};

/// What a run's folder holds.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its folder.
    pub path: PathBuf,
    /// What to call it: the folder's name, with the run's before it for one of several stages.
    pub name: String,
    /// The resolved configuration.
    pub config: toml::Table,
    /// Version, machine, hashes; `null` if the run did not come so far.
    pub environment: Value,
    /// `eval.json`; `null` while the run has not ended.
    pub eval: Value,
    /// `metrics.jsonl`.
    pub metrics: Metrics,
    /// `samples.jsonl`.
    pub samples: Vec<Sample>,
    /// Whether the student is there.
    pub finished: bool,
}

/// What the student said to a fixed prompt.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sample {
    /// Optimiser steps made; 0 is before training.
    pub step: usize,
    /// The prompt as the model read it.
    pub prompt: String,
    /// The answer.
    pub response: String,
    /// `stop` or `length`.
    pub finish_reason: String,
}

impl Record {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// [`Error::Run`] if it is no run's folder, or one of several stages (whose folders are named
    /// then); [`Error::Read`] for a file that is there and cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let config = config(path)?;
        let mut metrics = MetricsFile::new(&path.join("metrics.jsonl"));
        metrics.update()?;
        Ok(Self {
            path: path.to_owned(),
            name: name(path),
            config,
            environment: json(&path.join("environment.json"))?,
            eval: json(&path.join("eval.json"))?,
            metrics: metrics.into_metrics(),
            samples: lines(&path.join("samples.jsonl"))?,
            finished: path.join("student").exists(),
        })
    }

    /// The folders of the runs in `path`: itself, or one for each stage of a schedule, in order.
    pub fn folders(path: &Path) -> Vec<PathBuf> {
        let mut stages: Vec<PathBuf> = match fs::read_dir(path.join("stages")) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => return vec![path.to_owned()],
        };
        let number = |path: &PathBuf| -> Option<usize> {
            path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
        };
        stages.retain(|stage| number(stage).is_some());
        stages.sort_by_key(number);
        match stages.is_empty() {
            true => vec![path.to_owned()],
            false => stages,
        }
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        self.text("method", "name").unwrap_or("unknown")
    }

    /// A text of the configuration.
    pub fn text(&self, table: &str, key: &str) -> Option<&str> {
        self.config.get(table)?.get(key)?.as_str()
    }
}

pub(super) fn config(path: &Path) -> Result<toml::Table> {
    let file = path.join("config.toml");
    let refuse = |what: String, fix: &str| Error::Run {
        path: path.to_owned(),
        what,
        fix: fix.to_owned(),
    };
    if !path.is_dir() {
        let what = "there is no such folder".to_owned();
        return Err(refuse(what, "name the folder that distil train wrote"));
    }
    if !file.exists() {
        let what = "there is no config.toml, so this is not a run's folder".to_owned();
        return Err(match run_in(path) {
            Some(run) => refuse(
                what,
                &format!("name a run in it, such as {}", run.display()),
            ),
            None => refuse(what, "name the folder that distil train wrote"),
        });
    }
    let text = fs::read_to_string(&file).map_err(|source| Error::Read {
        path: file.clone(),
        source,
    })?;
    text.parse().map_err(|error: toml::de::Error| {
        let what = format!("config.toml is damaged: {}", error.message());
        refuse(what, "restore the file from another copy of the run")
    })
}

/// The first run, or schedule, that is in this folder.
fn run_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let is_run =
        |path: &PathBuf| path.join("config.toml").is_file() || path.join("stages").is_dir();
    entries.map(|entry| entry.path()).filter(is_run).min()
}

/// The folder's name; of a stage, the run's and its own.
pub(super) fn name(path: &Path) -> String {
    // `.` and `..` have no name of their own.
    let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let part = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let own = part(&whole).unwrap_or_else(|| whole.display().to_string());
    let parent = whole.parent().filter(|p| p.ends_with("stages"));
    match parent.and_then(Path::parent).and_then(part) {
        Some(run) => format!("{run}/{own}"),
        None => own,
    }
}

/// A JSON file; `null` if there is none, or half of one.
fn json(path: &Path) -> Result<Value> {
    Ok(read(path)?.map_or(Value::Null, |text| {
        serde_json::from_str(&text).unwrap_or_default()
    }))
}

/// The lines of a JSONL file that can be read.
fn lines<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Vec<T>> {
    let text = read(path)?.unwrap_or_default();
    let parse = |line: &str| serde_json::from_str(line).ok();
    Ok(text.lines().filter_map(parse).collect())
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_cut_anywhere_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kd-run");
        assert!(Record::read(&path).is_err(), "no folder");
        fs::create_dir(&path).unwrap();
        let error = Record::read(&path).unwrap_err().to_string();
        assert!(error.contains("not a run's folder"), "{error}");
        assert!(error.contains("that distil train wrote"), "{error}");
        fs::write(path.join("config.toml"), "[method]\nname = \"kd\"\n").unwrap();
        let record = Record::read(&path).unwrap();
        assert_eq!((record.name.as_str(), record.method()), ("kd-run", "kd"));
        assert!(record.eval.is_null() && record.metrics.steps.is_empty() && !record.finished);
        let sample = "{\"step\":0,\"prompt\":\"p\",\"response\":\"r\",\"finish_reason\":\"stop\"}";
        fs::write(path.join("samples.jsonl"), format!("{sample}\n{{\"st")).unwrap();
        fs::write(path.join("eval.json"), "{\"start\"").unwrap();
        let record = Record::read(&path).unwrap();
        assert_eq!(record.samples.len(), 1);
        assert!(record.eval.is_null());
        let error = Record::read(folder.path()).unwrap_err().to_string();
        let words = format!("name a run in it, such as {}", path.display());
        assert!(error.contains(&words), "{error}");
        fs::write(path.join("config.toml"), "[method").unwrap();
        let error = Record::read(&path).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    #[test]
    fn the_stages_of_a_schedule_are_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("both");
        for name in ["10-c", "2-b", "1-a", "other"] {
            fs::create_dir_all(path.join("stages").join(name)).unwrap();
        }
        let names: Vec<String> = Record::folders(&path).iter().map(|p| name(p)).collect();
        assert_eq!(names, ["both/1-a", "both/2-b", "both/10-c"]);
        assert_eq!(Record::folders(folder.path()), [folder.path()]);
    }
}
