//! How fast is it, and how near to what the machine can do? The measuring behind `distil bench`.
//!
//! Floating-point operations are those that the mathematics needs: a product of [n, k] and [k, m]
//! is 2nkm, its backward pass twice that; causal attention over L tokens is 2L²·h·e a layer, half of
//! the full square. What is computed twice to save memory is not counted.
//!
//! A share is one of the roof of the precision that a benchmark computes in.

mod head;
mod load;
mod on_policy;
mod roof;
mod roofs;
mod sample;
mod score;
mod step;
mod training;

use std::collections::BTreeMap;
use std::time::Instant;

use distil_kernels::instruction_set;
use distil_model::Llama;
use serde::Serialize;

use crate::config::{Precision, Sampling};
use crate::data::example::Example;
use crate::error::{Error, Result};

pub use head::{HeadCase, head};
pub use load::{LoadCase, load};
pub use on_policy::{OnPolicyCase, on_policy};
pub use roof::Roof;
pub use roofs::{MatrixRoof, MemoryRoof, Roofs, roofs};
pub use sample::{SampleCase, sample};
pub use score::{ScoreCase, score};
pub use step::{StepCase, step};

/// Bytes of a weight: what decoding must read at least.
pub(crate) fn weight_bytes(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 4.0,
        Precision::Bf16 => 2.0,
        // 32 numbers share a scale in f32.
        Precision::Int8 => 1.125,
    }
}

/// What one benchmark gives; as JSON, a line of `distil bench --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// `step`, `head`, `sample`, `score` or `load`.
    pub bench: &'static str,
    /// What was computed.
    pub case: String,
    /// Number format of the computation.
    pub precision: &'static str,
    /// Threads that computed.
    pub threads: usize,
    /// Seconds of one step, pass, batch of samples or start: the sum of the phases.
    pub seconds: f64,
    /// Trained, scored or generated tokens a second.
    pub tokens_per_second: f64,
    /// 10⁹ floating-point operations a second.
    pub gflops: f64,
    /// The least time this machine needs ([`Roof`]) over the time taken, in [0, 1].
    pub share_of_roof: f64,
    /// Largest resident memory since the benchmark began; unknown outside Linux.
    pub peak_rss_bytes: Option<u64>,
    /// Seconds by phase.
    pub phases: BTreeMap<&'static str, f64>,
    /// What the machine can do.
    pub roof: RoofFigures,
}

/// A [`Roof`] in a report.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RoofFigures {
    /// The processor's instructions that matrix products of this precision use.
    pub instructions: &'static str,
    /// 10⁹ floating-point operations a second of matrix products of this precision.
    pub gflops: f64,
    /// 10⁹ bytes read from memory a second.
    pub gigabytes_per_second: f64,
}

/// Seconds by phase, summed.
#[derive(Default)]
struct Clock {
    phases: BTreeMap<&'static str, f64>,
}

impl Clock {
    fn time<T>(&mut self, phase: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let value = work();
        *self.phases.entry(phase).or_default() += start.elapsed().as_secs_f64();
        value
    }

    /// The mean of so many passes.
    fn mean(mut self, passes: usize) -> BTreeMap<&'static str, f64> {
        for seconds in self.phases.values_mut() {
            *seconds /= passes as f64;
        }
        self.phases
    }
}

/// What a case amounts to, apart from the time it takes.
struct Work {
    bench: &'static str,
    case: String,
    precision: Precision,
    tokens: f64,
    operations: f64,
    /// The least time on this machine, in seconds.
    least: Box<dyn Fn(&Roof) -> f64>,
}

impl Work {
    /// The figures, from the phases of one unit of this work.
    fn figures(self, phases: BTreeMap<&'static str, f64>) -> Figures {
        // Read before the roof is measured, which takes memory of its own.
        let peak_rss_bytes = peak_rss_bytes();
        let precision = self.precision.into();
        let roof = Roof::measure_in(precision);
        let seconds: f64 = phases.values().sum();
        Figures {
            bench: self.bench,
            case: self.case,
            precision: self.precision.name(),
            threads: rayon::current_num_threads(),
            seconds,
            tokens_per_second: self.tokens / seconds,
            gflops: self.operations / seconds / 1e9,
            share_of_roof: (self.least)(&roof) / seconds,
            peak_rss_bytes,
            phases,
            roof: RoofFigures {
                instructions: instruction_set(precision),
                gflops: roof.gflops,
                gigabytes_per_second: roof.bytes_per_second / 1e9,
            },
        }
    }
}

/// Operations of a network on packed tokens, one forward pass without the head.
pub(crate) fn forward_operations(network: &Llama, tokens: f64, length: f64) -> f64 {
    let config = network.config();
    let mixing = (config.heads.query * config.heads.dimension * config.layers) as f64;
    2.0 * tokens * layer_weights(network) as f64 + 2.0 * tokens * length * mixing
}

/// Operations of the head on so many positions, forward.
pub(crate) fn head_operations(network: &Llama, tokens: f64) -> f64 {
    let config = network.config();
    2.0 * tokens * (config.width * config.vocabulary) as f64
}

/// Numbers in the matrices of all layers: what every token is multiplied with.
pub(crate) fn layer_weights(network: &Llama) -> usize {
    let config = network.config();
    let (width, heads) = (config.width, config.heads);
    let mixing = 2 * (heads.query + heads.key_value) * heads.dimension;
    config.layers * width * (mixing + 3 * config.feed_forward)
}

/// Reproducible token ids (a 64-bit linear congruential generator with Knuth's multiplier).
fn random_ids(count: usize, vocabulary: usize) -> Vec<u32> {
    let mut state = 1_u64;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((u128::from(state) * vocabulary as u128) >> 64) as u32
        })
        .collect()
}

/// Sequences of one random prompt token and `length` random response tokens each.
fn random_examples(batch: usize, length: usize, vocabulary: usize) -> Vec<Example> {
    random_ids(batch * (length + 1), vocabulary)
        .chunks(length + 1)
        .filter_map(|ids| ids.split_first())
        .map(|(first, rest)| Example {
            prompt: vec![*first],
            response: rest.to_vec(),
            row: 0,
        })
        .collect()
}

/// The model's own distribution.
const PLAIN: Sampling = Sampling {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
};

fn positive(counts: &[(&str, usize)]) -> Result<()> {
    match counts.iter().find(|(_, count)| *count == 0) {
        None => Ok(()),
        Some((name, _)) => Err(Error::Mismatch {
            what: format!("a benchmark with {name} = 0 measures nothing"),
            fix: "give at least 1".into(),
        }),
    }
}

fn fits(length: usize, context: usize) -> Result<()> {
    match length <= context {
        true => Ok(()),
        false => Err(Error::Mismatch {
            what: format!("a sequence of {length} tokens is over the model's context of {context}"),
            fix: "choose shorter sequences".into(),
        }),
    }
}

/// Largest resident memory of this process, in bytes; unknown outside Linux.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Lets the peak begin anew (Linux, proc(5): `clear_refs` = 5). Where it cannot, the peak counts
/// from the start of the process.
fn forget_peak_rss() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_network;

    #[test]
    fn weights_and_operations_are_counted_by_hand() {
        // q and o 16×16, k and v 8×16, gate, up and down 24×16: 1920 a layer.
        let network = tiny_network(1);
        assert_eq!(layer_weights(&network), 2 * 1920);
        let mixing = 2.0 * 5.0 * 7.0 * 16.0 * 2.0;
        assert_eq!(
            forward_operations(&network, 5.0, 7.0),
            2.0 * 5.0 * 3840.0 + mixing
        );
        assert_eq!(head_operations(&network, 3.0), 2.0 * 3.0 * 16.0 * 24.0);
    }

    #[test]
    fn random_examples_have_their_length() {
        let examples = random_examples(3, 5, 24);
        assert_eq!(examples.len(), 3);
        for example in &examples {
            assert_eq!((example.prompt.len(), example.response.len()), (1, 5));
            assert!(example.response.iter().all(|&id| id < 24));
        }
        assert_ne!(examples[0], examples[1]);
    }
}
