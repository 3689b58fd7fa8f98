//! `[teacher]` and `[student]`: which model teaches, what the student starts from, and in which
//! precision both are computed.

use serde::{Deserialize, Serialize};

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
    /// Number format of its matrix products.
    pub precision: Precision,
}

/// Number format of matrix products. Weights are f32, and so are sums and all that is no matrix
/// product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// Both factors rounded to bf16.
    Bf16,
    /// As bf16, with weights in 8 bits: for networks that are only asked.
    Int8,
}

impl Precision {
    /// The name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The nearest that a network can be trained in: gradients change weights by less than a step of
    /// 8 bits.
    pub fn of_training(self) -> Self {
        match self {
            Self::Int8 => Self::Bf16,
            other => other,
        }
    }
}

impl From<Precision> for distil_kernels::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::Int8 => Self::Int8,
        }
    }
}

impl From<distil_kernels::Precision> for Precision {
    fn from(precision: distil_kernels::Precision) -> Self {
        match precision {
            distil_kernels::Precision::F32 => Self::F32,
            distil_kernels::Precision::Bf16 => Self::Bf16,
            distil_kernels::Precision::Int8 => Self::Int8,
        }
    }
}

/// The model that is trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Student {
    /// What it starts from.
    #[serde(flatten)]
    pub start: Start,
    /// Number format of its matrix products in training.
    pub precision: Precision,
    /// Number format of its matrix products where it samples.
    pub sampling_precision: Precision,
}

/// What the student starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
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
    let precision = given.precision.unwrap_or_default();
    if precision != Precision::F32 && given.model.is_none() {
        let fix = "add [teacher] model = \"…\", or remove the key";
        let what = "there is no teacher to compute with";
        return Err(document.refuse("teacher.precision", what, fix));
    }
    Ok(given.model.map(|model| Teacher {
        model,
        cache,
        precision,
    }))
}

pub(crate) fn student(
    given: GivenStudent,
    teacher: Option<&Teacher>,
    document: &Document,
) -> Result<Student> {
    let precision = given.precision.unwrap_or_default();
    Ok(Student {
        precision,
        sampling_precision: given.sampling_precision.unwrap_or(precision),
        start: start(given, teacher, document)?,
    })
}

fn start(given: GivenStudent, teacher: Option<&Teacher>, document: &Document) -> Result<Start> {
    let fix =
        "set exactly one of prune = { layers = N }, prune = { keep = [0, …] } and model = \"…\"";
    match (given.prune.layers, given.prune.keep, given.model) {
        (None, None, None) => {
            Err(document.refuse("student", "nothing says what the student starts from", fix))
        }
        (None, None, Some(model)) => Ok(Start::Model(model)),
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
) -> Result<Start> {
    if teacher.is_none() {
        let fix = "add [teacher] model = \"…\", or start from student.model instead";
        return Err(document.refuse(
            path,
            "takes layers of the teacher, but teacher.model is not set",
            fix,
        ));
    }
    Ok(Start::Prune(prune))
}
