//! The protocol of an evaluation as papers on distillation report it: several runs over the same rows,
//! greedy and sampled at temperature 1 once a seed, with deviations, intervals, and rows by length.
//!
//! For a metric with the value `m_s` in the run of seed `s`, of `k` seeds:
//!
//! ```text
//! mean = (1/k) Σ_s m_s        standard deviation = √( Σ_s (m_s − mean)² / (k − 1) )
//! interval = 95 %, bootstrap over rows of (1/k) Σ_s m_s(resampled rows)
//! ```
//!
//! The deviation says how much another seed moves the number of these rows. The interval says how much other
//! rows would, sampled with other seeds: each row has its own random stream, so the chance in a row's
//! samples is a part of how rows differ, and drawing rows draws it, too. More seeds make that part
//! smaller. The rows of a resample are the same in every run. Metrics of references know no runs.
//!
//! Buckets are by the length of a row's first reference in words (what white space separates): up to
//! the first border, above it up to the second, and so on.

use std::collections::BTreeMap;

use distil_model::Model;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::evaluate::{Answer, EvalSet, GREEDY, Settings, answer_each, asked, check};
use super::exposure::{AnswerKl, ExposureBias, exposure_bias};
use super::interval::interval;
use super::judged::Judges;
use super::kept::Kept;
use super::metric::{MetricInfo, metric};
use super::outcome::{Bucket, Estimate, Sampled, Summary};
use super::partial::Whose;
use super::rows::{Numbers, of_answers, of_references};
use super::signature;
use super::token_view::{TokenView, token_views};
use crate::config::Sampling;
use crate::error::{Error, Result};
use crate::teacher::align;

/// One pass over all prompts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Start of the random streams; none for greedy answers.
    pub seed: Option<u64>,
    /// 0 for greedy answers, 1 for samples.
    pub temperature: f64,
}

impl Run {
    /// Always the likeliest token.
    pub const GREEDY: Self = Self {
        seed: None,
        temperature: 0.0,
    };

    /// Samples from the model's own distribution.
    pub fn sampled(seed: u64) -> Self {
        Self {
            seed: Some(seed),
            temperature: 1.0,
        }
    }

    /// "greedy" or "seed 10".
    pub fn name(&self) -> String {
        match self.seed {
            None => "greedy".into(),
            Some(seed) => format!("seed {seed}"),
        }
    }
}

/// What is measured, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Protocol {
    /// Names of metrics, none twice.
    pub metrics: Vec<String>,
    /// Greedy first, then one a seed, none twice.
    pub runs: Vec<Run>,
    /// Borders of the buckets in words, ascending.
    pub buckets: Vec<usize>,
    /// Lengths at which exposure bias is measured, if it is; needs a teacher and a sampled run.
    pub exposure_lengths: Option<Vec<usize>>,
    /// Rows whose texts are looked at token by token; needs a teacher.
    pub token_rows: usize,
    /// Length limit of answers, in tokens.
    pub max_new_tokens: usize,
    /// Answers generated at once.
    pub batch: usize,
    /// Tokens scored at once.
    pub micro_batch_tokens: usize,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Rows measured: prompts answered, or references scored if there are more of those.
    pub rows: usize,
    /// The runs that were made; none if no metric is of answers.
    pub runs: Vec<Run>,
    /// Every metric, in the order in which they were asked for.
    pub metrics: Vec<(String, Summary)>,
    /// Rows by the length of their reference; empty if no row has one.
    pub buckets: Vec<Bucket>,
    /// Exposure bias, if it was asked for.
    pub exposure_bias: Option<ExposureBias>,
    /// How metrics with variants were computed, by name.
    pub signatures: Map<String, Value>,
    /// Of metrics of references, by name: `{"rows": [row, …], "sums": [[summand, …], …]}`.
    pub by_row: Map<String, Value>,
    /// The answers of every run, by row.
    pub answers: Vec<Vec<Answer>>,
    /// Some texts token by token.
    pub tokens: Vec<TokenView>,
}

/// Hears what is under way, how much of it is done, and of how much.
pub type OnProgress<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// Measures `student` on `set`. Answers that are known to `kept` are not generated again.
///
/// # Errors
/// As [`evaluate`](super::evaluate::evaluate); [`Error::Mismatch`] if exposure bias is asked for
/// without a teacher, a sampled run or a prompt; files cannot be written.
pub fn measure(
    student: &Model,
    teacher: Option<&Model>,
    set: &EvalSet,
    protocol: &Protocol,
    kept: &mut Kept,
    progress: &mut OnProgress<'_>,
) -> Result<Measured> {
    let metrics = protocol.check(student, teacher, set)?;
    let runs = protocol.needed_runs();
    let mut answers = Vec::new();
    for run in runs {
        let whose = Whose::Student;
        answers.push(complete(
            whose,
            student,
            *run,
            (set, protocol),
            kept,
            progress,
        )?);
    }

    let judges = Judges {
        student,
        teacher,
        prompts: &set.prompts,
        max_tokens: protocol.micro_batch_tokens,
    };
    for (run, answers) in runs.iter().zip(&mut answers) {
        let (what, total) = (format!("judging, {}", run.name()), answers.len());
        judges.note(&metrics, answers, &mut |done| progress(&what, done, total))?;
    }
    let of_teacher = metrics
        .iter()
        .any(|metric| metric.needs_teacher() && !metric.needs_answers());
    let scoring = Judges {
        teacher: teacher.filter(|_| of_teacher),
        ..judges
    };
    let total = set.examples.len();
    let scores = match metrics.iter().all(|metric| metric.needs_answers()) {
        true => Vec::new(),
        false => scoring.scores(&set.examples, &mut |done| {
            progress("references", done, total)
        })?,
    };

    let numbers: Vec<(&MetricInfo, Vec<Numbers>)> = metrics
        .iter()
        .map(|metric| {
            let numbers = match metric.needs_answers() {
                true => answers.iter().map(|run| of_answers(metric, run)).collect(),
                false => vec![of_references(metric, &set.examples, &scores)],
            };
            (*metric, numbers)
        })
        .collect();
    let exposure_bias = match &protocol.exposure_lengths {
        Some(lengths) => Some(exposure(
            &judges,
            set,
            (protocol, lengths),
            &answers,
            kept,
            progress,
        )?),
        None => None,
    };
    let first_run = answers.first().map_or(&[][..], Vec::as_slice);
    let tokens = token_views(&judges, set, protocol, first_run, progress)?;
    let summarised = numbers.iter().flat_map(|(_, numbers)| numbers);
    let rows = summarised.map(|numbers| numbers.rows().len());
    let rows = rows.chain(answers.iter().map(Vec::len)).max();
    Ok(Measured {
        rows: rows.unwrap_or(0),
        runs: runs.to_vec(),
        metrics: numbers
            .iter()
            .map(|(metric, numbers)| (metric.name.to_owned(), summary(metric, runs, numbers)))
            .collect(),
        buckets: buckets(set, &protocol.buckets, runs, &numbers),
        exposure_bias,
        signatures: signatures(&metrics, first_run),
        by_row: by_row(&numbers),
        answers,
        tokens,
    })
}

impl Protocol {
    /// The runs that something is measured on: none if that is references alone.
    pub fn needed_runs(&self) -> &[Run] {
        let of_answers = |name: &String| metric(name).is_some_and(MetricInfo::needs_answers);
        match self.exposure_lengths.is_some() || self.metrics.iter().any(of_answers) {
            true => &self.runs,
            false => &[],
        }
    }

    /// The metrics, where all that is asked for can be had of these models and rows.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that no metric has; [`Error::Mismatch`] for what cannot be had.
    pub fn check(
        &self,
        student: &Model,
        teacher: Option<&Model>,
        set: &EvalSet,
    ) -> Result<Vec<&'static MetricInfo>> {
        let metrics = asked(&self.metrics)?;
        for metric in &metrics {
            check(metric, teacher.is_some(), set)?;
        }
        let refuse = |what: &str, fix: &str| {
            Err(Error::Mismatch {
                what: what.into(),
                fix: fix.into(),
            })
        };
        if self.runs.is_empty() && metrics.iter().any(|metric| metric.needs_answers()) {
            return refuse(
                "a metric is of answers, and none are generated",
                "ask for greedy answers or name seeds",
            );
        }
        if self.exposure_lengths.is_some() {
            if teacher.is_none() {
                return refuse("exposure bias is relative to a teacher", "name a teacher");
            }
            if self.runs.iter().all(|run| run.seed.is_none()) {
                return refuse(
                    "exposure bias is of answers sampled at temperature 1",
                    "name one or more seeds",
                );
            }
            if set.prompts.is_empty() {
                return refuse("no row has a prompt to answer", "give rows with prompts");
            }
        }
        let compares = metrics.iter().any(|metric| metric.needs_teacher())
            || self.exposure_lengths.is_some()
            || self.token_rows > 0;
        if let Some(teacher) = teacher.filter(|_| compares) {
            align(teacher, student)?;
        }
        Ok(metrics)
    }
}

/// The answers of one run: those that are kept, and the others generated and kept.
fn complete(
    whose: Whose,
    model: &Model,
    run: Run,
    (set, protocol): (&EvalSet, &Protocol),
    kept: &mut Kept,
    progress: &mut OnProgress<'_>,
) -> Result<Vec<Answer>> {
    let what = match whose {
        Whose::Student => format!("answers, {}", run.name()),
        Whose::Teacher => format!("the teacher's answers, {}", run.name()),
    };
    let mut answers: BTreeMap<usize, Answer> = kept
        .known(whose, run)
        .into_iter()
        .map(|answer| (answer.row, answer))
        .collect();
    let missing: Vec<_> = set
        .prompts
        .iter()
        .filter(|prompt| !answers.contains_key(&prompt.row))
        .collect();
    let settings = Settings {
        metrics: Vec::new(),
        sampling: Sampling {
            temperature: run.temperature,
            ..GREEDY
        },
        sampling_precision: None,
        max_new_tokens: protocol.max_new_tokens,
        batch: protocol.batch,
        seed: run.seed.unwrap_or(0),
        micro_batch_tokens: protocol.micro_batch_tokens,
    };
    answer_each(model, &missing, &settings, &mut |answer| {
        kept.add(whose, run, &answer)?;
        answers.insert(answer.row, answer);
        progress(&what, answers.len(), set.prompts.len());
        Ok(())
    })?;
    Ok(answers.into_values().collect())
}

/// Of the student's sampled runs, and of samples of the teacher with the same seeds: where both models
/// agree they go the same way, which leaves less of the difference to chance.
fn exposure(
    judges: &Judges<'_>,
    set: &EvalSet,
    (protocol, lengths): (&Protocol, &[usize]),
    answers: &[Vec<Answer>],
    kept: &mut Kept,
    progress: &mut OnProgress<'_>,
) -> Result<ExposureBias> {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for (run, answers) in protocol.runs.iter().zip(answers) {
        let (Some(_), Some(teacher)) = (run.seed, judges.teacher) else {
            continue;
        };
        let what = format!("exposure, {}", run.name());
        own.extend(divergences(judges, answers, &what, progress)?);
        let said = complete(
            Whose::Teacher,
            teacher,
            *run,
            (set, protocol),
            kept,
            progress,
        )?;
        let what = format!("exposure of the teacher, {}", run.name());
        others.extend(divergences(judges, &said, &what, progress)?);
    }
    Ok(exposure_bias(&own, &others, lengths))
}

/// KL(teacher ‖ student) before every token of answers.
fn divergences(
    judges: &Judges<'_>,
    answers: &[Answer],
    what: &str,
    progress: &mut OnProgress<'_>,
) -> Result<Vec<AnswerKl>> {
    let (texts, total) = (judges.examples(answers)?, answers.len());
    let scores = judges.scores(&texts, &mut |done| progress(what, done, total))?;
    let kl = scores
        .into_iter()
        .map(|scores| scores.teacher.unwrap_or_default().forward_kl);
    Ok(answers.iter().map(|answer| answer.row).zip(kl).collect())
}

/// A metric of all runs in one.
fn summary(metric: &MetricInfo, runs: &[Run], numbers: &[Numbers]) -> Summary {
    let estimate = |numbers: &Numbers| Estimate {
        value: numbers.value(),
        interval: interval_of(&[numbers]),
    };
    let rows = numbers.first().map_or(0, |numbers| numbers.rows().len());
    if !metric.needs_answers() {
        return Summary {
            rows,
            value: numbers.first().map(estimate),
            ..Summary::default()
        };
    }
    let of_runs = |sampled: bool| -> Vec<&Numbers> {
        let runs = runs.iter().zip(numbers);
        let chosen = runs.filter(|(run, _)| run.seed.is_some() == sampled);
        chosen.map(|(_, numbers)| numbers).collect()
    };
    let sampled = of_runs(true);
    Summary {
        rows,
        value: None,
        greedy: of_runs(false).first().map(|numbers| estimate(numbers)),
        sampled: (!sampled.is_empty()).then(|| {
            let values = sampled.iter().map(|numbers| numbers.value()).collect();
            Sampled::new(values, interval_of(&sampled))
        }),
    }
}

/// The interval of the mean over runs; the runs have the same rows.
fn interval_of(runs: &[&Numbers]) -> Option<[f64; 2]> {
    let rows = runs.first()?.rows().len();
    interval(rows, &mut |positions| mean_at(runs, positions))
}

/// The mean over runs of what a choice of rows gives; NaN where rows cannot be chosen twice.
pub(crate) fn mean_at(runs: &[&Numbers], positions: &[usize]) -> f64 {
    let values = runs.iter().map(|numbers| numbers.value_at(positions));
    let sum: Option<f64> = values.sum();
    sum.map_or(f64::NAN, |sum| sum / runs.len() as f64)
}

fn buckets(
    set: &EvalSet,
    borders: &[usize],
    runs: &[Run],
    numbers: &[(&MetricInfo, Vec<Numbers>)],
) -> Vec<Bucket> {
    let lengths: BTreeMap<usize, usize> = set
        .prompts
        .iter()
        .filter_map(|prompt| {
            let words = prompt.references.first()?.split_whitespace().count();
            Some((prompt.row, words))
        })
        .collect();
    if borders.is_empty() || lengths.is_empty() {
        return Vec::new();
    }
    let from = std::iter::once(0).chain(borders.iter().copied());
    let to = borders.iter().copied().map(Some).chain([None]);
    from.zip(to)
        .map(|(from, to)| {
            // A reference without any word is a short one.
            let inside =
                |words: usize| (words > from || from == 0) && to.is_none_or(|to| words <= to);
            let keep = |row: usize| lengths.get(&row).is_some_and(|&words| inside(words));
            let rows = lengths.keys().filter(|row| keep(**row)).count();
            let metrics = numbers.iter().map(|(metric, numbers)| {
                let some: Vec<Numbers> = numbers.iter().map(|n| n.only(&keep)).collect();
                (metric.name.to_owned(), summary(metric, runs, &some))
            });
            Bucket {
                from,
                to,
                rows,
                metrics: if rows > 0 {
                    metrics.collect()
                } else {
                    Vec::new()
                },
            }
        })
        .collect()
}

/// sacreBLEU's line for the metrics that have one.
fn signatures(metrics: &[&MetricInfo], answers: &[Answer]) -> Map<String, Value> {
    let references = || answers.iter().map(|answer| answer.references.len());
    let line = |metric: &&MetricInfo| match metric.name {
        "sacrebleu" => Some(("sacrebleu".to_owned(), json!(signature::bleu(references())))),
        "chrf" => Some(("chrf".to_owned(), json!(signature::chrf(references())))),
        _ => None,
    };
    metrics.iter().filter_map(line).collect()
}

fn by_row(numbers: &[(&MetricInfo, Vec<Numbers>)]) -> Map<String, Value> {
    let of_references = numbers.iter().filter(|(metric, _)| !metric.needs_answers());
    let lists = of_references.filter_map(|(metric, numbers)| match numbers.first() {
        Some(Numbers::Sums { rows, .. }) => {
            let (rows, sums): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
            Some((
                metric.name.to_owned(),
                json!({ "rows": rows, "sums": sums }),
            ))
        }
        _ => None,
    });
    lists.collect()
}

/// The names of the metrics that can be measured: those asked for, or the usual ones, or all.
pub fn measurable_metrics(names: &[&str], has_teacher: bool, set: &EvalSet) -> Vec<String> {
    let can =
        |name: &&&str| metric(name).is_some_and(|metric| check(metric, has_teacher, set).is_ok());
    names
        .iter()
        .filter(can)
        .map(|name| (*name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests;
