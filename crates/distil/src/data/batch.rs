//! Packed batches: sequences end to end on one `[tokens]` axis, without padding.
//!
//! A sequence is a prompt of `P` tokens followed by a response of `R`. The model is fed all of it but
//! the last token, which has nothing to predict. The hidden state at position `i` predicts token
//! `i + 1`, so the response tokens are predicted at `P - 1 … P + R - 2`:
//!
//! ```text
//! sequence     p0  p1  p2  r0  r1  EOS      P = 3, R = 3
//! fed          p0  p1  p2  r0  r1
//! positions     0   1   2   3   4
//! predict              ^2  ^3  ^4
//! target_ids           r0  r1  EOS
//! ```
//!
//! What enters a loss is decided by these lengths and never by token ids, since the padding token of
//! many models is their EOS. Without a prompt (`P = 0`, a model without BOS) nothing predicts the
//! first response token: it is context only.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::example::Example;

/// Sequences for one pass through a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackedBatch {
    /// The tokens fed to the model, `[tokens]`: every sequence without its last token.
    pub token_ids: Vec<u32>,
    /// Each token's position in its own sequence, from 0, `[tokens]`.
    pub positions: Vec<u32>,
    /// Where each sequence lies on the `[tokens]` axis; attention stays within a segment. Empty for a
    /// sequence of fewer than two tokens.
    pub segments: Vec<Range<usize>>,
    /// Indices on the `[tokens]` axis of the hidden states that predict a response token, ascending,
    /// `[targets]`.
    pub predict: Vec<u32>,
    /// The response token that each of them is to predict, `[targets]`.
    pub target_ids: Vec<u32>,
    /// Each sequence's part of `predict` and `target_ids`.
    pub response_ranges: Vec<Range<usize>>,
    /// The data row that each sequence comes from.
    pub rows: Vec<usize>,
}

/// Packs examples in their order.
pub fn pack(examples: &[&Example]) -> PackedBatch {
    let mut batch = PackedBatch::default();
    for example in examples {
        let start = batch.token_ids.len();
        let length = example.len().saturating_sub(1);
        let tokens = example.prompt.iter().chain(&example.response).take(length);
        batch.token_ids.extend(tokens);
        batch.positions.extend((0_u32..).take(length));
        batch.segments.push(start..start + length);

        let predictable = match example.prompt.len() {
            0 => example.response.get(1..).unwrap_or_default(),
            _ => &example.response,
        };
        let targets = batch.target_ids.len();
        // The targets are the sequence's last tokens, so their hidden states are the last ones.
        let first = start + length - predictable.len();
        batch
            .predict
            .extend((first..start + length).map(|index| index as u32));
        batch.target_ids.extend(predictable);
        batch.response_ranges.push(targets..batch.target_ids.len());
        batch.rows.push(example.row);
    }
    batch
}

/// Splits a step's sequences, in their order, into runs of at most `max_tokens` tokens each; a
/// sequence that is longer by itself makes a run alone. `lengths` are tokens per sequence.
pub fn micro_batches(lengths: &[usize], max_tokens: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (index, &length) in lengths.iter().enumerate() {
        tokens += length;
        match runs.last_mut() {
            Some(run) if tokens <= max_tokens => run.end = index + 1,
            _ => {
                runs.push(index..index + 1);
                tokens = length;
            }
        }
    }
    runs
}

/// The order of `n` examples in an epoch: a permutation of `0..n` that depends on nothing but the
/// arguments, the same on every platform.
///
/// Fisher–Yates with ChaCha8, keyed by seed and epoch; a number below `m` is the high half of the
/// 128-bit product of `m` and 64 random bits (bias below m/2⁶⁴).
pub fn order(seed: u64, epoch: u64, n: usize) -> Vec<usize> {
    let mut key = [0_u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    // Keeps this stream apart from others made of the same two numbers.
    key[16..26].copy_from_slice(b"data order");
    let mut random = ChaCha8Rng::from_seed(key);
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        let below = last as u128 + 1;
        let other = (u128::from(random.next_u64()) * below) >> 64;
        order.swap(last, other as usize);
    }
    order
}

/// `count` numbers below `n` from place `first` on, in one epoch's [`order`] after the other.
pub(crate) fn consecutive(n: usize, first: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut numbers = Vec::with_capacity(count);
    if n == 0 {
        return numbers;
    }
    let mut place = first;
    while numbers.len() < count {
        let (epoch, start) = (place / n, place % n);
        let end = n.min(start + count - numbers.len());
        numbers.extend_from_slice(&order(seed, epoch as u64, n)[start..end]);
        place += end - start;
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(prompt: &[u32], response: &[u32], row: usize) -> Example {
        Example {
            prompt: prompt.into(),
            response: response.into(),
            row,
        }
    }

    #[test]
    fn consecutive_numbers_go_on_from_epoch_to_epoch() {
        let long = consecutive(5, 0, 15, 7);
        for epoch in 0..3 {
            assert_eq!(long[5 * epoch..5 * (epoch + 1)], order(7, epoch as u64, 5));
        }
        assert_eq!(consecutive(5, 3, 4, 7), long[3..7]);
        assert!(consecutive(5, 10, 0, 7).is_empty());
        assert!(consecutive(0, 3, 4, 7).is_empty());
    }

    #[test]
    fn a_packed_batch_by_hand() {
        let first = example(&[1, 2, 3], &[4, 5, 9], 7);
        let second = example(&[6], &[9], 2);
        let batch = pack(&[&first, &second]);
        let expected = PackedBatch {
            token_ids: vec![1, 2, 3, 4, 5, 6],
            positions: vec![0, 1, 2, 3, 4, 0],
            segments: vec![0..5, 5..6],
            predict: vec![2, 3, 4, 5],
            target_ids: vec![4, 5, 9, 9],
            response_ranges: vec![0..3, 3..4],
            rows: vec![7, 2],
        };
        assert_eq!(batch, expected);
    }

    #[test]
    fn without_a_prompt_the_first_token_is_context() {
        let batch = pack(&[&example(&[], &[4, 5, 9], 0)]);
        assert_eq!(batch.token_ids, [4, 5]);
        assert_eq!(batch.predict, [0, 1]);
        assert_eq!(batch.target_ids, [5, 9]);
        // Sequences with nothing to predict keep their place.
        for nothing in [
            example(&[], &[4], 1),
            example(&[], &[], 1),
            example(&[3], &[], 1),
        ] {
            let batch = pack(&[&nothing, &example(&[1], &[2], 0)]);
            assert_eq!(batch.response_ranges, [0..0, 0..1]);
            assert_eq!(batch.segments, [0..0, 0..1]);
            assert_eq!(batch.predict, [0]);
            assert_eq!(batch.target_ids, [2]);
        }
    }

    /// Small numbers for random tests.
    struct Numbers(ChaCha8Rng);

    impl Numbers {
        fn below(&mut self, bound: u32) -> u32 {
            self.0.next_u32() % bound
        }
    }

    #[test]
    fn packing_keeps_every_response_token() {
        let mut numbers = Numbers(ChaCha8Rng::seed_from_u64(1));
        for _ in 0..200 {
            let count = numbers.below(6);
            let examples: Vec<Example> = (0..count as usize)
                .map(|row| {
                    let prompt = (0..numbers.below(5)).map(|_| numbers.below(3)).collect();
                    let response = (0..numbers.below(5)).map(|_| numbers.below(3)).collect();
                    Example {
                        prompt,
                        response,
                        row,
                    }
                })
                .collect();
            let batch = pack(&examples.iter().collect::<Vec<_>>());
            for (index, example) in examples.iter().enumerate() {
                let sequence = [example.prompt.as_slice(), &example.response].concat();
                let segment = batch.segments[index].clone();
                let fed = &sequence[..sequence.len().saturating_sub(1)];
                assert_eq!(&batch.token_ids[segment.clone()], fed);
                let mut targets = Vec::new();
                for target in batch.response_ranges[index].clone() {
                    let state = batch.predict[target] as usize;
                    assert!(segment.contains(&state));
                    let position = batch.positions[state] as usize;
                    assert_eq!(sequence[position + 1], batch.target_ids[target]);
                    targets.push(position + 1);
                }
                let first = example.prompt.len().max(1);
                assert_eq!(targets, (first..sequence.len()).collect::<Vec<_>>());
            }
            assert_eq!(
                batch.segments.last().map_or(0, |last| last.end),
                batch.token_ids.len()
            );
        }
    }

    #[test]
    fn micro_batches_are_full_but_not_over() {
        assert_eq!(
            micro_batches(&[3, 3, 3, 9, 1, 1], 6),
            [0..2, 2..3, 3..4, 4..6]
        );
        assert!(micro_batches(&[], 6).is_empty());
        assert_eq!(micro_batches(&[5, 5], 0), [0..1, 1..2]);
        let mut numbers = Numbers(ChaCha8Rng::seed_from_u64(2));
        for _ in 0..200 {
            let lengths: Vec<usize> = (0..numbers.below(20))
                .map(|_| numbers.below(9) as usize)
                .collect();
            let most = numbers.below(12) as usize;
            let runs = micro_batches(&lengths, most);
            let all: Vec<usize> = runs.iter().cloned().flatten().collect();
            assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            let tokens = |run: &Range<usize>| lengths[run.clone()].iter().sum::<usize>();
            for run in &runs {
                assert!(tokens(run) <= most || run.len() == 1);
            }
            for pair in runs.windows(2) {
                assert!(tokens(&pair[0]) + lengths[pair[1].start] > most);
            }
        }
    }

    #[test]
    fn order_is_a_fixed_permutation() {
        // These values must never change: a resumed run depends on them.
        assert_eq!(order(0, 0, 8), [5, 3, 4, 2, 6, 1, 7, 0]);
        assert_eq!(order(7, 3, 5), order(7, 3, 5));
        assert_ne!(order(0, 0, 50), order(0, 1, 50));
        assert_ne!(order(0, 0, 50), order(1, 0, 50));
        assert!(order(1, 1, 0).is_empty());
        assert_eq!(order(1, 1, 1), [0]);
        let mut sorted = order(5, 6, 1000);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn order_favours_no_place() {
        let mut counts = [[0_u32; 4]; 4];
        for seed in 0..4000 {
            for (place, item) in order(seed, 0, 4).into_iter().enumerate() {
                counts[place][item] += 1;
            }
        }
        // Expected 1000 each, standard deviation 27.
        assert!(
            counts
                .iter()
                .flatten()
                .all(|count| (870..1130).contains(count)),
            "{counts:?}"
        );
    }
}
