//! What the tests of a plan share.

use std::path::{Path, PathBuf};

use distil_model::{Llama, Tokenizer};
use serde_json::Value;

use super::Part;
use super::networks::{Networks, third_network};
use crate::config::{Config, Method};
use crate::data::example::Example;
use crate::data::read::DataSet;
use crate::data::row::{Row, RowSource};
use crate::data::shape::recognise;

/// A configuration of these keys, with a teacher and training rows.
pub(super) fn config(text: &str) -> Config {
    let text = format!(
        "teacher.model = \"t\"\nstudent.prune.layers = 2\ndata.train = \"a.jsonl\"\n{text}"
    );
    Config::parse(&text, Path::new("run.toml"), &[]).unwrap()
}

/// The same with held-out rows.
pub(super) fn measured(text: &str) -> Config {
    config(&format!("data.eval = \"b.jsonl\"\n{text}"))
}

/// A method of these keys.
pub(super) fn method(text: &str) -> Method {
    measured(&format!("[method]\n{text}\n")).method
}

pub(super) fn networks<'a>(
    method: &Method,
    student: &'a Llama,
    teacher: Option<&'a Llama>,
) -> Networks<'a> {
    Networks {
        student,
        teacher,
        third: third_network(method, student).unwrap(),
    }
}

pub(super) fn example(prompt: usize, response: usize) -> Example {
    Example {
        prompt: vec![3; prompt],
        response: vec![4; response],
        row: 0,
    }
}

pub(super) fn bytes_of(parts: &[Part], what: &str) -> Option<u64> {
    let part = parts.iter().find(|part| part.what.contains(what));
    part.map(|part| part.bytes)
}

/// Rows of a file `name`, from line 1.
pub(super) fn data(name: &str, rows: &[Value]) -> DataSet {
    let row = |(index, value): (usize, &Value)| Row {
        source: RowSource {
            file: 0,
            line: index + 1,
        },
        content: recognise(value.clone()).unwrap(),
        cut: value
            .get("finish_reason")
            .is_some_and(|why| why == "length"),
    };
    DataSet {
        files: vec![PathBuf::from(name)],
        rows: rows.iter().enumerate().map(row).collect(),
        ..DataSet::default()
    }
}

/// A tokenizer of the model crate's fixtures.
pub(super) fn tokenizer(name: &str) -> Tokenizer {
    let fixtures = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../model/tests/fixtures/tokenizers"
    );
    Tokenizer::open(&Path::new(fixtures).join(name)).unwrap()
}
