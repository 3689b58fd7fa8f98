//! Texts of others in a card: in YAML (<https://yaml.org/spec/1.2.2/>), and in Markdown with tables
//! (<https://github.github.com/gfm/>). Names of files and templates may hold any character; none of
//! them may end what it stands in.

/// A text as a double-quoted scalar of YAML.
pub(super) fn yaml(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            // Not printable there, or a line break to some readers.
            '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => out += &format!("\\u{:04x}", u32::from(c)),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A text as code within a line.
pub(super) fn code(text: &str) -> String {
    let text = text.replace(['\r', '\n'], " ");
    let fence = "`".repeat(longest_run(&text) + 1);
    let apart = text.starts_with('`') || text.ends_with('`') || text.trim().is_empty();
    match apart {
        true => format!("{fence} {text} {fence}"),
        false => format!("{fence}{text}{fence}"),
    }
}

/// A text as code in a table's cell, which a bar would end.
pub(super) fn cell(text: &str) -> String {
    code(text).replace('|', "\\|")
}

/// A text as a block of code.
pub(super) fn block(language: &str, text: &str) -> String {
    let fence = "`".repeat((longest_run(text) + 1).max(3));
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end())
}

/// The most backticks in a row.
fn longest_run(text: &str) -> usize {
    let runs = text.split(|c| c != '`').map(str::len);
    runs.max().unwrap_or_default()
}

/// A number with four significant digits, or as many as stand before the point.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    // The exponent after rounding: 9.99996 is 10.00.
    let rounded = format!("{value:.3e}");
    let exponent = rounded.split_once('e').and_then(|(_, e)| e.parse().ok());
    let exponent: i32 = exponent.unwrap_or_default();
    match exponent {
        -5..=3 => format!("{value:.*}", (3 - exponent).max(0) as usize),
        4..=14 => format!("{value:.0}"),
        _ => rounded,
    }
}

/// A whole number with commas between its thousands.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_one_yaml_scalar() {
        let names = [
            "plain.jsonl",
            "a: b # c",
            "it's \"x\" \\ y",
            "- list\n---\nkey: value",
            "tab\t bell\u{7} del\u{7f} nel\u{85} line\u{2028} bom\u{feff} é 火 😀",
            "",
        ];
        for name in names {
            let text = format!("key: {}\n", yaml(name));
            let read = yaml_rust2::YamlLoader::load_from_str(&text).unwrap();
            assert_eq!(read[0]["key"].as_str(), Some(name), "{text}");
        }
    }

    #[test]
    fn code_ends_where_it_should() {
        assert_eq!(code("a.jsonl"), "`a.jsonl`");
        assert_eq!(code("a`b``c"), "```a`b``c```");
        assert_eq!(code("`a`"), "`` `a` ``");
        assert_eq!(code("a\nb"), "`a b`");
        assert_eq!(cell("a|b"), "`a\\|b`");
        assert_eq!(block("toml", "a = 1\n"), "```toml\na = 1\n```\n");
        assert_eq!(block("", "a\n```\nb"), "````\na\n```\nb\n````\n");
    }

    #[test]
    fn numbers_have_four_digits() {
        let all = [
            0.0,
            0.123_456,
            9.999_96,
            12_345.6,
            -2.5,
            1e-7,
            0.000_123_456,
        ]
        .map(number);
        assert_eq!(
            all,
            [
                "0",
                "0.1235",
                "10.00",
                "12346",
                "-2.500",
                "1.000e-7",
                "0.0001235"
            ]
        );
        assert_eq!(
            [7, 1_000, 134_515_008].map(count),
            ["7", "1,000", "134,515,008"]
        );
    }
}
