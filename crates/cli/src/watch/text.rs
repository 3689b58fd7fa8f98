//! Numbers and texts as they stand on the screen, where a character may be two cells wide.

use ratatui::text::Span;

/// A number with about four digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "none".into()
    } else if size == 0.0 {
        "0".into()
    } else if !(1e-3..1e5).contains(&size) {
        format!("{value:.2e}")
    } else if size >= 999.95 {
        format!("{value:.0}")
    } else {
        let decimals = (3.0 - size.log10().floor()).clamp(0.0, 4.0) as usize;
        format!("{value:.decimals$}")
    }
}

/// As [`number`], always with its sign.
pub(crate) fn signed(value: f64) -> String {
    match value > 0.0 {
        true => format!("+{}", number(value)),
        false => number(value),
    }
}

/// A text that somebody else wrote: a model, a file. Tabs become spaces, and what would move the
/// cursor or colour the screen becomes a sign that does not.
pub(crate) fn harmless(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '\n' => clean.push('\n'),
            '\t' => clean.push_str("    "),
            c if c.is_control() || is_layout(c) => clean.push('\u{fffd}'),
            c => clean.push(c),
        }
    }
    clean
}

/// Characters that break a line, or turn the direction of the text around them, its borders included.
fn is_layout(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

/// As [`harmless`], on one line.
pub(crate) fn flat(text: &str) -> String {
    harmless(text)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Cells that a text takes on one line.
pub(crate) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The beginning of a text, in at most `most` cells.
pub(crate) fn clip(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let (mut clipped, mut left) = (String::new(), most.saturating_sub(1));
    for c in text.chars() {
        let cells = cells(c);
        if cells > left {
            break;
        }
        left -= cells;
        clipped.push(c);
    }
    if most > 0 {
        clipped.push('…');
    }
    clipped
}

/// The end of a text, in at most `most` cells.
pub(crate) fn clip_front(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut left = most.saturating_sub(1);
    let mut start = text.len();
    for (place, c) in text.char_indices().rev() {
        let cells = cells(c);
        if cells > left {
            break;
        }
        left -= cells;
        start = place;
    }
    match most {
        0 => String::new(),
        _ => format!("…{}", &text[start..]),
    }
}

fn cells(c: char) -> usize {
    width(c.encode_utf8(&mut [0; 4]))
}

/// A text as lines of at most `most` cells: broken between words, and within a word that is longer.
/// Its own line breaks stay.
pub(crate) fn wrap(text: &str, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let (mut line, mut used) = (String::new(), 0);
        for word in paragraph.split_inclusive(' ') {
            let (whole, bare) = (width(word), width(word.trim_end_matches(' ')));
            if used > 0 && used + bare > most {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                used = 0;
            }
            if used + bare <= most {
                line.push_str(word);
                used += whole;
                continue;
            }
            for c in word.chars() {
                let cells = cells(c);
                if used > 0 && used + cells > most {
                    lines.push(std::mem::take(&mut line));
                    used = 0;
                }
                line.push(c);
                used += cells;
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (2.248_815, "2.249"),
            (14.731_8, "14.73"),
            (-99.096, "-99.10"),
            (999.96, "1000"),
            (5439.4, "5439"),
            (123_456.0, "1.23e5"),
            (0.000_123_4, "1.23e-4"),
            (0.004_567, "0.0046"),
            (0.231, "0.2310"),
            (f64::NAN, "none"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(signed(0.05), "+0.0500");
        assert_eq!(signed(-0.05), "-0.0500");
        assert_eq!(signed(0.0), "0");
    }

    #[test]
    fn nothing_in_a_text_reaches_the_terminal_as_a_command() {
        assert_eq!(
            harmless("a\x1b[2J\tb\r\nc\u{7}"),
            "a\u{fffd}[2J    b\nc\u{fffd}"
        );
        for c in ['\u{202e}', '\u{61c}', '\u{2028}', '\u{206b}', '\u{9b}'] {
            assert_eq!(harmless(&format!("{c}x")), "\u{fffd}x");
        }
        assert_eq!(flat(" a\n\nb  c "), "a b c");
    }

    #[test]
    fn wide_characters_take_two_cells() {
        assert_eq!(width("ab漢字"), 6);
        assert_eq!(clip("ab漢字", 6), "ab漢字");
        assert_eq!(clip("ab漢字", 5), "ab漢…");
        assert_eq!(clip("ab漢字", 4), "ab…");
        assert_eq!(clip("ab", 0), "");
        assert_eq!(clip_front("漢字ab", 5), "…字ab");
        assert_eq!(clip_front("漢字ab", 4), "…ab");
        assert_eq!(clip_front("ab", 0), "");
        assert_eq!(wrap("漢字漢字", 5), ["漢字", "漢字"]);
    }

    #[test]
    fn lines_break_between_words_where_they_can() {
        assert_eq!(
            wrap("a bc  def\n\nghijklmno p", 5),
            ["a bc", "def", "", "ghijk", "lmno", "p"]
        );
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("ab", 0), ["a", "b"], "no width is no reason to loop");
        assert_eq!(wrap("  in", 9), ["  in"], "code keeps its indentation");
    }
}
