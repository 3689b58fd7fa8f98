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
//! A third network of R parameters adds to both: the reward model of PbKD and the Q-function of
//! MM-PbKD 16R in memory and 12R in each checkpoint, LLMR's policy that lags behind 4R in each.
//!
//! In bf16 a network that is only asked is packed: 2 bytes a weight for the matrices of its layers and
//! its head (9 bits in int8), 4 for its embedding and vectors. That is the teacher's size then, and what a student that
//! samples in bf16 takes beside its weights while it samples.
//!
//! Time is an estimate: the floating-point operations of a step over this machine's measured matrix
//! rate and a share of it that training reaches, sampling likewise by the memory's bandwidth. Responses
//! that are still to be sampled count as long as they may become.

mod networks;
mod texts;

use std::fmt;

use distil_kernels as kernels;
use distil_model::Llama;
use serde::Serialize;

use crate::bench::{Roof, forward_operations, head_operations, layer_weights, weight_bytes};
use crate::config::{Config, Method, Precision, Train};
use crate::data::counts::Counts;
use crate::error::Result;
use crate::train::{Event, Setup, setup};
use networks::{Networks, third_network};
use texts::{
    Lengths, Text, Texts, first_answers, in_pairs, objective_texts, opponent_texts,
    student_answers, teacher_texts, trained_texts,
};

/// Share of the measured matrix rate that a step is taken to reach: a little below the 0.64 to 0.74
/// that `distil bench step` showed in f32.
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
    /// Number format of the matrix products that draw the student's own responses.
    pub sampling_precision: Precision,
    /// What becomes of the training rows.
    #[serde(serialize_with = "as_text")]
    pub rows: Counts,
    /// Training rows that are used.
    pub rows_used: usize,
    /// Held-out prompts and references, if there are held-out rows.
    pub held_out: Option<usize>,
    /// Optimiser steps; estimated where `train.tokens` ends the run.
    pub steps: usize,
    /// Whether `train.tokens` ends the run before its steps or epochs do.
    pub ended_by_tokens: bool,
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

/// What the machine can do in each precision that a run computes in.
#[derive(Debug, Clone, Copy)]
struct Machine {
    f32: Roof,
    /// That of f32 where nothing is computed in bf16.
    bf16: Roof,
}

impl Machine {
    fn measure(config: &Config) -> Self {
        let student = &config.student;
        let teacher = config.teacher.as_ref().map(|teacher| teacher.precision);
        let all = [student.precision, student.sampling_precision];
        let rounds = all.into_iter().chain(teacher).any(|p| p != Precision::F32);
        let f32 = Roof::measure();
        Self {
            f32,
            bf16: match rounds {
                true => Roof::measure_in(kernels::Precision::Bf16),
                false => f32,
            },
        }
    }

    fn roof(&self, precision: kernels::Precision) -> &Roof {
        match precision {
            kernels::Precision::F32 => &self.f32,
            kernels::Precision::Bf16 | kernels::Precision::Int8 => &self.bf16,
        }
    }

    /// Seconds of this network's matrix products.
    fn seconds(&self, network: &Llama, operations: f64) -> f64 {
        self.roof(network.precision()).seconds(operations, 0.0) / REACHED
    }
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

/// Checks a run and predicts what it takes; starts nothing and writes nothing but the cache of
/// models. Both models and all rows are read.
///
/// # Errors
/// Those that the run would end with before its first step.
pub fn plan(config: &Config, events: &mut dyn FnMut(Event<'_>)) -> Result<Plan> {
    let setup = setup(config, events)?;
    let machine = Machine::measure(config);
    of_setup(config, &setup, &machine)
}

fn of_setup(config: &Config, setup: &Setup, machine: &Machine) -> Result<Plan> {
    let (material, method) = (&setup.material, &config.method);
    let networks = Networks {
        student: &material.student.network,
        teacher: material.teacher.as_ref().map(|teacher| &teacher.network),
        third: third_network(method, &material.student.network)?,
    };
    let texts = Texts::of(
        &material.examples,
        &material.prompts,
        &material.pairs,
        &material.corpus,
        sampled_length(config),
    );
    let all_rows = texts.rows * method.teacher_answers().max(1);
    let rows = config.train.batch.min(all_rows) as f64;
    let trained = trained_texts(method);
    let tokens = rows * texts.sum(&trained, Lengths::tokens);
    let responses = rows * texts.sum(&trained, |lengths| lengths.response);
    let steps = steps(&config.train, all_rows, responses);
    let longest = texts.longest(method);
    let together = match in_pairs(method) {
        true => texts.sum(&objective_texts(method), |l| l.longest as f64) as usize,
        false => 0,
    };
    let most = config.train.micro_batch_tokens.min(tokens as usize);
    let at_once = most.max(longest).max(together);
    let sampled = method.rollout().map(|_| texts.sampled.longest);
    let measured = setup.eval.as_ref().map(|set| {
        let prompts = set.prompts.iter().map(|prompt| prompt.prompt.len());
        prompts.max().unwrap_or(0) + config.eval.max_new_tokens
    });
    let mut disk = disk(config, &networks);
    if let (Some(teacher), Some(true)) =
        (networks.teacher, config.teacher.as_ref().map(|t| t.cache))
    {
        let text = match method.reads_responses() {
            true => Text::Data,
            false => Text::Sampled,
        };
        let positions = all_rows as f64 * texts.sum(&[(text, 1.0)], |lengths| lengths.response);
        disk.push(Part {
            what: "teacher's hidden states",
            bytes: positions as u64 * teacher.config().width as u64 * F32,
        });
    }
    Ok(Plan {
        method: method.name(),
        teacher: networks.teacher.map(size),
        student: size(networks.student),
        sampling_precision: config.student.sampling_precision,
        rows: setup.counts,
        rows_used: texts.rows,
        held_out: setup
            .eval
            .as_ref()
            .map(|set| set.prompts.len().max(set.examples.len())),
        steps,
        ended_by_tokens: steps < config.train.steps(all_rows),
        tokens_per_step: tokens,
        longest,
        memory: memory(config, &networks, at_once, sampled.max(measured)),
        disk,
        seconds_per_step: step_seconds(config, &networks, &texts, rows, machine),
        seconds_before: seconds_before(config, &networks, &texts, machine),
    })
}

fn size(network: &Llama) -> Size {
    Size {
        layers: network.config().layers,
        parameters: network.size(),
        precision: network.precision().into(),
    }
}

/// Bytes of a network's matrices packed in this precision, those of its layers and its head.
fn packed_matrices(network: &Llama, precision: Precision) -> u64 {
    let weights = layer_weights(network) + head_weights(network);
    (weights as f64 * weight_bytes(precision)) as u64
}

/// Bytes of a network that is only asked.
fn asked_bytes(network: &Llama) -> u64 {
    let plain = match network.precision() {
        kernels::Precision::F32 => return network.size() as u64 * F32,
        // The embedding and the vectors; of a tied head the embedding is kept beside it.
        _ if network.config().tied => network.size() - layer_weights(network),
        _ => network.size() - layer_weights(network) - head_weights(network),
    };
    F32 * plain as u64 + packed_matrices(network, network.precision().into())
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

/// `at_once`: tokens of the largest micro-batch. `answered`: the longest prompt with its answer, if
/// anything is sampled.
fn memory(
    config: &Config,
    networks: &Networks<'_>,
    at_once: usize,
    answered: Option<usize>,
) -> Vec<Part> {
    let student = networks.student;
    let parameters = student.size() as u64;
    let part = |what, numbers: u64| Part {
        what,
        bytes: numbers * F32,
    };
    let mut parts = vec![
        part("student's weights", parameters),
        part("gradient", parameters),
        part("AdamW's moments", 2 * parameters),
        part(
            "activations kept for the backward pass",
            at_once as u64 * activations(student, config.train.recompute),
        ),
        part("logits of a chunk", 2 * (16 << 20)),
    ];
    if let Some(teacher) = networks.teacher {
        parts.push(Part {
            what: "teacher's weights",
            bytes: asked_bytes(teacher),
        });
    }
    let answers = config.method.samples_student() || config.data.eval.is_some();
    let sampling = config.student.sampling_precision;
    if answers && sampling != Precision::F32 {
        parts.push(Part {
            what: "student packed while it samples",
            bytes: packed_matrices(student, sampling),
        });
    }
    if let Some(third) = &networks.third {
        let copies = match third.trained {
            true => 4,
            false => 1,
        };
        parts.push(part(third.what[0], copies * third.parameters()));
    }
    if let Some(longest) = answered {
        let of_student = cache(student);
        let numbers = match (&config.method, networks.teacher) {
            // Every token is drawn from both.
            (Method::MiniLlm(settings), Some(teacher)) if settings.teacher_mix > 0.0 => {
                of_student + cache(teacher)
            }
            (method, Some(teacher)) if method.teacher_answers() > 0 => {
                of_student.max(cache(teacher))
            }
            _ => of_student,
        };
        parts.push(part(
            "keys and values while sampling",
            config.eval.batch as u64 * longest as u64 * numbers,
        ));
    }
    parts
}

/// Numbers a token in the cache of keys and values.
fn cache(network: &Llama) -> u64 {
    let c = network.config();
    (2 * c.heads.key_value * c.heads.dimension * c.layers) as u64
}

/// Numbers a token that a forward pass keeps: in each layer the inputs of its products and of its
/// norms, and what the feed-forward block multiplies. Where layers are computed again, that of one
/// layer and the inputs of all.
fn activations(network: &Llama, recompute: bool) -> u64 {
    let c = network.config();
    let (d, f) = (c.width, c.feed_forward);
    let attention = (2 * c.heads.query + 2 * c.heads.key_value) * c.heads.dimension;
    let layer = 4 * d + attention + 3 * f;
    match recompute {
        false => (c.layers * layer + 2 * d) as u64,
        true => (c.layers * d + layer + 2 * d) as u64,
    }
}

fn disk(config: &Config, networks: &Networks<'_>) -> Vec<Part> {
    let parameters = networks.student.size() as u64;
    let kept = (config.train.keep_last + usize::from(config.train.keep_best) + 1) as u64;
    let part = |what, numbers: u64| Part {
        what,
        bytes: numbers * F32,
    };
    let mut parts = vec![
        part("checkpoints", kept * 3 * parameters),
        part("student", parameters),
    ];
    if let Some(third) = &networks.third {
        let copies = match third.trained {
            true => 3,
            false => 1,
        };
        parts.push(part(third.what[1], kept * copies * third.parameters()));
    }
    parts
}

/// Seconds of a step of `rows` rows. A backward pass is two forward passes' work; what is only
/// looked at, without a gradient, is left aside.
fn step_seconds(
    config: &Config,
    networks: &Networks<'_>,
    texts: &Texts,
    rows: f64,
    machine: &Machine,
) -> f64 {
    let method = &config.method;
    let trunk = |network: &Llama, sequences: &[(Text, f64)]| {
        texts.sum(sequences, |lengths| {
            forward_operations(network, lengths.tokens(), lengths.tokens())
        })
    };
    let head = |network: &Llama, sequences: &[(Text, f64)]| {
        head_operations(network, texts.sum(sequences, |lengths| lengths.response))
    };
    let both = |network: &Llama, sequences: &[(Text, f64)]| {
        trunk(network, sequences) + head(network, sequences)
    };
    let of_student = 3.0 * both(networks.student, &trained_texts(method));
    let mut computing = machine.seconds(networks.student, of_student);
    if let Some(teacher) = networks.teacher {
        computing += machine.seconds(teacher, both(teacher, &teacher_texts(method)));
    }
    if let Some(third) = &networks.third {
        let sequences = opponent_texts(method);
        let mut operations = 3.0 * trunk(&third.network, &sequences);
        // A reward is one number a response; a Q-function has one for each token.
        if matches!(method, Method::MmPbkd(_)) {
            operations += 3.0 * head(&third.network, &sequences);
        }
        computing += machine.seconds(&third.network, operations);
    }
    let answers = student_answers(method);
    let tokens = rows * answers * texts.sampled.response;
    let batch = config.eval.batch.min((rows * answers.max(1.0)) as usize);
    let precision = config.student.sampling_precision.into();
    let mut sampling = sampling_seconds(networks.student, precision, tokens, batch, machine);
    if let (Method::MiniLlm(settings), Some(teacher)) = (method, networks.teacher)
        && settings.teacher_mix > 0.0
    {
        sampling += sampling_seconds(teacher, teacher.precision(), tokens, batch, machine);
    }
    rows * computing + sampling
}

/// Seconds of the samples that are drawn once, before the first step.
fn seconds_before(
    config: &Config,
    networks: &Networks<'_>,
    texts: &Texts,
    machine: &Machine,
) -> f64 {
    let (method, batch) = (&config.method, config.eval.batch);
    let tokens = |answers: usize| (texts.rows * answers) as f64 * texts.sampled.response;
    let of_teacher = networks.teacher.map_or(0.0, |teacher| {
        let tokens = tokens(method.teacher_answers());
        sampling_seconds(teacher, teacher.precision(), tokens, batch, machine)
    });
    let precision = config.student.sampling_precision.into();
    let of_student = tokens(first_answers(method));
    of_teacher + sampling_seconds(networks.student, precision, of_student, batch, machine)
}

fn sampling_seconds(
    network: &Llama,
    precision: kernels::Precision,
    tokens: f64,
    batch: usize,
    machine: &Machine,
) -> f64 {
    let rows = batch.max(1) as f64;
    let operations = forward_operations(network, rows, 0.0) + head_operations(network, rows);
    let weights = layer_weights(network) + head_weights(network);
    let bytes = weights as f64 * weight_bytes(precision.into());
    tokens / rows * machine.roof(precision).seconds(operations, bytes) / REACHED
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
                "{} layers, {:.1}M parameters, {}",
                size.layers,
                size.parameters as f64 / 1e6,
                size.precision.name()
            )
        };
        let samples = match self.sampling_precision == self.student.precision {
            true => String::new(),
            false => format!(", samples in {}", self.sampling_precision.name()),
        };
        writeln!(f, "method    {}", self.method)?;
        if let Some(teacher) = &self.teacher {
            writeln!(f, "teacher   {}", size(teacher))?;
        }
        writeln!(f, "student   {}{samples}", size(&self.student))?;
        writeln!(f, "rows      {}", self.rows)?;
        match self.held_out {
            Some(rows) => writeln!(f, "held out  {rows} rows measured")?,
            None => writeln!(f, "held out  none: nothing is measured")?,
        }
        let until = match self.ended_by_tokens {
            true => " or so, until train.tokens is reached",
            false => "",
        };
        writeln!(
            f,
            "steps     {}{until}, about {:.0} tokens each, sequences of at most {} tokens",
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
                    ", {} for samples before the first",
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
    use crate::data::example::Example;
    use crate::testing::tiny_network;

    fn config(text: &str) -> Config {
        let text = format!(
            "teacher.model = \"t\"\nstudent.prune.layers = 2\ndata.train = \"a.jsonl\"\n{text}"
        );
        Config::parse(&text, Path::new("run.toml"), &[]).unwrap()
    }

    /// Of a method alone.
    fn method(text: &str) -> Method {
        config(&format!("[method]\n{text}\n")).method
    }

    fn networks<'a>(
        method: &Method,
        student: &'a Llama,
        teacher: Option<&'a Llama>,
    ) -> Networks<'a> {
        Networks {
            student,
            teacher,
            third: third_network(method, student).unwrap(),
        }
    }

    fn example(prompt: usize, response: usize) -> Example {
        Example {
            prompt: vec![3; prompt],
            response: vec![4; response],
            row: 0,
        }
    }

    fn bytes_of(parts: &[Part], what: &str) -> Option<u64> {
        let part = parts.iter().find(|part| part.what.contains(what));
        part.map(|part| part.bytes)
    }

    #[test]
    fn the_parts_are_those_of_the_formula() {
        let network = tiny_network(1);
        let parameters = network.size() as u64;
        let config = config("method.name = \"kd\"\ntrain.keep_last = 3\neval.batch = 5\n");
        let networks = networks(&config.method, &network, Some(&network));
        let parts = memory(&config, &networks, 100, Some(40));
        let bytes = |what: &str| bytes_of(&parts, what).unwrap();
        assert_eq!(bytes("student's weights"), 4 * parameters);
        assert_eq!(bytes("AdamW"), 8 * parameters);
        assert_eq!(bytes("teacher"), 4 * parameters);
        // Two layers of 4·16 + (2·4 + 2·2)·4 + 3·24 numbers, and 2·16.
        assert_eq!(bytes("activations"), 4 * 100 * (2 * (64 + 48 + 72) + 32));
        // Keys and values of 2 heads of 4 in two layers, for 5 rows of 40 tokens.
        assert_eq!(bytes("keys and values"), 4 * 5 * 40 * (2 * 2 * 4 * 2));
        assert_eq!(parts.len(), 7);
        assert_eq!(disk(&config, &networks)[0].bytes, 4 * 12 * parameters);
        assert_eq!(disk(&config, &networks).len(), 2);
        let nothing_sampled = memory(&config, &networks, 100, None);
        assert_eq!(bytes_of(&nothing_sampled, "keys and values"), None);
    }

    #[test]
    fn a_third_network_is_counted_in_memory_and_on_disk() {
        let network = tiny_network(1);
        // 1920 in the matrices and 2·16 in the norms of a layer, 24·16 in the embedding, 16 in the
        // last norm; the reward's head is of 16 weights and a bias.
        let (two_layers, one_layer) = (4304, 2352);
        assert_eq!(network.size(), 4304);
        for (text, what, memory_bytes, disk_bytes) in [
            (
                "name = \"pbkd\"\nreward_layers = 1",
                "reward model",
                16 * (one_layer + 17),
                12 * (one_layer + 17),
            ),
            (
                "name = \"mm_pbkd\"\nq_layers = 9",
                "Q-function",
                16 * two_layers,
                12 * two_layers,
            ),
            (
                "name = \"llmr\"\nsync_every = 4",
                "lags behind",
                4 * two_layers,
                4 * two_layers,
            ),
        ] {
            let config = config(&format!("train.keep_last = 1\n[method]\n{text}\n"));
            let networks = networks(&config.method, &network, None);
            let parts = memory(&config, &networks, 100, None);
            assert_eq!(bytes_of(&parts, what), Some(memory_bytes), "{text}");
            // The last checkpoint and the one being written.
            let parts = disk(&config, &networks);
            assert_eq!(bytes_of(&parts, what), Some(2 * disk_bytes), "{text}");
        }
        for text in ["name = \"llmr\"", "name = \"kd\""] {
            assert!(networks(&method(text), &network, None).third.is_none());
        }
    }

    /// 1920 weights in the matrices of each of two layers, 24·16 in the embedding, which is the head,
    /// too, and 5·16 in the norms.
    #[test]
    fn a_network_that_is_asked_in_bf16_has_two_bytes_a_packed_weight() {
        let network = tiny_network(1);
        let rounded = network.clone().in_precision(kernels::Precision::Bf16);
        let [layers, embedding, vectors] = [2 * 1920, 24 * 16, 5 * 16];
        let plain = 4 * (layers + embedding + vectors);
        let packed = 2 * (layers + embedding) + 4 * (embedding + vectors);
        assert_eq!(asked_bytes(&network), plain);
        assert_eq!(asked_bytes(&rounded), packed);
        assert_eq!(asked_bytes(&rounded.packed()), packed);
        let text = "method.name = \"gkd\"\nteacher.precision = \"bf16\"\n";
        let of = |text: &str| {
            let (config, teacher) = (config(text), rounded.packed());
            let networks = networks(&config.method, &network, Some(&teacher));
            memory(&config, &networks, 100, Some(40))
        };
        let parts = of(text);
        assert_eq!(bytes_of(&parts, "teacher"), Some(packed));
        assert_eq!(bytes_of(&parts, "student's weights"), Some(plain));
        assert_eq!(bytes_of(&parts, "packed while it samples"), None);
        let parts = of(&format!("{text}student.sampling_precision = \"bf16\"\n"));
        let beside = bytes_of(&parts, "packed while it samples");
        assert_eq!(beside, Some(2 * (layers + embedding)));
    }

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
    fn seconds_follow_from_what_a_method_computes() {
        let network = tiny_network(1);
        let f32 = Roof {
            gflops: 1.0,
            bytes_per_second: 1e9,
        };
        let bf16 = Roof { gflops: 4.0, ..f32 };
        let machine = Machine { f32, bf16 };
        let texts = Texts::of(&[example(4, 6), example(4, 6)], &[], &[], &[], 6);
        let seconds = |text: &str| {
            let config = config(&format!("[method]\n{text}\n"));
            let networks = networks(&config.method, &network, Some(&network));
            [
                step_seconds(&config, &networks, &texts, 2.0, &machine),
                seconds_before(&config, &networks, &texts, &machine),
            ]
        };
        let [sft, nothing] = seconds("name = \"sft\"");
        let [kd, _] = seconds("name = \"kd\"");
        assert_eq!(nothing, 0.0);
        // A forward and a backward pass, and one more forward pass of a teacher of the same size.
        assert!((kd / sft - 4.0 / 3.0).abs() < 1e-9, "{kd} {sft}");
        let [gkd, _] = seconds("name = \"gkd\"\nstudent_share = 1.0");
        assert!(gkd > kd, "{gkd} {kd}");
        let [mm_pbkd, once] = seconds("name = \"mm_pbkd\"");
        let [dpkd, again] = seconds("name = \"dpkd\"");
        assert!(mm_pbkd > dpkd, "{mm_pbkd} {dpkd}");
        assert!(once > 0.0 && once == again);
        // The student answers once, too, and several answers take as much longer.
        let [_, offline] = seconds("name = \"pbkd\"\nmode = \"offline\"");
        let [_, thrice] = seconds("name = \"seqkd\"\nsamples_per_prompt = 3");
        for (found, expected) in [(offline, 2.0 * once), (thrice, 3.0 * once)] {
            assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
        }
        // Each network takes the time of its own precision: a quarter in bf16.
        let config = config("[method]\nname = \"kd\"\n");
        let rounded = network.clone().in_precision(kernels::Precision::Bf16);
        let of = |student: &Llama, teacher: &Llama| {
            let networks = networks(&config.method, student, Some(teacher));
            step_seconds(&config, &networks, &texts, 2.0, &machine)
        };
        for (found, share) in [
            (of(&network, &rounded), 3.25 / 4.0),
            (of(&rounded, &network), 1.75 / 4.0),
            (of(&rounded, &rounded), 0.25),
        ] {
            assert!((found / kd - share).abs() < 1e-9, "{found} {kd} {share}");
        }
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
