//! What became of a data set's rows: nothing is left out silently.

use std::fmt;

use super::row::RowSource;

/// Why a row is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// The prompt is over its limit.
    PromptTooLong,
    /// The response with its EOS is over its limit.
    ResponseTooLong,
    /// A prompt of no tokens, or text where a prompt is needed.
    NoPrompt,
    /// A prompt alone where a response is needed.
    NoResponse,
    /// A response or a text of nothing but white space.
    EmptyResponse,
    /// Malformed, or refused by template or tokenizer.
    Malformed,
}

impl LeftOut {
    /// Every reason, in the order in which they are told.
    pub const ALL: [Self; 6] = [
        Self::PromptTooLong,
        Self::ResponseTooLong,
        Self::NoPrompt,
        Self::NoResponse,
        Self::EmptyResponse,
        Self::Malformed,
    ];

    /// The reason as it is told after "left out".
    pub fn words(self) -> &'static str {
        match self {
            Self::PromptTooLong => "with a prompt over data.max_prompt_tokens",
            Self::ResponseTooLong => "with a response over data.max_response_tokens",
            Self::NoPrompt => "without a prompt",
            Self::NoResponse => "without a response",
            Self::EmptyResponse => "with an empty response",
            Self::Malformed => "malformed",
        }
    }
}

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
    /// The first row of each reason, in the order of [`LeftOut::ALL`].
    pub first: [Option<RowSource>; LeftOut::ALL.len()],
}

impl Counts {
    /// Rows left out for this reason.
    pub fn of(&self, reason: LeftOut) -> usize {
        match reason {
            LeftOut::PromptTooLong => self.prompt_too_long,
            LeftOut::ResponseTooLong => self.response_too_long,
            LeftOut::NoPrompt => self.no_prompt,
            LeftOut::NoResponse => self.no_response,
            LeftOut::EmptyResponse => self.empty_response,
            LeftOut::Malformed => self.malformed,
        }
    }

    /// The first row left out for this reason.
    pub fn first(&self, reason: LeftOut) -> Option<RowSource> {
        self.first[reason as usize]
    }

    /// The reasons that some row was left out for.
    pub fn reasons(&self) -> impl Iterator<Item = LeftOut> + '_ {
        LeftOut::ALL
            .into_iter()
            .filter(|&reason| self.of(reason) > 0)
    }

    /// Counts a row as left out.
    pub(crate) fn leave_out(&mut self, reason: LeftOut, row: RowSource) {
        let count = match reason {
            LeftOut::PromptTooLong => &mut self.prompt_too_long,
            LeftOut::ResponseTooLong => &mut self.response_too_long,
            LeftOut::NoPrompt => &mut self.no_prompt,
            LeftOut::NoResponse => &mut self.no_response,
            LeftOut::EmptyResponse => &mut self.empty_response,
            LeftOut::Malformed => &mut self.malformed,
        };
        *count += 1;
        self.first[reason as usize].get_or_insert(row);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} of {} rows kept", self.kept, self.rows)?;
        for reason in self.reasons() {
            write!(f, ", {} left out {}", self.of(reason), reason.words())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_count_and_its_first_row() {
        for reason in LeftOut::ALL {
            let mut counts = Counts::default();
            for line in [7, 9] {
                counts.leave_out(reason, RowSource { file: 1, line });
            }
            assert_eq!(counts.of(reason), 2);
            assert_eq!(counts.first(reason), Some(RowSource { file: 1, line: 7 }));
            assert_eq!(counts.reasons().collect::<Vec<_>>(), [reason]);
            assert!(
                counts
                    .to_string()
                    .ends_with(&format!(", 2 left out {}", reason.words()))
            );
        }
    }
}
