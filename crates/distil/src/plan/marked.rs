//! A rendered row for the eye: lines behind a bar, what is trained on between ⟦ and ⟧.
//!
//! The brackets need no colour, so a file or a pipe shows the mask as well; on a terminal the part is
//! inverse, too, and special tokens have a colour. A line of the text begins behind `│`, what had to be
//! folded goes on behind `╎`. Control characters are written as escapes: a data file must not move
//! the cursor of whoever looks at it.

use super::rendered::Rendered;

/// Characters of a line before it is folded.
const WIDTH: usize = 92;

/// Characters of a text that are shown at its beginning and again at its end, if it is longer than both.
const ENDS: usize = 800;

/// How a piece of a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Special,
    Trained,
    TrainedSpecial,
    /// What is said of the text and is none of it.
    Aside,
    Heading,
    Warning,
}

impl Style {
    /// The terminal's code (ECMA-48, SGR).
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Special => Some("36"),
            Self::Trained => Some("7"),
            Self::TrainedSpecial => Some("7;36"),
            Self::Aside => Some("2"),
            Self::Heading => Some("1"),
            Self::Warning => Some("33"),
        }
    }

    /// The text in this style, if colours are wanted.
    pub(super) fn paint(self, text: &str, colours: bool) -> String {
        match self.code() {
            Some(code) if colours && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// The lines of a rendered row.
pub(super) fn lines(row: &Rendered, colours: bool) -> Vec<String> {
    let mut page = Page {
        lines: Vec::new(),
        cells: Vec::new(),
        folded: false,
        colours,
    };
    page.text(&row.prompt, &row.special, [Style::Plain, Style::Special]);
    if let Some(response) = &row.response {
        page.push('⟦', Style::Trained);
        let styles = [Style::Trained, Style::TrainedSpecial];
        page.text(response, &row.special, styles);
        page.push('⟧', Style::Trained);
    }
    if let Some(words) = &row.sampled {
        for c in format!("⟦… {words} …⟧").chars() {
            page.push(c, Style::Aside);
        }
    }
    page.end_line();
    page.lines
}

struct Page {
    lines: Vec<String>,
    /// The line under way.
    cells: Vec<(char, Style)>,
    /// Whether it goes on from the one before.
    folded: bool,
    colours: bool,
}

impl Page {
    /// `styles`: of ordinary text and of special tokens.
    fn text(&mut self, text: &str, special: &[String], styles: [Style; 2]) {
        let count = text.chars().count();
        if count <= 2 * ENDS {
            return self.piece(text, special, styles);
        }
        let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
        self.piece(&text[..at(ENDS)], special, styles);
        let words = format!("[… {} characters are not shown …]", count - 2 * ENDS);
        self.fold();
        for c in words.chars() {
            self.push(c, Style::Aside);
        }
        self.fold();
        self.piece(&text[at(count - ENDS)..], special, styles);
    }

    fn piece(&mut self, mut text: &str, special: &[String], [plain, marked]: [Style; 2]) {
        while let Some(c) = text.chars().next() {
            let token = special.iter().find(|token| text.starts_with(&token[..]));
            let (piece, style) = match token {
                Some(token) => (&text[..token.len()], marked),
                None => (&text[..c.len_utf8()], plain),
            };
            for c in piece.chars() {
                match c {
                    '\n' => self.end_line(),
                    c if is_hidden(c) => {
                        for c in c.escape_default() {
                            self.push(c, style);
                        }
                    }
                    c => self.push(c, style),
                }
            }
            text = &text[piece.len()..];
        }
    }

    fn push(&mut self, c: char, style: Style) {
        if self.cells.len() == WIDTH {
            // Behind the last space, if there is one not too far back.
            let space = self.cells.iter().rposition(|(c, _)| *c == ' ');
            let at = space.map_or(WIDTH, |at| at + 1);
            let rest = self
                .cells
                .split_off(if at > WIDTH / 2 { at } else { WIDTH });
            self.fold();
            self.cells = rest;
        }
        self.cells.push((c, style));
    }

    /// Goes on in a new line that is none of the text's.
    fn fold(&mut self) {
        self.end_line();
        self.folded = true;
    }

    fn end_line(&mut self) {
        let mut line = match (self.folded, self.cells.is_empty()) {
            (true, _) => String::from("  ╎ "),
            (false, true) => String::from("  │"),
            (false, false) => String::from("  │ "),
        };
        for run in self.cells.chunk_by(|a, b| a.1 == b.1) {
            let text: String = run.iter().map(|(c, _)| c).collect();
            line.push_str(&run[0].1.paint(&text, self.colours));
        }
        self.lines.push(line);
        self.cells.clear();
        self.folded = false;
    }
}

/// Characters that would not be seen, or would change how others are.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt: &str, response: Option<&str>) -> Rendered {
        Rendered {
            place: None,
            what: None,
            prompt: prompt.into(),
            prompt_tokens: 1,
            response: response.map(str::to_owned),
            response_tokens: 1,
            ends_with_eos: Some(true),
            sampled: None,
            special: vec!["<s>".into(), "</s>".into()],
        }
    }

    #[test]
    fn what_is_trained_on_stands_between_brackets() {
        let row = row("<s>a\nb:\n", Some("c\n\nd</s>"));
        assert_eq!(
            lines(&row, false),
            ["  │ <s>a", "  │ b:", "  │ ⟦c", "  │", "  │ d</s>⟧"]
        );
        assert_eq!(
            lines(&row, true),
            [
                "  │ \x1b[36m<s>\x1b[0ma",
                "  │ b:",
                "  │ \x1b[7m⟦c\x1b[0m",
                "  │",
                "  │ \x1b[7md\x1b[0m\x1b[7;36m</s>\x1b[0m\x1b[7m⟧\x1b[0m"
            ]
        );
    }

    #[test]
    fn words_stand_for_what_is_still_to_be_sampled() {
        let row = Rendered {
            sampled: Some("its answer".into()),
            ..row("a: ", None)
        };
        assert_eq!(lines(&row, false), ["  │ a: ⟦… its answer …⟧"]);
    }

    /// A file must not clear the screen of whoever looks at it, nor turn its text round.
    #[test]
    fn control_characters_are_written_out() {
        let row = row("a\x1b[2Jb\r\tc\u{202e}d\u{2028}e", None);
        assert_eq!(
            lines(&row, false),
            ["  │ a\\u{1b}[2Jb\\r\\tc\\u{202e}d\\u{2028}e"]
        );
        assert!(!lines(&row, true)[0].contains('\x1b'));
    }

    #[test]
    fn long_lines_are_folded_and_nothing_is_lost() {
        let text = "word ".repeat(60) + &"x".repeat(250);
        let lines = lines(&row(&text, None), false);
        assert!(lines[0].starts_with("  │ ") && lines[1].starts_with("  ╎ "));
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH + 4));
        let joined: String = lines
            .iter()
            .map(|line| line.chars().skip(4).collect::<String>())
            .collect();
        assert_eq!(joined, text);
    }

    #[test]
    fn a_very_long_text_shows_its_ends() {
        let text = "a".repeat(ENDS) + &"b".repeat(7) + &"ü".repeat(ENDS);
        let shown = lines(&row(&text, None), false).join("");
        assert!(
            shown.contains("[… 7 characters are not shown …]"),
            "{shown}"
        );
        assert!(!shown.contains("bb") && shown.ends_with('ü'));
    }
}
