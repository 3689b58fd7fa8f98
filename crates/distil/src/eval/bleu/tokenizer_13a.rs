//! The tokens of sacreBLEU's BLEU: "13a", after the script `mteval-v13a.pl` of NIST's evaluations.
//!
//! A few markings and entities are undone, then spaces are set
//!
//! 1. around every ASCII symbol but `'`, `,`, `-` and `.`;
//! 2. around a `.` or `,` that follows anything but an ASCII digit;
//! 3. around a `.` or `,` that something other than an ASCII digit follows;
//! 4. around a `-` that follows an ASCII digit;
//!
//! and the text is split at white space. So "1,000.5" is one token, and "end." two. Other than ASCII is
//! never split: a line of Chinese is one token.

use super::super::whitespace::{is_space, split};

/// The tokens of a text, in order.
pub(super) fn tokens(text: &str) -> Vec<String> {
    // The order matters: "&amp;lt;" becomes "<", and a "-" at the end of a line joins its neighbours.
    let line = text
        .trim_end_matches(is_space)
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    let mut spaced = vec![' '];
    for c in line.chars() {
        if is_symbol(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced.push(' ');
    let spaced = replace_pairs(&spaced, |a, b| {
        (!a.is_ascii_digit() && is_point(b)).then_some([a, ' ', b, ' '])
    });
    let spaced = replace_pairs(&spaced, |a, b| {
        (is_point(a) && !b.is_ascii_digit()).then_some([' ', a, ' ', b])
    });
    let spaced = replace_pairs(&spaced, |a, b| {
        (a.is_ascii_digit() && b == '-').then_some([a, ' ', b, ' '])
    });
    split(&String::from_iter(spaced))
        .map(str::to_owned)
        .collect()
}

/// Replaces pairs of neighbours from left to right. A character that is in a replaced pair is in no other,
/// as in a regular expression's global substitution.
fn replace_pairs(text: &[char], replacement: fn(char, char) -> Option<[char; 4]>) -> Vec<char> {
    let mut replaced = Vec::with_capacity(2 * text.len());
    let mut rest = text;
    while let [first, others @ ..] = rest {
        let pair = others
            .first()
            .and_then(|&second| replacement(*first, second));
        if let Some(four) = pair {
            replaced.extend(four);
            rest = &others[1..];
        } else {
            replaced.push(*first);
            rest = others;
        }
    }
    replaced
}

fn is_symbol(c: char) -> bool {
    c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.')
}

fn is_point(c: char) -> bool {
    matches!(c, '.' | ',')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text_fixture;

    #[test]
    fn equals_sacrebleu_on_the_fixture() {
        for row in text_fixture::rows() {
            assert_eq!(tokens(&row.answer), row.tokens_13a, "{:?}", row.answer);
        }
    }

    #[test]
    fn numbers_stay_whole() {
        assert_eq!(
            tokens("It cost 1,000.50, not 3-5."),
            ["It", "cost", "1,000.50", ",", "not", "3", "-", "5", "."]
        );
        assert_eq!(tokens("don't well-known"), ["don't", "well-known"]);
    }

    #[test]
    fn entities_and_markings_are_undone() {
        assert_eq!(
            tokens("&amp;lt;b&quot; co-\noperate <skipped>x\n"),
            ["<", "b", "\"", "cooperate", "x"]
        );
    }

    #[test]
    fn nothing_has_no_tokens() {
        for text in ["", " ", "\n\u{1f}", "<skipped>"] {
            assert_eq!(tokens(text), Vec::<String>::new());
        }
    }
}
