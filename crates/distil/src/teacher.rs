//! The teacher: when its weights are in memory, and what it must share with its student.

use burn::tensor::Device;
use distil_kernels::{Precision, Weight};
use distil_model::config::Config;
use distil_model::{Llama, Model, Outline, Tokenizer};

use crate::error::{Error, Result};

/// The teacher of a run. Its weights are read when something asks for them, and stay in memory until
/// this and every network that it gave is dropped.
#[derive(Clone, Debug)]
pub struct TeacherModel {
    /// What is known without the weights.
    pub outline: Outline,
    precision: Precision,
    device: Device,
    /// As it was read, until it is asked.
    plain: Option<Model>,
    /// Ready to be asked.
    ready: Option<Model>,
}

impl TeacherModel {
    /// A teacher that computes in this precision. Nothing is read yet.
    pub(crate) fn new(outline: Outline, precision: Precision, device: Device) -> Self {
        Self {
            outline,
            precision,
            device,
            plain: None,
            ready: None,
        }
    }

    /// In which precision it is asked.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Where its numbers are.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The model with its plain weights, to make a student of.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub(crate) fn plain(&mut self) -> Result<&Model> {
        let model = match self.plain.take() {
            Some(model) => model,
            None => self.outline.load(&self.device)?,
        };
        Ok(self.plain.insert(model))
    }

    /// The model, packed for being asked: its matrices cannot be read.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub fn model(&mut self) -> Result<&Model> {
        let model = match self.ready.take() {
            Some(model) => model,
            None => {
                let mut model = self.plain()?.clone();
                self.plain = None;
                model.network = model.network.in_precision(self.precision).packed();
                model
            }
        };
        Ok(self.ready.insert(model))
    }

    /// The network of [`TeacherModel::model`].
    ///
    /// # Errors
    /// The weights cannot be read.
    pub(crate) fn network(&mut self) -> Result<&Llama> {
        Ok(&self.model()?.network)
    }

    /// The output head alone, [vocabulary, width], for whoever has the hidden states already.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub(crate) fn head(&self) -> Result<Weight> {
        if let Some(model) = &self.ready {
            return Ok(model.network.head());
        }
        let head = self.outline.load_head(&self.device)?;
        Ok(head.in_precision(self.precision).packed())
    }
}

/// The vocabulary both models speak, as a number of leading ids: the tokenizer's.
///
/// Models of one family often differ in how far their vocabulary is padded; rows without a token are
/// left out, on one side or on both. Tokens themselves must be the same.
///
/// # Errors
/// Some id is another token in the two models, or a token that only one of them has.
pub fn align(teacher: &Model, student: &Model) -> Result<usize> {
    let configs = [teacher.network.config(), student.network.config()];
    shared(configs, [&teacher.tokenizer, &student.tokenizer])
}

/// As [`align`], of what is known without weights.
///
/// # Errors
/// As [`align`].
pub(crate) fn align_outlines(teacher: &Outline, student: &Outline) -> Result<usize> {
    let configs = [&teacher.config, &student.config];
    shared(configs, [&teacher.tokenizer, &student.tokenizer])
}

/// Of teacher and student.
fn shared(configs: [&Config; 2], [t, s]: [&Tokenizer; 2]) -> Result<usize> {
    let common = configs.map(|config| config.vocabulary);
    let common = common[0].min(common[1]);
    if t.fingerprint() != s.fingerprint() {
        let last = t.vocabulary_size().max(s.vocabulary_size());
        for id in 0..last as u32 {
            let (in_teacher, in_student) = (t.token(id), s.token(id));
            if in_teacher != in_student {
                let say = |token: Option<String>| match token {
                    Some(token) => format!("{token:?}"),
                    None => "nothing".to_owned(),
                };
                return Err(Error::Mismatch {
                    what: format!(
                        "teacher and student have different vocabularies: id {id} is {} for the \
                         teacher and {} for the student",
                        say(in_teacher),
                        say(in_student)
                    ),
                    fix: "distillation needs one tokenizer; choose models of the same family, or \
                          prune the student from the teacher"
                        .into(),
                });
            }
        }
    }
    let tokens = t.vocabulary_size().max(s.vocabulary_size());
    if tokens > common {
        return Err(Error::Mismatch {
            what: format!("the tokenizer has {tokens} tokens but one model only {common} rows"),
            fix: "use the weights that belong to this tokenizer".into(),
        });
    }
    Ok(tokens)
}
