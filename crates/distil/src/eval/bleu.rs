//! BLEU: how many runs of words an answer shares with its references.
//!
//! With `m_n` the answer's n-grams of words that are in a reference, each at most as often as in the
//! reference that has it most often, `t_n` the number of the answer's n-grams, `c` the answer's words and
//! `r` the words of the reference whose length is closest to it (of two equally close the shorter), all
//! summed over the rows of the corpus:
//!
//! ```text
//! p_n    = m_n / t_n
//! BLEU-N = min(1, exp(1 − r / c)) · exp( (1/N) Σ_{n=1..N} log p_n )
//! ```
//!
//! K. Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", ACL 2002. What
//! counts as a word and what becomes of an `m_n` of 0 changes the number by several points, so there are
//! two, each equal to a package that papers use:
//!
//! - [`nltk`]: BLEU-1 to BLEU-4 on lower-cased words without smoothing, 0 to 1; LLMR's dialogue metric.
//! - [`sacrebleu`]: BLEU-4 on 13a tokens with exponential smoothing, 0 to 100; the one to report.
//!
//! Both are functions of sums over rows. `sums` gives those of one row; they may be added in any order and
//! choice, so a bootstrap over rows costs additions only. A row without references adds nothing. The
//! order of references does not matter. The score of a corpus is not the mean of its rows' scores.

pub mod nltk;
pub mod sacrebleu;
mod tokenizer_13a;

use std::array;

use super::ngrams;

/// Longest n-grams that are counted.
pub const MAX_ORDER: usize = 4;

/// Numbers in a row's `sums`: words, closest reference's words, matches and totals by order.
const SUMS: usize = 2 + 2 * MAX_ORDER;

/// What a row adds to its corpus.
struct Counts {
    /// Words of the answer.
    answer: usize,
    /// Words of the reference whose length is closest.
    reference: usize,
    /// n-grams of the answer that references have too, for n = 1..4.
    matches: [usize; MAX_ORDER],
    /// n-grams of the answer.
    totals: [usize; MAX_ORDER],
}

/// `None` without a reference.
fn count(references: &[Vec<String>], answer: &[String]) -> Option<Counts> {
    let reference = references
        .iter()
        .map(Vec::len)
        .min_by_key(|&length| (length.abs_diff(answer.len()), length))?;
    let matches = array::from_fn(|index| {
        let n = index + 1;
        let references: Vec<_> = references
            .iter()
            .map(|words| ngrams::counts(words, n))
            .collect();
        ngrams::counts(answer, n)
            .into_iter()
            .map(|(gram, count)| {
                let most = references
                    .iter()
                    .filter_map(|counts| counts.get(gram))
                    .max();
                most.map_or(0, |&most| most.min(count))
            })
            .sum()
    });
    Some(Counts {
        answer: answer.len(),
        reference,
        matches,
        totals: array::from_fn(|index| ngrams::total(answer.len(), index + 1)),
    })
}

impl Counts {
    fn into_sums(self) -> Vec<f64> {
        [self.answer, self.reference]
            .into_iter()
            .chain(self.matches)
            .chain(self.totals)
            .map(|count| count as f64)
            .collect()
    }
}

/// What answers that are too short are multiplied with.
fn brevity_penalty(answer: f64, reference: f64) -> f64 {
    if answer >= reference {
        1.0
    } else if answer > 0.0 {
        (1.0 - reference / answer).exp()
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<Vec<String>> {
        let words = |text: &&str| text.split(' ').map(str::to_owned).collect();
        texts.iter().map(words).collect()
    }

    #[test]
    fn matches_are_clipped_at_the_reference_that_has_most() {
        let references = texts(&["the cat the", "the dog"]);
        let counts = count(&references, &texts(&["the the the dog"])[0]).unwrap();
        assert_eq!(counts.matches, [3, 1, 0, 0]);
        assert_eq!(counts.totals, [4, 3, 2, 1]);
        assert_eq!((counts.answer, counts.reference), (4, 3));
    }

    #[test]
    fn of_equally_close_references_the_shorter_counts() {
        let answer = &texts(&["a b c"])[0];
        for references in [["a b", "a b c d"], ["a b c d", "a b"]] {
            assert_eq!(count(&texts(&references), answer).unwrap().reference, 2);
        }
        assert!(count(&[], answer).is_none());
    }

    #[test]
    fn short_answers_are_penalised() {
        assert_eq!(brevity_penalty(3.0, 2.0), 1.0);
        assert_eq!(brevity_penalty(2.0, 2.0), 1.0);
        assert_eq!(brevity_penalty(1.0, 2.0), (-1.0_f64).exp());
        assert_eq!(brevity_penalty(0.0, 2.0), 0.0);
    }
}
