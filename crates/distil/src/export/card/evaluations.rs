//! Evaluations of a run's student that stand beside the run: `evaluations/*.json`, each with the files
//! that `distil eval` writes with it.
//!
//! An evaluation belongs to a student if it is of its weights, by sha256; others (of a checkpoint, of a
//! teacher) have no place in its card.

use std::fs;
use std::path::Path;

use distil_model::weights::Weights;
use serde_json::{Map, Value};

use super::markup::{cell, number};
use crate::error::Result;

/// Reads the evaluations in these runs' folders that are of the student in `student`, by name.
///
/// # Errors
/// The student's weights cannot be read.
pub(super) fn of(student: &Path, runs: &[&Path]) -> Result<Vec<Value>> {
    let mut found: Vec<Value> = Vec::new();
    for run in runs {
        let entries = fs::read_dir(run.join("evaluations")).into_iter().flatten();
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        // Half a file, or another one: nothing that the card could say.
        let read = |path: &std::path::PathBuf| -> Option<Value> {
            let json = path
                .extension()
                .is_some_and(|extension| extension == "json");
            let text = fs::read_to_string(path).ok().filter(|_| json)?;
            let value: Value = serde_json::from_str(&text).ok()?;
            value["weights_sha256"].is_string().then_some(value)
        };
        found.extend(paths.iter().filter_map(read));
    }
    if found.is_empty() {
        return Ok(found);
    }
    let digests = Weights::open(student)?.sha256()?;
    let is_of_the_student = |evaluation: &Value| {
        let of = evaluation["weights_sha256"].as_str();
        digests
            .iter()
            .any(|(_, digest)| Some(digest.as_str()) == of)
    };
    found.retain(is_of_the_student);
    Ok(found)
}

/// An evaluation as a heading, a sentence and a table.
pub(super) fn section(evaluation: &Value) -> String {
    let text = |key: &str| evaluation[key].as_str().unwrap_or("–");
    let data = super::names::file(text("data"));
    let rows = evaluation["rows"].as_u64().unwrap_or_default();
    let against = match evaluation["teacher"].as_str() {
        Some(teacher) => format!(", teacher {}", cell(&super::names::model(teacher))),
        None => String::new(),
    };
    let limit = match evaluation["max_new_tokens"].as_u64() {
        Some(limit) => format!(", answers of at most {limit} tokens"),
        None => String::new(),
    };
    let mut out = format!(
        "### {}\n\n{rows} rows of {} (sha256 {}){against}{limit}.\n\n\
         | metric | references or greedy answers | 95 % interval | sampled answers | 95 % interval |\n\
         |---|---|---|---|---|\n",
        cell(text("name")),
        cell(&data),
        cell(text("data_sha256")),
    );
    let none = Map::new();
    let metrics = evaluation["metrics"].as_object().unwrap_or(&none);
    for (name, metric) in metrics {
        let (value, around) = match metric.get("greedy") {
            Some(greedy) => (greedy, &metric["greedy_interval"]),
            None if metric.get("value").is_some() => (&metric["value"], &metric["interval"]),
            None => (&Value::Null, &Value::Null),
        };
        let (mean, deviation) = (&metric["mean"], &metric["standard_deviation"]);
        let seeds = metric["by_seed"].as_array().map_or(0, Vec::len);
        let sampled = match (mean.as_f64(), deviation.as_f64()) {
            (Some(mean), Some(deviation)) => {
                format!("{} ± {}, {seeds} seeds", number(mean), number(deviation))
            }
            (Some(mean), None) => format!("{}, {seeds} seed", number(mean)),
            _ => "–".to_owned(),
        };
        let sampled_around = match mean.is_number() {
            true => interval(&metric["interval"]),
            false => interval(&Value::Null),
        };
        let value = value.as_f64().map_or("–".to_owned(), number);
        out += &format!(
            "| {} | {value} | {} | {sampled} | {sampled_around} |\n",
            cell(name),
            interval(around)
        );
    }
    out
}

fn interval(value: &Value) -> String {
    let end = |index: usize| value.get(index).and_then(Value::as_f64).map(number);
    match (end(0), end(1)) {
        (Some(low), Some(high)) => format!("{low} to {high}"),
        _ => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evaluation() -> Value {
        json!({
            "format": 1, "name": "dolly", "model": "/home/someone/run/student",
            "teacher": "/home/someone/teacher", "data": "/home/someone/test.jsonl",
            "data_sha256": "abc", "weights_sha256": "def", "rows": 500, "max_new_tokens": 256,
            "metrics": {
                "rouge_l": {"greedy": 0.21, "greedy_interval": [0.19, 0.23], "by_seed": [0.2, 0.19],
                    "mean": 0.195, "standard_deviation": 0.0071, "interval": [0.18, 0.21]},
                "forward_kl": {"value": 0.5, "interval": [0.48, 0.53]},
            },
        })
    }

    #[test]
    fn values_stand_with_their_intervals() {
        let text = section(&evaluation());
        let rows: Vec<&str> = text.lines().skip(6).collect();
        assert_eq!(
            rows,
            [
                "| `rouge_l` | 0.2100 | 0.1900 to 0.2300 | 0.1950 ± 0.007100, 2 seeds | 0.1800 to 0.2100 |",
                "| `forward_kl` | 0.5000 | 0.4800 to 0.5300 | – | – |",
            ]
        );
        assert!(text.contains("500 rows of `test.jsonl` (sha256 `abc`), teacher `teacher`"));
        assert!(text.contains("answers of at most 256 tokens."), "{text}");
        assert!(!text.contains("someone"), "{text}");
        let mut older = evaluation();
        older["max_new_tokens"] = Value::Null;
        assert!(!section(&older).contains("null"), "{}", section(&older));
    }

    #[test]
    fn only_evaluations_of_these_weights_count() {
        let home = tempfile::tempdir().unwrap();
        let (student, run) = (home.path().join("student"), home.path().join("run"));
        fs::create_dir_all(&student).unwrap();
        // A safetensors file without tensors: a header of two bytes.
        fs::write(student.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
        fs::write(student.join("config.json"), "{}").unwrap();
        assert!(of(&student, &[&run]).unwrap().is_empty());
        let folder = run.join("evaluations");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("half.json"), "{\"weights_sha256\": \"d").unwrap();
        fs::write(folder.join("other.json"), evaluation().to_string()).unwrap();
        assert!(of(&student, &[&run]).unwrap().is_empty());
        let mut own = evaluation();
        own["weights_sha256"] = json!(Weights::open(&student).unwrap().sha256().unwrap()[0].1);
        fs::write(folder.join("own.json"), own.to_string()).unwrap();
        fs::write(folder.join("own.answers.jsonl"), "").unwrap();
        assert_eq!(of(&student, &[&run]).unwrap(), [own]);
    }
}
