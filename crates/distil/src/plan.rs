//! What a run would take, before it is started: `distil plan`.
//!
//! Everything that a run checks before its first step is checked: the configuration, the files, every
//! row, the models and that they go together. Then it is said what would be trained and on what: how many
//! rows are left out and why, some of them as the model reads them with the loss mask made visible, what
//! memory, disk and time it takes, and what looks like one of the usual mistakes.
//!
//! | file | |
//! |---|---|
//! | `networks.rs`, `texts.rs` | which networks a run has; which texts a step has, and how long they are |
//! | `passes.rs` | how often each network goes over each text |
//! | `memory.rs`, `disk.rs`, `time.rs` | what that takes |
//! | `free_memory.rs` | what this machine has left for it |
//! | `rendered.rs`, `marked.rs` | rows as the model reads them; their lines for the eye |
//! | `warnings/` | the usual mistakes |
//! | `show.rs`, `place.rs` | all of it as text; a row by file and line |

mod disk;
mod free_memory;
mod marked;
mod memory;
mod networks;
mod passes;
mod place;
mod rendered;
mod show;
#[cfg(test)]
mod testing;
mod texts;
mod time;
pub mod warnings;

use distil_model::Llama;
use serde::Serialize;

pub use place::Place;
pub use rendered::Rendered;
pub use show::{Coloured, bytes, span};
pub use warnings::{Level, Warning};

use crate::config::{Config, Precision, Train};
use crate::data::counts::Counts;
use crate::data::read::DataSet;
use crate::error::Result;
use crate::event::Event;
use crate::train::{Setup, check_warmup, setup};
use disk::{disk, hidden_states};
use free_memory::free_memory;
use memory::{Peak, memory};
use networks::{Networks, third_network};
use texts::{
    Lengths, Texts, first_answers, in_pairs, objective_texts, student_answers, trained_texts,
};
use time::{Machine, Work, evaluations};

/// Bytes of a number.
const F32: u64 = size_of::<f32>() as u64;

/// What a run would be.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The method's name.
    pub method: &'static str,
    /// Whose text the student is trained on.
    pub trained_on: String,
    /// The teacher, if there is one.
    pub teacher: Option<Size>,
    /// The student.
    pub student: Size,
    /// Number format of the matrix products that draw the student's own responses.
    pub sampling_precision: Precision,
    /// What becomes of the training rows.
    pub rows: Rows,
    /// What becomes of them as text of a language-modelling term, where an epoch goes over
    /// something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_rows: Option<Rows>,
    /// Training rows that are used.
    pub rows_used: usize,
    /// How long the texts are that are known beforehand.
    pub lengths: Vec<Spread>,
    /// Held-out rows, if there are any.
    pub held_out: Option<HeldOut>,
    /// Optimiser steps; estimated where `train.tokens` ends the run.
    pub steps: usize,
    /// Whether `train.tokens` ends the run before its steps or epochs do.
    pub ended_by_tokens: bool,
    /// Rows of a step.
    pub batch: usize,
    /// Passes over the rows.
    pub epochs: f64,
    /// Tokens of an average optimiser step, prompts included.
    pub tokens_per_step: f64,
    /// The longest sequence, in tokens.
    pub longest: usize,
    /// Peak memory by use, in bytes.
    pub memory: Vec<Part>,
    /// Disk by use, in bytes.
    pub disk: Vec<Part>,
    /// Seconds of an average optimiser step, estimated.
    pub seconds_per_step: f64,
    /// Seconds before the first step (samples that are drawn once), estimated.
    pub seconds_before: f64,
    /// Evaluations, before the first step and after the last among them.
    pub evaluations: usize,
    /// Seconds of one, estimated.
    pub seconds_per_evaluation: f64,
    /// Seconds in all, estimated.
    pub seconds: f64,
    /// The same for people: `2 h 5 min`.
    pub time: String,
    /// Some rows as the model reads them.
    pub prompts: Vec<Rendered>,
    /// What looks like a mistake, the worse first.
    pub warnings: Vec<Warning>,
}

/// A model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Layers.
    pub layers: usize,
    /// Parameters.
    pub parameters: usize,
    /// Number format of its matrix products.
    pub precision: Precision,
}

/// What becomes of the rows of some files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// Rows of the files.
    pub read: usize,
    /// Rows within the limits; `data.limit` may leave fewer of them.
    pub kept: usize,
    /// The others, by reason.
    pub left_out: Vec<LeftOutRows>,
    /// Texts that were split into windows; they are among the kept.
    pub split_texts: usize,
    /// Windows that they were made into.
    pub windows: usize,
}

/// Rows left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOutRows {
    /// Why, as it is said after "left out".
    pub reason: &'static str,
    /// How many.
    pub rows: usize,
    /// The first of them.
    pub example: Option<Place>,
}

/// Held-out rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HeldOut {
    /// Rows that are looked at: the file's, at most `eval.rows`.
    pub read: usize,
    /// Prompts of them within the limits.
    pub prompts: usize,
    /// References of them within the limits.
    pub references: usize,
}

/// Lengths of some texts, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Which texts.
    pub what: &'static str,
    /// Half of them are no longer than this.
    pub median: usize,
    /// Nine tenths of them are no longer than this.
    pub nine_tenths: usize,
    /// The longest.
    pub longest: usize,
}

/// A share of memory or disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is for.
    pub what: &'static str,
    /// How much, in bytes.
    pub bytes: u64,
}

/// Checks a run and predicts what it takes; starts nothing and writes nothing but the cache of
/// models. Both models and all rows are read.
///
/// # Errors
/// Those that the run would end with before its first step.
pub fn plan(config: &Config, events: &mut dyn FnMut(Event<'_>)) -> Result<Plan> {
    let mut setup = setup(config, None, events)?;
    let teacher = read_teacher(&mut setup)?;
    let warnings = warnings::all(config, &setup, false)?;
    let machine = Machine::measure(config);
    of_setup(config, &setup, teacher.as_ref(), &machine, warnings)
}

/// As [`plan`], of a run that starts from the student of an earlier stage. Its size is that of the
/// configured start.
///
/// # Errors
/// As [`plan`].
pub fn plan_continued(config: &Config, events: &mut dyn FnMut(Event<'_>)) -> Result<Plan> {
    let mut setup = setup(config, None, events)?;
    let teacher = read_teacher(&mut setup)?;
    let warnings = warnings::all(config, &setup, true)?;
    let machine = Machine::measure(config);
    of_setup(config, &setup, teacher.as_ref(), &machine, warnings)
}

/// The teacher's network: that its weights can be read is part of what is checked.
fn read_teacher(setup: &mut Setup) -> Result<Option<Llama>> {
    match &mut setup.material.teacher {
        Some(teacher) => Ok(Some(teacher.network()?.clone())),
        None => Ok(None),
    }
}

fn of_setup(
    config: &Config,
    setup: &Setup,
    teacher: Option<&Llama>,
    machine: &Machine,
    warnings: Vec<Warning>,
) -> Result<Plan> {
    let (material, method) = (&setup.material, &config.method);
    let networks = Networks {
        student: &material.student.network,
        teacher,
        third: third_network(method, &material.student.network)?,
    };
    let texts = Texts::of(
        &material.examples,
        &material.prompts,
        &material.pairs,
        &material.corpus,
        sampled_length(config),
        context(setup),
    );
    let all_rows = texts.rows * method.teacher_answers().max(1);
    check_warmup(config, config.train.steps(all_rows))?;
    let batch = config.train.batch.min(all_rows);
    let rows = batch as f64;
    let trained = trained_texts(method);
    let tokens = rows * texts.sum(&trained, Lengths::tokens);
    let responses = rows * texts.sum(&trained, |lengths| lengths.response);
    let steps = steps(&config.train, all_rows, responses);
    let longest = texts.longest(method);
    let together = match in_pairs(method) {
        true => texts.sum(&objective_texts(method), |l| l.longest as f64) as usize,
        false => 0,
    };
    let largest_step = texts.largest_step(method, rows);
    let most = config.train.micro_batch_tokens.min(largest_step);
    let peak = Peak {
        at_once: most.max(longest).max(together),
        several: largest_step > config.train.micro_batch_tokens,
        sampled: sampled_at_once(setup, config, &texts, batch),
    };
    let work = Work {
        config,
        networks: &networks,
        texts: &texts,
        machine,
    };
    let (per_step, before) = (work.step(rows), work.before());
    let per_evaluation = setup.eval.as_ref().map_or(0.0, |set| work.evaluation(set));
    let evaluations = match setup.eval {
        Some(_) => evaluations(config.eval.every, steps),
        None => 0,
    };
    let seconds = before + steps as f64 * per_step + evaluations as f64 * per_evaluation;
    let train = &setup.sources.train;
    let kept_states = hidden_states(config, &networks, &texts, all_rows);
    let memory = memory(config, &networks, peak);
    let needed = memory.iter().map(|part| part.bytes).sum();
    let mut warnings = warnings;
    warnings.extend(warnings::too_little_memory(needed, free_memory()));
    warnings.sort_by_key(|warning| warning.level == Level::Note);
    Ok(Plan {
        method: method.name(),
        trained_on: rendered::trained_on(method),
        teacher: networks.teacher.map(size),
        student: size(networks.student),
        sampling_precision: config.student.sampling_precision,
        rows: rows_of(&setup.counts, train),
        text_rows: setup
            .sources
            .text_counts
            .map(|counts| rows_of(&counts, train)),
        rows_used: texts.rows,
        lengths: lengths_of(setup),
        held_out: setup.eval.as_ref().map(|set| HeldOut {
            read: setup
                .sources
                .held_out
                .as_ref()
                .map_or(0, |data| data.rows.len().min(config.eval.rows)),
            prompts: set.prompts.len(),
            references: set.examples.len(),
        }),
        steps,
        ended_by_tokens: steps < config.train.steps(all_rows),
        batch,
        epochs: steps as f64 * rows / all_rows.max(1) as f64,
        tokens_per_step: tokens,
        longest,
        memory,
        disk: disk(config, &networks, steps)
            .into_iter()
            .chain(kept_states)
            .collect(),
        seconds_per_step: per_step,
        seconds_before: before,
        evaluations,
        seconds_per_evaluation: per_evaluation,
        seconds,
        time: span(seconds),
        prompts: rendered::rendered(config, setup)?,
        warnings,
    })
}

/// Tokens of the sequences that are sampled at once, in training or in an evaluation, if anything is:
/// each has room for the longest of them.
fn sampled_at_once(setup: &Setup, config: &Config, texts: &Texts, batch: usize) -> Option<usize> {
    let method = &config.method;
    let at_once =
        |sequences: usize, longest: usize| config.eval.batch.min(sequences).saturating_mul(longest);
    let sampled = method.rollout().map(|_| {
        let in_a_step = (batch as f64 * student_answers(method).max(1.0)) as usize;
        let before = texts.rows * method.teacher_answers().max(first_answers(method));
        at_once(in_a_step.max(before), texts.sampled.longest)
    });
    let measured = setup.eval.as_ref().map(|set| {
        let prompts = set.prompts.iter().map(|prompt| prompt.prompt.len());
        let longest = prompts
            .max()
            .unwrap_or(0)
            .saturating_add(config.eval.max_new_tokens);
        let context = setup.material.student.network.config().context;
        at_once(set.prompts.len(), longest.min(context))
    });
    sampled.max(measured)
}

/// Tokens of the shorter context of both models.
fn context(setup: &Setup) -> usize {
    let material = &setup.material;
    let of_student = material.student.network.config().context;
    let teacher = material.teacher.as_ref();
    teacher.map_or(of_student, |t| t.outline.config.context.min(of_student))
}

fn rows_of(counts: &Counts, data: &DataSet) -> Rows {
    let left_out = counts.reasons().map(|reason| LeftOutRows {
        reason: reason.words(),
        rows: counts.of(reason),
        example: counts.first(reason).map(|row| Place::new(data, row)),
    });
    Rows {
        read: counts.rows,
        kept: counts.kept,
        left_out: left_out.collect(),
        split_texts: counts.split_texts,
        windows: counts.windows,
    }
}

fn lengths_of(setup: &Setup) -> Vec<Spread> {
    let material = &setup.material;
    let of_examples = || material.examples.iter();
    let of_pairs = || material.pairs.iter();
    let prompts = match (&material.pairs[..], &material.prompts[..]) {
        ([], []) => of_examples().map(|e| e.prompt.len()).collect(),
        ([], prompts) => prompts.iter().map(|p| p.prompt.len()).collect(),
        (pairs, _) => pairs.iter().map(|p| p.chosen.prompt.len()).collect(),
    };
    [
        ("prompts", prompts),
        (
            "responses",
            of_examples().map(|e| e.response.len()).collect(),
        ),
        (
            "preferred responses",
            of_pairs().map(|p| p.chosen.response.len()).collect(),
        ),
        (
            "rejected responses",
            of_pairs().map(|p| p.rejected.response.len()).collect(),
        ),
        ("corpus", material.corpus.iter().map(|e| e.len()).collect()),
    ]
    .into_iter()
    .filter_map(|(what, lengths)| spread(what, lengths))
    .collect()
}

fn spread(what: &'static str, mut lengths: Vec<usize>) -> Option<Spread> {
    lengths.sort_unstable();
    let longest = *lengths.last()?;
    let at = |share: f64| {
        let rank = (share * lengths.len() as f64).ceil() as usize;
        lengths
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(longest)
    };
    Some(Spread {
        what,
        median: at(0.5),
        nine_tenths: at(0.9),
        longest,
    })
}

fn size(network: &Llama) -> Size {
    Size {
        layers: network.config().layers,
        parameters: network.size(),
        precision: network.precision().into(),
    }
}

fn head_weights(network: &Llama) -> usize {
    let config = network.config();
    config.width * config.vocabulary
}

/// Length limit of the method's samples, in tokens.
fn sampled_length(config: &Config) -> usize {
    let rollout = config.method.rollout();
    rollout.map_or(config.data.max_response_tokens, |r| r.max_new_tokens)
}

/// Steps of a run that goes over `rows` rows and trains on so many response tokens a step.
fn steps(train: &Train, rows: usize, response_tokens: f64) -> usize {
    let steps = train.steps(rows);
    match train.tokens {
        // A cast from a float saturates.
        Some(most) if response_tokens > 0.0 => {
            steps.min((most as f64 / response_tokens).ceil() as usize)
        }
        _ => steps,
    }
}

impl Plan {
    /// Peak memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.iter().map(|part| part.bytes).sum()
    }

    /// Largest use of the disk, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        self.disk.iter().map(|part| part.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::config;
    use super::*;

    #[test]
    fn tokens_end_a_run_early() {
        let train = config("method.name = \"kd\"\ntrain.steps = 50\ntrain.tokens = 1000\n").train;
        assert_eq!(steps(&train, 10, 30.0), 34);
        assert_eq!(steps(&train, 10, 10.0), 50);
        assert_eq!(steps(&train, 10, 0.0), 50);
        let train = config("method.name = \"kd\"\ntrain.steps = 50\n").train;
        assert_eq!(steps(&train, 10, 30.0), 50);
    }

    #[test]
    fn lengths_are_told_by_their_ranks() {
        assert_eq!(spread("x", Vec::new()), None);
        let of = |lengths: Vec<usize>| {
            let found = spread("x", lengths).unwrap();
            [found.median, found.nine_tenths, found.longest]
        };
        assert_eq!(of(vec![7]), [7, 7, 7]);
        assert_eq!(of((1..=10).rev().collect()), [5, 9, 10]);
    }
}
