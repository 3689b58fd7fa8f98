//! ROUGE-L: how much of a reference text a prediction says, in the reference's order.
//!
//! With `L` the length of the longest common subsequence of the two texts' words:
//!
//! ```text
//! precision P = L / words of the prediction
//! recall    R = L / words of the reference
//! fmeasure    = 2 P R / (P + R)
//! ```
//!
//! C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, section 3, in the
//! form of the Python package `rouge_score`, whose numbers this file reproduces bit for bit: text is
//! lower-cased, everything but a–z and 0–9 separates words, words longer than three characters are
//! stemmed if asked for (see [`porter`]). Texts without any word score 0, and so do
//! scripts that have no letters in a–z.

use std::collections::HashMap;

use super::porter;

/// Precision, recall and their harmonic mean, each in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RougeScore {
    /// Share of the prediction's words that are in the common subsequence.
    pub precision: f64,
    /// Share of the reference's words that are in the common subsequence.
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
    references
        .iter()
        .map(|reference| score(&words(reference.as_ref(), stemming), &prediction))
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
    if reference.is_empty() || prediction.is_empty() {
        return RougeScore::default();
    }
    let common = longest_common_subsequence(reference, prediction) as f64;
    let precision = common / prediction.len() as f64;
    let recall = common / reference.len() as f64;
    let fmeasure = if precision + recall > 0.0 {
        2.0 * precision * recall / (precision + recall)
    } else {
        0.0
    };
    RougeScore {
        precision,
        recall,
        fmeasure,
    }
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
