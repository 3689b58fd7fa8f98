//! Recognises rows: which of the known shapes a JSON object has.
//!
//! The shape is recognised by the object's keys, row by row, so that one file may mix
//! shapes. A key whose value is `null` counts as absent; unknown keys are ignored. Data sets often
//! carry the same conversation several times (a finished text beside its parts), so the first shape
//! of this list that fits is taken, the most telling first:
//!
//! | keys | becomes |
//! |---|---|
//! | `chosen`, `rejected`, with a prompt | a preference |
//! | `messages`, the last by the assistant | a completion of the messages before |
//! | `messages`, the last by the user | a prompt |
//! | `instruction`, `input`?, an answer | a completion |
//! | `instruction`, `input`? | a prompt |
//! | `prompt`, an answer | a completion |
//! | `prompt` | a prompt |
//! | `turns`, an answer | a completion |
//! | `turns` | a prompt |
//! | `text` | text for language modelling |
//!
//! - An *answer* is the first present of `output`, `completion`, `response`: a string, a list of
//!   strings (several references, the first is trained on), or a list with one assistant message.
//! - `context` is read as `input` where a row with `instruction` has no `input`.
//! - A preference takes its prompt from `instruction` or `prompt`. `chosen` and `rejected` are strings
//!   or lists of messages that end with the assistant's; messages before the last are then the
//!   prompt, and must be the same in both. An answer beside them is kept as the references.
//! - A prompt that is a list of messages is taken as messages.
//! - `turns`, FastChat's name, is a list of one question. The answer to a second one depends on what was
//!   said to the first.

use distil_model::chat_template::Message;
use serde_json::{Map, Value};

use super::answers::QUESTION;
use super::row::{Content, Prompt};

/// Why an object is no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// What was found.
    pub(crate) what: String,
    /// What the user can do.
    pub(crate) fix: String,
}

impl Malformed {
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            fix: fix.into(),
        }
    }
}

pub(crate) const ANSWERS: [&str; 3] = ["output", "completion", "response"];

/// Why an answer ended, as `generate` writes it; says nothing of a row's shape.
pub(crate) const FINISH_REASON: &str = "finish_reason";

/// What an answer of the row is measured against, where it is not a good one itself; see
/// [`references`](super::read::references).
pub(crate) const REFERENCE: &str = "reference";

/// The keys that are read and say nothing of a row's shape.
pub(crate) const BESIDE: [&str; 3] = [FINISH_REASON, REFERENCE, QUESTION];

/// The keys that decide what a row is; all others are ignored.
pub(crate) const KEYS: [&str; 12] = [
    "messages",
    "instruction",
    "input",
    "context",
    "prompt",
    "output",
    "completion",
    "response",
    "chosen",
    "rejected",
    "turns",
    "text",
];

/// Recognises a row.
pub(crate) fn recognise(value: Value) -> Result<Content, Malformed> {
    let Value::Object(mut row) = value else {
        return Err(Malformed::new(
            format!("the row is {}, not an object", kind(&value)),
            r#"write each row as an object such as {"prompt": "…", "completion": "…"}"#,
        ));
    };
    let keys: Vec<String> = row.keys().cloned().collect();
    row.retain(|_, value| !value.is_null());

    if row.contains_key("chosen") || row.contains_key("rejected") {
        return preference(&mut row);
    }
    if let Some(messages) = row.remove("messages") {
        return conversation(messages);
    }
    if let Some(prompt) = single_prompt(&mut row)? {
        return Ok(match answer(&mut row)? {
            Some(references) => Content::Completion { prompt, references },
            None => Content::Prompt(prompt),
        });
    }
    if let Some(text) = row.remove("text") {
        return string("text", text).map(Content::Text);
    }
    let found = if keys.is_empty() {
        "the row has no keys".to_owned()
    } else {
        format!("no known shape has the keys {}", quoted(&keys))
    };
    Err(Malformed::new(
        found,
        "a row needs `messages`, `instruction`, `prompt` or `text` (and `output`, `completion` or \
         `response` for the answer, or `chosen` and `rejected`)",
    ))
}

/// `instruction` with its `input`, `prompt` or `turns`, whichever the row has.
fn single_prompt(row: &mut Map<String, Value>) -> Result<Option<Prompt>, Malformed> {
    if let Some(instruction) = row.remove("instruction") {
        let instruction = string("instruction", instruction)?;
        let input = match (row.remove("input"), row.remove("context")) {
            (Some(input), _) => string("input", input)?,
            (None, Some(context)) => string("context", context)?,
            (None, None) => String::new(),
        };
        return Ok(Some(Prompt::Instruction { instruction, input }));
    }
    match row.remove("prompt") {
        None => row.remove("turns").map(only_turn).transpose(),
        Some(value @ Value::Array(_)) => {
            let messages = messages("prompt", value)?;
            if messages.is_empty() {
                return Err(Malformed::new(
                    "`prompt` is an empty list",
                    "give at least one message, or remove the row",
                ));
            }
            Ok(Some(Prompt::Messages(messages)))
        }
        Some(value) => Ok(Some(Prompt::Raw(string("prompt", value)?))),
    }
}

/// The question of `turns`.
fn only_turn(value: Value) -> Result<Prompt, Malformed> {
    let turns = match value {
        Value::Array(turns) => turns,
        value => vec![value],
    };
    match <[Value; 1]>::try_from(turns) {
        Ok([turn]) => Ok(Prompt::Raw(string("turns", turn)?)),
        Err(turns) => Err(Malformed::new(
            format!("`turns` has {} questions", turns.len()),
            "keep one of them: what answers a second one depends on the answer to the first",
        )),
    }
}

/// The row's good answers, if it has any.
fn answer(row: &mut Map<String, Value>) -> Result<Option<Vec<String>>, Malformed> {
    let Some((key, value)) = ANSWERS
        .iter()
        .find_map(|&key| Some((key, row.remove(key)?)))
    else {
        return Ok(None);
    };
    let references = match value {
        Value::Array(items) if items.first().is_some_and(Value::is_object) => {
            let (before, last) = split_last(key, Value::Array(items))?;
            if !before.is_empty() {
                return Err(Malformed::new(
                    format!("`{key}` has {} messages", before.len() + 1),
                    "write the whole conversation as `messages`, or leave only the last answer here",
                ));
            }
            vec![last]
        }
        Value::Array(items) if items.is_empty() => {
            return Err(Malformed::new(
                format!("`{key}` is an empty list"),
                format!("give at least one reference, or leave `{key}` out for a prompt alone"),
            ));
        }
        Value::Array(items) => items
            .into_iter()
            .map(|item| string(key, item))
            .collect::<Result<_, _>>()?,
        value => vec![string(key, value)?],
    };
    Ok(Some(references))
}

fn preference(row: &mut Map<String, Value>) -> Result<Content, Malformed> {
    let (Some(chosen), Some(rejected)) = (row.remove("chosen"), row.remove("rejected")) else {
        return Err(Malformed::new(
            "the row has only one of `chosen` and `rejected`",
            "give both, or rename the key to `completion` for a plain answer",
        ));
    };
    let (before_chosen, chosen) = last_message("chosen", chosen)?;
    let (before_rejected, rejected) = last_message("rejected", rejected)?;
    if before_chosen != before_rejected {
        return Err(Malformed::new(
            "`chosen` and `rejected` answer different messages",
            "they may differ in their last message only",
        ));
    }
    let own_prompt = single_prompt(row)?;
    let prompt = match own_prompt {
        _ if !before_chosen.is_empty() => Prompt::Messages(before_chosen),
        Some(prompt) => prompt,
        None => {
            return Err(Malformed::new(
                "the row has `chosen` and `rejected` without a prompt",
                "add `prompt` or `instruction`",
            ));
        }
    };
    let references = answer(row)?.unwrap_or_else(|| vec![chosen.clone()]);
    Ok(Content::Preference {
        prompt,
        chosen,
        rejected,
        references,
    })
}

fn conversation(value: Value) -> Result<Content, Malformed> {
    let mut messages = messages("messages", value)?;
    let Some(last) = messages.pop() else {
        return Err(Malformed::new(
            "`messages` is an empty list",
            "remove the row",
        ));
    };
    match last.role.as_str() {
        "assistant" if messages.is_empty() => Err(Malformed::new(
            "`messages` has an answer and nothing before it",
            "put the user's message first, or use `text`",
        )),
        "assistant" => Ok(Content::Completion {
            prompt: Prompt::Messages(messages),
            references: vec![last.content],
        }),
        "user" => {
            messages.push(last);
            Ok(Content::Prompt(Prompt::Messages(messages)))
        }
        role => Err(Malformed::new(
            format!("the last of `messages` has the role `{role}`"),
            "end with `assistant` to train on that answer, or with `user` for a prompt alone",
        )),
    }
}

/// A string, or the last of a list of messages with those before it.
fn last_message(key: &str, value: Value) -> Result<(Vec<Message>, String), Malformed> {
    match value {
        Value::Array(_) => split_last(key, value),
        value => Ok((Vec::new(), string(key, value)?)),
    }
}

/// Splits off the assistant's message at the end.
fn split_last(key: &str, value: Value) -> Result<(Vec<Message>, String), Malformed> {
    let mut messages = messages(key, value)?;
    match messages.pop() {
        Some(last) if last.role == "assistant" => Ok((messages, last.content)),
        Some(last) => Err(Malformed::new(
            format!("the last message of `{key}` has the role `{}`", last.role),
            "it must be the assistant's",
        )),
        None => Err(Malformed::new(
            format!("`{key}` is an empty list"),
            "give the answer",
        )),
    }
}

fn messages(key: &str, value: Value) -> Result<Vec<Message>, Malformed> {
    let Value::Array(items) = value else {
        return Err(Malformed::new(
            format!("`{key}` is {}, not a list of messages", kind(&value)),
            r#"write it as [{"role": "user", "content": "…"}, …]"#,
        ));
    };
    let message = |(index, item): (usize, Value)| {
        let place = format!("{key}[{index}]");
        let Value::Object(mut item) = item else {
            return Err(Malformed::new(
                format!("`{place}` is {}, not a message", kind(&item)),
                r#"write it as {"role": "user", "content": "…"}"#,
            ));
        };
        let mut field = |name: &str| {
            let place = format!("{place}.{name}");
            string(&place, item.remove(name).unwrap_or(Value::Null))
        };
        Ok(Message {
            role: field("role")?,
            content: field("content")?,
        })
    };
    items.into_iter().enumerate().map(message).collect()
}

fn string(key: &str, value: Value) -> Result<String, Malformed> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Err(Malformed::new(
            format!("`{key}` is missing"),
            "give it as a string, or remove the row",
        )),
        value => Err(Malformed::new(
            format!("`{key}` is {}, not a string", kind(&value)),
            "write it as a string",
        )),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Key names for a message: a dozen at most.
pub(crate) fn quoted(keys: &[String]) -> String {
    const MOST: usize = 12;
    let mut names: Vec<String> = keys
        .iter()
        .take(MOST)
        .map(|key| format!("`{key}`"))
        .collect();
    if keys.len() > MOST {
        names.push(format!("and {} more", keys.len() - MOST));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message {
            role: role.into(),
            content: content.into(),
        }
    }

    fn instruction(instruction: &str, input: &str) -> Prompt {
        Prompt::Instruction {
            instruction: instruction.into(),
            input: input.into(),
        }
    }

    fn completion(prompt: Prompt, references: &[&str]) -> Content {
        let references = references.iter().map(|&text| text.to_owned()).collect();
        Content::Completion { prompt, references }
    }

    #[test]
    fn shapes() {
        let raw = || Prompt::Raw("P".into());
        let user = || Prompt::Messages(vec![message("user", "U")]);
        for (row, expected) in [
            (
                json!({"instruction": "I", "output": "O"}),
                completion(instruction("I", ""), &["O"]),
            ),
            (
                json!({"instruction": "I", "input": "N", "output": ["O", "Q"], "id": 3}),
                completion(instruction("I", "N"), &["O", "Q"]),
            ),
            (
                json!({"instruction": "I", "context": "C", "response": "O", "category": "x"}),
                completion(instruction("I", "C"), &["O"]),
            ),
            (
                json!({"prompt": "P", "completion": "O"}),
                completion(raw(), &["O"]),
            ),
            (
                json!({"prompt": "P", "response": "O"}),
                completion(raw(), &["O"]),
            ),
            (
                json!({"prompt": [{"role": "user", "content": "U"}],
                       "completion": [{"role": "assistant", "content": "O"}]}),
                completion(user(), &["O"]),
            ),
            (
                json!({"messages": [{"role": "user", "content": "U"},
                                    {"role": "assistant", "content": "O", "name": "x"}]}),
                completion(user(), &["O"]),
            ),
            (
                json!({"messages": [{"role": "user", "content": "U"}]}),
                Content::Prompt(user()),
            ),
            (json!({"prompt": "P"}), Content::Prompt(raw())),
            (
                json!({"question_id": 1, "category": "c", "turns": ["P"]}),
                Content::Prompt(raw()),
            ),
            (
                json!({"turns": ["P"], "response": "O", "text": "T"}),
                completion(raw(), &["O"]),
            ),
            (
                json!({"instruction": "I"}),
                Content::Prompt(instruction("I", "")),
            ),
            (json!({"text": "T"}), Content::Text("T".into())),
        ] {
            assert_eq!(recognise(row.clone()), Ok(expected), "{row}");
        }
    }

    #[test]
    fn earlier_answers_belong_to_the_prompt() {
        let row = json!({"messages": [
            {"role": "user", "content": "1"}, {"role": "assistant", "content": "2"},
            {"role": "user", "content": "3"}, {"role": "assistant", "content": "4"}]});
        let before = vec![
            message("user", "1"),
            message("assistant", "2"),
            message("user", "3"),
        ];
        assert_eq!(
            recognise(row),
            Ok(completion(Prompt::Messages(before), &["4"]))
        );
    }

    #[test]
    fn preferences() {
        let expected = |prompt, references: &[&str]| Content::Preference {
            prompt,
            chosen: "good".into(),
            rejected: "bad".into(),
            references: references.iter().map(|&text| text.to_owned()).collect(),
        };
        let talk = |answer: &str| json!([{"role": "user", "content": "U"}, {"role": "assistant", "content": answer}]);
        for (row, expected) in [
            (
                json!({"prompt": "P", "chosen": "good", "rejected": "bad"}),
                expected(Prompt::Raw("P".into()), &["good"]),
            ),
            (
                json!({"instruction": "I", "input": "N", "output": "O",
                       "rejected": "bad", "chosen": "good"}),
                expected(instruction("I", "N"), &["O"]),
            ),
            (
                json!({"prompt": "U", "chosen": talk("good"), "rejected": talk("bad"),
                       "messages": talk("good")}),
                expected(Prompt::Messages(vec![message("user", "U")]), &["good"]),
            ),
        ] {
            assert_eq!(recognise(row.clone()), Ok(expected), "{row}");
        }
    }

    #[test]
    fn the_most_telling_shape_is_taken() {
        let row = json!({"instruction": "I", "input": "", "output": "O",
                         "prompt": "all of it", "text": "all of it"});
        assert_eq!(recognise(row), Ok(completion(instruction("I", ""), &["O"])));
        let row = json!({"prompt": "P", "messages": [{"role": "user", "content": "U"}]});
        let user = Prompt::Messages(vec![message("user", "U")]);
        assert_eq!(recognise(row), Ok(Content::Prompt(user)));
    }

    #[test]
    fn null_is_absent() {
        let row = json!({"messages": null, "instruction": "I", "input": null, "output": null});
        assert_eq!(recognise(row), Ok(Content::Prompt(instruction("I", ""))));
    }

    #[test]
    fn malformed_rows_say_why() {
        for (row, part) in [
            (json!(3), "the row is a number"),
            (json!({}), "no keys"),
            (
                json!({"question": "?", "answer": "!"}),
                "keys `question`, `answer`",
            ),
            (json!({"prompt": null}), "keys `prompt`"),
            (json!({"prompt": 3}), "`prompt` is a number, not a string"),
            (json!({"prompt": []}), "`prompt` is an empty list"),
            (json!({"turns": ["a", "b"]}), "`turns` has 2 questions"),
            (json!({"turns": []}), "`turns` has 0 questions"),
            (json!({"turns": [3]}), "`turns` is a number"),
            (
                json!({"prompt": "P", "completion": []}),
                "`completion` is an empty list",
            ),
            (
                json!({"prompt": "P", "completion": ["a", 1]}),
                "`completion` is a number",
            ),
            (
                json!({"instruction": "I", "input": ["x"]}),
                "`input` is a list",
            ),
            (json!({"prompt": "P", "chosen": "good"}), "only one of"),
            (
                json!({"chosen": "good", "rejected": "bad"}),
                "without a prompt",
            ),
            (
                json!({"messages": "hi"}),
                "`messages` is a string, not a list",
            ),
            (json!({"messages": []}), "`messages` is an empty list"),
            (json!({"messages": ["hi"]}), "`messages[0]` is a string"),
            (
                json!({"messages": [{"role": "user"}]}),
                "`messages[0].content` is missing",
            ),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
                "`messages[0].content` is a list",
            ),
            (
                json!({"messages": [{"role": "assistant", "content": "A"}]}),
                "nothing before it",
            ),
            (
                json!({"messages": [{"role": "system", "content": "S"}]}),
                "the role `system`",
            ),
            (
                json!({"prompt": "P", "completion": [{"role": "user", "content": "U"}]}),
                "the role `user`",
            ),
        ] {
            let error = recognise(row.clone()).unwrap_err();
            assert!(error.what.contains(part), "{row}: {}", error.what);
            assert!(!error.fix.is_empty());
        }
    }

    #[test]
    fn chosen_and_rejected_must_answer_the_same() {
        let talk = |question: &str| json!([{"role": "user", "content": question}, {"role": "assistant", "content": "A"}]);
        let error = recognise(json!({"chosen": talk("1"), "rejected": talk("2")})).unwrap_err();
        assert!(error.what.contains("different messages"));
    }
}
