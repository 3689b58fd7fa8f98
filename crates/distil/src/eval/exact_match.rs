//! Exact match: does a prediction say the same words as a reference?
//!
//! Both are normalised as in the evaluation of Super-NaturalInstructions (Wang et al., EMNLP 2022):
//! lower-cased, ASCII punctuation removed, white space squeezed. Articles stay.

use super::whitespace;

/// Whether the prediction equals any of the references once all are normalised; `false` if there is
/// none. Two texts of punctuation alone are equal: both are empty.
pub fn exact_match<S: AsRef<str>>(references: &[S], prediction: &str) -> bool {
    let prediction = normalise(prediction);
    references
        .iter()
        .any(|reference| normalise(reference.as_ref()) == prediction)
}

fn normalise(text: &str) -> String {
    let text: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    let words: Vec<&str> = whitespace::split(&text).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text_fixture;

    #[test]
    fn equals_the_fixture() {
        let mut equal = 0;
        for row in text_fixture::rows() {
            assert_eq!(normalise(&row.answer), row.normalised, "{:?}", row.answer);
            let got = exact_match(&row.references, &row.answer);
            assert_eq!(got, row.exact.unwrap_or(false), "{:?}", row.answer);
            equal += usize::from(got);
        }
        assert!(equal > 100, "{equal}");
    }

    #[test]
    fn case_punctuation_and_space_do_not_count() {
        assert!(exact_match(&["It's  a dog."], "its a\tDOG"));
        assert!(exact_match(&["ΟΔΟΣ"], "οδος"));
        assert!(exact_match(&["no", "yes"], "Yes!"));
        assert!(exact_match(&["a b"], "a\u{1f}b"));
        assert!(exact_match(&["..."], ""));
    }

    #[test]
    fn words_count() {
        assert!(!exact_match(&["the dog"], "dog"));
        assert!(!exact_match(&["ab"], "a b"));
        // Only ASCII punctuation is removed.
        assert!(!exact_match(&["«dog»"], "dog"));
        assert!(!exact_match::<&str>(&[], ""));
    }
}
