//! BLEU-1 to BLEU-4 as NLTK's `corpus_bleu` computes them: lower-cased [`words`], uniform weights over the
//! orders 1 to N, no smoothing, 0 to 1.
//!
//! LLMR's code evaluates dialogue so, with one reference and the numbers times 100. Equal to NLTK 3.10.4,
//! peculiarities included: a row with fewer than n words counts one n-gram that matches nothing, and an
//! order without any match counts as the smallest normal number, which makes the score all but 0 (some
//! 1e-77 in BLEU-4) rather than 0.

use super::super::words::words;
use super::{MAX_ORDER, SUMS, brevity_penalty, count};

/// A row's counts, to be added over rows: words of the answer and of its closest reference, then for
/// n = 1..4 the matching n-grams, then for n = 1..4 all n-grams of the answer. Zeros without a reference.
pub fn sums(references: &[String], answer: &str) -> Vec<f64> {
    let references: Vec<Vec<String>> = references.iter().map(|text| words(text)).collect();
    let Some(mut counts) = count(&references, &words(answer)) else {
        return vec![0.0; SUMS];
    };
    counts.totals = counts.totals.map(|total| total.max(1));
    counts.into_sums()
}

/// BLEU-N, 0 to 1, of rows whose [`sums`] add up to these. `max_order` is N, 1 to 4; others are taken as
/// the nearest of these.
///
/// # Panics
///
/// If `sums` is shorter than what [`sums`] gives.
pub fn from_sums(sums: &[f64], max_order: usize) -> f64 {
    let max_order = max_order.clamp(1, MAX_ORDER);
    let (matches, totals) = sums[2..SUMS].split_at(MAX_ORDER);
    if matches[0] == 0.0 {
        return 0.0;
    }
    let weight = 1.0 / max_order as f64;
    let log_mean: f64 = matches
        .iter()
        .zip(totals)
        .take(max_order)
        .map(|(&matches, total)| {
            let precision = if matches > 0.0 {
                matches / total
            } else {
                f64::MIN_POSITIVE
            };
            weight * precision.ln()
        })
        .sum();
    brevity_penalty(sums[0], sums[1]) * log_mean.exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text_fixture::{self, assert_close};

    #[test]
    fn equals_nltk_on_the_fixture() {
        for row in text_fixture::rows() {
            let got = sums(&row.references, &row.answer);
            let Some(expected) = row.nltk else {
                assert_eq!(got, [0.0; SUMS]);
                continue;
            };
            assert_eq!(got, expected.sums, "{:?} {:?}", row.references, row.answer);
            for (index, &score) in expected.scores.iter().enumerate() {
                assert_close(from_sums(&got, index + 1), score, &row.answer);
            }
        }
    }

    #[test]
    fn equals_nltk_on_corpora() {
        let rows = text_fixture::rows();
        for corpus in text_fixture::corpora() {
            let sums = corpus.sums(&rows, sums);
            for (index, &score) in corpus.nltk.iter().enumerate() {
                assert_close(from_sums(&sums, index + 1), score, "corpus");
            }
        }
    }

    #[test]
    fn by_hand() {
        // Three of four words match, one of three pairs; the answer is a word too short.
        let sums = sums(&["A b x c d".into()], "a b c e");
        assert_close(from_sums(&sums, 1), (-0.25_f64).exp() * 0.75, "");
        assert_close(from_sums(&sums, 2), (-0.25_f64).exp() * 0.5, "");
        assert!(from_sums(&sums, 4) < 1e-70);
    }

    #[test]
    fn the_same_text_scores_one_and_nothing_zero() {
        for text in text_fixture::rows().into_iter().map(|row| row.answer) {
            let length = words(&text).len();
            let same = sums(std::slice::from_ref(&text), &text);
            for order in 1..=length.min(MAX_ORDER) {
                assert_eq!(from_sums(&same, order), 1.0, "{text:?}");
            }
            assert_eq!(from_sums(&sums(&[text], " "), 1), 0.0);
        }
        assert_eq!(from_sums(&[0.0; SUMS], 4), 0.0);
    }

    #[test]
    fn order_of_references_does_not_matter() {
        for mut row in text_fixture::rows() {
            let forwards = sums(&row.references, &row.answer);
            row.references.reverse();
            assert_eq!(sums(&row.references, &row.answer), forwards);
        }
    }

    #[test]
    fn orders_beyond_four_are_four() {
        let sums = sums(&["a b c d e".into()], "a b c d f");
        assert_eq!(from_sums(&sums, 9), from_sums(&sums, 4));
        assert_eq!(from_sums(&sums, 0), from_sums(&sums, 1));
    }
}
