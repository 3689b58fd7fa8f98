//! BLEU as sacreBLEU computes it: 13a tokens, case as it is, orders 1 to 4, exponential smoothing, 0 to 100.
//!
//! ```text
//! p_n = 100 m_n / t_n                  if m_n > 0
//! p_n = 100 / (2^k t_n)                at the k-th order without a match
//! ```
//!
//! Equal to sacreBLEU 2.6.0 with its defaults, whose line [`signature`](super::super::signature::bleu)
//! gives. If no word matches at all, or no answer has four tokens, the score is 0: sacreBLEU's effective
//! order is off, as it is for corpora. References of a row may be as many as they are.

use super::tokenizer_13a::tokens;
use super::{MAX_ORDER, SUMS, brevity_penalty, count};

/// A row's counts, to be added over rows: tokens of the answer and of its closest reference, then for
/// n = 1..4 the matching n-grams, then for n = 1..4 all n-grams of the answer. Zeros without a reference.
pub fn sums(references: &[String], answer: &str) -> Vec<f64> {
    let references: Vec<Vec<String>> = references.iter().map(|text| tokens(text)).collect();
    match count(&references, &tokens(answer)) {
        Some(counts) => counts.into_sums(),
        None => vec![0.0; SUMS],
    }
}

/// BLEU, 0 to 100, of rows whose [`sums`] add up to these.
///
/// # Panics
///
/// If `sums` is shorter than what [`sums`] gives.
pub fn from_sums(sums: &[f64]) -> f64 {
    let (matches, totals) = sums[2..SUMS].split_at(MAX_ORDER);
    if matches[0] == 0.0 || totals[MAX_ORDER - 1] == 0.0 {
        return 0.0;
    }
    let mut smoothing = 1.0;
    let logs: f64 = matches
        .iter()
        .zip(totals)
        .map(|(&matches, total)| {
            let precision = if matches > 0.0 {
                100.0 * matches / total
            } else {
                smoothing *= 2.0;
                100.0 / (smoothing * total)
            };
            precision.ln()
        })
        .sum();
    brevity_penalty(sums[0], sums[1]) * (logs / MAX_ORDER as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text_fixture::{self, assert_close};

    #[test]
    fn equals_sacrebleu_on_the_fixture() {
        for row in text_fixture::rows() {
            let got = sums(&row.references, &row.answer);
            let Some(expected) = row.bleu else {
                assert_eq!(got, [0.0; SUMS]);
                continue;
            };
            assert_eq!(got, expected.sums, "{:?} {:?}", row.references, row.answer);
            assert_close(from_sums(&got), expected.scores[0], &row.answer);
        }
    }

    #[test]
    fn equals_sacrebleu_on_corpora() {
        let rows = text_fixture::rows();
        for corpus in text_fixture::corpora() {
            assert_close(from_sums(&corpus.sums(&rows, sums)), corpus.bleu, "corpus");
        }
    }

    #[test]
    fn by_hand() {
        // 3 of 4 tokens match, 1 of 3 pairs, then 0 of 2 and 0 of 1: smoothed to 1/4 and 1/4.
        let sums = sums(&["a b x c".into()], "a b c e");
        let expected = 100.0 * (0.75_f64 / 3.0 / 4.0 / 4.0).powf(0.25);
        assert_close(from_sums(&sums), expected, "");
    }

    #[test]
    fn case_counts() {
        assert_eq!(sums(&["A b".into()], "a b")[2], 1.0);
    }

    #[test]
    fn the_same_text_scores_a_hundred_and_nothing_zero() {
        for text in text_fixture::rows().into_iter().map(|row| row.answer) {
            let expected = if tokens(&text).len() < MAX_ORDER {
                0.0
            } else {
                100.0
            };
            let same = sums(std::slice::from_ref(&text), &text);
            assert_close(from_sums(&same), expected, &text);
            assert_eq!(from_sums(&sums(&[text], " ")), 0.0);
        }
        assert_eq!(from_sums(&[0.0; SUMS]), 0.0);
    }

    #[test]
    fn order_of_references_does_not_matter() {
        for mut row in text_fixture::rows() {
            let forwards = sums(&row.references, &row.answer);
            row.references.reverse();
            assert_eq!(sums(&row.references, &row.answer), forwards);
        }
    }
}
