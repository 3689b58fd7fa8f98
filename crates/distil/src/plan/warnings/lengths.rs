//! Limits that leave much out or cut much off.

use distil_model::Tokenizer;

use super::super::place::Place;
use super::{Warning, percent};
use crate::data::counts::{Counts, LeftOut};
use crate::data::read::DataSet;
use crate::error::Result;

/// Share of rows left out that is worth a word.
const MANY: f64 = 0.1;

/// Share of references over a limit from which the limit is too low.
const CUT: f64 = 0.25;

/// References whose length is looked at.
const LOOKED_AT: usize = 500;

/// Share of rows that a proposed limit keeps.
const KEPT: f64 = 0.95;

/// Many rows that are left out. `measured` gives the lengths of all prompts or of all responses, in
/// tokens; `limits`: what the context leaves for a prompt and for a response.
pub(super) fn left_out(
    counts: &Counts,
    data: &DataSet,
    limits: [usize; 2],
    measured: impl FnOnce(LeftOut) -> Result<Vec<usize>>,
) -> Result<Option<Warning>> {
    let count = counts.rows - counts.kept.min(counts.rows);
    if count as f64 <= MANY * counts.rows as f64 {
        return Ok(None);
    }
    let most = counts.reasons().max_by_key(|&reason| counts.of(reason));
    let Some(reason) = most else {
        return Ok(None);
    };
    let those = match counts.of(reason) {
        all if all == count => "all".to_owned(),
        some => format!("{some} of them"),
    };
    let what = format!(
        "{count} of {} rows ({}) are left out, {those} {}",
        counts.rows,
        percent(count, counts.rows),
        reason.words()
    );
    let fix = match reason {
        LeftOut::PromptTooLong | LeftOut::ResponseTooLong => {
            let (key, most) = match reason {
                LeftOut::PromptTooLong => ("data.max_prompt_tokens", limits[0]),
                _ => ("data.max_response_tokens", limits[1]),
            };
            match limit_that_keeps(measured(reason)?) {
                Some(limit) if limit > most => format!(
                    "shorten the rows; the context leaves room for {key} = {most}, and {limit} would \
                     keep {:.0} %",
                    100.0 * KEPT
                ),
                Some(limit) => format!(
                    "raise {key} ({limit} would keep {:.0} %), or shorten the rows",
                    100.0 * KEPT
                ),
                None => format!("raise {key}, or shorten the rows"),
            }
        }
        LeftOut::NoPrompt | LeftOut::NoResponse | LeftOut::EmptyResponse => {
            "give such rows what is missing, or remove them".into()
        }
        LeftOut::Malformed => "correct such rows, or remove them".into(),
    };
    let place = counts.first(reason).map(|row| Place::new(data, row));
    Ok(Some(
        Warning::new("rows_left_out", what, fix).rows(count, place),
    ))
}

/// The lowest limit that keeps [`KEPT`] of these lengths.
fn limit_that_keeps(mut lengths: Vec<usize>) -> Option<usize> {
    lengths.sort_unstable();
    let at = (KEPT * lengths.len() as f64).ceil() as usize;
    lengths.get(at.saturating_sub(1)).copied()
}

/// Sampled answers that would be cut off, if they were as long as the data's responses.
pub(super) fn answers_cut(
    key: &str,
    most: usize,
    data: &DataSet,
    references: &[(usize, &str)],
    tokenizer: &Tokenizer,
) -> Result<Option<Warning>> {
    let (mut count, mut first) = (0, None);
    let looked_at = references.iter().take(LOOKED_AT);
    let of = looked_at.len();
    for &(row, text) in looked_at {
        // With EOS.
        if tokenizer.encode(text)?.len() + 1 > most {
            count += 1;
            first.get_or_insert(row);
        }
    }
    if count as f64 <= CUT * of as f64 {
        return Ok(None);
    }
    let what = format!(
        "{count} of {of} responses of the data ({}) are longer than {key} = {most}: an answer of \
         their length would be cut off, without EOS",
        percent(count, of)
    );
    let fix = format!("raise {key}, or choose rows with shorter answers");
    let place = first.and_then(|row| Place::of_row(data, row));
    Ok(Some(
        Warning::new("answers_cut", what, fix).rows(count, place),
    ))
}

/// Answers that reach the end of the model's context before their own limit.
pub(super) fn over_the_context(
    key: &str,
    most: usize,
    longest_prompt: Option<usize>,
    context: usize,
) -> Option<Warning> {
    let prompt = longest_prompt?;
    (prompt.saturating_add(most) > context).then(|| {
        Warning::new(
            "over_the_context",
            format!(
                "a prompt of {prompt} tokens and {key} = {most} are more than the context of \
                 {context} tokens: such answers end where the context does"
            ),
            format!(
                "lower {key} or data.max_prompt_tokens to {context} tokens together, or choose models \
                 with a longer context"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::{data, tokenizer};
    use super::*;
    use crate::data::row::RowSource;

    #[test]
    fn many_rows_left_out_are_told_with_a_limit_that_helps() {
        let data = data("d/x.jsonl", &[json!({"prompt": "a"})]);
        let counts = |long: usize, empty: usize| {
            let mut counts = Counts {
                rows: 100,
                kept: 100 - long - empty,
                ..Counts::default()
            };
            let row = |line| RowSource { file: 0, line };
            (0..long).for_each(|i| counts.leave_out(LeftOut::PromptTooLong, row(9 + i)));
            (0..empty).for_each(|i| counts.leave_out(LeftOut::EmptyResponse, row(5 + i)));
            counts
        };
        let within = |counts: &Counts, most: usize| {
            left_out(counts, &data, [most, most], |reason| {
                assert_eq!(reason, LeftOut::PromptTooLong);
                Ok((1..=200).collect())
            })
            .unwrap()
        };
        let of = |counts: &Counts| within(counts, 500);
        let tight = within(&counts(20, 5), 189).unwrap();
        assert!(
            tight.fix.contains("room for data.max_prompt_tokens = 189"),
            "{tight}"
        );
        assert_eq!(of(&counts(5, 5)), None);
        let found = of(&counts(20, 5)).unwrap();
        assert_eq!(found.rows, Some(25));
        let text = found.to_string();
        assert!(
            text.starts_with(
                "25 of 100 rows (25 %) are left out, 20 of them with a prompt over \
                 data.max_prompt_tokens (for example d/x.jsonl:9); raise data.max_prompt_tokens (190 \
                 would keep 95 %)"
            ),
            "{text}"
        );
        let found = left_out(&counts(1, 30), &data, [9, 9], |_| Ok(Vec::new()))
            .unwrap()
            .unwrap();
        assert!(
            found
                .to_string()
                .contains("30 of them with an empty response"),
            "{found}"
        );
        assert_eq!(limit_that_keeps(Vec::new()), None);
        assert_eq!(limit_that_keeps(vec![7]), Some(7));
    }

    #[test]
    fn answers_that_would_be_cut_are_counted_with_their_eos() {
        let tokenizer = tokenizer("smollm.gguf");
        let data = data(
            "d/x.jsonl",
            &[json!({"prompt": "a"}), json!({"prompt": "b"})],
        );
        let tokens = tokenizer.encode("one two three").unwrap().len();
        let references = [(0, "one"), (1, "one two three")];
        let of = |most: usize| answers_cut("key", most, &data, &references, &tokenizer).unwrap();
        assert_eq!(of(tokens + 1), None);
        let found = of(tokens).unwrap();
        assert!(
            found
                .to_string()
                .starts_with("1 of 2 responses of the data (50 %)"),
            "{found}"
        );
        assert!(found.to_string().contains("d/x.jsonl:2"), "{found}");
        assert_eq!(answers_cut("key", 1, &data, &[], &tokenizer).unwrap(), None);
    }

    #[test]
    fn prompt_and_answer_have_to_fit_into_the_context() {
        assert_eq!(over_the_context("key", 10, Some(90), 100), None);
        assert_eq!(over_the_context("key", 10, None, 5), None);
        let found = over_the_context("key", 11, Some(90), 100).unwrap();
        assert!(found.what.contains("context of 100 tokens"), "{found}");
    }
}
