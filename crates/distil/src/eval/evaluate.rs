//! The evaluation: measures a student on held-out rows, with or without a teacher beside it.
//!
//! ```text
//! prompts ────► rollout ─► answers ──┐
//!                                    ├─► metrics
//! references ─► score ──► per token ─┘
//! ```
//!
//! Each half runs only if a metric asks for it. What is asked for and cannot be had (a divergence
//! without a teacher, ROUGE without references) is refused before anything is computed. A mean per
//! token weighs every token alike, a mean per answer every answer.

use std::fmt;

use distil_model::Model;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::metric::{Better, METRIC_NAMES, Measure, MetricInfo, mean, metric};
use crate::config::{Precision, Sampling};
use crate::data::example::{Encoding, Example, PromptExample, examples, prompts};
use crate::data::read::DataSet;
use crate::data::row::Content;
use crate::error::{Error, Result};
use crate::rollout::{Finish, Generation, Prompt, Response, generate};
use crate::score::{TokenScores, score};
use crate::teacher;

/// Always the likeliest token: how answers are generated unless the user asks for samples.
pub const GREEDY: Sampling = Sampling {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
};

/// What is measured, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Names of metrics, none twice.
    pub metrics: Vec<String>,
    /// How answers are drawn; usually [`GREEDY`].
    pub sampling: Sampling,
    /// Number format of the matrix products that generate answers; `None` is that of the student's
    /// network. Scores are computed in the network's in either case.
    pub sampling_precision: Option<Precision>,
    /// Length limit of answers, in tokens.
    pub max_new_tokens: usize,
    /// Answers generated at once.
    pub batch: usize,
    /// Start of the answers' random streams, one a row; greedy answers do not depend on it.
    pub seed: u64,
    /// Tokens scored at once.
    pub micro_batch_tokens: usize,
}

/// Held-out rows as token ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EvalSet {
    /// Prompts to answer, with their references.
    pub prompts: Vec<PromptExample>,
    /// The first reference of each row that has one within the limits, and texts: what perplexity
    /// and the divergences are measured on.
    pub examples: Vec<Example>,
}

/// What the student said to one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The prompt as the model read it, with the template applied.
    pub prompt: String,
    /// The answer, without the token that ended it and without special tokens.
    pub response: String,
    /// Why it ended.
    #[serde(rename = "finish_reason")]
    pub finish: Finish,
    /// Its length in tokens, the one that ended it included.
    pub tokens: usize,
    /// Good answers; empty for a prompt alone.
    pub references: Vec<String>,
}

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Name and value of each metric, in the order in which they were asked for.
    pub metrics: Vec<(String, f64)>,
    /// The student's answers in the order of the prompts; empty if no metric needs them.
    pub answers: Vec<Answer>,
    /// Rows measured: prompts answered, or references scored if there are more of those.
    pub rows: usize,
}

impl EvalSet {
    /// The rows of `data`, the first `limit` of them if there is a limit. Rows over the length limits
    /// of `encoding` are not used; a row whose references are too long keeps its prompt.
    ///
    /// # Errors
    /// [`Error::Data`] if no row can be used; [`Error::Row`] for a row that the template or the
    /// tokenizer refuses, unless those are skipped.
    pub fn new(data: &DataSet, encoding: &Encoding, limit: Option<usize>) -> Result<Self> {
        let limited = DataSet {
            files: data.files.clone(),
            rows: data
                .rows
                .iter()
                .take(limit.unwrap_or(usize::MAX))
                .cloned()
                .collect(),
            malformed: data.malformed,
            first_malformed: data.first_malformed.clone(),
        };
        let contents = || limited.rows.iter().map(|row| &row.content);
        let mut set = Self::default();
        if contents().any(|content| content.prompt().is_some()) {
            set.prompts = prompts(&limited, encoding)?.0;
        }
        let scorable = |content: &Content| {
            matches!(content, Content::Text(_)) || !content.references().is_empty()
        };
        if contents().any(scorable) {
            match examples(&limited, encoding) {
                Ok((examples, _)) => set.examples = examples,
                // Nothing to score; what needs answers alone can be measured all the same.
                Err(Error::Data { .. }) if !set.prompts.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        if set.prompts.is_empty() && set.examples.is_empty() {
            return Err(limited.unusable(
                "there is no row to measure on".into(),
                "name a file with prompts, or raise the limit of rows",
            ));
        }
        Ok(set)
    }
}

impl Answer {
    /// Whether the model ended it by itself.
    pub fn ended(&self) -> bool {
        self.finish == Finish::Stop
    }

    fn new(model: &Model, prompt: &PromptExample, response: &Response) -> Result<Self> {
        let mut ids = response.tokens.as_slice();
        if let (Finish::Stop, Some((_, before))) = (response.finish, ids.split_last()) {
            ids = before;
        }
        Ok(Self {
            prompt: prompt.text.clone(),
            response: model.tokenizer.decode(ids, true)?,
            finish: response.finish,
            tokens: response.tokens.len(),
            references: prompt.references.clone(),
        })
    }
}

/// Lets `student` answer the prompts of `set`, each row with its own random stream. `progress` gets
/// the answers that are done and their total.
///
/// # Errors
/// Those of the generation: a prompt that does not fit into the model's context.
pub fn answer(
    student: &Model,
    set: &EvalSet,
    settings: &Settings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Answer>> {
    let rows: Vec<Prompt<'_>> = set
        .prompts
        .iter()
        .map(|prompt| Prompt {
            ids: &prompt.prompt,
            stream: prompt.row as u64,
        })
        .collect();
    let generation = Generation {
        sampling: settings.sampling,
        max_new_tokens: settings.max_new_tokens,
        seed: settings.seed,
        batch: settings.batch,
    };
    let network = student.network.clone();
    let network = match settings.sampling_precision {
        Some(precision) => network.in_precision(precision.into()),
        None => network,
    };
    let mut done = 0;
    let responses = generate(
        &network,
        &student.stop_ids,
        &rows,
        &generation,
        &mut |_, _| {
            done += 1;
            progress(done, rows.len());
        },
    )?;
    let answers = set.prompts.iter().zip(&responses);
    answers
        .map(|(prompt, response)| Answer::new(student, prompt, response))
        .collect()
}

/// Measures `student` on `set`. `progress` gets the rows that are done and their total, an answer
/// and a scored reference each counting as one.
///
/// # Errors
/// [`Error::Config`] for a metric that does not exist; [`Error::Mismatch`] if a metric needs a
/// teacher, prompts or references that are not there, or if the vocabularies of teacher and student
/// differ; and those of generation and scoring.
pub fn evaluate(
    student: &Model,
    teacher: Option<&Model>,
    set: &EvalSet,
    settings: &Settings,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation> {
    let metrics = asked(&settings.metrics)?;
    for metric in &metrics {
        check(metric, teacher.is_some(), set)?;
    }
    let answering = metrics.iter().any(|metric| metric.needs_answers());
    let scoring = metrics.iter().any(|metric| of_references(metric));
    let first = if answering { set.prompts.len() } else { 0 };
    let total = first + if scoring { set.examples.len() } else { 0 };

    let teacher = teacher.filter(|_| metrics.iter().any(|metric| metric.needs_teacher()));
    let teacher = match teacher {
        Some(teacher) => Some((&teacher.network, teacher::align(teacher, student)?)),
        None => None,
    };
    let answers = match answering {
        true => answer(student, set, settings, &mut |done, _| progress(done, total))?,
        false => Vec::new(),
    };
    let scores = match scoring {
        true => score(
            &student.network,
            teacher,
            &set.examples,
            settings.micro_batch_tokens,
            &mut |done| progress(first + done, total),
        )?,
        false => Vec::new(),
    };
    Ok(Evaluation {
        metrics: metrics
            .iter()
            .map(|metric| (metric.name.to_owned(), value(metric, &answers, &scores)))
            .collect(),
        rows: first.max(scores.len()),
        answers,
    })
}

fn asked(names: &[String]) -> Result<Vec<&'static MetricInfo>> {
    let find = |name: &String| {
        metric(name).ok_or_else(|| Error::Config {
            place: "metrics".into(),
            what: format!("there is no metric \"{name}\""),
            fix: format!("choose from {}", METRIC_NAMES.join(", ")),
        })
    };
    names.iter().map(find).collect()
}

/// Whether a metric is computed from the models' scores of the references.
fn of_references(metric: &MetricInfo) -> bool {
    matches!(
        metric.measure,
        Measure::References(_) | Measure::AgainstTeacher(_)
    )
}

/// Whether a metric can be measured on `set`.
pub fn measurable(metric: &MetricInfo, has_teacher: bool, set: &EvalSet) -> bool {
    check(metric, has_teacher, set).is_ok()
}

/// Whether what the metric needs is there.
fn check(metric: &MetricInfo, has_teacher: bool, set: &EvalSet) -> Result<()> {
    let refuse = |what: &str, fix: &str| {
        Err(Error::Mismatch {
            what: format!("{} {what}", metric.name),
            fix: fix.to_owned(),
        })
    };
    if metric.needs_teacher() && !has_teacher {
        return refuse(
            "compares with a teacher, and there is none",
            "name a teacher, or leave this metric out",
        );
    }
    if metric.needs_answers() && set.prompts.is_empty() {
        return refuse(
            "is measured on answers, and no row has a prompt",
            "give rows with prompts, or leave this metric out",
        );
    }
    let references = match of_references(metric) {
        true => !set.examples.is_empty(),
        false => set
            .prompts
            .iter()
            .any(|prompt| !prompt.references.is_empty()),
    };
    if metric.needs_references() && !references {
        return refuse(
            "is measured on references, and no row has one within the length limits",
            "give rows with answers, raise the limits, or leave this metric out",
        );
    }
    Ok(())
}

fn value(metric: &MetricInfo, answers: &[Answer], scores: &[TokenScores]) -> f64 {
    let average = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    match metric.measure {
        Measure::Answer(of) => average(answers.iter().map(of).collect()),
        Measure::AgainstReferences(of) => {
            let with = answers
                .iter()
                .filter(|answer| !answer.references.is_empty());
            average(
                with.map(|answer| of(&answer.references, &answer.response))
                    .collect(),
            )
        }
        Measure::References(of) => of(scores),
        Measure::AgainstTeacher(of) => {
            let teachers = scores.iter().filter_map(|score| score.teacher.as_ref());
            mean(teachers.flat_map(of))
        }
    }
}

impl Evaluation {
    /// The value of a metric, if it was asked for.
    pub fn get(&self, name: &str) -> Option<f64> {
        let found = self.metrics.iter().find(|(metric, _)| metric == name);
        found.map(|(_, value)| *value)
    }

    /// `{"rows": …, "metrics": {name: value}, "answers": [{"prompt", "response", "finish_reason",
    /// "tokens", "references"}]}`; a value that is not finite is `null`.
    pub fn to_json(&self) -> Value {
        let metrics: Map<String, Value> = self
            .metrics
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        json!({ "rows": self.rows, "metrics": metrics, "answers": self.answers })
    }
}

/// A table, one metric a line, with its unit and its better side.
impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} {:>12}  {:<13} better", "metric", "value", "unit")?;
        for (name, value) in &self.metrics {
            let (unit, better) = match metric(name) {
                Some(info) => (info.unit, info.better),
                None => ("", None),
            };
            let better = match better {
                Some(Better::Lower) => "lower",
                Some(Better::Higher) => "higher",
                None => "–",
            };
            writeln!(f, "{name:<16} {value:>12.4}  {unit:<13} {better}")?;
        }
        let plural = if self.rows == 1 { "" } else { "s" };
        write!(f, "measured on {} row{plural}", self.rows)
    }
}

#[cfg(test)]
mod tests;
