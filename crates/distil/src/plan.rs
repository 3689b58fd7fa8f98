//! What a run would take, before it is started: `distil plan`.
//!
//! Everything that a run checks before its first step is checked: the configuration, the files, every
//! row, the models and that they go together. Memory and disk follow from the models' sizes; with P, Pₜ
//! the numbers of student's and teacher's parameters, in f32:
//!
//! ```text
//! memory   4Pₜ + 4P (weights) + 4P (gradient) + 8P (AdamW) + activations + logits + cache
//! disk     (keep_last + best + the one being written) · 12P (checkpoints) + 4P (student)
//! ```
//!
//! Time is an estimate: the floating-point operations of a step over this machine's measured matrix
//! rate and a share of it that training reaches, sampling likewise by the memory's bandwidth.

use std::fmt;

use distil_model::Llama;
use serde::Serialize;

use crate::bench::{Roof, forward_operations, head_operations, layer_weights};
use crate::config::Config;
use crate::data::counts::Counts;
use crate::error::Result;
use crate::train::{Event, Setup, setup};

/// Share of the measured matrix rate that a step is taken to reach: a little below the 0.64 to 0.74
/// that `distil bench step` showed.
const REACHED: f64 = 0.6;

/// Bytes of a number.
const F32: u64 = size_of::<f32>() as u64;

/// What a run would be.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The method's name.
    pub method: &'static str,
    /// The teacher, if there is one.
    pub teacher: Option<Size>,
    /// The student.
    pub student: Size,
    /// What becomes of the training rows.
    #[serde(serialize_with = "as_text")]
    pub rows: Counts,
    /// Training rows that are used.
    pub rows_used: usize,
    /// Held-out prompts and references, if there are held-out rows.
    pub held_out: Option<usize>,
    /// Optimiser steps.
    pub steps: usize,
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
    /// Seconds before the first step (the teacher's samples), estimated.
    pub seconds_before: f64,
}

/// A model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Layers.
    pub layers: usize,
    /// Parameters.
    pub parameters: usize,
}

/// A share of memory or disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is for.
    pub what: &'static str,
    /// How much, in bytes.
    pub bytes: u64,
}

fn as_text<S: serde::Serializer>(counts: &Counts, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(counts)
}

/// What is sampled during a run.
struct Sampling {
    /// Tokens that the student generates in an optimiser step.
    student_tokens: f64,
    /// Tokens that the teacher generates before the first step.
    teacher_tokens: f64,
}

/// Checks a run and predicts what it takes; starts nothing and writes nothing but the cache of
/// models. Both models and all rows are read.
///
/// # Errors
/// Those that the run would end with before its first step.
pub fn plan(config: &Config, events: &mut dyn FnMut(Event<'_>)) -> Result<Plan> {
    let setup = setup(config, events)?;
    let roof = Roof::measure();
    Ok(of_setup(config, &setup, &roof))
}

fn of_setup(config: &Config, setup: &Setup, roof: &Roof) -> Plan {
    let material = &setup.material;
    let student = &material.student.network;
    let teacher = material.teacher.as_ref().map(|teacher| &teacher.network);
    let new_tokens = sampled_length(config);
    let lengths: Vec<usize> = match material.examples.is_empty() {
        false => material
            .examples
            .iter()
            .map(|example| example.len())
            .collect(),
        // Only prompts are given: responses have at most the length that is sampled.
        true => material
            .prompts
            .iter()
            .map(|prompt| prompt.prompt.len() + new_tokens)
            .collect(),
    };
    let rows = lengths.len() * config.method.teacher_answers().max(1);
    let steps = config.train.steps(rows);
    let sequences = config.train.batch.min(rows) as f64;
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let trained = sequences * mean * sequences_per_row(config);
    let sampling = Sampling {
        student_tokens: match config.method.samples_student() {
            true => sequences * new_tokens as f64,
            false => 0.0,
        },
        teacher_tokens: (material.prompts.len() * config.method.teacher_answers() * new_tokens)
            as f64,
    };
    Plan {
        method: config.method.name(),
        teacher: teacher.map(size),
        student: size(student),
        rows: setup.counts,
        rows_used: lengths.len(),
        held_out: setup
            .eval
            .as_ref()
            .map(|set| set.prompts.len().max(set.examples.len())),
        steps,
        tokens_per_step: trained,
        longest,
        memory: memory(config, student, teacher, trained as usize, longest),
        disk: disk(config, student),
        seconds_per_step: step_seconds(
            student,
            teacher,
            trained,
            mean,
            sampling.student_tokens,
            roof,
        ),
        seconds_before: teacher.map_or(0.0, |teacher| {
            sampling_seconds(teacher, sampling.teacher_tokens, config.eval.batch, roof)
        }),
    }
}

fn size(network: &Llama) -> Size {
    Size {
        layers: network.config().layers,
        parameters: network.size(),
    }
}

/// DPKD's sequence form trains on two sequences a row.
fn sequences_per_row(config: &Config) -> f64 {
    match config.method.samples_student() {
        true => 2.0,
        false => 1.0,
    }
}

/// Length limit of the method's samples, in tokens.
fn sampled_length(config: &Config) -> usize {
    let rollout = config.method.rollout();
    rollout.map_or(config.data.max_response_tokens, |r| r.max_new_tokens)
}

fn memory(
    config: &Config,
    student: &Llama,
    teacher: Option<&Llama>,
    step_tokens: usize,
    longest: usize,
) -> Vec<Part> {
    let parameters = student.size() as u64;
    let part = |what, numbers: u64| Part {
        what,
        bytes: numbers * F32,
    };
    let tokens = config
        .train
        .micro_batch_tokens
        .min(step_tokens)
        .max(longest) as u64;
    let mut parts = vec![
        part("student's weights", parameters),
        part("gradient", parameters),
        part("AdamW's moments", 2 * parameters),
        part(
            "activations kept for the backward pass",
            tokens * activations(student),
        ),
        part("logits of a chunk", 2 * (8 << 20)),
    ];
    if let Some(teacher) = teacher {
        parts.push(part("teacher's weights", teacher.size() as u64));
    }
    if config.data.eval.is_some() || config.method.rollout().is_some() {
        let batch = config.eval.batch.max(config.train.batch) as u64;
        let larger = teacher.unwrap_or(student).config();
        let numbers = 2 * larger.heads.key_value * larger.heads.dimension * larger.layers;
        parts.push(part(
            "keys and values while sampling",
            batch * longest as u64 * numbers as u64,
        ));
    }
    parts
}

/// Numbers a token that a forward pass keeps: in each layer the inputs of its products and of its
/// norms, and what the feed-forward block multiplies.
fn activations(network: &Llama) -> u64 {
    let c = network.config();
    let (d, f) = (c.width, c.feed_forward);
    let attention = (2 * c.heads.query + 2 * c.heads.key_value) * c.heads.dimension;
    (c.layers * (4 * d + attention + 3 * f) + 2 * d) as u64
}

fn disk(config: &Config, student: &Llama) -> Vec<Part> {
    let parameters = student.size() as u64;
    let kept = config.train.keep_last + usize::from(config.train.keep_best) + 1;
    vec![
        Part {
            what: "checkpoints",
            bytes: kept as u64 * 3 * F32 * parameters,
        },
        Part {
            what: "student",
            bytes: F32 * parameters,
        },
    ]
}

fn step_seconds(
    student: &Llama,
    teacher: Option<&Llama>,
    tokens: f64,
    length: f64,
    sampled: f64,
    roof: &Roof,
) -> f64 {
    let forward = |network: &Llama| {
        forward_operations(network, tokens, length) + head_operations(network, tokens)
    };
    let operations = 3.0 * forward(student) + teacher.map_or(0.0, forward);
    roof.seconds(operations, 0.0) / REACHED + sampling_seconds(student, sampled, 32, roof)
}

fn sampling_seconds(network: &Llama, tokens: f64, batch: usize, roof: &Roof) -> f64 {
    let config = network.config();
    let rows = batch as f64;
    let operations = forward_operations(network, rows, 0.0) + head_operations(network, rows);
    let weights = layer_weights(network) + config.width * config.vocabulary;
    let bytes = weights as f64 * F32 as f64;
    tokens / rows * roof.seconds(operations, bytes) / REACHED
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

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |size: &Size| {
            format!(
                "{} layers, {:.1}M parameters",
                size.layers,
                size.parameters as f64 / 1e6
            )
        };
        writeln!(f, "method    {}", self.method)?;
        if let Some(teacher) = &self.teacher {
            writeln!(f, "teacher   {}", size(teacher))?;
        }
        writeln!(f, "student   {}", size(&self.student))?;
        writeln!(f, "rows      {}", self.rows)?;
        match self.held_out {
            Some(rows) => writeln!(f, "held out  {rows} rows measured")?,
            None => writeln!(f, "held out  none: nothing is measured")?,
        }
        writeln!(
            f,
            "steps     {}, about {:.0} tokens each, sequences of at most {} tokens",
            self.steps, self.tokens_per_step, self.longest
        )?;
        writeln!(f, "memory    about {}", bytes(self.memory_bytes()))?;
        for part in &self.memory {
            writeln!(f, "  {:>9}  {}", bytes(part.bytes), part.what)?;
        }
        writeln!(f, "disk      about {}", bytes(self.disk_bytes()))?;
        for part in &self.disk {
            writeln!(f, "  {:>9}  {}", bytes(part.bytes), part.what)?;
        }
        let all = self.seconds_before + self.steps as f64 * self.seconds_per_step;
        write!(
            f,
            "time      about {} ({:.1} s a step{}), evaluation not counted",
            duration(all),
            self.seconds_per_step,
            match self.seconds_before > 0.0 {
                true => format!(
                    ", {} for the teacher's samples",
                    duration(self.seconds_before)
                ),
                false => String::new(),
            }
        )
    }
}

/// `1.2 GB`.
fn bytes(count: u64) -> String {
    match count as f64 {
        count if count >= 1e9 => format!("{:.1} GB", count / 1e9),
        count => format!("{:.1} MB", count / 1e6),
    }
}

/// `2 h 5 min`, `3 min`, `20 s`.
fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round();
    match minutes {
        _ if seconds < 90.0 => format!("{seconds:.0} s"),
        minutes if minutes < 90.0 => format!("{minutes:.0} min"),
        minutes => format!(
            "{:.0} h {:.0} min",
            (minutes / 60.0).floor(),
            minutes % 60.0
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::tiny_network;

    fn config(text: &str) -> Config {
        let text = format!(
            "teacher.model = \"t\"\nstudent.prune.layers = 2\ndata.train = \"a.jsonl\"\n{text}"
        );
        Config::parse(&text, Path::new("run.toml"), &[]).unwrap()
    }

    #[test]
    fn the_parts_are_those_of_the_formula() {
        let network = tiny_network(1);
        let parameters = network.size() as u64;
        let config = config("method.name = \"kd\"\ntrain.keep_last = 3\n");
        let parts = memory(&config, &network, Some(&network), 100, 40);
        let bytes = |what: &str| {
            parts
                .iter()
                .find(|part| part.what.contains(what))
                .unwrap()
                .bytes
        };
        assert_eq!(bytes("student's weights"), 4 * parameters);
        assert_eq!(bytes("AdamW"), 8 * parameters);
        assert_eq!(bytes("teacher"), 4 * parameters);
        // Two layers of 4·16 + (2·4 + 2·2)·4 + 3·24 numbers, and 2·16.
        assert_eq!(bytes("activations"), 4 * 100 * (2 * (64 + 48 + 72) + 32));
        let disk = disk(&config, &network);
        assert_eq!(disk[0].bytes, 4 * 12 * parameters);
    }

    #[test]
    fn sampling_counts_where_a_method_samples() {
        let dpkd = config("method.name = \"dpkd\"\nmethod.max_new_tokens = 20\n");
        assert!(dpkd.method.samples_student());
        assert_eq!((sequences_per_row(&dpkd), sampled_length(&dpkd)), (2.0, 20));
        let seqkd = config("method.name = \"seqkd\"\nmethod.samples_per_prompt = 4\n");
        assert!(!seqkd.method.samples_student());
        assert_eq!(seqkd.method.teacher_answers(), 4);
        let network = tiny_network(1);
        let roof = Roof {
            gflops: 1.0,
            bytes_per_second: 1e9,
        };
        let without = step_seconds(&network, None, 100.0, 10.0, 0.0, &roof);
        assert!(step_seconds(&network, None, 100.0, 10.0, 50.0, &roof) > without);
        assert!(step_seconds(&network, Some(&network), 100.0, 10.0, 0.0, &roof) > 1.3 * without);
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(bytes(1_234_567), "1.2 MB");
        assert_eq!(bytes(2_500_000_000), "2.5 GB");
        assert_eq!(duration(20.4), "20 s");
        assert_eq!(duration(181.0), "3 min");
        assert_eq!(duration(7500.0), "2 h 5 min");
    }
}
