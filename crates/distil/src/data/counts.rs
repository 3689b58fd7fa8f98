//! What became of a data set's rows: nothing is left out silently.

use std::fmt;

/// What became of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All rows of the files.
    pub rows: usize,
    /// Rows that are used.
    pub kept: usize,
    /// Rows left out: the prompt is over its limit.
    pub prompt_too_long: usize,
    /// Rows left out: the response with its EOS is over its limit.
    pub response_too_long: usize,
    /// Rows left out: a prompt of no tokens, or text where a prompt is needed.
    pub no_prompt: usize,
    /// Rows left out: a prompt alone where a response is needed.
    pub no_response: usize,
    /// Rows left out: a response or a text of nothing but white space.
    pub empty_response: usize,
    /// Rows left out as malformed or refused by template or tokenizer.
    pub malformed: usize,
    /// Texts that were split; they are among the kept.
    pub split_texts: usize,
    /// Windows that the split texts were made into.
    pub windows: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} of {} rows kept", self.kept, self.rows)?;
        for (count, what) in [
            (
                self.prompt_too_long,
                "with a prompt over data.max_prompt_tokens",
            ),
            (
                self.response_too_long,
                "with a response over data.max_response_tokens",
            ),
            (self.no_prompt, "without a prompt"),
            (self.no_response, "without a response"),
            (self.empty_response, "with an empty response"),
            (self.malformed, "malformed"),
        ] {
            if count > 0 {
                write!(f, ", {count} left out {what}")?;
            }
        }
        if self.split_texts > 0 {
            write!(
                f,
                ", {} texts split into {} windows",
                self.split_texts, self.windows
            )?;
        }
        Ok(())
    }
}
