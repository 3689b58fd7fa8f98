//! Repetition: how much of an answer says again what the answer has said.
//!
//! ```text
//! repetition = 1 − different 4-grams of words / 4-grams of words,   of one answer
//! ```
//!
//! seq-rep-4 of S. Welleck et al., "Neural Text Generation with Unlikelihood Training", ICLR 2020
//! (arXiv 1908.04319), there of a model's tokens; here of [`words`], so that models with different
//! vocabularies can be compared. An answer of three words or fewer has no 4-gram and repeats nothing.

use super::ngrams;
use super::words::words;

/// Length of the runs of words that are looked for.
const ORDER: usize = 4;

/// Share of the answer's 4-grams that it has said before: 0 if none, towards 1 in a loop.
pub fn repetition(answer: &str) -> f64 {
    let words = words(answer);
    match ngrams::total(words.len(), ORDER) {
        0 => 0.0,
        total => 1.0 - ngrams::counts(&words, ORDER).len() as f64 / total as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text_fixture;

    #[test]
    fn equals_the_fixture() {
        for row in text_fixture::rows() {
            assert_eq!(repetition(&row.answer), row.repetition, "{:?}", row.answer);
        }
    }

    #[test]
    fn by_hand() {
        // Three 4-grams, all different; then five, of which "a b a b" occurs thrice.
        assert_eq!(repetition("a b c d e f"), 0.0);
        assert_eq!(repetition("a b a b a b a b"), 1.0 - 2.0 / 5.0);
        assert_eq!(repetition("Again again AGAIN again again"), 0.5);
    }

    #[test]
    fn short_answers_repeat_nothing() {
        for answer in ["", "\n", "no", "no no no"] {
            assert_eq!(repetition(answer), 0.0);
        }
    }

    #[test]
    fn a_loop_comes_close_to_one() {
        assert!(repetition(&"again and again ".repeat(200)) > 0.99);
    }
}
