//! Distinct-n: how many different things a model says.
//!
//! ```text
//! distinct-n = different n-grams of words / n-grams of words,   over all answers
//! ```
//!
//! J. Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", NAACL 2016
//! (arXiv 1510.03055), there with the number of words below the line for every n; here, as in most code
//! since, with the number of n-grams, so that 1 can be reached. Words are those of [`words`]; an n-gram
//! never spans two answers. The number falls with the number of answers, since a language has only so
//! many words: compare it only between models that answered the same prompts.

use std::collections::HashSet;

use super::ngrams;
use super::words::words;

/// Distinct-n of all answers, 0 to 1; 0 if they have no n-gram.
pub fn distinct(answers: &[&str], n: usize) -> f64 {
    let answers: Vec<Vec<String>> = answers.iter().map(|answer| words(answer)).collect();
    let total: usize = answers
        .iter()
        .map(|words| ngrams::total(words.len(), n))
        .sum();
    let different: HashSet<&[String]> = answers
        .iter()
        .flat_map(|words| ngrams::counts(words, n).into_keys())
        .collect();
    different.len() as f64 / total.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text_fixture;

    #[test]
    fn equals_the_fixture() {
        let rows = text_fixture::rows();
        for corpus in text_fixture::corpora() {
            let answers: Vec<&str> = corpus.of(&rows).map(|row| row.answer.as_str()).collect();
            assert_eq!(
                [distinct(&answers, 1), distinct(&answers, 2)],
                corpus.distinct
            );
        }
    }

    #[test]
    fn by_hand() {
        // Words: the cat, the dog; the pair "cat the" would span two answers.
        let answers = ["The cat", "the dog"];
        assert_eq!(distinct(&answers, 1), 3.0 / 4.0);
        assert_eq!(distinct(&answers, 2), 1.0);
        assert_eq!(distinct(&["a b", "A  b", "a b"], 2), 1.0 / 3.0);
    }

    #[test]
    fn nothing_said_is_zero() {
        assert_eq!(distinct(&[], 1), 0.0);
        assert_eq!(distinct(&["", " \n"], 1), 0.0);
        assert_eq!(distinct(&["one"], 2), 0.0);
        assert_eq!(distinct(&["one"], 0), 0.0);
    }

    #[test]
    fn order_of_answers_does_not_matter() {
        let rows = text_fixture::rows();
        let mut answers: Vec<&str> = rows.iter().map(|row| row.answer.as_str()).collect();
        let forwards = distinct(&answers, 2);
        answers.reverse();
        assert_eq!(distinct(&answers, 2), forwards);
    }
}
