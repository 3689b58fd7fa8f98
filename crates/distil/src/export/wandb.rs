//! A run as lines that Weights & Biases takes as they are, without an account.
//!
//! ```text
//! {"name": "first", "config": {…}}                        arguments of wandb.init: a run begins
//! {"_step": 0, "_timestamp": …, "eval/rouge_l": 0.1875}   arguments of run.log, the step apart
//! {"_step": 1, "_timestamp": …, "train/loss": 2.25, …}
//! ```
//!
//! The book has the lines of Python that log them. A step that has been logged cannot be added to, and
//! steps only go up; so each is one object, with its evaluation in it. `_timestamp` is in seconds
//! since 1970 and takes the place of the time of logging.

use serde_json::{Map, Value, json};

use super::history::History;
use crate::record::Record;

/// Keys of `environment.json` that go with the configuration. The hashes stay: their names are paths.
const ENVIRONMENT: [&str; 8] = [
    "version",
    "commit",
    "os",
    "architecture",
    "cpu",
    "cores",
    "device",
    "models",
];

/// The lines of these runs, one run after the other.
pub fn lines(records: &[Record]) -> String {
    let mut out = String::new();
    for record in records {
        out += &format!("{}\n", head(record));
        let history = History::new(record);
        let columns = history.columns();
        let names: Vec<String> = columns.iter().map(|column| column.grouped()).collect();
        for row in history.rows() {
            let mut line = Map::new();
            line.insert("_step".into(), json!(row.step));
            line.insert("_timestamp".into(), json!(row.time));
            for (column, name) in columns.iter().zip(&names) {
                if let Some(value) = history.value(&row, column) {
                    line.insert(name.clone(), json!(value));
                }
            }
            out += &format!("{}\n", Value::Object(line));
        }
    }
    out
}

/// The line with which a run begins. Stages of a schedule are one group.
fn head(record: &Record) -> Value {
    let mut config = serde_json::to_value(&record.config).unwrap_or_default();
    let environment: Map<String, Value> = ENVIRONMENT
        .iter()
        .filter_map(|&key| Some((key.to_owned(), record.environment.get(key)?.clone())))
        .collect();
    if let Some(config) = config.as_object_mut() {
        config.insert("environment".into(), Value::Object(environment));
    }
    let mut head = json!({"name": record.name});
    if let Some((group, _)) = record.name.rsplit_once('/') {
        head["group"] = json!(group);
    }
    head["config"] = config;
    head
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn a_run_begins_with_its_configuration_and_every_step_is_one_object() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("both/stages/1-kd");
        run(
            &path,
            "seed = 3\n[method]\nname = \"kd\"\n",
            "{\"step\":1,\"loss\":2.5,\"seconds\":0.5,\"phases\":{\"teacher\":0.25}}\n\
             {\"step\":1,\"eval\":{\"rouge_l\":0.5}}\n{\"step\":2,\"loss\":0.5}\n",
        );
        let mut record = Record::read(&path).unwrap();
        record.environment = json!({"version": "1.2.3", "started_at": 100, "sha256": {"/a": "b"}});
        let text = lines(&[record]);
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                json!({"name": "both/1-kd", "group": "both", "config":
                    {"seed": 3, "method": {"name": "kd"}, "environment": {"version": "1.2.3"}}}),
                json!({"_step": 1, "_timestamp": 100.5, "train/loss": 2.5, "train/seconds": 0.5,
                    "phases/teacher": 0.25, "eval/rouge_l": 0.5}),
                json!({"_step": 2, "_timestamp": 100.5, "train/loss": 0.5}),
            ]
        );
    }
}
