//! Sampling: reading the prompts, then a token for every sequence in each step.

use std::collections::BTreeMap;
use std::time::Instant;

use distil_model::Llama;

use super::{
    Figures, Work, fits, forget_peak_rss, forward_operations, head_operations, layer_weights,
    positive, random_ids,
};
use crate::config::Sampling;
use crate::error::{Error, Result};
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
}

/// Measures sampling.
///
/// # Errors
/// The model's context is shorter than a sequence, or a count is 0.
pub fn sample(model: &Llama, case: &SampleCase) -> Result<Figures> {
    positive(&[
        ("sequences", case.sequences),
        ("prompt tokens", case.prompt_tokens),
        ("new tokens", case.new_tokens),
    ])?;
    let config = model.config();
    fits(
        case.prompt_tokens.saturating_add(case.new_tokens),
        config.context,
    )?;
    let model = model.frozen();
    let ids = random_ids(case.sequences * case.prompt_tokens, config.vocabulary);
    let prompts: Vec<Prompt<'_>> = ids
        .chunks(case.prompt_tokens)
        .zip(0..)
        .map(|(ids, stream)| Prompt { ids, stream })
        .collect();
    let sampling = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
    };
    let run = |max_new_tokens| {
        let settings = Generation {
            sampling,
            max_new_tokens,
            seed: 0,
            batch: case.sequences,
        };
        let start = Instant::now();
        // No token ends a response, so that all have the full length.
        generate(&model, &[], &prompts, &settings, &mut |_, _| {})?;
        Ok::<_, Error>(start.elapsed().as_secs_f64())
    };
    forget_peak_rss();
    run(1)?;
    let prefill = run(1)?;
    let total = run(case.new_tokens)?;
    let phases = BTreeMap::from([("prefill", prefill), ("decode", (total - prefill).max(0.0))]);
    let (rows, prompt) = (case.sequences as f64, case.prompt_tokens as f64);
    let (steps, mean_length) = (
        case.new_tokens as f64,
        prompt + case.new_tokens as f64 / 2.0,
    );
    let begin = forward_operations(&model, rows * prompt, prompt) + head_operations(&model, rows);
    // A new token attends to all before it: twice what causal attention needs on average.
    let one = forward_operations(&model, rows, 2.0 * mean_length) + head_operations(&model, rows);
    let weights = layer_weights(&model) + config.width * config.vocabulary;
    let bytes = (weights * size_of::<f32>()) as f64;
    let work = Work {
        bench: "sample",
        case: format!(
            "{} sequences, prompts of {} tokens, {} new tokens each, {} layers",
            case.sequences, case.prompt_tokens, case.new_tokens, config.layers
        ),
        tokens: rows * steps,
        operations: begin + (steps - 1.0) * one,
        least: Box::new(move |roof| {
            roof.seconds(begin, bytes) + (steps - 1.0) * roof.seconds(one, bytes)
        }),
    };
    Ok(work.figures(phases))
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
        };
        let error = sample(&tiny_network(1), &case).unwrap_err().to_string();
        assert!(
            error.contains("65 tokens is over the model's context of 64"),
            "{error}"
        );
    }
}
