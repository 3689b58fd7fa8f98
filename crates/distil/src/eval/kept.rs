//! What an evaluation has generated, kept in files: a killed evaluation goes on where it stopped, and
//! another metric costs no new sampling.
//!
//! ```text
//! FILE.json                   the result; see outcome.rs
//! FILE.answers.jsonl          a line for each run and row:
//!                             {"run", "row", "prompt", "response", "finish_reason", "tokens",
//!                              "references", "metrics": {name: value}, "token_ids"}
//! FILE.teacher-answers.jsonl  the same of the teacher, where exposure bias was measured
//! FILE.tokens.jsonl           see token_view.rs
//! FILE.partial.jsonl          while it lasts: the conditions on the first line, then answers as they
//!                             are finished
//! ```
//!
//! An answer is taken again only if everything that it depends on is the same: the data and the weights
//! (by sha256), the tokenizer and the tokens that end an answer, the template and the prompt that it
//! made, precision, length limit, seed and temperature. A row's sample depends on its seed and its row
//! alone, so it does not matter when the row was answered. (Rows that are computed together may round
//! differently in the last bit; where a draw falls on the very edge of two tokens, that could show.)

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use distil_model::{Model, files};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::evaluate::Answer;
use super::outcome::{FORMAT, Subject, to_json};
use super::protocol::{Measured, Run};
use crate::config::Precision;
use crate::data::example::PromptExample;
use crate::error::{Error, Result};

/// What answers depend on, beside the row and the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// sha256 of the data, see [`data_sha256`].
    pub data_sha256: String,
    /// sha256 of the model's weights file, or of the list of its files' if there are several.
    pub weights_sha256: String,
    /// sha256 of its vocabulary and of the tokens that end an answer.
    pub tokenizer_sha256: String,
    /// Number format of its matrix products.
    pub precision: Precision,
    /// How a row becomes a prompt.
    pub template: String,
    /// Length limit of answers, in tokens.
    pub max_new_tokens: usize,
}

/// What an evaluation is of: the part of its file that says what may be taken from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub format: u64,
    /// What the student's answers depend on.
    #[serde(flatten)]
    pub conditions: Conditions,
    /// As `weights_sha256`, of the teacher.
    pub teacher_sha256: Option<String>,
    /// The runs.
    pub runs: Vec<Run>,
}

/// Whose answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Whose {
    Student,
    Teacher,
}

/// A line of an answers file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Whose, in the partial file only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whose: Option<Whose>,
    /// Number of the run.
    pub(crate) run: usize,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

/// Answers that are there already, and the file that takes new ones.
#[derive(Debug, Default)]
pub struct Kept {
    runs: Vec<Run>,
    /// By whose they are, run and row.
    answers: BTreeMap<(Whose, usize, usize), Answer>,
    out: Option<(PathBuf, File)>,
}

/// The sha256 of a model's weights: of the one file, or of the lines `name digest` of several.
///
/// # Errors
/// A file cannot be read.
pub fn weights_sha256(model: &Model) -> Result<String> {
    let files = distil_model::weights::Weights::open(model.path())?.sha256()?;
    Ok(match &files[..] {
        [(_, digest)] => digest.clone(),
        _ => hash(
            files
                .iter()
                .map(|(name, digest)| format!("{name} {digest}\n")),
        ),
    })
}

/// The sha256 of a model's vocabulary and of the tokens that end its answers.
pub fn tokenizer_sha256(model: &Model) -> String {
    let stops = model.stop_ids.iter().map(|id| format!(" {id}"));
    hash(std::iter::once(model.tokenizer.fingerprint()).chain(stops))
}

/// The sha256 of a data file, or, where its references stand in a file of their own, of the digests of
/// both.
///
/// # Errors
/// A file cannot be read.
pub fn data_sha256(data: &Path, references: Option<&Path>) -> Result<String> {
    let data = crate::train::sha256_of(data)?;
    match references {
        None => Ok(data),
        Some(references) => {
            let references = crate::train::sha256_of(references)?;
            Ok(hash([data, references].into_iter()))
        }
    }
}

fn hash(parts: impl Iterator<Item = String>) -> String {
    let mut hash = Sha256::new();
    parts.for_each(|part| hash.update(part));
    let bytes = hash.finalize();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Conditions {
    /// What is different in `other`, if anything: "the template was chat and is alpaca".
    fn difference(&self, other: &Self) -> Option<String> {
        let pairs = [
            ("the data's sha256", &self.data_sha256, &other.data_sha256),
            (
                "the weights' sha256",
                &self.weights_sha256,
                &other.weights_sha256,
            ),
            (
                "the tokenizer's sha256",
                &self.tokenizer_sha256,
                &other.tokenizer_sha256,
            ),
            ("the template", &self.template, &other.template),
        ];
        let said = |name: &str, was: &dyn std::fmt::Display, is: &dyn std::fmt::Display| {
            Some(format!("{name} was {was} and is {is}"))
        };
        if let Some((name, was, is)) = pairs.into_iter().find(|(_, was, is)| was != is) {
            return said(name, was, is);
        }
        if self.precision != other.precision {
            return said(
                "the precision",
                &self.precision.name(),
                &other.precision.name(),
            );
        }
        if self.max_new_tokens != other.max_new_tokens {
            let name = "the longest answer, in tokens,";
            return said(name, &self.max_new_tokens, &other.max_new_tokens);
        }
        None
    }
}

/// The file `FILE.what.jsonl` beside `FILE.json`.
pub fn beside(out: &Path, what: &str) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".json").unwrap_or(&name);
    out.with_file_name(format!("{stem}.{what}.jsonl"))
}

impl Kept {
    /// In memory only, for an evaluation that is not written.
    pub fn nothing(runs: &[Run]) -> Self {
        Self {
            runs: runs.to_vec(),
            ..Self::default()
        }
    }

    /// What `out` and the files beside it hold of an evaluation like this one: of these prompts, in
    /// these runs, by these metrics. New answers will be kept beside it.
    ///
    /// # Errors
    /// [`Error::Run`] if something is there that this evaluation would not take over, unless it is to
    /// be replaced: another file, an evaluation under other conditions, runs, rows or metrics
    /// that are not asked for now; or another process is at it. Files cannot be read or written.
    pub fn open(
        out: &Path,
        header: &Header,
        prompts: &[PromptExample],
        metrics: &[String],
        replace: bool,
    ) -> Result<Self> {
        let partial = beside(out, "partial");
        // Locked before it is read: two processes would write over each other.
        let open = OpenOptions::new().create(true).append(true).open(&partial);
        let failed = |source| Error::Write {
            path: partial.clone(),
            source,
        };
        let file = open.map_err(failed)?;
        if file.try_lock().is_err() {
            return Err(Error::Run {
                path: partial.clone(),
                what: "another process is at this evaluation".into(),
                fix: "wait for it, or choose another --out".into(),
            });
        }
        let before = read(out)?;
        let unfinished = read_partial(&partial)?;
        let mut answers = BTreeMap::new();
        let mut refused = None;
        if let Some(Before {
            header: old,
            metrics: had,
            lines,
        }) = before
        {
            let missing = had.iter().find(|name| !metrics.contains(name));
            let missing =
                missing.map(|name| format!("the metric {name}, which is not asked for now"));
            refused = take(&mut answers, old, lines, header, prompts, missing).err();
        }
        // Where nothing was generated there is nothing to lose.
        if let Some(Before {
            header: old, lines, ..
        }) = unfinished
            && !lines.is_empty()
        {
            let other = take(&mut answers, old, lines, header, prompts, None).err();
            refused = refused.or(other);
        }
        if let Some(what) = refused.filter(|_| !replace) {
            if file.metadata().is_ok_and(|file| file.len() == 0) {
                remove(&partial)?;
            }
            return Err(Error::Run {
                path: out.to_owned(),
                what,
                fix: "choose another --out, or pass --force to replace it".into(),
            });
        }
        Self::begin(file, out, header, answers)
    }

    /// Writes the partial file anew: a line that a kill cut off would swallow the next one.
    fn begin(
        mut file: File,
        out: &Path,
        header: &Header,
        answers: BTreeMap<(Whose, usize, usize), Answer>,
    ) -> Result<Self> {
        let mut text = json(header);
        for ((whose, run, _), answer) in &answers {
            let line = Line {
                whose: Some(*whose),
                run: *run,
                answer: answer.clone(),
            };
            text.push('\n');
            text.push_str(&json(&line));
        }
        text.push('\n');
        // In its place: the lock is the file's.
        let written = file
            .set_len(0)
            .and_then(|()| file.write_all(text.as_bytes()));
        let written = written.and_then(|()| file.sync_all());
        written.map_err(|source| Error::Write {
            path: beside(out, "partial"),
            source,
        })?;
        Ok(Self {
            runs: header.runs.clone(),
            answers,
            out: Some((out.to_owned(), file)),
        })
    }

    /// How many of the student's answers are there.
    pub fn count(&self) -> usize {
        let student = |(whose, ..): &&(Whose, usize, usize)| *whose == Whose::Student;
        self.answers.keys().filter(student).count()
    }

    /// Answers of a run, by row.
    pub(crate) fn known(&self, whose: Whose, run: Run) -> Vec<Answer> {
        let Some(run) = self.runs.iter().position(|other| *other == run) else {
            return Vec::new();
        };
        let all = self
            .answers
            .range((whose, run, 0)..=(whose, run, usize::MAX));
        all.map(|(_, answer)| answer.clone()).collect()
    }

    /// Keeps a new answer.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn add(&mut self, whose: Whose, run: Run, answer: &Answer) -> Result<()> {
        let Some(run) = self.runs.iter().position(|other| *other == run) else {
            return Ok(());
        };
        if let Some((out, file)) = &mut self.out {
            let line = Line {
                whose: Some(whose),
                run,
                answer: answer.clone(),
            };
            let written = file.write_all(format!("{}\n", json(&line)).as_bytes());
            written.map_err(|source| Error::Write {
                path: beside(out, "partial"),
                source,
            })?;
        }
        self.answers
            .insert((whose, run, answer.row), answer.clone());
        Ok(())
    }

    /// Writes the evaluation's files, if it has any. The result comes last, when all that belongs to
    /// it is there.
    ///
    /// # Errors
    /// A file cannot be written; what was generated is then still in the partial file.
    pub fn finish(self, subject: &Subject, header: &Header, measured: &Measured) -> Result<()> {
        let Some((out, file)) = self.out else {
            return Ok(());
        };
        // A result must not stand beside answers that are not its own.
        remove(&out)?;
        let lines = |run: usize, answers: &[Answer]| -> String {
            answers
                .iter()
                .map(|answer| {
                    let answer = answer.clone();
                    let line = Line {
                        whose: None,
                        run,
                        answer,
                    };
                    json(&line) + "\n"
                })
                .collect()
        };
        let own = measured.answers.iter().enumerate();
        let own: String = own.map(|(run, answers)| lines(run, answers)).collect();
        let of_teacher: String = self
            .answers
            .iter()
            .filter(|((whose, ..), _)| *whose == Whose::Teacher)
            .map(|((_, run, _), answer)| lines(*run, std::slice::from_ref(answer)))
            .collect();
        let views: String = measured
            .tokens
            .iter()
            .map(|view| json(view) + "\n")
            .collect();
        for (what, text) in [
            ("answers", own),
            ("teacher-answers", of_teacher),
            ("tokens", views),
        ] {
            let path = beside(&out, what);
            match text.is_empty() {
                true => remove(&path)?,
                false => files::write_whole(&path, text.as_bytes())?,
            }
        }
        let result = to_json(subject, header, measured);
        files::write_whole(&out, format!("{result:#}\n").as_bytes())?;
        // Its content is in the finished files.
        drop(file);
        remove(&beside(&out, "partial"))
    }
}

/// What is there of an earlier evaluation.
struct Before {
    /// None if the file is no evaluation of this format.
    header: Option<Header>,
    /// Names of the metrics.
    metrics: Vec<String>,
    lines: Vec<Line>,
}

/// Takes over answers of an earlier evaluation. What is wrong with it, if it is another one or has what
/// would be lost.
fn take(
    answers: &mut BTreeMap<(Whose, usize, usize), Answer>,
    old: Option<Header>,
    lines: Vec<Line>,
    header: &Header,
    prompts: &[PromptExample],
    missing: Option<String>,
) -> Result<(), String> {
    let Some(old) = old else {
        return Err("exists already and is not an evaluation of this format".into());
    };
    if let Some(difference) = old.conditions.difference(&header.conditions) {
        return Err(format!("exists already, measured otherwise: {difference}"));
    }
    let same_teacher = old.teacher_sha256 == header.teacher_sha256;
    let mut lost = missing;
    for mut line in lines {
        let (Some(run), whose) = (old.runs.get(line.run), line.whose) else {
            continue;
        };
        let Some(new) = header.runs.iter().position(|other| other == run) else {
            let said = || format!("the answers of {}, which is not asked for now", run.name());
            lost = lost.or_else(|| Some(said()));
            continue;
        };
        let row = line.answer.row;
        let at = prompts.binary_search_by_key(&row, |prompt| prompt.row).ok();
        let Some(prompt) = at.and_then(|at| prompts.get(at)) else {
            let said = || format!("an answer to row {row}, which is not measured now");
            lost = lost.or_else(|| Some(said()));
            continue;
        };
        if prompt.text != line.answer.prompt {
            return Err(format!(
                "exists already, measured otherwise: row {row} was asked with another prompt"
            ));
        }
        let whose = whose.unwrap_or(Whose::Student);
        if whose == Whose::Teacher && !same_teacher || line.answer.token_ids.is_empty() {
            continue;
        }
        if !same_teacher {
            line.answer.metrics = Map::new();
        }
        line.answer.references.clone_from(&prompt.references);
        answers.insert((whose, new, row), line.answer);
    }
    match lost {
        Some(lost) => Err(format!("exists already, and has {lost}")),
        None => Ok(()),
    }
}

/// The evaluation in `out` and its answers; none if there is no such file.
fn read(out: &Path) -> Result<Option<Before>> {
    let Some(text) = read_text(out)? else {
        return Ok(None);
    };
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let header = Header::deserialize(&value).ok();
    let header = header.filter(|header| header.format == FORMAT);
    let metrics = value["metrics"].as_object();
    let mut lines = Vec::new();
    for (whose, what) in [
        (Whose::Student, "answers"),
        (Whose::Teacher, "teacher-answers"),
    ] {
        let text = read_text(&beside(out, what))?.unwrap_or_default();
        let parsed = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Line>(line).ok());
        lines.extend(parsed.map(|line| Line {
            whose: Some(whose),
            ..line
        }));
    }
    Ok(Some(Before {
        header,
        metrics: metrics
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect(),
        lines,
    }))
}

/// What was generated before an evaluation was killed; none if it had not begun.
fn read_partial(path: &Path) -> Result<Option<Before>> {
    let text = read_text(path)?.unwrap_or_default();
    let mut lines = text.lines();
    let Some(header) = lines
        .next()
        .and_then(|line| serde_json::from_str(line).ok())
    else {
        return Ok(None);
    };
    Ok(Some(Before {
        header: Some(header),
        metrics: Vec::new(),
        // The last one may have been cut off.
        lines: lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect(),
    }))
}

fn read_text(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
