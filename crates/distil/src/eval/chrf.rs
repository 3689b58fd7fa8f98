//! chrF2: how many runs of characters an answer shares with a reference.
//!
//! With `P_n` the share of the answer's n-grams of characters that the reference has too, and `R_n` the
//! share of the reference's that the answer has, each as often as it occurs:
//!
//! ```text
//! P = mean of P_n,   R = mean of R_n        over n = 1..6
//! chrF2 = 100 · (1 + β²) P R / (β² P + R),   β = 2: recall counts four times
//! ```
//!
//! M. Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015, in the form of
//! the Python package `sacrebleu` with its defaults, whose numbers this file reproduces bit for bit:
//! white space is removed, case counts, a character is a code point. The counts are summed over the rows
//! before P and R are taken, so the score of a corpus is not the mean of its rows. Of several references
//! a row counts the one that gives this row the highest score, the first of equals. An order for which
//! answers or references have no n-gram at all is left out of the means. No words are needed, so chrF
//! suits any script.

use super::ngrams;
use super::whitespace::is_space;

/// Longest n-grams that are counted.
const MAX_ORDER: usize = 6;

/// Weight of recall against precision, squared.
const BETA_SQUARED: f64 = 4.0;

/// A row's counts for n = 1..6: n-grams of the answer, of the reference, and common ones, 18 numbers to be
/// added over rows. Zeros without a reference.
pub fn sums(references: &[String], answer: &str) -> Vec<f64> {
    let answer = characters(answer);
    let mut best = vec![0.0; 3 * MAX_ORDER];
    let mut best_score = f64::NEG_INFINITY;
    for reference in references {
        let sums = sums_of_one(&characters(reference), &answer);
        let score = from_sums(&sums);
        if score > best_score {
            (best, best_score) = (sums, score);
        }
    }
    best
}

/// chrF2, 0 to 100, of rows whose [`sums`] add up to these.
pub fn from_sums(sums: &[f64]) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for counts in sums.chunks_exact(3) {
        let (answer, reference, common) = (counts[0], counts[1], counts[2]);
        if answer > 0.0 && reference > 0.0 {
            precision += common / answer;
            recall += common / reference;
            orders += 1.0;
        }
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    precision /= orders;
    recall /= orders;
    100.0 * ((1.0 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall))
}

fn sums_of_one(reference: &[char], answer: &[char]) -> Vec<f64> {
    let mut sums = Vec::with_capacity(3 * MAX_ORDER);
    for n in 1..=MAX_ORDER {
        let of_reference = ngrams::total(reference.len(), n);
        // As in sacreBLEU: what no n-gram of the reference could match is no error of the answer.
        let of_answer = match of_reference {
            0 => 0,
            _ => ngrams::total(answer.len(), n),
        };
        let common = ngrams::common(&ngrams::counts(answer, n), &ngrams::counts(reference, n));
        sums.extend([of_answer, of_reference, common].map(|count| count as f64));
    }
    sums
}

fn characters(text: &str) -> Vec<char> {
    text.chars().filter(|&c| !is_space(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text_fixture::{self, assert_close};

    #[test]
    fn equals_sacrebleu_on_the_fixture() {
        for row in text_fixture::rows() {
            let got = sums(&row.references, &row.answer);
            match row.chrf {
                Some(expected) => {
                    assert_eq!(got, expected.sums, "{:?} {:?}", row.references, row.answer);
                    assert_eq!([from_sums(&got)], expected.scores[..], "{:?}", row.answer);
                }
                None => assert_eq!(got, [0.0; 18]),
            }
        }
    }

    #[test]
    fn equals_sacrebleu_on_corpora() {
        let rows = text_fixture::rows();
        for corpus in text_fixture::corpora() {
            assert_eq!(from_sums(&corpus.sums(&rows, sums)), corpus.chrf);
        }
    }

    #[test]
    fn by_hand() {
        // Characters: "ab" is all of the answer and two thirds of "abc"; pairs: one of one, one of two;
        // the answer has no longer n-gram, so P = 1 and R = (2/3 + 1/2) / 2 = 7/12.
        // chrF2 = 5 · 7/12 / (4 + 7/12) = 7/11.
        let score = from_sums(&sums(&["abc".into()], "a b"));
        assert_close(score, 100.0 * 7.0 / 11.0, "abc");
    }

    #[test]
    fn the_same_text_scores_a_hundred_and_nothing_zero() {
        for row in text_fixture::rows() {
            let text = row.answer;
            let expected = if characters(&text).is_empty() {
                0.0
            } else {
                100.0
            };
            assert_eq!(
                from_sums(&sums(std::slice::from_ref(&text), &text)),
                expected,
                "{text:?}"
            );
            assert_eq!(from_sums(&sums(&[text], " ")), 0.0);
        }
        assert_eq!(from_sums(&[0.0; 18]), 0.0);
    }

    #[test]
    fn order_of_references_does_not_matter_to_a_row() {
        let mut several = 0;
        for mut row in text_fixture::rows() {
            let forwards = from_sums(&sums(&row.references, &row.answer));
            row.references.reverse();
            assert_eq!(from_sums(&sums(&row.references, &row.answer)), forwards);
            several += usize::from(row.references.len() > 1);
        }
        assert!(several > 100, "{several}");
    }
}
