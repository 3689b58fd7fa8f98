//! How responses end. A student that never sees EOS behind an answer never learns to stop, and one
//! that sees another token than it stops at learns to say that.

use std::collections::HashMap;

use distil_model::Tokenizer;
use distil_model::chat_template::{ChatTemplate, Message};

use super::super::place::Place;
use super::super::rendered::special_token;
use super::{Warning, percent, row};
use crate::data::example::Example;
use crate::data::read::DataSet;
use crate::data::row::Content;
use crate::error::Result;

/// Share of responses without EOS from which something is most likely wrong.
const MANY: f64 = 0.1;

/// Whether an example is one of a text, whose windows end where the window is full.
fn is_text(data: &DataSet, example: &Example) -> bool {
    let content = row(data, example.row).map(|row| &row.content);
    matches!(content, Some(Content::Text(_)))
}

/// Responses that do not end with EOS, since their rows say that they were cut off.
pub(super) fn cut_off(data: &DataSet, responses: &[&Example], eos: u32) -> Option<Warning> {
    let answers = || responses.iter().filter(|example| !is_text(data, example));
    let cut = || answers().filter(|example| example.response.last() != Some(&eos));
    let (count, of) = (cut().count(), answers().count());
    let first = cut().next()?;
    let what = match count == of {
        true => format!("none of {of} responses ends with EOS: the student does not learn to stop"),
        false => format!(
            "{count} of {of} responses ({}) do not end with EOS, since their rows say that they were \
             cut off (\"finish_reason\": \"length\")",
            percent(count, of)
        ),
    };
    let warning = Warning::new(
        "no_eos",
        what,
        "leave such rows out, or sample them again with a higher limit; a response that is complete \
         needs no \"finish_reason\"",
    );
    let warning = warning.rows(count, Place::of_row(data, first.row));
    Some(match count as f64 > MANY * of as f64 {
        true => warning,
        false => warning.note(),
    })
}

/// Responses in which EOS stands before their end. A text may hold several answers.
pub(super) fn eos_inside(
    data: &DataSet,
    responses: &[&Example],
    tokenizer: &Tokenizer,
    eos: u32,
) -> Result<Option<Warning>> {
    let inside = |example: &&&Example| {
        let before_end = example.response.split_last().map(|(_, before)| before);
        !is_text(data, example) && before_end.is_some_and(|before| before.contains(&eos))
    };
    let mut found = responses.iter().filter(inside);
    let Some(first) = found.next() else {
        return Ok(None);
    };
    let count = 1 + found.count();
    let what = format!(
        "{count} of {} responses have EOS ({}) in their middle: the student learns to go on behind it",
        responses.len(),
        tokenizer.decode(&[eos], false)?
    );
    let fix = "take it out of the text; EOS is added at the end by itself, and a conversation of \
               several turns belongs into `messages`";
    let place = Place::of_row(data, first.row);
    Ok(Some(
        Warning::new("eos_inside", what, fix).rows(count, place),
    ))
}

/// Responses and texts that hold special tokens other than EOS: most often chats that were rendered
/// before.
pub(super) fn special_inside(
    data: &DataSet,
    responses: &[&Example],
    tokenizer: &Tokenizer,
    eos: u32,
) -> Result<Option<Warning>> {
    let mut known: HashMap<u32, Option<String>> = HashMap::new();
    let (mut count, mut texts, mut first) = (0, false, None);
    for example in responses {
        let mut token = None;
        for &id in example.response.iter().filter(|&&id| id != eos) {
            let special = match known.get(&id) {
                Some(special) => special,
                None => {
                    let special = special_token(tokenizer, id)?;
                    known.entry(id).or_insert(special)
                }
            };
            if special.is_some() {
                token.clone_from(special);
                break;
            }
        }
        if let Some(token) = token {
            count += 1;
            texts |= is_text(data, example);
            first.get_or_insert((token, example.row));
        }
    }
    let Some((token, row)) = first else {
        return Ok(None);
    };
    let (what, fix) = match texts {
        true => (
            "texts hold special tokens",
            "if they are chats that were rendered before, give them as `messages`: of a `text` every \
             token is trained on, the prompt's too",
        ),
        false => (
            "responses hold special tokens",
            "give the bare answer; the template adds what belongs around it",
        ),
    };
    let what = format!("{count} of {} {what} such as {token}", responses.len());
    let place = Place::of_row(data, row);
    Ok(Some(
        Warning::new("special_tokens_inside", what, fix).rows(count, place),
    ))
}

/// A chat template that ends an answer with something else than EOS.
pub(super) fn other_end_of_turn(
    chat: &ChatTemplate,
    tokenizer: &Tokenizer,
    eos: u32,
) -> Result<Option<Warning>> {
    const ANSWER: &str = "an answer";
    let message = |role: &str, content: &str| Message {
        role: role.into(),
        content: content.into(),
    };
    let conversation = [message("user", "a question"), message("assistant", ANSWER)];
    // A template that refuses such a conversation says nothing about its end.
    let Ok(text) = chat.render(&conversation, false) else {
        return Ok(None);
    };
    let end = tokenizer.decode(&[eos], false)?;
    let behind = text.rsplit_once(ANSWER).map_or("", |(_, behind)| behind);
    let behind = behind.trim();
    if behind.is_empty() || behind.starts_with(&end) {
        return Ok(None);
    }
    let shown: String = behind.chars().take(40).collect();
    Ok(Some(Warning::new(
        "other_end_of_turn",
        format!(
            "the chat template ends an answer with {shown:?}, and the responses that are trained on \
             end with EOS, {end:?}"
        ),
        "make the token that ends a turn the eos_token in tokenizer_config.json of both models, or \
         choose another data.template",
    )))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::super::testing::{data, tokenizer};
    use super::super::Level;
    use super::*;

    const EOS: u32 = 2;

    fn example(row: usize, response: &[u32]) -> Example {
        Example {
            prompt: vec![5],
            response: response.to_vec(),
            row,
        }
    }

    fn rows() -> DataSet {
        data(
            "d/x.jsonl",
            &[
                json!({"prompt": "a", "response": "b"}),
                json!({"prompt": "a", "response": "b", "finish_reason": "length"}),
                json!({"text": "c"}),
            ],
        )
    }

    #[test]
    fn responses_without_an_end_are_counted() {
        let data = rows();
        let of = |examples: &[Example]| {
            let examples: Vec<&Example> = examples.iter().collect();
            cut_off(&data, &examples, EOS)
        };
        let (whole, cut) = (example(0, &[7, EOS]), example(1, &[7, 8]));
        assert_eq!(of(&[whole.clone(), whole.clone()]), None);
        assert_eq!(of(&[]), None);
        // A text's windows end where the window is full.
        assert_eq!(of(&[whole.clone(), example(2, &[7])]), None);
        let some = of(&[whole.clone(), cut.clone()]).unwrap();
        assert_eq!((some.level, some.rows), (Level::Warning, Some(1)));
        assert!(
            some.to_string().contains("1 of 2 responses (50 %)"),
            "{some}"
        );
        assert!(some.to_string().contains("d/x.jsonl:2"), "{some}");
        let none = of(&[cut.clone(), cut.clone()]).unwrap();
        assert!(none.what.starts_with("none of 2 responses"), "{none}");
        let few = of(&[vec![whole; 19], vec![cut]].concat()).unwrap();
        assert_eq!(few.level, Level::Note);
    }

    #[test]
    fn eos_in_the_middle_is_found() {
        let (data, tokenizer) = (rows(), tokenizer("smollm.gguf"));
        let eos = tokenizer.eos().unwrap();
        let of = |response: &[u32]| {
            eos_inside(&data, &[&example(1, response)], &tokenizer, eos).unwrap()
        };
        assert_eq!(of(&[70, eos]), None);
        assert_eq!(of(&[]), None);
        let text = example(2, &[eos, 70, eos]);
        assert_eq!(eos_inside(&data, &[&text], &tokenizer, eos).unwrap(), None);
        let found = of(&[eos, 70, eos]).unwrap();
        assert_eq!(found.rows, Some(1));
        assert!(found.what.contains("1 of 1 responses"), "{found}");
    }

    #[test]
    fn rendered_chats_are_found_in_responses_and_texts() {
        let (data, tokenizer) = (rows(), tokenizer("smollm.gguf"));
        let eos = tokenizer.eos().unwrap();
        let of = |row: usize, text: &str| {
            let mut response = tokenizer.encode(text).unwrap();
            response.push(eos);
            special_inside(&data, &[&example(row, &response)], &tokenizer, eos).unwrap()
        };
        assert_eq!(of(0, "plain <b>text</b>"), None);
        let found = of(0, "<|im_start|>assistant\nyes").unwrap();
        assert!(
            found
                .what
                .contains("responses hold special tokens such as <|im_start|>"),
            "{found}"
        );
        let found = of(2, "<|im_start|>user\nhow?").unwrap();
        assert!(
            found.to_string().contains("texts hold") && found.fix.contains("messages"),
            "{found}"
        );
    }

    #[test]
    fn the_chat_template_and_eos_are_held_together() {
        let tokenizer = tokenizer("smollm.gguf");
        let eos = tokenizer.eos().unwrap();
        let end = tokenizer.decode(&[eos], false).unwrap();
        let of = |source: &str| {
            let chat = ChatTemplate::new(source, &BTreeMap::new()).unwrap();
            other_end_of_turn(&chat, &tokenizer, eos).unwrap()
        };
        let turn =
            |end: &str| format!("{{% for m in messages %}}{{{{ m.content }}}}{end}{{% endfor %}}");
        assert_eq!(of(&turn(&format!(" {end}\n"))), None);
        assert_eq!(of(&turn("\n")), None);
        assert_eq!(of("{{ raise_exception('no') }}"), None);
        let found = of(&turn("<|end_of_turn|>\n")).unwrap();
        assert!(
            found.what.contains("\"<|end_of_turn|>\"") && found.what.contains(&end),
            "{found}"
        );
    }
}
