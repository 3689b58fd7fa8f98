//! ROUGE: how much of a reference text a prediction says.
//!
//! ```text
//! precision P = common / all of the prediction
//! recall    R = common / all of the reference
//! fmeasure    = 2 P R / (P + R)
//! ```
//!
//! where what is counted is, of
//!
//! - ROUGE-N: n-grams of words, each in common as often as the text that has it less often;
//! - ROUGE-L: words, in common those of the longest common subsequence of the two texts;
//! - ROUGE-Lsum: words, in common those of longest common subsequences of lines (`rouge/summary.rs`).
//!
//! C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, sections 2 and 3, in the
//! form of the Python package `rouge_score`, whose numbers this file reproduces bit for bit: text is
//! lower-cased, everything but a–z and 0–9 separates words, words longer than three characters are
//! stemmed if asked for (see [`porter`]). Texts without any word score 0, and so do
//! scripts that have no letters in a–z.

mod summary;

use std::collections::HashMap;

use super::{ngrams, porter};

/// Precision, recall and their harmonic mean, each in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RougeScore {
    /// Share of the prediction that is in common.
    pub precision: f64,
    /// Share of the reference that is in common.
    pub recall: f64,
    /// Harmonic mean of the two: the number that papers report (often × 100).
    pub fmeasure: f64,
}

/// Whether words are reduced to their stems before they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stemming {
    /// Words longer than three characters are stemmed: `use_stemmer=True`, as papers report it.
    Porter,
    /// Words are compared as they are.
    Off,
}

/// ROUGE-L of a prediction against one reference.
pub fn rouge_l(reference: &str, prediction: &str, stemming: Stemming) -> RougeScore {
    score(&words(reference, stemming), &words(prediction, stemming))
}

/// ROUGE-L against the reference with the highest F-measure, the first of equals; zeros if there is
/// no reference.
pub fn rouge_l_best<S: AsRef<str>>(
    references: &[S],
    prediction: &str,
    stemming: Stemming,
) -> RougeScore {
    let prediction = words(prediction, stemming);
    best(references, |reference| {
        score(&words(reference, stemming), &prediction)
    })
}

/// ROUGE-N of a prediction against one reference, of runs of `n` words: ROUGE-1 and ROUGE-2 are usual.
/// Zeros if `n` is 0, or longer than one of the texts.
pub fn rouge_n(n: usize, reference: &str, prediction: &str, stemming: Stemming) -> RougeScore {
    rouge_n_best(n, &[reference], prediction, stemming)
}

/// ROUGE-N against the reference with the highest F-measure, the first of equals; zeros if there is no
/// reference.
pub fn rouge_n_best<S: AsRef<str>>(
    n: usize,
    references: &[S],
    prediction: &str,
    stemming: Stemming,
) -> RougeScore {
    let prediction = words(prediction, stemming);
    let grams = ngrams::counts(&prediction, n);
    best(references, |reference| {
        let reference = words(reference, stemming);
        RougeScore::of(
            ngrams::common(&ngrams::counts(&reference, n), &grams),
            ngrams::total(reference.len(), n),
            ngrams::total(prediction.len(), n),
        )
    })
}

/// ROUGE-Lsum of a prediction against one reference: ROUGE-L line by line. Sentences are what newlines
/// separate, so a text on one line has the score of ROUGE-L if the other is on one line too.
pub fn rouge_lsum(reference: &str, prediction: &str, stemming: Stemming) -> RougeScore {
    rouge_lsum_best(&[reference], prediction, stemming)
}

/// ROUGE-Lsum against the reference with the highest F-measure, the first of equals; zeros if there is
/// no reference.
pub fn rouge_lsum_best<S: AsRef<str>>(
    references: &[S],
    prediction: &str,
    stemming: Stemming,
) -> RougeScore {
    let lines = |text: &str| -> Vec<Vec<String>> {
        text.split('\n').map(|line| words(line, stemming)).collect()
    };
    let prediction = lines(prediction);
    best(references, |reference| {
        summary::score(&lines(reference), &prediction)
    })
}

impl RougeScore {
    /// From what is in common and what there is of reference and prediction.
    fn of(common: usize, reference: usize, prediction: usize) -> Self {
        let precision = common as f64 / prediction.max(1) as f64;
        let recall = common as f64 / reference.max(1) as f64;
        let fmeasure = if precision + recall > 0.0 {
            2.0 * precision * recall / (precision + recall)
        } else {
            0.0
        };
        Self {
            precision,
            recall,
            fmeasure,
        }
    }
}

/// The score with the highest F-measure, the first of equals.
fn best<S: AsRef<str>>(references: &[S], score: impl Fn(&str) -> RougeScore) -> RougeScore {
    references
        .iter()
        .map(|reference| score(reference.as_ref()))
        .reduce(|best, next| {
            if next.fmeasure > best.fmeasure {
                next
            } else {
                best
            }
        })
        .unwrap_or_default()
}

fn score(reference: &[String], prediction: &[String]) -> RougeScore {
    let common = longest_common_subsequence(reference, prediction);
    RougeScore::of(common, reference.len(), prediction.len())
}

/// The words that ROUGE compares.
fn words(text: &str, stemming: Stemming) -> Vec<String> {
    // Lower-casing comes before the ASCII filter: it turns the Kelvin sign into "k" and "İ" into
    // "i" with a combining dot, which then separates words.
    let lower: String = text.chars().flat_map(char::to_lowercase).collect();
    lower
        .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(|word| match stemming {
            Stemming::Porter if word.len() > 3 => porter::stem(word),
            _ => word.to_owned(),
        })
        .collect()
}

/// Length of the longest common subsequence; time |a|·|b|, memory |b|.
fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    // Words of `b` as numbers, so that the inner loop compares integers.
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let b: Vec<usize> = b
        .iter()
        .map(|word| {
            let next = numbers.len();
            *numbers.entry(word).or_insert(next)
        })
        .collect();
    // lengths[j] is the length for the words of `a` so far and the first j words of `b`.
    let mut lengths = vec![0_usize; b.len() + 1];
    for word in a {
        let Some(number) = numbers.get(word.as_str()) else {
            continue;
        };
        let mut diagonal = 0;
        let mut left = 0;
        for (above, other) in lengths[1..].iter_mut().zip(&b) {
            let here = if other == number {
                diagonal + 1
            } else {
                left.max(*above)
            };
            diagonal = *above;
            *above = here;
            left = here;
        }
    }
    lengths.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text_fixture;

    #[derive(serde::Deserialize)]
    struct Case {
        references: Vec<String>,
        prediction: String,
        /// Precision, recall, fmeasure; as text, since `serde_json` may round the last bit.
        stemmed: [String; 3],
        plain: [String; 3],
    }

    #[test]
    fn equals_rouge_score_on_the_fixture() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rouge.jsonl");
        let fixture = std::fs::read_to_string(path).unwrap();
        let cases: Vec<Case> = fixture
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(cases.len() >= 500, "{}", cases.len());
        for case in &cases {
            for (stemming, numbers) in [
                (Stemming::Porter, &case.stemmed),
                (Stemming::Off, &case.plain),
            ] {
                let [precision, recall, fmeasure] =
                    numbers.each_ref().map(|number| number.parse().unwrap());
                let expected = RougeScore {
                    precision,
                    recall,
                    fmeasure,
                };
                let got = rouge_l_best(&case.references, &case.prediction, stemming);
                assert_eq!(got, expected, "{:?} {:?}", case.references, case.prediction);
            }
        }
        let stemming_matters = cases
            .iter()
            .filter(|case| case.stemmed != case.plain)
            .count();
        assert!(stemming_matters > 100, "{stemming_matters}");
    }

    #[test]
    fn all_forms_equal_rouge_score_on_the_fixture() {
        let mut several = 0;
        for row in text_fixture::rows() {
            let (references, answer) = (&row.references, &row.answer);
            let got = [Stemming::Porter, Stemming::Off].map(|stemming| {
                [
                    rouge_n_best(1, references, answer, stemming),
                    rouge_n_best(2, references, answer, stemming),
                    rouge_l_best(references, answer, stemming),
                    rouge_lsum_best(references, answer, stemming),
                ]
            });
            let got = got
                .as_flattened()
                .iter()
                .map(|score| [score.precision, score.recall, score.fmeasure]);
            let expected = row.rouge.unwrap_or_default();
            assert!(got.eq(expected), "{references:?} {answer:?}");
            several += usize::from(expected[2] != expected[3]);
        }
        // Otherwise Lsum would not be told from L.
        assert!(several > 100, "{several}");
    }

    #[test]
    fn the_same_text_scores_one_and_nothing_zero() {
        for text in text_fixture::rows().into_iter().map(|row| row.answer) {
            let length = words(&text, Stemming::Off).len();
            let expected = f64::from(u8::from(length > 0));
            for stemming in [Stemming::Porter, Stemming::Off] {
                let same = [
                    rouge_n(1, &text, &text, stemming),
                    rouge_l(&text, &text, stemming),
                    rouge_lsum(&text, &text, stemming),
                ];
                assert_eq!(same.map(|score| score.fmeasure), [expected; 3], "{text:?}");
                let pairs = rouge_n(2, &text, &text, stemming).fmeasure;
                assert_eq!(pairs, f64::from(u8::from(length > 1)), "{text:?}");
                for empty in [
                    rouge_n(1, &text, "", stemming),
                    rouge_lsum(&text, "", stemming),
                ] {
                    assert_eq!(empty, RougeScore::default());
                }
            }
        }
    }

    #[test]
    fn order_of_references_does_not_matter() {
        for mut row in text_fixture::rows() {
            let score = |references: &[String]| {
                [
                    rouge_n_best(2, references, &row.answer, Stemming::Porter),
                    rouge_l_best(references, &row.answer, Stemming::Porter),
                    rouge_lsum_best(references, &row.answer, Stemming::Porter),
                ]
                .map(|score| score.fmeasure)
            };
            let forwards = score(&row.references);
            row.references.reverse();
            assert_eq!(score(&row.references), forwards);
        }
    }

    #[test]
    fn n_grams_by_hand() {
        // Pairs: "a b" twice and "b a" once, against "a b" once and "b c" once.
        let score = rouge_n(2, "a b a b", "a b c", Stemming::Off);
        assert_eq!((score.precision, score.recall), (1.0 / 2.0, 1.0 / 3.0));
        for n in [0, 5] {
            assert_eq!(
                rouge_n(n, "a b", "a b", Stemming::Off),
                RougeScore::default()
            );
        }
    }

    #[test]
    fn order_counts() {
        // The longest common subsequence of "a b c d" and "a c b d" has three words.
        let score = rouge_l("a b c d", "a c b d", Stemming::Off);
        assert_eq!(
            score,
            RougeScore {
                precision: 0.75,
                recall: 0.75,
                fmeasure: 0.75
            }
        );
        let score = rouge_l("a b c d", "a d", Stemming::Off);
        assert_eq!((score.precision, score.recall), (1.0, 0.5));
    }

    #[test]
    fn texts_without_words_score_zero() {
        for (reference, prediction) in
            [("", ""), ("a", ""), ("", "a"), ("東京", "東京"), ("!", "!")]
        {
            assert_eq!(
                rouge_l(reference, prediction, Stemming::Porter),
                RougeScore::default()
            );
        }
        assert_eq!(
            rouge_l_best::<&str>(&[], "a", Stemming::Off),
            RougeScore::default()
        );
    }

    #[test]
    fn lower_cases_as_python_does() {
        assert_eq!(
            words("\u{212a}elvin İstanbul ÅB", Stemming::Off),
            ["kelvin", "i", "stanbul", "b"]
        );
    }

    #[test]
    fn the_best_reference_counts() {
        let best = rouge_l_best(
            &["x y", "the cats sat", "the cat"],
            "the cat sat",
            Stemming::Porter,
        );
        assert_eq!(
            best,
            rouge_l("the cats sat", "the cat sat", Stemming::Porter)
        );
        assert_eq!(best.fmeasure, 1.0);
    }
}
