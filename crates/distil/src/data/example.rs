//! Rows to token ids: what a model is trained on, and what it is asked.
//!
//! A row that is over a limit is left out and counted, never cut: a prompt without its end asks
//! something else, and a response without its end teaches to stop in mid-sentence. Text for language
//! modelling is the exception, since cutting a corpus is its normal use: a text that is longer than
//! both limits together is split into consecutive windows of that length. A window begins with BOS
//! where the tokenizer adds one, else with the token before it as context, so that every token but
//! a text's very first is predicted exactly once.

use super::counts::{Counts, LeftOut};
use super::read::{DataSet, OnBadRow};
use super::row::{Content, Row};
use super::template::Template;
use crate::error::{Error, Result};

/// A prompt and a response to learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Token ids of the prompt, BOS included where the tokenizer adds one.
    pub prompt: Vec<u32>,
    /// Token ids of the response; ends with EOS where the response is complete.
    pub response: Vec<u32>,
    /// Index of the row in [`DataSet::rows`].
    pub row: usize,
}

impl Example {
    /// Tokens of prompt and response together.
    pub fn len(&self) -> usize {
        self.prompt.len() + self.response.len()
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A prompt for a model to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptExample {
    /// The prompt as the model reads it, with the template applied.
    pub text: String,
    /// Its token ids, BOS included where the tokenizer adds one; at least one.
    pub prompt: Vec<u32>,
    /// Good answers; empty for a prompt alone.
    pub references: Vec<String>,
    /// Index of the row in [`DataSet::rows`].
    pub row: usize,
}

/// A prompt with a preferred and a rejected response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairExample {
    /// Prompt and preferred response.
    pub chosen: Example,
    /// The same prompt and the rejected response.
    pub rejected: Example,
}

/// The longest sequences that are kept, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of a prompt, template and BOS included.
    pub max_prompt_tokens: usize,
    /// Tokens of a response, EOS included.
    pub max_response_tokens: usize,
}

/// Encodes a prompt and the response that continues it, without EOS: a tokenizer's `encode_pair`.
pub type EncodePair<'a> = dyn Fn(&str, &str) -> distil_model::Result<(Vec<u32>, Vec<u32>)> + 'a;

/// How rows become token ids.
#[derive(Clone, Copy)]
pub struct Encoding<'a> {
    /// Makes the prompt's text.
    pub template: &'a Template,
    /// Makes token ids of prompt and response.
    pub encode_pair: &'a EncodePair<'a>,
    /// The token that ends a response.
    pub eos: u32,
    /// What is too long.
    pub limits: Limits,
    /// What to do with a row that the template or the tokenizer refuses.
    pub on_bad_row: OnBadRow,
}

/// Training examples: of a completion its first reference, of a preference the better answer's (or
/// the row's own answer), of a text its windows.
///
/// # Errors
/// [`Error::Row`] for a row that the template or the tokenizer refuses, unless those are skipped;
/// [`Error::Data`] if no row is left.
pub fn examples(data: &DataSet, encoding: &Encoding) -> Result<(Vec<Example>, Counts)> {
    collect(
        data,
        encoding,
        |row, index, examples: &mut Vec<Example>, counts| match (
            &row.content,
            row.content.references().first(),
        ) {
            (Content::Text(text), _) => {
                let windows = encoding.windows(text, index)?;
                if let Ok(windows) = &windows
                    && windows.len() > 1
                {
                    counts.split_texts += 1;
                    counts.windows += windows.len();
                }
                Ok(windows.map(|windows| examples.extend(windows)))
            }
            (_, Some(response)) => Ok(encoding
                .pair(row, response, index)?
                .map(|example| examples.push(example))),
            (_, None) => Ok(Err(LeftOut::NoResponse)),
        },
    )
}

/// As [`examples`], of rows that ask something: for methods whose student also answers the prompts
/// itself. A text, or a prompt of no tokens, is left out and counted.
///
/// # Errors
/// As [`examples`].
pub fn prompted_examples(data: &DataSet, encoding: &Encoding) -> Result<(Vec<Example>, Counts)> {
    collect(
        data,
        encoding,
        |row, index, examples: &mut Vec<Example>, _| {
            let content = &row.content;
            let Some(response) = content.references().first() else {
                return Ok(Err(match content.prompt() {
                    Some(_) => LeftOut::NoResponse,
                    None => LeftOut::NoPrompt,
                }));
            };
            Ok(match encoding.pair(row, response, index)? {
                Ok(example) if example.prompt.is_empty() => Err(LeftOut::NoPrompt),
                Ok(example) => {
                    examples.push(example);
                    Ok(())
                }
                Err(left_out) => Err(left_out),
            })
        },
    )
}

/// Prompts with their references, for sampling and evaluation.
///
/// # Errors
/// As [`examples`].
pub fn prompts(data: &DataSet, encoding: &Encoding) -> Result<(Vec<PromptExample>, Counts)> {
    collect(
        data,
        encoding,
        |row, index, prompts: &mut Vec<PromptExample>, _| {
            let Some(prompt) = row.content.prompt() else {
                return Ok(Err(LeftOut::NoPrompt));
            };
            let text = encoding.template.render(prompt)?;
            let (prompt, _) = (encoding.encode_pair)(&text, "")?;
            if prompt.is_empty() {
                return Ok(Err(LeftOut::NoPrompt));
            }
            if prompt.len() > encoding.limits.max_prompt_tokens {
                return Ok(Err(LeftOut::PromptTooLong));
            }
            let references = row.content.references().to_vec();
            prompts.push(PromptExample {
                text,
                prompt,
                references,
                row: index,
            });
            Ok(Ok(()))
        },
    )
}

/// Rows with a preferred and a rejected response.
///
/// # Errors
/// As [`examples`].
pub fn pairs(data: &DataSet, encoding: &Encoding) -> Result<(Vec<PairExample>, Counts)> {
    let each = |row: &Row, index, pairs: &mut Vec<PairExample>, _: &mut Counts| {
        let Content::Preference {
            chosen, rejected, ..
        } = &row.content
        else {
            return Ok(Err(LeftOut::NoResponse));
        };
        let chosen = match encoding.pair(row, chosen, index)? {
            Ok(example) => example,
            Err(left_out) => return Ok(Err(left_out)),
        };
        if chosen.prompt.is_empty() {
            return Ok(Err(LeftOut::NoPrompt));
        }
        let rejected = encoding.pair(row, rejected, index)?;
        Ok(rejected.map(|rejected| pairs.push(PairExample { chosen, rejected })))
    };
    collect(data, encoding, each).map_err(|error| match error {
        Error::Data { path, what, .. } => Error::Data {
            path,
            what,
            fix: "give rows with `prompt`, `chosen` and `rejected`, or have pairs sampled \
                  (method.pairs = \"samples\")"
                .into(),
        },
        other => other,
    })
}

/// Sends each row through `add`, counts what becomes of it, and refuses an empty result.
fn collect<T>(
    data: &DataSet,
    encoding: &Encoding,
    mut add: impl FnMut(&Row, usize, &mut Vec<T>, &mut Counts) -> Result<Result<(), LeftOut>>,
) -> Result<(Vec<T>, Counts)> {
    let mut made = Vec::new();
    let mut counts = Counts {
        rows: data.rows.len() + data.malformed,
        malformed: data.malformed,
        ..Counts::default()
    };
    counts.first[LeftOut::Malformed as usize] = data.first_malformed.as_ref().map(|row| row.source);
    for (index, row) in data.rows.iter().enumerate() {
        match add(row, index, &mut made, &mut counts) {
            Ok(Ok(())) => counts.kept += 1,
            Ok(Err(reason)) => counts.leave_out(reason, row.source),
            Err(error) if encoding.on_bad_row == OnBadRow::Fail => {
                let (what, fix) = match error {
                    Error::Config { what, fix, .. } => (what, fix),
                    other => (
                        other.to_string(),
                        "correct the row, or choose another template".to_owned(),
                    ),
                };
                return Err(data.row_error(row.source, what, &fix));
            }
            Err(_) => counts.leave_out(LeftOut::Malformed, row.source),
        }
    }
    if made.is_empty() {
        let fix = if counts.prompt_too_long + counts.response_too_long > 0 {
            "raise data.max_prompt_tokens and data.max_response_tokens, or give shorter rows"
        } else if counts.no_response > 0 {
            "give rows with an answer, or choose a method that samples its own responses"
        } else {
            "give rows with a prompt and an answer"
        };
        return Err(data.unusable(format!("no row can be used ({counts})"), fix));
    }
    Ok((made, counts))
}

impl Encoding<'_> {
    fn pair(&self, row: &Row, response: &str, index: usize) -> Result<Result<Example, LeftOut>> {
        let Some(prompt) = row.content.prompt() else {
            return Ok(Err(LeftOut::NoPrompt));
        };
        if response.trim().is_empty() {
            return Ok(Err(LeftOut::EmptyResponse));
        }
        let text = self.template.render(prompt)?;
        let (prompt, mut response) = (self.encode_pair)(&text, response)?;
        if !row.cut {
            self.end(&mut response);
        }
        Ok(if prompt.len() > self.limits.max_prompt_tokens {
            Err(LeftOut::PromptTooLong)
        } else if response.len() > self.limits.max_response_tokens {
            Err(LeftOut::ResponseTooLong)
        } else {
            Ok(Example {
                prompt,
                response,
                row: index,
            })
        })
    }

    /// A text as one example, or as several if it is too long.
    fn windows(&self, text: &str, index: usize) -> Result<Result<Vec<Example>, LeftOut>> {
        if text.trim().is_empty() {
            return Ok(Err(LeftOut::EmptyResponse));
        }
        let (begin, mut tokens) = (self.encode_pair)("", text)?;
        self.end(&mut tokens);
        let Limits {
            max_prompt_tokens,
            max_response_tokens,
        } = self.limits;
        let longest = max_prompt_tokens.saturating_add(max_response_tokens);
        let mut windows = Vec::new();
        let mut prompt = begin.clone();
        let mut rest = tokens.as_slice();
        while !rest.is_empty() {
            // At least one new token a window, whatever the limits.
            let room = longest.saturating_sub(prompt.len()).max(1);
            let (window, after) = rest.split_at(room.min(rest.len()));
            windows.push(Example {
                prompt,
                response: window.to_vec(),
                row: index,
            });
            prompt = if begin.is_empty() {
                window.last().copied().into_iter().collect()
            } else {
                begin.clone()
            };
            rest = after;
        }
        Ok(Ok(windows))
    }

    /// Appends EOS, unless the text spelled it out itself.
    fn end(&self, response: &mut Vec<u32>) {
        if response.last() != Some(&self.eos) {
            response.push(self.eos);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use distil_model::ModelError;
    use serde_json::{Value, json};

    use super::super::row::RowSource;
    use super::super::shape::recognise;
    use super::*;

    const BOS: u32 = 1;
    const EOS: u32 = 2;

    fn data(rows: &[Value]) -> DataSet {
        let row = |(index, value): (usize, &Value)| Row {
            source: RowSource {
                file: 0,
                line: index + 1,
            },
            content: recognise(value.clone()).unwrap(),
            cut: value.get("finish_reason") == Some(&json!("length")),
        };
        DataSet {
            files: vec![PathBuf::from("x.jsonl")],
            rows: rows.iter().enumerate().map(row).collect(),
            ..DataSet::default()
        }
    }

    /// A token a character; "$" is EOS, "!" is refused.
    fn characters(text: &str) -> distil_model::Result<Vec<u32>> {
        text.chars()
            .map(|c| match c {
                '$' => Ok(EOS),
                '!' => Err(ModelError::Tokenizer {
                    what: "no such token".into(),
                }),
                c => Ok(c as u32),
            })
            .collect()
    }

    fn plain(prompt: &str, response: &str) -> distil_model::Result<(Vec<u32>, Vec<u32>)> {
        Ok((characters(prompt)?, characters(response)?))
    }

    fn with_bos(prompt: &str, response: &str) -> distil_model::Result<(Vec<u32>, Vec<u32>)> {
        let (mut prompt, response) = plain(prompt, response)?;
        prompt.insert(0, BOS);
        Ok((prompt, response))
    }

    fn run<T>(
        work: impl Fn(&DataSet, &Encoding) -> Result<T>,
        data: &DataSet,
        encode_pair: &EncodePair,
        (max_prompt_tokens, max_response_tokens): (usize, usize),
        on_bad_row: OnBadRow,
    ) -> Result<T> {
        let template = Template::new("{{ prompt }}:", None).unwrap();
        let limits = Limits {
            max_prompt_tokens,
            max_response_tokens,
        };
        work(
            data,
            &Encoding {
                template: &template,
                encode_pair,
                eos: EOS,
                limits,
                on_bad_row,
            },
        )
    }

    fn ids(text: &str) -> Vec<u32> {
        characters(text).unwrap()
    }

    /// An answer that says it was cut off has no end.
    #[test]
    fn what_was_cut_off_does_not_end_with_eos() {
        let data = data(&[
            json!({"prompt": "a", "response": "bc", "finish_reason": "length"}),
            json!({"prompt": "a", "response": "bc", "finish_reason": "stop"}),
        ]);
        let (made, _) = run(examples, &data, &with_bos, (9, 9), OnBadRow::Fail).unwrap();
        assert_eq!(made[0].response, ids("bc"));
        assert_eq!(made[1].response, ids("bc$"));
    }

    #[test]
    fn responses_end_with_eos_once() {
        let data = data(&[
            json!({"prompt": "a", "completion": ["b", "c"]}),
            json!({"prompt": "a", "completion": "b$"}),
            json!({"prompt": "a", "chosen": "d", "rejected": "e"}),
        ]);
        let (made, counts) = run(examples, &data, &with_bos, (9, 9), OnBadRow::Fail).unwrap();
        let expected = |response: &str, row| Example {
            prompt: [vec![BOS], ids("a:")].concat(),
            response: ids(response),
            row,
        };
        assert_eq!(
            made,
            [expected("b$", 0), expected("b$", 1), expected("d$", 2)]
        );
        assert_eq!(
            counts,
            Counts {
                rows: 3,
                kept: 3,
                ..Counts::default()
            }
        );
    }

    #[test]
    fn rows_over_the_limits_are_counted_not_cut() {
        let mut data = data(&[
            json!({"prompt": "aaa", "completion": "bb"}),
            json!({"prompt": "aaaa", "completion": "bb"}),
            json!({"prompt": "aaa", "completion": "bbb"}),
            json!({"prompt": "a", "completion": " \n"}),
            json!({"prompt": "a"}),
        ]);
        data.malformed = 2;
        let (made, counts) = run(examples, &data, &plain, (4, 3), OnBadRow::Fail).unwrap();
        assert_eq!(
            made,
            [Example {
                prompt: ids("aaa:"),
                response: ids("bb$"),
                row: 0
            }]
        );
        let expected = Counts {
            rows: 7,
            kept: 1,
            prompt_too_long: 1,
            response_too_long: 1,
            no_response: 1,
            empty_response: 1,
            malformed: 2,
            first: counts.first,
            ..Counts::default()
        };
        assert_eq!(counts, expected);
        let first = |reason| counts.first(reason).map(|row| row.line);
        assert_eq!(first(LeftOut::PromptTooLong), Some(2));
        assert_eq!(first(LeftOut::ResponseTooLong), Some(3));
        assert_eq!(first(LeftOut::EmptyResponse), Some(4));
        assert_eq!(first(LeftOut::NoResponse), Some(5));
        assert_eq!(first(LeftOut::NoPrompt), None);
        assert_eq!(
            counts.to_string(),
            "1 of 7 rows kept, 1 left out with a prompt over data.max_prompt_tokens, \
             1 left out with a response over data.max_response_tokens, \
             1 left out without a response, 1 left out with an empty response, \
             2 left out malformed"
        );
    }

    #[test]
    fn nothing_left_is_an_error() {
        let long = data(&[json!({"prompt": "aaaa", "completion": "b"})]);
        let error = run(examples, &long, &plain, (2, 2), OnBadRow::Fail).unwrap_err();
        assert!(matches!(error, Error::Data { .. }));
        assert!(
            error.to_string().contains("raise data.max_prompt_tokens"),
            "{error}"
        );
        let alone = data(&[json!({"prompt": "a"})]);
        let error = run(examples, &alone, &plain, (9, 9), OnBadRow::Fail).unwrap_err();
        assert!(
            error.to_string().contains("1 left out without a response"),
            "{error}"
        );
    }

    #[test]
    fn long_texts_become_windows() {
        let data = data(&[
            json!({"text": "abcde"}),
            json!({"text": "ab"}),
            json!({"text": " "}),
        ]);
        let window = |prompt: &[u32], response: &str, row| Example {
            prompt: prompt.into(),
            response: ids(response),
            row,
        };
        let (made, counts) = run(examples, &data, &with_bos, (1, 2), OnBadRow::Fail).unwrap();
        let bos = [BOS];
        let expected = [("ab", 0), ("cd", 0), ("e$", 0), ("ab", 1), ("$", 1)];
        assert_eq!(made, expected.map(|(text, row)| window(&bos, text, row)));
        assert_eq!((counts.kept, counts.split_texts, counts.windows), (2, 2, 5));
        assert_eq!(counts.empty_response, 1);

        let (made, _) = run(examples, &data, &plain, (1, 2), OnBadRow::Fail).unwrap();
        let expected = [
            window(&[], "abc", 0),
            window(&ids("c"), "de", 0),
            window(&ids("e"), "$", 0),
        ];
        assert_eq!(made[..3], expected);
        assert_eq!(made[3], window(&[], "ab$", 1));
    }

    #[test]
    fn windows_never_stand_still() {
        let data = data(&[json!({"text": "abc"})]);
        let (made, _) = run(examples, &data, &with_bos, (0, 0), OnBadRow::Fail).unwrap();
        assert_eq!(made.len(), 4);
    }

    #[test]
    fn prompts_keep_their_references() {
        let rows = [
            json!({"prompt": "a", "completion": ["b", "c"]}),
            json!({"instruction": "d", "input": "e"}),
            json!({"text": "f"}),
            json!({"prompt": "aaaaaaaa"}),
        ];
        let (made, counts) = run(prompts, &data(&rows), &plain, (6, 0), OnBadRow::Fail).unwrap();
        assert_eq!(made.len(), 2);
        assert_eq!(made[0].references, ["b", "c"]);
        assert_eq!(made[1].text, "d\n\ne:");
        assert_eq!(made[1].prompt, ids("d\n\ne:"));
        assert!(made[1].references.is_empty());
        assert_eq!(
            (counts.kept, counts.no_prompt, counts.prompt_too_long),
            (2, 1, 1)
        );
    }

    /// A student cannot answer where nothing is asked.
    #[test]
    fn prompted_examples_leave_out_what_asks_nothing() {
        let rows = [
            json!({"prompt": "a", "completion": ["b", "c"]}),
            json!({"text": "f"}),
            json!({"prompt": "a"}),
            json!({"prompt": "a", "chosen": "d", "rejected": "e"}),
            json!({"prompt": "a", "completion": " "}),
            json!({"prompt": "a", "completion": "bbbbb"}),
        ];
        let expected = |response: &str, row| Example {
            prompt: ids("a:"),
            response: ids(response),
            row,
        };
        let data = data(&rows);
        let (made, counts) = run(prompted_examples, &data, &plain, (4, 4), OnBadRow::Fail).unwrap();
        assert_eq!(made, [expected("b$", 0), expected("d$", 3)]);
        assert_eq!(
            counts,
            Counts {
                rows: 6,
                kept: 2,
                response_too_long: 1,
                no_prompt: 1,
                no_response: 1,
                empty_response: 1,
                first: counts.first,
                ..Counts::default()
            }
        );
        assert!(counts.to_string().contains("1 left out without a prompt"));
        // A template can leave nothing of a prompt, which the tokenizer then makes no token of.
        fn nothing(_: &str, response: &str) -> distil_model::Result<(Vec<u32>, Vec<u32>)> {
            plain("", response)
        }
        let error = run(prompted_examples, &data, &nothing, (4, 4), OnBadRow::Fail).unwrap_err();
        assert!(
            error.to_string().contains("3 left out without a prompt"),
            "{error}"
        );
        let (with_text, _) = run(examples, &data, &plain, (4, 4), OnBadRow::Fail).unwrap();
        assert_eq!(with_text.len(), 3, "others learn a text's every token");
    }

    #[test]
    fn refused_rows_stop_or_are_counted() {
        let data = data(&[
            json!({"prompt": "a", "completion": "b"}),
            json!({"prompt": "a", "completion": "!"}),
            json!({"messages": [{"role": "system", "content": "s"},
                                {"role": "user", "content": "u"},
                                {"role": "assistant", "content": "v"}]}),
        ]);
        let error = run(examples, &data, &plain, (9, 9), OnBadRow::Fail).unwrap_err();
        assert_eq!(
            error.to_string(),
            "x.jsonl:2: tokenizer: no such token; correct the row, or choose another template"
        );
        let (made, counts) = run(examples, &data, &plain, (9, 9), OnBadRow::Skip).unwrap();
        assert_eq!((made.len(), counts.malformed), (1, 2));
        let first = counts.first(LeftOut::Malformed);
        assert_eq!(first.map(|row| row.line), Some(2));
        let error = run(prompts, &data, &plain, (9, 9), OnBadRow::Fail).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("x.jsonl:3: the template uses `prompt`"),
            "{error}"
        );
    }
}
