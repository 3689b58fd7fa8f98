//! The same row twice: in training and evaluation, twice in training, twice in a pair.
//!
//! Two texts are the same if their words are, whatever stands between them and however they are
//! capitalised. What is compared is the row, before any template: an instruction with its input equals
//! the same text as one prompt or as one user message.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use super::super::place::Place;
use super::{Warning, percent, row};
use crate::data::example::PairExample;
use crate::data::read::DataSet;
use crate::data::row::{Content, Prompt};

/// Share of repeated rows that is worth a word.
const REPEATED: f64 = 0.01;

/// A text's words as a number: large data sets are compared without a copy of them. Two texts of one
/// data set with the same number by chance are less likely than a broken disk.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Words(u64, u64);

impl Words {
    fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hashes = [0, 1].map(|seed| {
            let mut hash = DefaultHasher::new();
            hash.write_u8(seed);
            hash
        });
        for word in texts.into_iter().flat_map(str::split_whitespace) {
            for c in word.chars().flat_map(char::to_lowercase).chain([' ']) {
                hashes.iter_mut().for_each(|hash| hash.write_u32(c.into()));
            }
        }
        let [first, second] = hashes;
        Self(first.finish(), second.finish())
    }

    /// Of what a row asks, or of a text.
    fn asked(content: &Content) -> Self {
        match content.prompt() {
            Some(Prompt::Instruction { instruction, input }) => {
                Self::of([instruction.as_str(), input.as_str()])
            }
            Some(Prompt::Raw(text)) => Self::of([text.as_str()]),
            Some(Prompt::Messages(messages)) => match &messages[..] {
                [only] if only.role == "user" => Self::of([only.content.as_str()]),
                several => {
                    let turns = several.iter();
                    Self::of(turns.flat_map(|turn| [turn.role.as_str(), turn.content.as_str()]))
                }
            },
            None => match content {
                // A text is no prompt, even of the same words.
                Content::Text(text) => Self::of(["\u{0}text", text.as_str()]),
                _ => Self::of([]),
            },
        }
    }
}

/// Held-out rows whose prompt is also trained on. `used`: rows of `train`; `measured`: rows of
/// `held_out` that this run measures.
pub(super) fn held_out_in_training(
    train: &DataSet,
    used: &[usize],
    held_out: &DataSet,
    measured: &[usize],
) -> Option<Warning> {
    let mut trained: HashMap<Words, Vec<usize>> = HashMap::new();
    for &number in used {
        if let Some(row) = row(train, number) {
            let rows = trained.entry(Words::asked(&row.content)).or_default();
            rows.push(number);
        }
    }
    let (mut count, mut of_measured, mut same_answer, mut first) = (0, 0, 0, None);
    for (number, held) in held_out.rows.iter().enumerate() {
        let Some(twins) = trained.get(&Words::asked(&held.content)) else {
            continue;
        };
        count += 1;
        of_measured += usize::from(measured.binary_search(&number).is_ok());
        let answers = answers(&held.content);
        let twin = twins.iter().find(|&&twin| {
            let twin = row(train, twin).map(|row| self::answers(&row.content));
            twin.is_some_and(|twin| twin.iter().any(|answer| answers.contains(answer)))
        });
        same_answer += usize::from(twin.is_some());
        first = first.or(Some((number, *twin.unwrap_or(&twins[0]))));
    }
    let (held, twin) = first?;
    let what = format!(
        "{count} of {} held-out rows ({}), {of_measured} of the {} measured, ask what is also trained \
         on, {same_answer} of them with the same answer: the evaluation measures what was learnt by \
         heart",
        held_out.rows.len(),
        percent(count, held_out.rows.len()),
        measured.len(),
    );
    let places = [Place::of_row(held_out, held), Place::of_row(train, twin)];
    let warning = Warning::new(
        "held_out_in_training",
        what,
        "take them out of data.train or out of data.eval",
    );
    Some(warning.rows(count, places.into_iter().flatten()))
}

fn answers(content: &Content) -> Vec<Words> {
    let text = |text: &String| Words::of([text.as_str()]);
    match content {
        // The text itself: it is all there is.
        Content::Text(content) => vec![text(content)],
        content => content.references().iter().map(text).collect(),
    }
}

/// Training rows that repeat an earlier one; `with_answers`: prompt and response, else the prompt.
pub(super) fn repeated(train: &DataSet, used: &[usize], with_answers: bool) -> Option<Warning> {
    let mut seen: HashMap<(Words, Vec<Words>), usize> = HashMap::new();
    let (mut count, mut first) = (0, None);
    for &number in used {
        let Some(row) = row(train, number) else {
            continue;
        };
        let text = |text: &String| Words::of([text.as_str()]);
        let responses: Vec<Words> = match (&row.content, with_answers) {
            (
                Content::Preference {
                    chosen, rejected, ..
                },
                true,
            ) => vec![text(chosen), text(rejected)],
            (content, true) => content.references().first().map(text).into_iter().collect(),
            (_, false) => Vec::new(),
        };
        let key = (Words::asked(&row.content), responses);
        match seen.get(&key) {
            Some(&earlier) => {
                count += 1;
                first = first.or(Some((number, earlier)));
            }
            None => {
                seen.insert(key, number);
            }
        }
    }
    let (later, earlier) = first?;
    if (count as f64) < REPEATED * used.len() as f64 {
        return None;
    }
    let what = match with_answers {
        true => "repeat an earlier row, prompt and response",
        false => "repeat an earlier row's prompt",
    };
    let what = format!(
        "{count} of {} training rows ({}) {what}",
        used.len(),
        percent(count, used.len())
    );
    let places = [later, earlier].map(|number| Place::of_row(train, number));
    let fix = "remove them, unless they are meant to weigh more";
    Some(Warning::new("repeated_rows", what, fix).rows(count, places.into_iter().flatten()))
}

/// Pairs whose responses are the same: nothing can be preferred.
pub(super) fn pairs_of_one_response(train: &DataSet, pairs: &[PairExample]) -> Option<Warning> {
    let mut same = pairs
        .iter()
        .filter(|pair| pair.chosen.response == pair.rejected.response);
    let first = same.next()?;
    let count = 1 + same.count();
    let what = format!(
        "{count} of {} pairs have the same response twice: their margin is always 0",
        pairs.len()
    );
    let fix = "remove them";
    let place = Place::of_row(train, first.chosen.row);
    Some(Warning::new("pairs_of_one_response", what, fix).rows(count, place))
}

/// Rows whose prompt has no words: the student learns what to say to nothing.
pub(super) fn empty_prompts(train: &DataSet, used: &[usize]) -> Option<Warning> {
    let nothing = Words::of([]);
    let is_empty = |&&number: &&usize| {
        let content = row(train, number).map(|row| &row.content);
        let asking = content.filter(|content| content.prompt().is_some());
        asking.is_some_and(|content| Words::asked(content) == nothing)
    };
    let mut found = used.iter().filter(is_empty);
    let first = found.next()?;
    let count = 1 + found.count();
    let what = format!(
        "{count} of {} training rows ({}) have an empty prompt",
        used.len(),
        percent(count, used.len())
    );
    let fix = "give them a prompt, remove them, or write them as `text` if nothing is to be asked";
    let place = Place::of_row(train, *first);
    Some(Warning::new("empty_prompts", what, fix).rows(count, place))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::testing::data;
    use super::*;
    use crate::data::example::Example;

    #[test]
    fn evaluation_rows_in_training_are_found_in_any_shape() {
        let train = data(
            "d/train.jsonl",
            &[
                json!({"instruction": "Name a\n colour", "input": "Light ones", "output": "Beige"}),
                json!({"prompt": "Count.", "response": "One."}),
                json!({"text": "Sing."}),
                json!({"prompt": "Left out.", "response": "x"}),
            ],
        );
        let held_out = data(
            "d/dev.jsonl",
            &[
                json!({"prompt": "Speak.", "response": "No."}),
                json!({"messages": [{"role": "user", "content": "name a colour  LIGHT ones"},
                                    {"role": "assistant", "content": "White"}]}),
                json!({"prompt": "count.", "response": ["Two.", "one. "]}),
                json!({"prompt": "Sing.", "response": "La."}),
                json!({"prompt": "left out.", "response": "x"}),
            ],
        );
        let used = [0, 1, 2];
        let found = held_out_in_training(&train, &used, &held_out, &[0, 1]).unwrap();
        assert_eq!(found.rows, Some(2));
        let text = found.to_string();
        assert!(
            text.starts_with(
                "2 of 5 held-out rows (40 %), 1 of the 2 measured, ask what is also trained on, \
                 1 of them with the same answer"
            ),
            "{text}"
        );
        assert!(
            text.contains("(for example d/dev.jsonl:2 and d/train.jsonl:1)"),
            "{text}"
        );
        assert_eq!(held_out_in_training(&train, &[2], &held_out, &[0, 1]), None);
        assert_eq!(held_out_in_training(&train, &[], &held_out, &[]), None);
    }

    #[test]
    fn repeated_rows_are_counted_with_or_without_their_answers() {
        let train = data(
            "d/train.jsonl",
            &[
                json!({"prompt": "a", "response": "b"}),
                json!({"prompt": "A", "response": "c"}),
                json!({"prompt": "a ", "response": "B"}),
                json!({"prompt": "ab", "response": ""}),
                json!({"prompt": "p", "chosen": "x", "rejected": "y"}),
                json!({"prompt": "p", "chosen": "x", "rejected": "z"}),
            ],
        );
        let all = [0, 1, 2, 3, 4, 5];
        let found = repeated(&train, &all, true).unwrap();
        assert_eq!(found.rows, Some(1));
        assert!(
            found
                .to_string()
                .contains("d/train.jsonl:3 and d/train.jsonl:1"),
            "{found}"
        );
        assert_eq!(repeated(&train, &all, false).unwrap().rows, Some(3));
        assert_eq!(repeated(&train, &[0, 1, 3], true), None);
        // One in a thousand is not worth a word.
        let rows: Vec<_> = (0..1000)
            .map(|n| json!({"prompt": format!("{}", n.max(1))}))
            .collect();
        let few = data("x.jsonl", &rows);
        let all: Vec<usize> = (0..1000).collect();
        assert_eq!(repeated(&few, &all, false), None);
    }

    #[test]
    fn prompts_without_words_are_counted() {
        let train = data(
            "d/train.jsonl",
            &[
                json!({"prompt": "a", "response": "b"}),
                json!({"text": " "}),
                json!({"prompt": " \n", "response": "b"}),
                json!({"instruction": "", "input": "x", "output": "b"}),
                json!({"messages": [{"role": "user", "content": ""}]}),
            ],
        );
        let found = empty_prompts(&train, &[0, 1, 2, 3, 4]).unwrap();
        assert_eq!(found.rows, Some(2));
        assert!(found.to_string().contains("d/train.jsonl:3"), "{found}");
        assert_eq!(empty_prompts(&train, &[0, 1, 3]), None);
    }

    #[test]
    fn pairs_without_a_difference_are_found() {
        let train = data(
            "d/x.jsonl",
            &[json!({"prompt": "a"}), json!({"prompt": "b"})],
        );
        let pair = |row, rejected: &[u32]| {
            let side = |response: &[u32]| Example {
                prompt: vec![1],
                response: response.to_vec(),
                row,
            };
            PairExample {
                chosen: side(&[5, 2]),
                rejected: side(rejected),
            }
        };
        assert_eq!(pairs_of_one_response(&train, &[pair(0, &[6, 2])]), None);
        let found = pairs_of_one_response(&train, &[pair(0, &[6, 2]), pair(1, &[5, 2])]).unwrap();
        assert!(
            found.to_string().starts_with("1 of 2 pairs")
                && found.to_string().contains("x.jsonl:2")
        );
    }
}
