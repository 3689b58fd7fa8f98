//! `metrics.jsonl`, column by column.
//!
//! A run may have a million steps of thirty numbers each: a column is one vector, not a million maps.
//! Nested objects become columns with a dot in their name: `phases.teacher`, `logit_gradients.moment`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::growing::{Growing, News};
use crate::error::Result;

/// What a run has logged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// The optimiser steps, in order.
    pub steps: Vec<usize>,
    /// By name, a number for each of `steps`; NaN where a step has none.
    columns: BTreeMap<String, Vec<f64>>,
    /// The evaluations, in order.
    pub evaluations: Vec<Evaluated>,
    /// What went wrong on the way.
    pub warnings: Vec<Warning>,
    /// Lines that could not be read.
    pub unreadable: usize,
}

/// The student as it was measured during training.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Optimiser steps made; 0 is before training.
    pub step: usize,
    /// Metrics by name, as far as they are numbers.
    pub metrics: BTreeMap<String, f64>,
}

/// A warning of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Optimiser steps made.
    pub step: usize,
    /// What was said.
    pub text: String,
}

impl Metrics {
    /// The column of this name, as long as `steps`.
    pub fn column(&self, name: &str) -> Option<&[f64]> {
        self.columns.get(name).map(Vec::as_slice)
    }

    /// Names of the columns, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(String::as_str)
    }

    /// The newest number of a column.
    pub fn last(&self, name: &str) -> Option<f64> {
        let column = self.column(name)?;
        column.last().copied().filter(|value| !value.is_nan())
    }

    /// Takes in what was read.
    fn take(&mut self, news: News<'_>) {
        match news {
            News::Afresh => *self = Self::default(),
            News::Line(text) => self.line(text),
        }
    }

    /// Takes in one line.
    fn line(&mut self, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        let Ok(Value::Object(line)) = serde_json::from_str(text) else {
            self.unreadable += 1;
            return;
        };
        let Some(step) = line.get("step").and_then(Value::as_u64) else {
            self.unreadable += 1;
            return;
        };
        let step = step as usize;
        if let Some(Value::Object(metrics)) = line.get("eval") {
            let numbers = metrics
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
            self.evaluations.push(Evaluated {
                step,
                metrics: numbers.collect(),
            });
        } else if let Some(Value::String(text)) = line.get("warning") {
            self.warnings.push(Warning {
                step,
                text: text.clone(),
            });
        } else {
            self.steps.push(step);
            self.numbers("", &line);
            for column in self.columns.values_mut() {
                column.resize(self.steps.len(), f64::NAN);
            }
        }
    }

    /// Puts the numbers of the newest step into their columns.
    fn numbers(&mut self, within: &str, object: &Map<String, Value>) {
        for (name, value) in object {
            match value {
                Value::Object(inner) => self.numbers(&format!("{within}{name}."), inner),
                // It stands in `steps`.
                Value::Number(_) if within.is_empty() && name == "step" => {}
                Value::Number(number) => {
                    let number = number.as_f64().unwrap_or(f64::NAN);
                    let name = format!("{within}{name}");
                    let rows = self.steps.len();
                    let column = self.columns.entry(name).or_default();
                    column.resize(rows - 1, f64::NAN);
                    column.push(number);
                }
                _ => {}
            }
        }
    }
}

/// The file of a run that may still be growing.
#[derive(Debug)]
pub struct MetricsFile {
    file: Growing,
    metrics: Metrics,
}

impl MetricsFile {
    /// The file, of which nothing is read yet. It need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self {
            file: Growing::new(path),
            metrics: Metrics::default(),
        }
    }

    /// What has been read.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Gives up the file for what has been read.
    pub fn into_metrics(self) -> Metrics {
        self.metrics
    }

    /// Reads the lines that were added, and says whether there were any. Half a line stays for the
    /// next time. The file of a run that was resumed is read again.
    ///
    /// # Errors
    /// [`Error::Read`](crate::Error::Read) for anything but a file that does not exist yet.
    pub fn update(&mut self) -> Result<bool> {
        let mut changed = false;
        let metrics = &mut self.metrics;
        self.file.read_on(u64::MAX, &mut |news| {
            changed = true;
            metrics.take(news);
        })?;
        Ok(changed)
    }

    /// As [`update`](Self::update), but stops after `most` bytes; says whether the end was reached.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn read_on(&mut self, most: u64) -> Result<bool> {
        let metrics = &mut self.metrics;
        self.file.read_on(most, &mut |news| metrics.take(news))
    }

    /// Bytes that are still to be read.
    pub fn unread(&self) -> u64 {
        self.file.unread()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use super::*;

    #[test]
    fn steps_evaluations_and_warnings_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let text = "\
{\"step\":0,\"eval\":{\"rouge_l\":0.5,\"forward_kl\":null}}
{\"step\":1,\"loss\":2.0,\"phases\":{\"teacher\":0.25}}
not json
{\"step\":2,\"loss\":1.5,\"kl_k3\":0.125}
{\"step\":2,\"warning\":\"short\"}
{\"step\":3,\"lo";
        fs::write(&path, text).unwrap();
        let mut file = MetricsFile::new(&path);
        assert!(file.update().unwrap());
        let metrics = file.metrics();
        assert_eq!(metrics.steps, [1, 2]);
        assert_eq!(metrics.column("loss"), Some([2.0, 1.5].as_slice()));
        assert_eq!(metrics.column("phases.teacher").unwrap()[0], 0.25);
        assert!(metrics.column("phases.teacher").unwrap()[1].is_nan());
        assert!(metrics.column("kl_k3").unwrap()[0].is_nan());
        assert_eq!(metrics.last("kl_k3"), Some(0.125));
        assert_eq!(metrics.last("phases.teacher"), None);
        assert_eq!(
            metrics.names().collect::<Vec<_>>(),
            ["kl_k3", "loss", "phases.teacher"]
        );
        assert_eq!(metrics.evaluations.len(), 1);
        assert_eq!(metrics.evaluations[0].metrics["rouge_l"], 0.5);
        assert!(!metrics.evaluations[0].metrics.contains_key("forward_kl"));
        assert_eq!(metrics.warnings[0].text, "short");
        assert_eq!(metrics.unreadable, 1);
    }

    #[test]
    fn a_growing_file_is_read_on_and_a_shorter_one_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut file = MetricsFile::new(&path);
        assert!(!file.update().unwrap(), "it does not exist yet");
        fs::write(&path, "{\"step\":1,\"loss\":2.0}\n{\"step\":2,\"lo").unwrap();
        assert!(file.update().unwrap());
        assert_eq!(file.metrics().steps, [1]);
        let mut end = OpenOptions::new().append(true).open(&path).unwrap();
        end.write_all(b"ss\":1.0}\n").unwrap();
        assert!(file.update().unwrap());
        assert_eq!(file.metrics().column("loss"), Some([2.0, 1.0].as_slice()));
        assert!(!file.update().unwrap());
        fs::write(&path, "{\"step\":1,\"loss\":3.0}\n").unwrap();
        assert!(file.update().unwrap());
        assert_eq!(file.metrics().column("loss"), Some([3.0].as_slice()));
    }
}
