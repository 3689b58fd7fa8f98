//! Reference answers in a file of their own beside the questions, as FastChat has them:
//!
//! ```text
//! question.jsonl   {"question_id": 1, "category": "generic", "turns": ["How can I …?"]}
//! answer.jsonl     {"question_id": 1, "model_id": "gpt-3.5-turbo", "text": "Here are …"}
//! ```
//!
//! A question is joined with the answer of its `question_id`. None may be without one, and none may have
//! two: what is left out or taken by chance would change a metric without a word.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::read::each_row;
use super::shape::{ANSWERS, Malformed};
use crate::error::{Error, Result};

/// Number or name of a question.
pub(crate) const QUESTION: &str = "question_id";

/// Answers by their question.
#[derive(Debug)]
pub(crate) struct Answers {
    path: PathBuf,
    texts: HashMap<String, String>,
}

impl Answers {
    /// Reads a file of answers.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Data`] if the file cannot be read; [`Error::Row`] for a row that is no
    /// answer, or the second to its question.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut texts = HashMap::new();
        each_row(path, &mut |line, row| {
            row.and_then(|row| {
                let (question, text) = answer(&row)?;
                match texts.insert(question.clone(), text) {
                    None => Ok(()),
                    Some(_) => Err(Malformed::new(
                        format!("question {question} was answered before"),
                        "keep one answer to each question",
                    )),
                }
            })
            .map_err(|Malformed { what, fix }| Error::Row {
                path: path.to_owned(),
                line,
                what,
                fix,
            })
        })?;
        Ok(Self {
            path: path.to_owned(),
            texts,
        })
    }

    /// The row with its answer as `response`. What is no object is for others to refuse.
    pub(crate) fn join(&self, mut row: Value) -> Result<Value, Malformed> {
        let Some(object) = row.as_object() else {
            return Ok(row);
        };
        let has = |key: &&&str| object.get(**key).is_some_and(|value| !value.is_null());
        if let Some(key) = ANSWERS.iter().find(has) {
            return Err(Malformed::new(
                format!("the row has an answer of its own, `{key}`"),
                "leave the file of answers out, or take the answers out of the rows",
            ));
        }
        let question = question(&row)?;
        let Some(text) = self.texts.get(&question) else {
            return Err(Malformed::new(
                format!(
                    "{} has no answer to question {question}",
                    self.path.display()
                ),
                "answer every question, or take the question out",
            ));
        };
        row["response"] = text.as_str().into();
        Ok(row)
    }
}

fn answer(row: &Value) -> Result<(String, String), Malformed> {
    let question = question(row)?;
    match row.get("text").and_then(Value::as_str) {
        Some(text) => Ok((question, text.to_owned())),
        None => Err(Malformed::new(
            "the row has no answer",
            "give it as `text`, a string",
        )),
    }
}

fn question(row: &Value) -> Result<String, Malformed> {
    match row.get(QUESTION) {
        Some(Value::String(name)) => Ok(name.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => Err(Malformed::new(
            format!("the row has no `{QUESTION}`"),
            "give question and answer the same number, so that they can be joined",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::read::DataSet;
    use crate::data::row::{Content, Prompt};

    fn read(questions: &str, answers: &str) -> Result<DataSet> {
        let folder = tempfile::tempdir().unwrap();
        let [asked, answered] =
            ["question.jsonl", "answer.jsonl"].map(|name| folder.path().join(name));
        fs::write(&asked, questions).unwrap();
        fs::write(&answered, answers).unwrap();
        DataSet::read_with_answers(&asked, &answered)
    }

    #[test]
    fn questions_are_joined_with_their_answers() {
        let questions = "{\"question_id\": 1, \"category\": \"x\", \"turns\": [\"How?\"]}\n\
                         {\"question_id\": \"b\", \"prompt\": \"Why?\", \"response\": null}\n";
        let answers = "{\"question_id\": \"b\", \"text\": \"So.\"}\n\
                       {\"question_id\": 1, \"model_id\": \"m\", \"text\": \"Thus.\"}\n\
                       {\"question_id\": 7, \"text\": \"Not asked.\"}\n";
        let data = read(questions, answers).unwrap();
        let completion = |prompt: &str, answer: &str| Content::Completion {
            prompt: Prompt::Raw(prompt.into()),
            references: vec![answer.into()],
        };
        let found: Vec<&Content> = data.rows.iter().map(|row| &row.content).collect();
        assert_eq!(
            found,
            [&completion("How?", "Thus."), &completion("Why?", "So.")]
        );
    }

    #[test]
    fn what_cannot_be_joined_is_refused() {
        let question = "{\"question_id\": 1, \"turns\": [\"How?\"]}\n";
        let answer = "{\"question_id\": 1, \"text\": \"Thus.\"}\n";
        for (questions, answers, part) in [
            (
                question,
                "{\"question_id\": 2, \"text\": \"a\"}\n",
                "question.jsonl:1: ",
            ),
            (
                question,
                "{\"question_id\": 2, \"text\": \"a\"}\n",
                "no answer to question 1",
            ),
            (question, "", "no answer to question 1"),
            (
                question,
                "{\"text\": \"a\"}\n",
                "answer.jsonl:1: the row has no `question_id`",
            ),
            (
                question,
                "{\"question_id\": 1}\n",
                "answer.jsonl:1: the row has no answer",
            ),
            (
                "{\"turns\": [\"How?\"]}\n",
                answer,
                "question.jsonl:1: the row has no `question_id`",
            ),
            (
                "{\"question_id\": 1, \"prompt\": \"a\", \"output\": \"b\"}\n",
                answer,
                "an answer of its own, `output`",
            ),
            ("3\n", answer, "the row is a number"),
        ] {
            let error = read(questions, answers).unwrap_err();
            assert!(error.to_string().contains(part), "{error} / {part}");
            assert!(error.is_input());
        }
        let twice = read(question, &answer.repeat(2)).unwrap_err();
        let part = "answer.jsonl:2: question 1 was answered before";
        assert!(twice.to_string().contains(part), "{twice}");
    }
}
