//! Two models on the same rows: is the one better, or was it the rows?
//!
//! Each of 1000 resamples of the rows is given to both models, and the metric's difference
//! `d_b = B(rows_b) − A(rows_b)` is looked at:
//!
//! ```text
//! interval       [2.5 %, 97.5 %] quantile of d_b
//! P(B better)    share of d_b on B's better side, ties counting half
//! p              2 · min( #{d_b ≤ 0}, #{d_b ≥ 0} ) + 2, over 1000 + 1; at most 1
//! ```
//!
//! The paired bootstrap (P. Koehn, "Statistical Significance Tests for Machine Translation
//! Evaluation", EMNLP 2004), two-sided. Rows that are hard are hard for both, so the difference is known
//! much better than its two sides. Of sampled runs, each side is the mean over its seeds. The chance in a
//! row's samples is in the interval, since it is a part of how rows differ; more seeds make it smaller. What
//! is not in it: that the same training with another seed gives another model.
//!
//! All is computed from the two evaluations' files ([`kept`](super::kept)): the numbers of one
//! answer as noted there, those of a corpus from the texts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conditions::{Conditions, Header};
use super::evaluate::Answer;
use super::interval::{bootstrap, quantiles};
use super::metric::{Better, Measure, MetricInfo, mean, metric};
use super::outcome::FORMAT;
use super::partial::{Line, beside};
use super::protocol::mean_at;
use super::rows::{Numbers, of_answers};
use crate::error::{Error, Result};

/// Of what a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// The rows' references.
    References,
    /// Greedy answers.
    Greedy,
    /// Sampled answers, the mean over seeds.
    Sampled,
}

/// A metric of two models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub metric: String,
    /// Rows that it says something of.
    pub rows: usize,
    /// Of what.
    pub of: Of,
    /// A's value.
    pub a: f64,
    /// B's value.
    pub b: f64,
    /// B − A.
    pub difference: f64,
    /// Its 95 % interval; none of one row, and where rows cannot be resampled (distinct-n).
    pub interval: Option<[f64; 2]>,
    /// The probability that B is better; none, too, of a metric without a better side.
    pub probability_b_better: Option<f64>,
    /// Two-sided: how likely a difference as large is if there is none.
    pub p_value: Option<f64>,
}

/// Two evaluations of the same rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The first model.
    pub a: String,
    /// The second.
    pub b: String,
    /// Rows that both were measured on.
    pub rows: usize,
    /// Metrics that both have, in A's order.
    pub differences: Vec<Difference>,
    /// What else is different between the two evaluations, and may be what the numbers say.
    pub notes: Vec<String>,
}

/// An evaluation as its files tell it.
struct Side {
    model: String,
    rows: usize,
    header: Header,
    metrics: Vec<String>,
    by_row: Value,
    /// The answers of every run.
    answers: Vec<Vec<Answer>>,
}

/// Compares the evaluations in two files.
///
/// # Errors
/// [`Error::Run`] if a file is no evaluation; [`Error::Mismatch`] if the two are of different data or
/// rows, or have no metric in common.
pub fn compare(a: &Path, b: &Path) -> Result<Comparison> {
    let (first, second) = (read(a)?, read(b)?);
    let refuse = |what: String, fix: &str| Error::Mismatch {
        what: format!(
            "{} and {} cannot be compared: {what}",
            a.display(),
            b.display()
        ),
        fix: fix.into(),
    };
    let conditions = (&first.header.conditions, &second.header.conditions);
    if conditions.0.data_sha256 != conditions.1.data_sha256 {
        return Err(refuse(
            "they are of different data".into(),
            "measure both models on the same file",
        ));
    }
    let mut differences = Vec::new();
    for name in first
        .metrics
        .iter()
        .filter(|name| second.metrics.contains(name))
    {
        let Some(metric) = metric(name) else { continue };
        for of in [Of::References, Of::Greedy, Of::Sampled] {
            let (of_a, of_b) = (first.numbers(metric, of)?, second.numbers(metric, of)?);
            if of_a.is_empty() || of_b.is_empty() {
                continue;
            }
            let (rows_a, rows_b) = (common_rows(name, &of_a, a)?, common_rows(name, &of_b, b)?);
            if let Some(row) = rows_a.symmetric_difference(&rows_b).next() {
                let path = if rows_a.contains(row) { a } else { b };
                return Err(refuse(
                    format!("{name} has row {row} in {} only", path.display()),
                    "measure both with the same --rows, and with models and templates whose prompts fit",
                ));
            }
            differences.push(difference(metric, of, &of_a, &of_b));
        }
    }
    if differences.is_empty() {
        return Err(refuse(
            "they have no metric in common".into(),
            "measure both by the same --metrics, greedily or with --seeds",
        ));
    }
    Ok(Comparison {
        notes: notes(conditions, &first, &second),
        rows: first.rows.min(second.rows),
        a: first.model,
        b: second.model,
        differences,
    })
}

/// The rows of a metric, which are the same in every run of an evaluation, each once.
fn common_rows(name: &str, runs: &[Numbers], path: &Path) -> Result<BTreeSet<usize>> {
    let rows = |run: &Numbers| run.rows().into_iter().collect::<BTreeSet<usize>>();
    let all: BTreeSet<usize> = runs.iter().flat_map(rows).collect();
    match runs
        .iter()
        .all(|run| run.rows().len() == all.len() && rows(run) == all)
    {
        true => Ok(all),
        false => Err(damaged(
            &beside(path, "answers"),
            format!("not every run has {name} once for each row"),
        )),
    }
}

/// `a` and `b` have the same rows in every run.
fn difference(metric: &MetricInfo, of: Of, a: &[Numbers], b: &[Numbers]) -> Difference {
    let average =
        |runs: &[Numbers]| runs.iter().map(Numbers::value).sum::<f64>() / runs.len().max(1) as f64;
    let (of_a, of_b): (Vec<&Numbers>, Vec<&Numbers>) = (a.iter().collect(), b.iter().collect());
    let drawn = resampled(&of_a, &of_b);
    let interval = quantiles(drawn.clone());
    let (value_a, value_b) = (average(a), average(b));
    let share = |side: &dyn Fn(f64) -> bool| drawn.iter().filter(|d| side(**d)).count() as f64;
    let (above, below) = (share(&|d| d > 0.0), share(&|d| d < 0.0));
    let (count, ties) = (drawn.len() as f64, drawn.len() as f64 - above - below);
    let better = metric.better.map(|better| match better {
        Better::Higher => (above + ties / 2.0) / count,
        Better::Lower => (below + ties / 2.0) / count,
    });
    let p_value = (2.0 * ((above + ties).min(below + ties) + 1.0) / (count + 1.0)).min(1.0);
    Difference {
        metric: metric.name.to_owned(),
        rows: a.first().map_or(0, |numbers| numbers.rows().len()),
        of,
        a: value_a,
        b: value_b,
        difference: value_b - value_a,
        interval,
        probability_b_better: better.filter(|_| interval.is_some()),
        p_value: interval.map(|_| p_value),
    }
}

/// B − A of every resample of the rows, each the mean over a model's runs. All runs of both have the
/// same rows; of fewer than two there is nothing to resample.
pub(crate) fn resampled(a: &[&Numbers], b: &[&Numbers]) -> Vec<f64> {
    let rows = a.first().map_or(0, |numbers| numbers.rows().len());
    match rows {
        0 | 1 => Vec::new(),
        _ => bootstrap(rows, &mut |at| mean_at(b, at) - mean_at(a, at)),
    }
}

/// A metric of references from the sums that an evaluation's file has of each row (`by_row`).
pub(crate) fn from_row_sums(metric: &MetricInfo, by_row: &Value) -> Option<Numbers> {
    #[derive(Deserialize)]
    struct Lists {
        rows: Vec<usize>,
        sums: Vec<Vec<Option<f64>>>,
    }
    let lists = Lists::deserialize(by_row.get(metric.name)?).ok()?;
    let of = match metric.measure {
        Measure::References { of, .. } => of,
        _ => mean,
    };
    let number = |sums: Vec<Option<f64>>| -> Vec<f64> {
        sums.into_iter()
            .map(|sum| sum.unwrap_or(f64::NAN))
            .collect()
    };
    let rows = lists
        .rows
        .into_iter()
        .zip(lists.sums.into_iter().map(number));
    Some(Numbers::Sums {
        rows: rows.collect(),
        of,
    })
}

fn notes((a, b): (&Conditions, &Conditions), first: &Side, second: &Side) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |what: &str, a: &dyn std::fmt::Display, b: &dyn std::fmt::Display| {
        let (a, b) = (a.to_string(), b.to_string());
        if a != b {
            notes.push(format!("{what}: {a} in A, {b} in B"));
        }
    };
    note("precision", &a.precision.name(), &b.precision.name());
    note(
        "longest answer, in tokens",
        &a.max_new_tokens,
        &b.max_new_tokens,
    );
    note("template", &a.template, &b.template);
    let other_tokens = a.tokenizer_sha256 != b.tokenizer_sha256;
    let taught = |side: &Side| side.header.teacher_sha256.clone().unwrap_or("none".into());
    note("the teacher's sha256", &taught(first), &taught(second));
    let seeds = |side: &Side| {
        side.header
            .runs
            .iter()
            .filter(|run| run.seed.is_some())
            .count()
    };
    note("seeds", &seeds(first), &seeds(second));
    if other_tokens {
        notes.push(
            "other tokens or other tokens that end an answer: perplexity and what is counted a token are \
             of different things"
                .to_owned(),
        );
    }
    notes
}

impl Side {
    /// A metric's numbers in each of the runs that it is of; none if there is no such run.
    fn numbers(&self, metric: &MetricInfo, of: Of) -> Result<Vec<Numbers>> {
        if metric.needs_answers() != (of != Of::References) {
            return Ok(Vec::new());
        }
        if of == Of::References {
            return Ok(from_row_sums(metric, &self.by_row).into_iter().collect());
        }
        let runs = self.header.runs.iter().zip(&self.answers);
        let chosen = runs.filter(|(run, _)| run.seed.is_some() == (of == Of::Sampled));
        Ok(chosen
            .map(|(_, answers)| of_answers(metric, answers))
            .collect())
    }
}

impl Of {
    /// As it is written in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::References => "references",
            Self::Greedy => "greedy",
            Self::Sampled => "sampled",
        }
    }
}

fn damaged(path: &Path, what: String) -> Error {
    Error::Run {
        path: path.to_owned(),
        what,
        fix: "name a file that `distil eval --out` has written, with the files beside it".into(),
    }
}

fn read(path: &Path) -> Result<Side> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let text = fs::read_to_string(path).map_err(failed(path))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| damaged(path, format!("not an evaluation ({error})")))?;
    let header = Header::deserialize(&value)
        .map_err(|error| damaged(path, format!("not an evaluation ({error})")))?;
    if header.format != FORMAT {
        let what = format!("its format is {}, not {FORMAT}", header.format);
        return Err(damaged(path, what));
    }
    let mut answers = vec![Vec::new(); header.runs.len()];
    if !answers.is_empty() {
        let path = beside(path, "answers");
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        for (number, line) in text.lines().enumerate() {
            let line: Line = serde_json::from_str(line)
                .map_err(|error| damaged(&path, format!("line {}: {error}", number + 1)))?;
            match answers.get_mut(line.run) {
                Some(run) => run.push(line.answer),
                None => return Err(damaged(&path, format!("line {}: no such run", number + 1))),
            }
        }
    }
    // Both sides in one order.
    for run in &mut answers {
        run.sort_by_key(|answer| answer.row);
    }
    let names = value["metrics"].as_object().into_iter().flatten();
    Ok(Side {
        model: value["model"].as_str().unwrap_or("?").to_owned(),
        rows: value["rows"].as_u64().unwrap_or(0) as usize,
        metrics: names.map(|(name, _)| name.clone()).collect(),
        by_row: value["by_row"].clone(),
        header,
        answers,
    })
}

#[cfg(test)]
mod tests;
