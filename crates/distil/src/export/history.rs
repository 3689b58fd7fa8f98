//! What a run logged, as a table: a row for every step that has something, a column for every number.
//!
//! An evaluation stands in the row of its step, so that one before training is a row of step 0. A
//! number that a step does not have is `None`.

use std::collections::BTreeMap;
use std::fs;
use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::record::Record;

/// Columns that come first, in this order; the others follow in alphabetical order.
const FIRST: [&str; 4] = ["steps", "epoch", "tokens", "loss"];

/// A run as a table.
pub(super) struct History<'a> {
    record: &'a Record,
    /// Seconds since 1970 at which the first step began.
    start: f64,
}

/// A column's name: as in `metrics.jsonl`, or of an evaluation's metric. They are ordered as in a
/// table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Column {
    /// Of every step; the number is the place among those that come first.
    Step(usize, String),
    /// Of evaluations.
    Evaluation(String),
}

/// What was logged after a number of optimiser steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// Optimiser steps made.
    pub(super) step: usize,
    /// Seconds since 1970, as far as they are known.
    pub(super) time: f64,
    /// Where the step stands in the columns.
    line: Option<usize>,
    /// Which evaluation it is.
    evaluation: Option<usize>,
}

impl Column {
    /// The name with dots: `loss`, `phases.teacher`, `eval.rouge_l`.
    pub(super) fn dotted(&self) -> String {
        match self {
            Self::Step(_, name) => name.clone(),
            Self::Evaluation(name) => format!("eval.{name}"),
        }
    }

    /// The name in groups: `train/loss`, `phases/teacher`, `eval/rouge_l`.
    pub(super) fn grouped(&self) -> String {
        match self {
            Self::Step(_, name) if name.contains('.') => name.replacen('.', "/", 1),
            Self::Step(_, name) => format!("train/{name}"),
            Self::Evaluation(name) => format!("eval/{name}"),
        }
    }
}

impl<'a> History<'a> {
    pub(super) fn new(record: &'a Record) -> Self {
        Self {
            record,
            start: start(record),
        }
    }

    /// The columns, in order.
    pub(super) fn columns(&self) -> Vec<Column> {
        let metrics = &self.record.metrics;
        let place = |name: &str| FIRST.iter().position(|first| *first == name);
        let steps = metrics
            .names()
            .map(|name| Column::Step(place(name).unwrap_or(FIRST.len()), name.to_owned()));
        let names = metrics.evaluations.iter().flat_map(|e| e.metrics.keys());
        let mut columns: Vec<Column> = steps
            .chain(names.map(|name| Column::Evaluation(name.clone())))
            .collect();
        columns.sort();
        columns.dedup();
        columns
    }

    /// The rows, in the order of their steps. Of a step that was logged twice, the last counts.
    pub(super) fn rows(&self) -> Vec<Row> {
        let metrics = &self.record.metrics;
        let mut found: BTreeMap<usize, (Option<usize>, Option<usize>)> = BTreeMap::new();
        for (line, &step) in metrics.steps.iter().enumerate() {
            found.entry(step).or_default().0 = Some(line);
        }
        for (index, evaluation) in metrics.evaluations.iter().enumerate() {
            found.entry(evaluation.step).or_default().1 = Some(index);
        }
        let seconds = metrics.column("seconds").unwrap_or_default();
        let mut time = self.start;
        let row = |(step, (line, evaluation)): (usize, (Option<usize>, Option<usize>))| {
            let took = line.and_then(|line| seconds.get(line)).copied();
            time += took.filter(|s| s.is_finite()).unwrap_or_default();
            Row {
                step,
                time,
                line,
                evaluation,
            }
        };
        found.into_iter().map(row).collect()
    }

    /// A cell.
    pub(super) fn value(&self, row: &Row, column: &Column) -> Option<f64> {
        let metrics = &self.record.metrics;
        let value = match column {
            Column::Step(_, name) => *metrics.column(name)?.get(row.line?)?,
            Column::Evaluation(name) => {
                let evaluation = metrics.evaluations.get(row.evaluation?)?;
                *evaluation.metrics.get(name)?
            }
        };
        (!value.is_nan()).then_some(value)
    }

    /// Seconds since 1970 at which the first step began.
    pub(super) fn start(&self) -> f64 {
        self.start
    }
}

/// `metrics.jsonl` has no clock times, only the seconds of each step. The clock of an export begins
/// when the run did, and where that is not known, so that the last step ends when the file was last
/// written to; it runs while steps are made.
fn start(record: &Record) -> f64 {
    if let Some(started) = record.environment.get("started_at").and_then(Value::as_f64) {
        return started;
    }
    let seconds = record.metrics.column("seconds").unwrap_or_default();
    let total: f64 = seconds.iter().filter(|s| s.is_finite()).sum();
    let written = fs::metadata(record.path.join("metrics.jsonl")).and_then(|m| m.modified());
    let written = written
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    written.map_or(0.0, |written| (written.as_secs_f64() - total).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    fn record(metrics: &str) -> (tempfile::TempDir, Record) {
        let home = tempfile::tempdir().unwrap();
        run(home.path(), "[method]\nname = \"kd\"\n", metrics);
        let record = Record::read(home.path()).unwrap();
        (home, record)
    }

    #[test]
    fn an_evaluation_stands_in_the_row_of_its_step() {
        let (_home, record) = record(
            "{\"step\":0,\"eval\":{\"rouge_l\":0.5}}\n\
             {\"step\":1,\"loss\":2.0,\"seconds\":0.5,\"aux\":1.0,\"phases\":{\"teacher\":0.25}}\n\
             {\"step\":2,\"loss\":1.0,\"seconds\":0.25,\"tokens\":7}\n\
             {\"step\":2,\"eval\":{\"rouge_l\":0.75,\"eos_rate\":1.0}}\n",
        );
        let history = History::new(&record);
        let columns = history.columns();
        let dotted: Vec<String> = columns.iter().map(Column::dotted).collect();
        assert_eq!(
            dotted,
            [
                "tokens",
                "loss",
                "aux",
                "phases.teacher",
                "seconds",
                "eval.eos_rate",
                "eval.rouge_l"
            ]
        );
        let grouped: Vec<String> = columns.iter().map(Column::grouped).collect();
        assert_eq!(grouped[1], "train/loss");
        assert_eq!(grouped[3], "phases/teacher");
        assert_eq!(grouped[6], "eval/rouge_l");
        let rows = history.rows();
        let cells = |row: &Row| -> Vec<Option<f64>> {
            columns.iter().map(|c| history.value(row, c)).collect()
        };
        let none = None;
        assert_eq!(
            rows.iter().map(|row| row.step).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(
            cells(&rows[0]),
            [none, none, none, none, none, none, Some(0.5)]
        );
        assert_eq!(
            cells(&rows[1]),
            [
                none,
                Some(2.0),
                Some(1.0),
                Some(0.25),
                Some(0.5),
                none,
                none
            ]
        );
        assert_eq!(
            cells(&rows[2]),
            [
                Some(7.0),
                Some(1.0),
                none,
                none,
                Some(0.25),
                Some(1.0),
                Some(0.75)
            ]
        );
    }

    #[test]
    fn the_clock_begins_with_the_run_and_counts_its_steps() {
        let lines = "{\"step\":0,\"eval\":{}}\n{\"step\":1,\"seconds\":0.5}\n\
                     {\"step\":2,\"seconds\":0.25}\n";
        let (home, mut record) = record(lines);
        let times = |record: &Record| -> Vec<f64> {
            let rows = History::new(record).rows();
            rows.iter().map(|row| row.time).collect()
        };
        record.environment = serde_json::json!({"started_at": 1_700_000_000});
        assert_eq!(times(&record), [1.7e9, 1.7e9 + 0.5, 1.7e9 + 0.75]);
        // An older run does not say when it began: it ends when its file was written.
        record.environment = Value::Null;
        let modified = UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
        let file = fs::File::options()
            .append(true)
            .open(home.path().join("metrics.jsonl"))
            .unwrap();
        file.set_modified(modified).unwrap();
        assert_eq!(times(&record), [1.6e9 - 0.75, 1.6e9 - 0.25, 1.6e9]);
    }

    #[test]
    fn the_last_of_two_lines_of_a_step_counts() {
        let (_home, record) = record("{\"step\":1,\"loss\":2.0}\n{\"step\":1,\"loss\":3.0}\n");
        let history = History::new(&record);
        let rows = history.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!(history.value(&rows[0], &history.columns()[0]), Some(3.0));
    }
}
