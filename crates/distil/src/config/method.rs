//! `[method]`: how the student learns. Each method has its own hyperparameters and no others; the
//! formulas stand with the methods themselves.

use serde::{Deserialize, Serialize};

use super::data::Data;
use super::document::Document;
use super::given::GivenMethod;
use super::keys::METHODS;
use crate::Result;

/// A method and its hyperparameters.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Method {
    /// Supervised fine-tuning: cross-entropy on the data's responses.
    Sft,
    /// Word-level distillation on the data's responses.
    Kd(Kd),
    /// Cross-entropy on the teacher's samples.
    SeqKd(SeqKd),
    /// Direct preference knowledge distillation.
    Dpkd(Dpkd),
}

/// loss = (1 − ce_share)·KL(teacher ‖ student) + ce_share·CE(data).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kd {
    /// Share of cross-entropy, in [0, 1].
    pub ce_share: f64,
    /// Divides the logits of both models inside the KL term; above 0.
    pub temperature: f64,
}

/// loss = CE(teacher samples).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeqKd {
    /// How the teacher's responses are drawn.
    pub sampling: Sampling,
    /// Responses for every prompt, at least 1.
    pub samples_per_prompt: usize,
}

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sampling {
    /// Divides the logits; above 0.
    pub temperature: f64,
    /// Only the k likeliest tokens; 0 is all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability, in (0, 1]; 1 is all.
    pub top_p: f64,
}

impl Sampling {
    fn resolve(temperature: Option<f64>, top_k: Option<usize>, top_p: Option<f64>) -> Self {
        Self {
            temperature: temperature.unwrap_or(1.0),
            top_k: top_k.unwrap_or(0),
            top_p: top_p.unwrap_or(1.0),
        }
    }
}

/// Direct preference knowledge distillation (arXiv 2406.19774).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dpkd {
    /// Factor of the log-ratio inside the sigmoid; above 0.
    pub beta: f64,
    /// Assumed share of wrongly ordered pairs, in [0, 0.5).
    pub label_smoothing: f64,
    /// The paper's loss or the released code's.
    #[serde(flatten)]
    pub form: DpkdForm,
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "form", rename_all = "lowercase")]
pub enum DpkdForm {
    /// A teacher sample against a fresh student sample (eq. 9).
    Sequence(DpkdSequence),
    /// The teacher's likeliest token against the student's, at every position of the data.
    Token(DpkdToken),
}

/// loss = L_kd + lm_weight·L_pt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DpkdSequence {
    /// Whether each log-ratio is divided by its response's length in tokens (eq. 9, else eq. 8).
    pub length_normalize: bool,
    /// λ of the language-modelling term; 0 leaves it out.
    pub lm_weight: f64,
    /// Text of the language-modelling term.
    pub lm_source: LmSource,
    /// Whether teacher samples are kept.
    pub teacher_samples: TeacherSamples,
    /// Length limit of samples, in tokens.
    pub max_new_tokens: usize,
    /// How both models' responses are drawn.
    #[serde(flatten)]
    pub sampling: Sampling,
}

/// loss = ce_weight·CE(data) + (1 − ce_weight)·L_kd.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DpkdToken {
    /// Share of cross-entropy on the data, in [0, 1].
    pub ce_weight: f64,
}

/// Text of DPKD's language-modelling term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LmSource {
    /// The teacher's sample.
    Teacher,
    /// The data's response.
    Data,
    /// `data.corpus`.
    Corpus,
}

impl LmSource {
    /// The name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Teacher => "teacher",
            Self::Data => "data",
            Self::Corpus => "corpus",
        }
    }
}

/// Where teacher samples come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TeacherSamples {
    /// Generated once, kept in the run's folder.
    Cached,
}

impl TeacherSamples {
    /// The name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
        }
    }
}

impl Method {
    /// The name as in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Kd(_) => "kd",
            Self::SeqKd(_) => "seqkd",
            Self::Dpkd(_) => "dpkd",
        }
    }

    /// Whether the method learns from a teacher.
    pub fn needs_teacher(&self) -> bool {
        !matches!(self, Self::Sft)
    }

    /// The longest response the method trains on, in tokens.
    pub(crate) fn longest_response(&self, data: &Data) -> usize {
        match self {
            Self::Dpkd(Dpkd {
                form: DpkdForm::Sequence(sequence),
                ..
            }) => {
                let read = if sequence.lm_source == LmSource::Data {
                    data.max_response_tokens
                } else {
                    0
                };
                sequence.max_new_tokens.max(read)
            }
            _ => data.max_response_tokens,
        }
    }
}

pub(crate) fn resolve(given: GivenMethod, data: &Data, document: &Document) -> Result<Method> {
    let method = match given.name.as_deref() {
        Some("sft") => Method::Sft,
        Some("kd") => Method::Kd(Kd {
            ce_share: given.ce_share.unwrap_or(0.0),
            temperature: given.temperature.unwrap_or(1.0),
        }),
        Some("seqkd") => Method::SeqKd(SeqKd {
            sampling: Sampling::resolve(
                given.sampling.temperature,
                given.sampling.top_k,
                given.sampling.top_p,
            ),
            samples_per_prompt: given.samples_per_prompt.unwrap_or(1),
        }),
        Some("dpkd") => Method::Dpkd(Dpkd {
            beta: given.beta.unwrap_or(0.1),
            label_smoothing: given.label_smoothing.unwrap_or(0.0),
            form: dpkd_form(&given, data, document)?,
        }),
        _ => {
            let fix = format!("add [method] name = \"…\", one of {}", METHODS.join(", "));
            return Err(document.refuse("method.name", "not set", fix));
        }
    };
    let reads_corpus = matches!(&method, Method::Dpkd(Dpkd { form: DpkdForm::Sequence(form), .. }) if form.lm_source == LmSource::Corpus);
    if !data.corpus.is_empty() && !reads_corpus {
        let what = format!(
            "method `{}`, as it is set, never reads a corpus",
            method.name()
        );
        let fix = "remove the key, or use method `dpkd` with form = \"sequence\" and lm_source = \"corpus\"";
        return Err(document.refuse("data.corpus", what, fix));
    }
    Ok(method)
}

fn dpkd_form(given: &GivenMethod, data: &Data, document: &Document) -> Result<DpkdForm> {
    if given.form.as_deref() == Some("token") {
        return Ok(DpkdForm::Token(DpkdToken {
            ce_weight: given.ce_weight.unwrap_or(0.5),
        }));
    }
    let default_source = if data.corpus.is_empty() {
        LmSource::Teacher
    } else {
        LmSource::Corpus
    };
    let lm_source = given.lm_source.unwrap_or(default_source);
    if lm_source == LmSource::Corpus && data.corpus.is_empty() {
        let fix = "add data.corpus = [\"text.jsonl\"], or choose \"teacher\" or \"data\"";
        return Err(document.refuse(
            "method.lm_source",
            "\"corpus\" needs data.corpus, which is not set",
            fix,
        ));
    }
    Ok(DpkdForm::Sequence(DpkdSequence {
        length_normalize: given.length_normalize.unwrap_or(true),
        lm_weight: given.lm_weight.unwrap_or(1.0),
        lm_source,
        teacher_samples: given.teacher_samples.unwrap_or(TeacherSamples::Cached),
        max_new_tokens: given.max_new_tokens.unwrap_or(data.max_response_tokens),
        sampling: Sampling::resolve(given.temperature, given.top_k, given.top_p),
    }))
}
