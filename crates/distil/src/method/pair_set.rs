//! The preferences D that PbKD's reward model is fitted to: pairs of responses in a judge's order, a
//! part of the prompts held out.

use serde::{Deserialize, Serialize};

use crate::data::batch::consecutive;
use crate::data::example::{Example, PairExample};

/// D, and the pairs that join it at the next addition.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct PairSet {
    pairs: Vec<StoredPair>,
    pending: Vec<StoredPair>,
}

/// Two responses to the prompt of a row, the preferred one first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredPair {
    pub(super) row: usize,
    pub(super) preferred: Vec<u32>,
    pub(super) rejected: Vec<u32>,
}

impl StoredPair {
    /// The pair of data row `row`.
    pub(super) fn given((row, pair): (usize, &PairExample)) -> Self {
        Self {
            row,
            preferred: pair.chosen.response.clone(),
            rejected: pair.rejected.response.clone(),
        }
    }
}

/// Whether a prompt is held out, `share` of them evenly spaced: all of its pairs then are.
pub(super) fn is_held_out(row: usize, share: f64) -> bool {
    let step = |i: usize| (i as f64 * share).floor();
    step(row + 1) > step(row)
}

impl PairSet {
    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// To join at the next addition.
    pub(super) fn add(&mut self, pairs: impl IntoIterator<Item = StoredPair>) {
        self.pending.extend(pairs);
    }

    /// What is pending joins.
    pub(super) fn join(&mut self) {
        self.pairs.append(&mut self.pending);
    }

    /// Whether every pair is of one of so many rows.
    pub(super) fn is_of(&self, rows: usize) -> bool {
        let mut pairs = self.pairs.iter().chain(&self.pending);
        pairs.all(|pair| pair.row < rows)
    }

    /// Pairs to learn from, or those held out, by number.
    pub(super) fn part(&self, held_out: bool, share: f64) -> Vec<usize> {
        let of_part = |&i: &usize| is_held_out(self.pairs[i].row, share) == held_out;
        (0..self.pairs.len()).filter(of_part).collect()
    }

    /// The texts of these pairs, preferred, rejected, preferred, …; `prompts` has a row's prompt.
    pub(super) fn texts(&self, pairs: &[usize], prompts: &[Example]) -> Vec<Example> {
        let text = |pair: &StoredPair, response: &Vec<u32>| Example {
            response: response.clone(),
            ..prompts[pair.row].clone()
        };
        let pairs = pairs.iter().map(|&i| &self.pairs[i]);
        pairs
            .flat_map(|pair| [text(pair, &pair.preferred), text(pair, &pair.rejected)])
            .collect()
    }
}

/// Batch `number` of `part` in a random order of its own, epoch after epoch; none holds a pair
/// twice unless an epoch ends in it.
pub(super) fn batch(part: &[usize], count: usize, number: usize, seed: u64) -> Vec<usize> {
    let count = count.min(part.len());
    let picked = consecutive(part.len(), number * count, count, seed);
    picked.into_iter().map(|i| part[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: &[usize]) -> PairSet {
        let mut set = PairSet::default();
        set.add(rows.iter().map(|&row| StoredPair {
            row,
            preferred: vec![1],
            rejected: vec![2],
        }));
        set
    }

    #[test]
    fn pairs_join_when_they_are_told_to() {
        let mut set = set(&[0, 1]);
        assert_eq!(set.len(), 0);
        set.join();
        assert_eq!(set.len(), 2);
        assert!(set.is_of(2) && !set.is_of(1));
    }

    /// A prompt is on one side only, however many pairs it has.
    #[test]
    fn prompts_are_held_out_not_pairs() {
        let mut set = set(&[3, 4, 3, 4, 4, 9]);
        set.join();
        let held_out = set.part(true, 0.2);
        assert_eq!(held_out, [1, 3, 4, 5], "rows 4 and 9");
        assert_eq!(set.part(false, 0.2), [0, 2]);
        assert!(set.part(true, 0.0).is_empty());
        let rows = (0..1000).filter(|&row| is_held_out(row, 0.1));
        assert_eq!(rows.count(), 100);
    }

    #[test]
    fn batches_go_over_all_pairs() {
        let part = [5, 6, 7, 8];
        let mut seen: Vec<usize> = (0..2).flat_map(|n| batch(&part, 2, n, 9)).collect();
        seen.sort_unstable();
        assert_eq!(seen, part);
        assert_eq!(batch(&part, 9, 0, 9).len(), 4);
        assert!(batch(&[], 2, 0, 9).is_empty());
    }
}
