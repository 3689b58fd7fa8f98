//! Sampling: reading the prompts, then a token for every sequence in each step.
//!
//! Counted are the generated tokens. The least time is that of [`Generating`]: every step reads all
//! weights once, or takes as long as its products.

use std::collections::BTreeMap;
use std::time::Instant;

use distil_model::Llama;

use super::{
    Figures, PLAIN, Roof, Work, fits, forget_peak_rss, forward_operations, head_operations,
    layer_weights, positive, random_ids, weight_bytes,
};
use crate::config::Precision;
use crate::error::Result;
use crate::rollout::{Generation, Prompt, generate};

/// Sampling from a model, temperature 1, every sequence to its full length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleCase {
    /// Sequences, generated together.
    pub sequences: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens generated for each.
    pub new_tokens: usize,
    /// Number format of the network.
    pub precision: Precision,
}

/// Measures sampling.
///
/// # Errors
/// The model's context is shorter than a sequence, or a count is 0.
pub fn sample(model: &Llama, case: &SampleCase) -> Result<Figures> {
    let (sequences, prompt, new) = (case.sequences, case.prompt_tokens, case.new_tokens);
    positive(&[
        ("sequences", sequences),
        ("prompt tokens", prompt),
        ("new tokens", new),
    ])?;
    let config = model.config();
    fits(prompt.saturating_add(new), config.context)?;
    let network = model.frozen().in_precision(case.precision.into());
    let ids = random_ids(sequences * prompt, config.vocabulary);
    let prompts: Vec<Prompt<'_>> = ids
        .chunks(prompt)
        .zip(0..)
        .map(|(ids, stream)| Prompt { ids, stream })
        .collect();
    forget_peak_rss();
    // The first batch allocates what the others reuse.
    seconds(&network, &prompts, 1)?;
    let prefill = seconds(&network, &prompts, 1)?;
    let total = seconds(&network, &prompts, new)?;
    let phases = BTreeMap::from([("prefill", prefill), ("decode", (total - prefill).max(0.0))]);
    let generating = Generating::of(&network, case.precision, [sequences, prompt, new]);
    let work = Work {
        bench: "sample",
        case: format!(
            "{sequences} sequences, prompts of {prompt} tokens, {new} new tokens each, {} layers",
            config.layers
        ),
        precision: case.precision,
        tokens: (sequences * new) as f64,
        operations: generating.operations(),
        least: Box::new(move |roof| generating.least(roof)),
    };
    Ok(work.figures(phases))
}

/// Seconds of generating so many tokens for every prompt.
fn seconds(network: &Llama, prompts: &[Prompt<'_>], new_tokens: usize) -> Result<f64> {
    let settings = Generation {
        sampling: PLAIN,
        max_new_tokens: new_tokens,
        seed: 0,
        batch: prompts.len(),
    };
    let start = Instant::now();
    // No token ends a response, so that all have the full length.
    generate(network, &[], prompts, &settings, &mut |_, _| {})?;
    Ok(start.elapsed().as_secs_f64())
}

/// What generating a batch of responses amounts to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Generating {
    /// Operations of reading the prompts and choosing the first tokens.
    begin: f64,
    /// Operations of each further step, on average.
    next: f64,
    /// Further steps.
    further: f64,
    /// Bytes of the weights, which every step reads.
    bytes: f64,
}

impl Generating {
    /// Of so many sequences with so many prompt tokens and so many new ones each.
    pub(super) fn of(
        network: &Llama,
        precision: Precision,
        [sequences, prompt_tokens, new_tokens]: [usize; 3],
    ) -> Self {
        let config = network.config();
        let (rows, prompt, new) = (sequences as f64, prompt_tokens as f64, new_tokens as f64);
        let forward = |tokens, length| {
            forward_operations(network, tokens, length) + head_operations(network, rows)
        };
        let weights = layer_weights(network) + config.width * config.vocabulary;
        Self {
            begin: forward(rows * prompt, prompt),
            // A new token attends to all before it: twice what causal attention needs on average.
            next: forward(rows, 2.0 * (prompt + new / 2.0)),
            further: new - 1.0,
            bytes: weights as f64 * weight_bytes(precision),
        }
    }

    /// Floating-point operations.
    pub(super) fn operations(&self) -> f64 {
        self.begin + self.further * self.next
    }

    /// The least time on a machine, in seconds.
    pub(super) fn least(&self, roof: &Roof) -> f64 {
        roof.seconds(self.begin, self.bytes) + self.further * roof.seconds(self.next, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_network;

    #[test]
    fn every_sequence_has_its_full_length_and_the_phases_add_up() {
        let case = SampleCase {
            sequences: 3,
            prompt_tokens: 4,
            new_tokens: 5,
            precision: Precision::F32,
        };
        let figures = sample(&tiny_network(1), &case).unwrap();
        let seconds = figures.phases["prefill"] + figures.phases["decode"];
        assert!((figures.tokens_per_second * seconds - 15.0).abs() < 1e-6);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let case = SampleCase {
            sequences: 1,
            prompt_tokens: 60,
            new_tokens: 5,
            precision: Precision::F32,
        };
        let error = sample(&tiny_network(1), &case).unwrap_err().to_string();
        assert!(
            error.contains("65 tokens is over the model's context of 64"),
            "{error}"
        );
    }

    #[test]
    fn the_least_time_reads_the_weights_in_every_step() {
        let network = tiny_network(1);
        // Reading is all that takes time: 2 × 1920 weights of the layers, 16 × 24 of the head.
        let roof = Roof {
            gflops: 1e9,
            bytes_per_second: 1.0,
        };
        for (precision, bytes) in [
            (Precision::F32, 4.0),
            (Precision::Bf16, 2.0),
            (Precision::Int8, 1.125),
        ] {
            let generating = Generating::of(&network, precision, [3, 4, 5]);
            assert_eq!(generating.least(&roof), 5.0 * bytes * (3840.0 + 384.0));
        }
    }
}
