//! `[teacher]` and `[student]`: which model teaches, and what the student starts from.

use serde::Serialize;

use super::document::Document;
use super::given::{GivenStudent, GivenTeacher};
use super::method::Method;
use crate::Result;

/// The model that is distilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Teacher {
    /// Model reference; a path is absolute.
    pub model: String,
    /// Whether its hidden states on the training texts are kept instead of computed in every step.
    pub cache: bool,
}

/// What the student starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Student {
    /// Some of the teacher's layers.
    Prune(Prune),
    /// Another model: its reference; a path is absolute.
    Model(String),
}

/// Which of the teacher's layers the student keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Prune {
    /// This many, evenly spaced, first and last among them.
    Layers(usize),
    /// These, ascending, counted from 0.
    Keep(Vec<usize>),
}

pub(crate) fn teacher(
    given: GivenTeacher,
    method: &Method,
    document: &Document,
) -> Result<Option<Teacher>> {
    if given.model.is_none() && method.needs_teacher() {
        let what = format!(
            "not set, but method `{}` learns from a teacher",
            method.name()
        );
        let fix = "add [teacher] model = \"…\" (a folder, a .gguf file, hf:org/name or a name from `distil models`)";
        return Err(document.refuse("teacher.model", what, fix));
    }
    let cache = given.cache.unwrap_or(false);
    if cache && given.model.is_none() {
        let fix = "add [teacher] model = \"…\", or remove the key";
        return Err(document.refuse("teacher.cache", "there is no teacher to keep", fix));
    }
    Ok(given.model.map(|model| Teacher { model, cache }))
}

pub(crate) fn student(
    given: GivenStudent,
    teacher: Option<&Teacher>,
    document: &Document,
) -> Result<Student> {
    let fix =
        "set exactly one of prune = { layers = N }, prune = { keep = [0, …] } and model = \"…\"";
    match (given.prune.layers, given.prune.keep, given.model) {
        (None, None, None) => {
            Err(document.refuse("student", "nothing says what the student starts from", fix))
        }
        (None, None, Some(model)) => Ok(Student::Model(model)),
        (Some(layers), None, None) => pruned(
            Prune::Layers(layers),
            "student.prune.layers",
            teacher,
            document,
        ),
        (None, Some(keep), None) => {
            pruned(Prune::Keep(keep), "student.prune.keep", teacher, document)
        }
        (layers, _, model) => {
            let path = match (model, layers) {
                (Some(_), _) => "student.model",
                (None, Some(_)) => "student.prune.layers",
                (None, None) => "student.prune.keep",
            };
            Err(document.refuse(
                path,
                "does not go together with another start of the student",
                fix,
            ))
        }
    }
}

fn pruned(
    prune: Prune,
    path: &str,
    teacher: Option<&Teacher>,
    document: &Document,
) -> Result<Student> {
    if teacher.is_none() {
        let fix = "add [teacher] model = \"…\", or start from student.model instead";
        return Err(document.refuse(
            path,
            "takes layers of the teacher, but teacher.model is not set",
            fix,
        ));
    }
    Ok(Student::Prune(prune))
}
