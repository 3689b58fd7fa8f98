//! White space as Python has it, for metrics whose reference is written in Python.
//!
//! It is Unicode's white space and the four ASCII separators U+001C to U+001F, which `char` does not
//! count.

/// Whether Python's `str.split()` splits at this character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// What is between white space: Python's `str.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_where_python_does() {
        let words: Vec<&str> = split(" a\u{1c}b\u{1f}\u{85}c\u{a0}d\u{2028}e\u{3000}").collect();
        assert_eq!(words, ["a", "b", "c", "d", "e"]);
        // A zero-width space, a byte-order mark and a joiner are no white space.
        assert_eq!(split("a\u{200b}b\u{feff}c\u{200d}d").count(), 1);
        assert_eq!(split(" \n").count(), 0);
    }
}
