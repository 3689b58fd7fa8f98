//! Counts of n-grams: runs of n neighbouring words or characters.

use std::collections::HashMap;
use std::hash::Hash;

/// How often each n-gram occurs; none if there are fewer than `n` items or `n` is 0.
pub(super) fn counts<T: Eq + Hash>(items: &[T], n: usize) -> HashMap<&[T], usize> {
    let mut counts = HashMap::new();
    if n > 0 {
        for gram in items.windows(n) {
            *counts.entry(gram).or_insert(0) += 1;
        }
    }
    counts
}

/// Number of n-grams among so many items.
pub(super) fn total(items: usize, n: usize) -> usize {
    if n == 0 {
        0
    } else {
        (items + 1).saturating_sub(n)
    }
}

/// How many n-grams two texts have in common, each as often as the text that has it less often.
pub(super) fn common<T: Eq + Hash>(a: &HashMap<&[T], usize>, b: &HashMap<&[T], usize>) -> usize {
    a.iter()
        .filter_map(|(gram, &count)| b.get(gram).map(|&other| count.min(other)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_small_text() {
        let text = ['a', 'b', 'a', 'b'];
        let pairs = counts(&text, 2);
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[&['a', 'b'][..]], 2);
        assert_eq!(pairs.values().sum::<usize>(), total(4, 2));
        assert_eq!(common(&pairs, &counts(&['a', 'b', 'c'], 2)), 1);
    }

    #[test]
    fn no_n_grams() {
        for n in [0, 3, usize::MAX] {
            assert!(counts(&['a', 'b'], n).is_empty());
            assert_eq!(total(2, n), 0);
        }
    }
}
