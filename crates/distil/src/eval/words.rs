//! The words of a text, for metrics that count words rather than a model's tokens.
//!
//! ```text
//! \w+ | [^\w\s]+        of the lower-cased text
//! ```
//!
//! so a word is a run of word characters or a run of punctuation, and white space only separates. This
//! is `wordpunct_tokenize` of NLTK 3.10, and with it the tokens of BLEU in LLMR's code. A word
//! character is a letter, a mark, a decimal digit, connecting punctuation such as "_" or a joiner
//! (Unicode UTS 18, annex C). Up to NLTK 3.9 marks were none, and characters like "²" and "½" were.
//! Scripts without spaces have long words: a line of Chinese without punctuation is one.

use regex_syntax::is_word_character;

/// The words of a text, lower-cased, in order.
pub fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let mut words = Vec::new();
    let mut word = String::new();
    let mut kind = Kind::Space;
    for c in lower.chars() {
        let next = Kind::of(c);
        if next != kind && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        kind = next;
        if kind != Kind::Space {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Word,
    Space,
    Other,
}

impl Kind {
    fn of(c: char) -> Self {
        if is_word_character(c) {
            Self::Word
        } else if c.is_whitespace() {
            Self::Space
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text_fixture;

    #[test]
    fn equals_nltk_on_the_fixture() {
        for row in text_fixture::rows() {
            assert_eq!(words(&row.answer), row.words, "{:?}", row.answer);
        }
    }

    #[test]
    fn punctuation_is_words_and_space_is_not() {
        assert_eq!(
            words("It's $3.88, OK?!\nx_y"),
            ["it", "'", "s", "$", "3", ".", "88", ",", "ok", "?!", "x_y"]
        );
        assert_eq!(words(" \t\n"), Vec::<String>::new());
        assert_eq!(words("ΟΔΟΣ cafe\u{301}"), ["οδος", "cafe\u{301}"]);
    }
}
