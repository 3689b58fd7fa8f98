//! ROUGE-Lsum: the longest common subsequence for texts of several sentences.
//!
//! For every sentence `r` of the reference, a word of `r` is said if it lies on a longest common
//! subsequence of `r` and some sentence of the prediction (C.-Y. Lin 2004, section 3.2: the union of the
//! subsequences). What is in common are the words said, in all sentences together, but none more often
//! than the prediction has it. So sentences may come in any order; words within one may not.
//!
//! Where several subsequences are equally long, which one counts can change the score. The choice here is
//! the one of `rouge_score`: from the end, words that match are taken; else the prediction's last word is
//! given up if that alone keeps the length, and the reference's otherwise.

use std::collections::HashMap;

use super::RougeScore;

/// The score of texts as sentences of words.
pub(super) fn score(reference: &[Vec<String>], prediction: &[Vec<String>]) -> RougeScore {
    // Words as numbers, so that the inner loop compares integers.
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let reference_numbers = numbered(reference, &mut numbers);
    let prediction_numbers = numbered(prediction, &mut numbers);
    // How often the prediction has each word, less what is counted already.
    let mut left = vec![0_usize; numbers.len()];
    for &word in prediction_numbers.iter().flatten() {
        left[word] += 1;
    }
    let mut common = 0;
    for sentence in &reference_numbers {
        let mut said = vec![false; sentence.len()];
        for other in &prediction_numbers {
            mark_common_subsequence(sentence, other, &mut said);
        }
        for (&word, said) in sentence.iter().zip(said) {
            if said && left[word] > 0 {
                left[word] -= 1;
                common += 1;
            }
        }
    }
    RougeScore::of(
        common,
        reference_numbers.iter().map(Vec::len).sum(),
        prediction_numbers.iter().map(Vec::len).sum(),
    )
}

fn numbered<'a>(
    sentences: &'a [Vec<String>],
    numbers: &mut HashMap<&'a str, usize>,
) -> Vec<Vec<usize>> {
    let mut number = |word: &'a String| {
        let next = numbers.len();
        *numbers.entry(word).or_insert(next)
    };
    sentences
        .iter()
        .map(|sentence| sentence.iter().map(&mut number).collect())
        .collect()
}

/// Marks the words of `a` that are on the chosen longest common subsequence of `a` and `b`; time and
/// memory |a|·|b|.
fn mark_common_subsequence(a: &[usize], b: &[usize], said: &mut [bool]) {
    // lengths[j] is the length for the words of `a` so far and the first j words of `b`;
    // give_up_b[i * |b| + j], whether the way back from there gives up a word of `b` rather than of `a`.
    let mut lengths = vec![0_u32; b.len() + 1];
    let mut give_up_b = Vec::with_capacity(a.len() * b.len());
    for word in a {
        let (mut diagonal, mut left) = (0, 0);
        for (above, other) in lengths[1..].iter_mut().zip(b) {
            give_up_b.push(left > *above);
            let here = if other == word {
                diagonal + 1
            } else {
                left.max(*above)
            };
            diagonal = *above;
            *above = here;
            left = here;
        }
    }
    let (mut i, mut j) = (a.len(), b.len());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            said[i - 1] = true;
            i -= 1;
            j -= 1;
        } else if give_up_b[(i - 1) * b.len() + (j - 1)] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RougeScore, Stemming, rouge_l, rouge_lsum};
    use super::*;

    fn lsum(reference: &str, prediction: &str) -> RougeScore {
        rouge_lsum(reference, prediction, Stemming::Off)
    }

    #[test]
    fn the_union_of_subsequences() {
        // The example of the paper, section 3.2: of "w1 w2 w3 w4 w5" the first sentence says w1 w2, the
        // second w1 w3 w5; together four of five words.
        let score = lsum("w1 w2 w3 w4 w5", "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5");
        assert_eq!((score.recall, score.precision), (4.0 / 5.0, 4.0 / 10.0));
    }

    #[test]
    fn order_of_lines_does_not_count() {
        assert_eq!(
            lsum("one two\nthree four", "three four\n\none two").fmeasure,
            1.0
        );
        assert!(
            rouge_l(
                "one two\nthree four",
                "three four\n\none two",
                Stemming::Off
            )
            .fmeasure
                < 1.0
        );
    }

    #[test]
    fn words_are_not_counted_twice() {
        // Both lines of the reference find "a" in the prediction, which says it once.
        let score = lsum("a\na", "a b");
        assert_eq!((score.recall, score.precision), (1.0 / 2.0, 1.0 / 2.0));
    }

    #[test]
    fn of_equally_long_subsequences_the_one_of_rouge_score() {
        let mut said = [false; 2];
        mark_common_subsequence(&[0, 1], &[1, 0], &mut said);
        // The two lengths are alike, so the reference's last word is given up.
        assert_eq!(said, [true, false]);
    }
}
