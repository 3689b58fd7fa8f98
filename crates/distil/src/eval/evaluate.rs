//! The evaluation: measures a student on held-out rows, with or without a teacher beside it.
//!
//! ```text
//! prompts ────► rollout ─► answers ──┐
//!                                    ├─► metrics
//! references ─► score ──► per token ─┘
//! ```
//!
//! This is one measurement, as training makes it at every evaluation. Several runs, intervals, buckets and
//! files are the [protocol](super::protocol)'s. Each half runs only if a metric asks for it. What is asked
//! for and cannot be had (a divergence without a teacher, ROUGE without references) is refused before
//! anything is computed. A mean per token weighs every token alike, a mean per answer every answer.

use distil_model::Model;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::judged::Judges;
use super::metric::{METRIC_NAMES, MetricInfo, metric};
use super::rows::{of_answers, of_references};
use crate::config::{Precision, Sampling};
use crate::data::example::{Encoding, Example, PromptExample, examples, prompts};
use crate::data::read::DataSet;
use crate::data::row::Content;
use crate::error::{Error, Result};
use crate::rollout::{Finish, Generation, Prompt, Response, generate};

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
    /// Which row of the data was asked, from 0.
    pub row: usize,
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
    /// Metrics that have a number for one answer, by name; `null` is a number that is none.
    #[serde(default)]
    pub metrics: Map<String, Value>,
    /// Its token ids, the one that ended it included.
    pub token_ids: Vec<u32>,
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
            row: prompt.row,
            prompt: prompt.text.clone(),
            response: model.tokenizer.decode(ids, true)?,
            finish: response.finish,
            tokens: response.tokens.len(),
            references: prompt.references.clone(),
            metrics: Map::new(),
            token_ids: response.tokens.clone(),
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
    let prompts: Vec<&PromptExample> = set.prompts.iter().collect();
    let (mut answers, total) = (Vec::new(), prompts.len());
    answer_each(student, &prompts, settings, &mut |answer| {
        answers.push(answer);
        progress(answers.len(), total);
        Ok(())
    })?;
    // They come as they are finished.
    answers.sort_by_key(|answer| answer.row);
    Ok(answers)
}

/// As [`answer`], for some prompts; `on_answer` gets each answer when it is finished.
///
/// # Errors
/// As [`answer`], and what `on_answer` fails with.
pub(crate) fn answer_each(
    student: &Model,
    prompts: &[&PromptExample],
    settings: &Settings,
    on_answer: &mut dyn FnMut(Answer) -> Result<()>,
) -> Result<()> {
    let rows: Vec<Prompt<'_>> = prompts
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
    let mut failed = None;
    generate(
        &network,
        &student.stop_ids,
        &rows,
        &generation,
        &mut |index, response| {
            if failed.is_none() {
                let answer = Answer::new(student, prompts[index], response);
                failed = answer.and_then(&mut *on_answer).err();
            }
        },
    )?;
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
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
    let scoring = metrics.iter().any(|metric| !metric.needs_answers());
    let first = if answering { set.prompts.len() } else { 0 };
    let total = first + if scoring { set.examples.len() } else { 0 };

    let judges = Judges {
        student,
        teacher: teacher.filter(|_| metrics.iter().any(|metric| metric.needs_teacher())),
        prompts: &set.prompts,
        max_tokens: settings.micro_batch_tokens,
    };
    let mut answers = match answering {
        true => answer(student, set, settings, &mut |done, _| progress(done, total))?,
        false => Vec::new(),
    };
    judges.note(&metrics, &mut answers, &mut |_| {})?;
    let scores = match scoring {
        true => judges.scores(&set.examples, &mut |done| progress(first + done, total))?,
        false => Vec::new(),
    };
    let value = |metric: &MetricInfo| match metric.needs_answers() {
        true => of_answers(metric, &answers).value(),
        false => of_references(metric, &set.examples, &scores).value(),
    };
    Ok(Evaluation {
        metrics: metrics
            .iter()
            .map(|metric| (metric.name.to_owned(), value(metric)))
            .collect(),
        rows: first.max(scores.len()),
        answers,
    })
}

/// The metrics of these names.
///
/// # Errors
/// [`Error::Config`] for a name that no metric has.
pub(crate) fn asked(names: &[String]) -> Result<Vec<&'static MetricInfo>> {
    let find = |name: &String| {
        metric(name).ok_or_else(|| Error::Config {
            place: "metrics".into(),
            what: format!("there is no metric \"{name}\""),
            fix: format!("choose from {}", METRIC_NAMES.join(", ")),
        })
    };
    names.iter().map(find).collect()
}

/// Whether what the metric needs is there.
pub(crate) fn check(metric: &MetricInfo, has_teacher: bool, set: &EvalSet) -> Result<()> {
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
    let references = match metric.needs_answers() {
        false => !set.examples.is_empty(),
        true => set
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

impl Evaluation {
    /// The value of a metric, if it was asked for.
    pub fn get(&self, name: &str) -> Option<f64> {
        let found = self.metrics.iter().find(|(metric, _)| metric == name);
        found.map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests;
