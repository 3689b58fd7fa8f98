//! Scoring, as `distil score` does it and the teacher in training: a forward pass over packed random
//! tokens, then the head at every position, where the logits become the target's log-probability.
//!
//! Counted are the positions. There is no gradient.

use distil_kernels::math::log_sum_exp;
use distil_kernels::{embedding, head_rows};
use distil_model::Llama;

use super::{Clock, Figures, Work, fits, forget_peak_rss, positive, random_examples};
use super::{forward_operations, head_operations};
use crate::config::Precision;
use crate::data::batch::{PackedBatch, pack};
use crate::error::Result;
use crate::score::tokens;

/// Log-probabilities of random tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreCase {
    /// Sequences, packed into one pass.
    pub batch: usize,
    /// Tokens of each, all of them scored.
    pub length: usize,
    /// Passes that are averaged, after one that is not counted.
    pub passes: usize,
    /// Number format of the network.
    pub precision: Precision,
}

/// Measures scoring.
///
/// # Errors
/// The model's context is shorter than a sequence, or a count is 0.
pub fn score(model: &Llama, case: &ScoreCase) -> Result<Figures> {
    let config = model.config();
    positive(&[
        ("batch", case.batch),
        ("length", case.length),
        ("passes", case.passes),
    ])?;
    fits(case.length, config.context)?;
    let network = model.frozen().in_precision(case.precision.into()).packed();
    let examples = random_examples(case.batch, case.length, config.vocabulary);
    let batch = pack(&examples.iter().collect::<Vec<_>>());
    let mut clock = Clock::default();
    forget_peak_rss();
    for number in 0..=case.passes {
        if number == 1 {
            clock = Clock::default();
        }
        std::hint::black_box(pass(&network, &batch, &mut clock));
    }
    let (n, length) = ((case.batch * case.length) as f64, case.length as f64);
    let operations = forward_operations(&network, n, length) + head_operations(&network, n);
    let work = Work {
        bench: "score",
        case: format!(
            "{} × {} tokens, {} layers",
            case.batch, case.length, config.layers
        ),
        precision: case.precision,
        tokens: n,
        operations,
        least: Box::new(move |roof| roof.seconds(operations, 0.0)),
    };
    Ok(work.figures(clock.mean(case.passes)))
}

/// The log-probability of every target, in nats.
fn pass(network: &Llama, batch: &PackedBatch, clock: &mut Clock) -> Vec<f32> {
    let hidden = clock.time("forward", || {
        embedding(network.hidden(tokens(batch)), &batch.predict)
    });
    let vocabulary = network.config().vocabulary;
    clock.time("head", || {
        head_rows(
            hidden,
            &network.head(),
            None,
            vocabulary,
            |row, logits, _| logits[batch.target_ids[row] as usize] - log_sum_exp(logits),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_network;

    #[test]
    fn every_position_is_counted() {
        let case = ScoreCase {
            batch: 3,
            length: 5,
            passes: 2,
            precision: Precision::F32,
        };
        let network = tiny_network(1);
        let figures = score(&network, &case).unwrap();
        let phases: Vec<&str> = figures.phases.keys().copied().collect();
        assert_eq!(phases, ["forward", "head"]);
        assert!((figures.tokens_per_second * figures.seconds - 15.0).abs() < 1e-6);
        let operations = forward_operations(&network, 15.0, 5.0) + head_operations(&network, 15.0);
        assert!((figures.gflops * 1e9 * figures.seconds / operations - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_pass_gives_what_scoring_gives() {
        let network = tiny_network(1);
        let examples = random_examples(3, 5, 24);
        let batch = pack(&examples.iter().collect::<Vec<_>>());
        let logprobs = pass(&network, &batch, &mut Clock::default());
        let scores = crate::score::score(&network, None, &examples, 100, &mut |_| {}).unwrap();
        let expected: Vec<f32> = scores.into_iter().flat_map(|s| s.logprobs).collect();
        assert_eq!(logprobs, expected);
    }
}
