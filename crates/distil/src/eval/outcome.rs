//! What an evaluation found, and its file.
//!
//! ```text
//! { "format": 1, "name", "model", "teacher" | null, "data", "data_sha256", "weights_sha256",
//!   "tokenizer_sha256", "config_sha256" | null, "teacher_sha256" | null, "precision", "rows", "template",
//!   "max_new_tokens",
//!   "runs": [{"seed" | null, "temperature"}],             greedy first, then one a seed
//!   "metrics": {name: {"rows",                            that the metric says something of
//!                      "greedy", "greedy_interval",      of the greedy run
//!                      "by_seed": […], "mean", "standard_deviation", "interval",   of the sampled ones
//!                      "value", "interval"}},             of references, which know no runs
//!   "signatures": {name: line},
//!   "buckets": [{"from", "to" | null, "rows", "metrics": as above}],
//!   "exposure_bias": see exposure.rs | null,
//!   "by_row": {name: {"rows": […], "sums": [[…]]}} }      of references, for comparisons
//! ```
//!
//! `"references"` is the file of the references where they have one of their own, and else absent, as is
//! what was not asked for. A value that is not finite is `null`, and so is an interval or a
//! deviation that is not defined (of one row, of one seed, of distinct-n).

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::conditions::Header;
use super::protocol::Measured;

/// The version of the file's format.
pub const FORMAT: u64 = 1;

/// A number and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// None if it is not defined.
    pub interval: Option<[f64; 2]>,
}

/// A metric of several sampled runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Its value in each run.
    pub by_seed: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (n − 1); none of one.
    pub standard_deviation: Option<f64>,
    /// The 95 % interval of the mean, over rows.
    pub interval: Option<[f64; 2]>,
}

impl Sampled {
    /// Of the values of the runs, at least one.
    pub fn new(by_seed: Vec<f64>, interval: Option<[f64; 2]>) -> Self {
        let count = by_seed.len() as f64;
        let mean = by_seed.iter().sum::<f64>() / count;
        let squares: f64 = by_seed.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            standard_deviation: (by_seed.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
            mean,
            by_seed,
            interval,
        }
    }
}

/// A metric of all runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Rows that it says something of: with references for ROUGE, within the context for a divergence.
    pub rows: usize,
    /// Of references.
    pub value: Option<Estimate>,
    /// Of the greedy run.
    pub greedy: Option<Estimate>,
    /// Of the sampled runs.
    pub sampled: Option<Sampled>,
}

impl Summary {
    /// The one number to show where there is room for one: over seeds if there are any.
    pub fn main(&self) -> f64 {
        let sampled = self.sampled.as_ref().map(|sampled| sampled.mean);
        let estimate = self.value.or(self.greedy).map(|estimate| estimate.value);
        sampled.or(estimate).unwrap_or(f64::NAN)
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("rows".into(), json!(self.rows));
        if let Some(Estimate { value, interval }) = self.value {
            object.insert("value".into(), json!(value));
            object.insert("interval".into(), json!(interval));
        }
        if let Some(Estimate { value, interval }) = self.greedy {
            object.insert("greedy".into(), json!(value));
            object.insert("greedy_interval".into(), json!(interval));
        }
        if let Some(sampled) = &self.sampled {
            object.insert("by_seed".into(), json!(sampled.by_seed));
            object.insert("mean".into(), json!(sampled.mean));
            object.insert(
                "standard_deviation".into(),
                json!(sampled.standard_deviation),
            );
            object.insert("interval".into(), json!(sampled.interval));
        }
        Value::Object(object)
    }
}

/// Rows whose reference has a length in words above `from` and up to `to`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// The border below.
    pub from: usize,
    /// The border above; none for the last bucket.
    pub to: Option<usize>,
    /// Prompts in it.
    pub rows: usize,
    /// Every metric on them; empty if there is no row.
    pub metrics: Vec<(String, Summary)>,
}

/// What was measured, as its user calls it.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// Of a suite's set, or of the data file.
    pub name: String,
    /// The model.
    pub model: String,
    /// The teacher, if there is one.
    pub teacher: Option<String>,
    /// The data file.
    pub data: PathBuf,
    /// The file of its references, if they have one of their own.
    pub references: Option<PathBuf>,
}

/// The evaluation's file as JSON.
pub fn to_json(subject: &Subject, header: &Header, measured: &Measured) -> Value {
    let under = &header.conditions;
    let buckets: Vec<Value> = measured
        .buckets
        .iter()
        .map(|bucket| {
            json!({
                "from": bucket.from,
                "to": bucket.to,
                "rows": bucket.rows,
                "metrics": metrics(&bucket.metrics),
            })
        })
        .collect();
    let mut object = json!({
        "format": FORMAT,
        "name": subject.name,
        "model": subject.model,
        "teacher": subject.teacher,
        "data": subject.data,
        "data_sha256": under.data_sha256,
        "weights_sha256": under.weights_sha256,
        "tokenizer_sha256": under.tokenizer_sha256,
        "config_sha256": under.config_sha256,
        "teacher_sha256": header.teacher_sha256,
        "precision": under.precision,
        "rows": measured.rows,
        "template": under.template,
        "max_new_tokens": under.max_new_tokens,
        "runs": measured.runs,
        "metrics": metrics(&measured.metrics),
        "signatures": measured.signatures,
        "buckets": buckets,
        "exposure_bias": measured.exposure_bias,
        "by_row": measured.by_row,
    });
    if let Some(references) = &subject.references {
        object["references"] = json!(references);
    }
    object
}

fn metrics(metrics: &[(String, Summary)]) -> Map<String, Value> {
    let each = metrics.iter();
    each.map(|(name, summary)| (name.clone(), summary.to_json()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_as_json() {
        let estimate = |value, interval| Some(Estimate { value, interval });
        let of_answers = Summary {
            rows: 7,
            value: None,
            greedy: estimate(0.5, Some([0.25, 0.75])),
            sampled: Some(Sampled::new(vec![0.1, 0.2, 0.6], None)),
        };
        assert!((of_answers.main() - 0.3).abs() < 1e-12);
        let got = of_answers.to_json();
        let keys: Vec<&str> = got
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let names = [
            "rows",
            "greedy",
            "greedy_interval",
            "by_seed",
            "mean",
            "standard_deviation",
            "interval",
        ];
        assert_eq!(keys, names);
        assert_eq!(got["greedy_interval"], json!([0.25, 0.75]));
        // √((0.04 + 0.01 + 0.09) / 2)
        let deviation = got["standard_deviation"].as_f64().unwrap();
        assert!((deviation - 0.07_f64.sqrt()).abs() < 1e-12);
        assert_eq!(got["interval"], Value::Null);

        let of_references = Summary {
            value: estimate(f64::NAN, None),
            ..Summary::default()
        };
        assert_eq!(
            of_references.to_json(),
            json!({"rows": 0, "value": null, "interval": null})
        );
        let one = Sampled::new(vec![2.0], None);
        assert_eq!((one.mean, one.standard_deviation), (2.0, None));
    }
}
