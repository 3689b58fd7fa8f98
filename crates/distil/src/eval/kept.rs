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
//! FILE.partial.jsonl          while it lasts; see partial.rs
//! ```
//!
//! When an answer is taken again says conditions.rs. What cost something and would be lost (answers, and
//! what was measured of another teacher) is replaced only if the user says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use distil_model::files;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::conditions::Header;
use super::evaluate::{Answer, EvalSet};
use super::outcome::{Subject, to_json};
use super::partial::{
    Line, Partial, Section, Whose, beside, finished_lines, json, read_text, remove,
};
use super::protocol::{Measured, Protocol, Run};
use crate::error::{Error, Result};

/// Answers by whose they are, run and row.
type Answers = BTreeMap<(Whose, usize, usize), Answer>;

/// Answers that are there already, and the files that take new ones.
#[derive(Debug, Default)]
pub struct Kept {
    runs: Vec<Run>,
    answers: Answers,
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    out: PathBuf,
    partial: Partial,
    /// Lines that the partial file lacks.
    pending: String,
}

impl Kept {
    /// In memory only, for an evaluation that is not written.
    pub fn nothing(runs: &[Run]) -> Self {
        Self {
            runs: runs.to_vec(),
            ..Self::default()
        }
    }

    /// What `out` and the files beside it hold of an evaluation like this one: of these prompts, by this
    /// protocol. New answers will be kept beside it. Nothing is written yet.
    ///
    /// # Errors
    /// [`Error::Run`] if something is there that this evaluation would not take over, unless it is to
    /// be replaced: another file; an evaluation under other conditions; runs, rows, metrics or a
    /// teacher that are not asked for now; or another process is at it. Files cannot be read or written.
    pub fn open(
        out: &Path,
        header: &Header,
        set: &EvalSet,
        protocol: &Protocol,
        replace: bool,
    ) -> Result<Self> {
        let (mut partial, sections) = Partial::lock(out)?;
        let newest = sections.last().and_then(|section| section.header.clone());
        let mut refused = None;
        let mut finished = Answers::new();
        if let Some(Finished { section, worth }) = read(out)? {
            let lost = worth.lost(section.header.as_ref(), header, protocol);
            refused = take(&mut finished, section, header, set, lost).err();
        } else if sections.is_empty() {
            refused = orphan(out);
        }
        let mut answers = Answers::new();
        // Where nothing was generated there is nothing to lose.
        let begun = |section: &Section| section.header.is_none() || !section.lines.is_empty();
        for section in sections.into_iter().filter(begun) {
            let other = take(&mut answers, section, header, set, None).err();
            refused = refused.or(other);
        }
        let mut pending = String::new();
        match refused {
            Some(what) if !replace => {
                return Err(Error::Run {
                    path: out.to_owned(),
                    what,
                    fix: "choose another --out, or pass --force to replace it".into(),
                });
            }
            Some(_) => {
                answers.append(&mut finished);
                let lines = answers.iter().map(partial_line);
                let text = json(header) + "\n" + &lines.collect::<String>();
                partial.clear()?;
                partial.add(&text)?;
            }
            None => {
                if newest.as_ref() != Some(header) {
                    pending = json(header) + "\n";
                }
                finished.retain(|key, _| !answers.contains_key(key));
                pending.extend(finished.iter().map(partial_line));
                answers.append(&mut finished);
            }
        }
        Ok(Self {
            runs: header.runs.clone(),
            answers,
            files: Some(Files {
                out: out.to_owned(),
                partial,
                pending,
            }),
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
        let key = (whose, run, answer.row);
        if let Some(files) = &mut self.files {
            files.pending.push_str(&partial_line((&key, answer)));
            files.write_pending()?;
        }
        self.answers.insert(key, answer.clone());
        Ok(())
    }

    /// Writes the evaluation's files, if it has any. The result comes last, when all that belongs to
    /// it is there.
    ///
    /// # Errors
    /// A file cannot be written; what was generated is then still in the partial file.
    pub fn finish(self, subject: &Subject, header: &Header, measured: &Measured) -> Result<()> {
        let Some(mut files) = self.files else {
            return Ok(());
        };
        files.write_pending()?;
        files.partial.sync()?;
        let out = &files.out;
        // A result must not stand beside answers that are not its own.
        remove(out)?;
        let line = |run: usize, answer: &Answer| {
            let (whose, answer) = (None, answer.clone());
            json(&Line { whose, run, answer }) + "\n"
        };
        let runs = measured.answers.iter().enumerate();
        let own = runs.flat_map(|(run, answers)| answers.iter().map(move |a| line(run, a)));
        let of_teacher = self.answers.iter();
        let of_teacher = of_teacher.filter(|((whose, ..), _)| *whose == Whose::Teacher);
        let of_teacher = of_teacher.map(|((_, run, _), answer)| line(*run, answer));
        let views = measured.tokens.iter().map(|view| json(view) + "\n");
        for (what, text) in [
            ("answers", own.collect::<String>()),
            ("teacher-answers", of_teacher.collect()),
            ("tokens", views.collect()),
        ] {
            let path = beside(out, what);
            match text.is_empty() {
                true => remove(&path)?,
                false => files::write_whole(&path, text.as_bytes())?,
            }
        }
        let result = to_json(subject, header, measured);
        files::write_whole(out, format!("{result:#}\n").as_bytes())?;
        // Its content is in the finished files.
        files.partial.remove()
    }
}

impl Files {
    fn write_pending(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            self.partial.add(&self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }
}

fn partial_line(((whose, run, _), answer): (&(Whose, usize, usize), &Answer)) -> String {
    let line = Line {
        whose: Some(*whose),
        run: *run,
        answer: answer.clone(),
    };
    json(&line) + "\n"
}

/// An evaluation that was finished.
struct Finished {
    section: Section,
    worth: Worth,
}

/// What an evaluation's file has beside its answers.
struct Worth {
    /// Names of its metrics.
    metrics: Vec<String>,
    exposure_bias: bool,
}

impl Worth {
    /// What of it this evaluation would not have, if anything.
    fn lost(&self, old: Option<&Header>, new: &Header, protocol: &Protocol) -> Option<String> {
        let asked = |name: &&String| protocol.metrics.contains(name);
        if let Some(name) = self.metrics.iter().find(|name| !asked(name)) {
            return Some(format!("the metric {name}, which is not asked for now"));
        }
        if self.exposure_bias && protocol.exposure_lengths.is_none() {
            return Some("the exposure bias, which is not asked for now".into());
        }
        let was = old?.teacher_sha256.as_ref()?;
        match &new.teacher_sha256 {
            Some(is) if is == was => None,
            Some(is) => Some(format!(
                "a teacher with the sha256 {was}, which now is {is}"
            )),
            None => Some("a teacher, and none is named now".into()),
        }
    }
}

/// Takes over answers of an earlier evaluation. What is wrong with it, if it is another one or has what
/// would be lost.
fn take(
    answers: &mut Answers,
    section: Section,
    header: &Header,
    set: &EvalSet,
    mut lost: Option<String>,
) -> Result<(), String> {
    let Some(old) = section.header else {
        return Err("exists already and is not an evaluation of this format".into());
    };
    if let Some(difference) = old.conditions.difference(&header.conditions) {
        return Err(format!("exists already, measured otherwise: {difference}"));
    }
    let same_teacher = old.teacher_sha256 == header.teacher_sha256;
    for mut line in section.lines {
        let (Some(run), row) = (old.runs.get(line.run), line.answer.row) else {
            continue;
        };
        let whose = line.whose.unwrap_or(Whose::Student);
        let at = set.prompts.binary_search_by_key(&row, |prompt| prompt.row);
        let prompt = at.ok().and_then(|at| set.prompts.get(at));
        let new = header.runs.iter().position(|other| other == run);
        let (Some(new), Some(prompt)) = (new, prompt) else {
            lost = lost.or_else(|| {
                Some(match new {
                    None => format!("the answers of {}, which is not asked for now", run.name()),
                    Some(_) => format!("an answer to row {row}, which is not measured now"),
                })
            });
            continue;
        };
        if prompt.text != line.answer.prompt {
            return Err(format!(
                "exists already, measured otherwise: row {row} was asked with another prompt"
            ));
        }
        if whose == Whose::Teacher && !same_teacher {
            lost = lost.or_else(|| Some("answers of another teacher".into()));
            continue;
        }
        if line.answer.token_ids.is_empty() {
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
fn read(out: &Path) -> Result<Option<Finished>> {
    let Some(text) = read_text(out)? else {
        return Ok(None);
    };
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let header = Header::deserialize(&value).ok();
    let mut lines = finished_lines(&beside(out, "answers"), Whose::Student)?;
    lines.extend(finished_lines(
        &beside(out, "teacher-answers"),
        Whose::Teacher,
    )?);
    let metrics = value["metrics"].as_object().into_iter().flatten();
    Ok(Some(Finished {
        section: Section {
            header: header.and_then(Header::of_this_format),
            lines,
        },
        worth: Worth {
            metrics: metrics.map(|(name, _)| name.clone()).collect(),
            exposure_bias: value["exposure_bias"].is_object(),
        },
    }))
}

/// A file that would be written beside `out` and is there though no evaluation is: somebody's own.
fn orphan(out: &Path) -> Option<String> {
    let names = ["answers", "teacher-answers", "tokens"];
    let mut paths = names.iter().map(|what| beside(out, what));
    let there = paths.find(|path| path.exists())?;
    Some(format!(
        "{} exists already, and belongs to no evaluation",
        there.display()
    ))
}

#[cfg(test)]
mod tests;
