//! `RUN/evaluations/*.json`: what `distil eval --out` wrote, with the answers and the token view
//! that stand beside each file.
//!
//! Whoever reads them wants to see what there is. A key that is absent or `null` is empty here, a
//! number that is `null` is NaN in a list, and a file that is damaged is named and left out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::eval::compare::from_row_sums;
use crate::eval::metric::{Measure, mean, metric};
use crate::eval::rows::Numbers;

/// Rows whose texts are kept; of the others only the numbers are.
const TEXTS: usize = 12;

/// An evaluation of one model on one file.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EvaluationFile {
    /// The file.
    #[serde(skip)]
    pub path: PathBuf,
    /// The suite's name for it, else the data file's stem.
    #[serde(default, deserialize_with = "present")]
    pub name: String,
    /// The model that was evaluated.
    #[serde(default)]
    pub model: Option<String>,
    /// The teacher it was compared with.
    #[serde(default)]
    pub teacher: Option<String>,
    /// The rows.
    #[serde(default)]
    pub data: Option<String>,
    /// Their sha256.
    #[serde(default)]
    pub data_sha256: Option<String>,
    /// Number format of the products.
    #[serde(default)]
    pub precision: Option<String>,
    /// How a row became a prompt.
    #[serde(default)]
    pub template: Option<String>,
    /// Most tokens of an answer.
    #[serde(default)]
    pub max_new_tokens: Option<usize>,
    /// How many rows.
    #[serde(default)]
    pub rows: Option<usize>,
    /// How the answers were drawn, once for each number in [`Measured::by_seed`] and once if greedily.
    #[serde(default, deserialize_with = "present")]
    pub runs: Vec<Asked>,
    /// By name.
    #[serde(default, deserialize_with = "present")]
    pub metrics: BTreeMap<String, Measured>,
    /// The same by length of the reference.
    #[serde(default, deserialize_with = "present")]
    pub buckets: Vec<Bucket>,
    /// What the student's own prefixes cost.
    #[serde(default)]
    pub exposure_bias: Option<ExposureBias>,
    /// What each row adds to the metrics of references, as the file has it.
    #[serde(default)]
    pub(crate) by_row: Value,
    /// The answers.
    #[serde(skip)]
    pub answers: Answers,
    /// The token view.
    #[serde(skip)]
    pub tokens: Vec<TokenRow>,
}

/// One pass over the prompts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Asked {
    /// Of the samples; none if greedy.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Of the sampling; 0 is greedy.
    #[serde(default)]
    pub temperature: Option<f64>,
}

/// A metric as it was measured. Which numbers there are depends on what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Measured {
    /// Of a metric that no seed enters.
    #[serde(default)]
    pub value: Option<f64>,
    /// Of greedy answers.
    #[serde(default)]
    pub greedy: Option<f64>,
    /// Its 95 % interval.
    #[serde(default, deserialize_with = "interval")]
    pub greedy_interval: Option<(f64, f64)>,
    /// Of sampled answers, seed by seed.
    #[serde(default, deserialize_with = "numbers")]
    pub by_seed: Vec<f64>,
    /// Their mean.
    #[serde(default)]
    pub mean: Option<f64>,
    /// Their standard deviation (n − 1).
    #[serde(default)]
    pub standard_deviation: Option<f64>,
    /// 95 % interval of the mean, or of `value`.
    #[serde(default, deserialize_with = "interval")]
    pub interval: Option<(f64, f64)>,
}

impl Measured {
    /// The number to compare: the mean over seeds, else the one without seeds, else the greedy one.
    pub fn center(&self) -> Option<f64> {
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        finite(self.mean)
            .or(finite(self.value))
            .or(finite(self.greedy))
    }

    /// The 95 % interval of [`Measured::center`].
    pub fn around(&self) -> Option<(f64, f64)> {
        match self.mean.or(self.value) {
            Some(_) => self.interval,
            None => self.greedy_interval,
        }
    }
}

/// Metrics of the rows whose reference has so many words or tokens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Bucket {
    /// Lengths above this; of the first bucket, 0, from it on.
    #[serde(default)]
    pub from: usize,
    /// Lengths up to this; none for the last bucket.
    #[serde(default)]
    pub to: Option<usize>,
    /// How many rows.
    #[serde(default)]
    pub rows: Option<usize>,
    /// By name.
    #[serde(default, deserialize_with = "present")]
    pub metrics: BTreeMap<String, Measured>,
}

/// Exposure bias: how much the divergence grows on the student's own prefixes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ExposureBias {
    /// Lengths l in tokens.
    #[serde(default, deserialize_with = "numbers")]
    pub lengths: Vec<f64>,
    /// By length: 100 · (regret − expected) / expected.
    #[serde(default, deserialize_with = "numbers")]
    pub ex_error_percent: Vec<f64>,
    /// The KL at each position.
    #[serde(default, deserialize_with = "present")]
    pub by_position: ByPosition,
}

/// KL(teacher ‖ student) by position of the response, from the first token.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ByPosition {
    /// On prefixes that the student sampled.
    #[serde(default, deserialize_with = "numbers")]
    pub student_prefix: Vec<f64>,
    /// On prefixes that the teacher sampled.
    #[serde(default, deserialize_with = "numbers")]
    pub teacher_prefix: Vec<f64>,
    /// How many responses reach the position.
    #[serde(default, deserialize_with = "numbers")]
    pub rows: Vec<f64>,
}

/// Every answer's numbers, and the texts of some.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// Which pass, which row, by answer.
    pub places: Vec<(usize, usize)>,
    /// Tokens, by answer; NaN if not said.
    pub tokens: Vec<f64>,
    /// Metrics by name, each as long as `places`; NaN where an answer has none.
    pub metrics: BTreeMap<String, Vec<f64>>,
    /// By metric of all answers together (BLEU, chrF): what each answer adds to its sums.
    pub(crate) sums: BTreeMap<&'static str, Vec<Summands>>,
    /// The first pass's answers to the first rows.
    pub texts: Vec<Answer>,
    /// Lines that could not be read.
    pub unreadable: usize,
}

/// An answer of the model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Answer {
    /// Which of [`EvaluationFile::runs`].
    #[serde(default)]
    pub run: usize,
    /// Which row of the file.
    #[serde(default)]
    pub row: usize,
    /// What was asked.
    #[serde(default, deserialize_with = "present")]
    pub prompt: String,
    /// What was answered.
    #[serde(default, deserialize_with = "present")]
    pub response: String,
    /// Tokens of the answer.
    #[serde(default)]
    pub tokens: Option<f64>,
    /// Good answers.
    #[serde(default, deserialize_with = "present")]
    pub references: Vec<String>,
    /// Numbers of this answer, by name.
    #[serde(default, deserialize_with = "present")]
    pub metrics: BTreeMap<String, Option<f64>>,
}

/// A text, token by token.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct TokenRow {
    /// Which row of the data.
    #[serde(default)]
    pub row: usize,
    /// Who wrote it: `student`, `teacher` or `reference`.
    #[serde(default, deserialize_with = "present")]
    pub source: String,
    /// The tokens' texts.
    #[serde(default, deserialize_with = "present")]
    pub tokens: Vec<String>,
    /// log q of each, the student's.
    #[serde(default, deserialize_with = "numbers")]
    pub logprobs: Vec<f64>,
    /// log p of each, the teacher's.
    #[serde(default, deserialize_with = "numbers")]
    pub teacher_logprobs: Vec<f64>,
    /// The induced reward of each.
    #[serde(default, deserialize_with = "numbers")]
    pub reward: Vec<f64>,
}

impl EvaluationFile {
    /// The evaluations in `folder`, in the order of their file names, and a sentence for each file
    /// that cannot be read.
    pub fn all(folder: &Path) -> (Vec<Self>, Vec<String>) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "json"));
        files.sort();
        let (mut read, mut failed) = (Vec::new(), Vec::new());
        for file in files {
            match Self::read(&file) {
                Ok(evaluation) => read.push(evaluation),
                Err(why) => failed.push(format!("{} is left out: {why}", file.display())),
            }
        }
        (read, failed)
    }

    fn read(path: &Path) -> std::result::Result<Self, String> {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let mut read: Self = serde_json::from_slice(&bytes)
            .map_err(|error| format!("it is not an evaluation ({error})"))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if read.name.is_empty() {
            read.name = stem.clone().into_owned();
        }
        let beside = |end: &str| path.with_file_name(format!("{stem}.{end}.jsonl"));
        let summed = |name: &String| match metric(name)?.measure {
            Measure::Sums { row, .. } => Some((metric(name)?.name, row)),
            _ => None,
        };
        let summed: Vec<(&'static str, RowSums)> = read.metrics.keys().filter_map(summed).collect();
        let unreadable = lines(&beside("answers"), |answer: Answer| {
            for &(name, row) in summed.iter().filter(|_| !answer.references.is_empty()) {
                let sums = row(&answer.references, &answer.response);
                let of_name = read.answers.sums.entry(name).or_default();
                of_name.push((answer.run, answer.row, sums));
            }
            read.answers.take(answer);
        });
        read.answers.unreadable = unreadable;
        lines(&beside("tokens"), |row: TokenRow| read.tokens.push(row));
        read.path = path.to_owned();
        Ok(read)
    }

    /// The mean of a metric over the sampled passes, row by row; over the greedy one if none was
    /// sampled.
    pub fn by_row(&self, metric: &str) -> BTreeMap<usize, f64> {
        let mut sums: BTreeMap<usize, (f64, usize)> = BTreeMap::new();
        let counts = self.counting();
        let values = self.answers.metrics.get(metric).into_iter().flatten();
        for (&(run, row), &value) in self.answers.places.iter().zip(values) {
            if value.is_finite() && counts(run) {
                let (sum, count) = sums.entry(row).or_default();
                *sum += value;
                *count += 1;
            }
        }
        let mean = |(row, (sum, count))| (row, sum / count as f64);
        sums.into_iter().map(mean).collect()
    }

    /// Which passes count: the sampled ones; the greedy one if none was sampled.
    fn counting(&self) -> impl Fn(usize) -> bool {
        let greedy = |run: usize| {
            let asked = self.runs.get(run);
            asked.is_some_and(|asked| asked.seed.is_none())
        };
        let sampled = self.answers.places.iter().any(|&(run, _)| !greedy(run));
        move |run| !(sampled && greedy(run))
    }

    /// What each row makes of a metric, to choose rows from: once, or once for each pass where the
    /// passes do not add up row by row. Rows without a number are left out; empty if rows are not known.
    pub(crate) fn numbers(&self, name: &str) -> Vec<Numbers> {
        let known = metric(name);
        let sums = known.and_then(|metric| from_row_sums(metric, &self.by_row));
        if let Some(Numbers::Sums { mut rows, of }) = sums {
            rows.retain(|(_, sums)| sums.iter().all(|sum| sum.is_finite()));
            return vec![Numbers::Sums { rows, of }];
        }
        if let Some((answers, Measure::Sums { of, .. })) = self
            .answers
            .sums
            .get(name)
            .zip(known.map(|metric| metric.measure))
        {
            let counts = self.counting();
            let mut passes: BTreeMap<usize, Vec<(usize, Vec<f64>)>> = BTreeMap::new();
            for (run, row, sums) in answers.iter().filter(|(run, ..)| counts(*run)) {
                passes.entry(*run).or_default().push((*row, sums.clone()));
            }
            let numbers = |mut rows: Vec<(usize, Vec<f64>)>| {
                rows.sort_by_key(|(row, _)| *row);
                Numbers::Sums { rows, of }
            };
            return passes.into_values().map(numbers).collect();
        }
        let rows = self.by_row(name).into_iter();
        let rows: Vec<_> = rows.map(|(row, value)| (row, vec![value, 1.0])).collect();
        match rows.is_empty() {
            true => Vec::new(),
            false => vec![Numbers::Sums { rows, of: mean }],
        }
    }
}

/// Pass, row, and what the answer adds to the sums of a metric.
pub(crate) type Summands = (usize, usize, Vec<f64>);

/// Makes what an answer adds of its references and its text.
type RowSums = fn(&[String], &str) -> Vec<f64>;

impl Answers {
    fn take(&mut self, answer: Answer) {
        let before = self.places.len();
        self.places.push((answer.run, answer.row));
        self.tokens.push(answer.tokens.unwrap_or(f64::NAN));
        for (name, value) in &answer.metrics {
            let column = match self.metrics.get_mut(name) {
                Some(column) => column,
                None => self.metrics.entry(name.clone()).or_default(),
            };
            column.resize(before, f64::NAN);
            column.push(value.unwrap_or(f64::NAN));
        }
        for column in self.metrics.values_mut() {
            column.resize(before + 1, f64::NAN);
        }
        let first = self.places.first().map(|&(run, _)| run);
        if first == Some(answer.run) && self.texts.len() < TEXTS {
            self.texts.push(answer);
        }
    }
}

/// Takes each whole line of a JSONL file; none if there is no such file. Returns how many could not
/// be read.
fn lines<T: for<'a> Deserialize<'a>>(path: &Path, mut take: impl FnMut(T)) -> usize {
    let Ok(file) = File::open(path) else {
        return 0;
    };
    let mut unreadable = 0;
    for line in BufReader::with_capacity(1 << 20, file).split(b'\n') {
        let Ok(line) = line else {
            return unreadable + 1;
        };
        match serde_json::from_slice(&line) {
            Ok(read) => take(read),
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(_) => unreadable += 1,
        }
    }
    unreadable
}

/// What `null` stands for, too.
fn present<'de, D, T>(from: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn numbers<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<f64>, D::Error> {
    let list: Vec<Option<f64>> = present(from)?;
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    Ok(list.into_iter().map(number).collect())
}

fn interval<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<(f64, f64)>, D::Error> {
    let ends = numbers(from)?;
    Ok(match ends[..] {
        [low, high] if low.is_finite() && high.is_finite() => Some((low.min(high), low.max(high))),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"format": 1, "name": "dolly", "model": "m", "teacher": null, "rows": 3,
        "runs": [{"seed": null, "temperature": 0.0}, {"seed": 10}, {"seed": 20}],
        "metrics": {"rouge_l": {"greedy": 0.5, "by_seed": [0.25, null], "mean": 0.25, "interval": [0.3, 0.2]},
            "forward_kl": {"value": 1.5, "interval": [1.0, null]},
            "exact_match": {"greedy": 0.0, "greedy_interval": [0.0, 0.5]}},
        "buckets": null, "exposure_bias": {"lengths": [4], "by_position": null}, "later": {}}"#;

    #[test]
    fn what_is_absent_or_null_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("dolly.json"), FILE).unwrap();
        fs::write(at("bare.json"), "{}").unwrap();
        fs::write(at("cut.json"), "{\"format\":").unwrap();
        let answers = [
            r#"{"run":0,"row":7,"prompt":"p","response":"r","tokens":3,"metrics":{"rouge_l":0.9}}"#,
            r#"{"run":1,"row":7,"metrics":{"rouge_l":0.2,"reward":-1}}"#,
            r#"{"run":2,"row":7,"metrics":{"rouge_l":0.4,"reward":null}}"#,
            r#"{"run":1,"row":8,"met"#,
        ];
        fs::write(at("dolly.answers.jsonl"), answers.join("\n")).unwrap();
        let tokens = r#"{"row":7,"source":"student","tokens":["a"],"logprobs":[null]}"#;
        fs::write(at("dolly.tokens.jsonl"), tokens).unwrap();

        let (read, failed) = EvaluationFile::all(folder.path());
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(failed[0].contains("cut.json"), "{failed:?}");
        let names: Vec<&str> = read.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["bare", "dolly"]);
        let dolly = &read[1];
        let rouge = &dolly.metrics["rouge_l"];
        assert_eq!(rouge.center(), Some(0.25));
        assert_eq!(rouge.around(), Some((0.2, 0.3)), "in order");
        assert!(rouge.by_seed[1].is_nan());
        assert_eq!(dolly.metrics["forward_kl"].around(), None);
        assert_eq!(dolly.metrics["exact_match"].around(), Some((0.0, 0.5)));
        assert!(dolly.buckets.is_empty());
        // The greedy answer is not among the seeds.
        let by_row = dolly.by_row("rouge_l");
        assert_eq!(by_row.len(), 1);
        assert!((by_row[&7] - 0.3).abs() < 1e-12);
        assert_eq!(dolly.by_row("reward")[&7], -1.0);
        assert_eq!(
            (dolly.answers.unreadable, dolly.answers.texts.len()),
            (1, 1)
        );
        assert!(dolly.tokens[0].logprobs[0].is_nan());
        assert!(EvaluationFile::all(&at("none")).0.is_empty());
    }
}
