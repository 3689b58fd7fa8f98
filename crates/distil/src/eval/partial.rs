//! The files of an evaluation as lines, and the one that takes answers as they are finished.
//!
//! ```text
//! FILE.partial.jsonl          conditions, then the answers generated under them; perhaps again: conditions, answers, …
//! ```
//!
//! This file is only added to. So whatever ends the program (a kill, a full disk), and whenever, nothing is
//! lost but the line that was being written; the next process leaves that line as it is and begins
//! another. Who writes it holds its lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::conditions::Header;
use super::evaluate::Answer;
use crate::error::{Error, Result};

/// Whose answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Whose {
    Student,
    Teacher,
}

/// A line of a file of answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Whose, in the partial file only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) whose: Option<Whose>,
    /// Number of the run.
    pub(crate) run: usize,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

/// Answers of an earlier evaluation.
#[derive(Debug)]
pub(crate) struct Section {
    /// What they are of; none if it is no evaluation of this format.
    pub(crate) header: Option<Header>,
    /// The answers; whose they are is the student's where a line does not say.
    pub(crate) lines: Vec<Line>,
}

/// The file `FILE.what.jsonl` beside `FILE.json`.
pub(crate) fn beside(out: &Path, what: &str) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".json").unwrap_or(&name);
    out.with_file_name(format!("{stem}.{what}.jsonl"))
}

/// How conditions begin.
const BEGINNING: &str = "{\"format\":";

/// The partial file, locked. It goes when it is dropped if nothing was written.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    /// Whether the file ends within a line.
    is_cut: bool,
}

impl Partial {
    /// Locks the file, which is made if there is none, and reads it.
    ///
    /// # Errors
    /// [`Error::Run`] if another process has it. It cannot be read or written.
    pub(crate) fn lock(out: &Path) -> Result<(Self, Vec<Section>)> {
        let path = beside(out, "partial");
        let failed = |source| Error::Write {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(failed)?;
        // Before it is read: two processes would generate the same answers.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Run {
                    path,
                    what: "another process is at this evaluation".into(),
                    fix: "wait for it, or choose another --out".into(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let text = read_text(&path)?.unwrap_or_default();
        let is_cut = !text.is_empty() && !text.ends_with('\n');
        let partial = Self { path, file, is_cut };
        Ok((partial, sections(&text)))
    }

    /// Adds whole lines.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn add(&mut self, lines: &str) -> Result<()> {
        let start = if self.is_cut { "\n" } else { "" };
        // If this fails, some of it may be there.
        self.is_cut = true;
        let written = self.file.write_all(format!("{start}{lines}").as_bytes());
        written.map_err(|source| self.failed(source))?;
        self.is_cut = false;
        Ok(())
    }

    /// Waits until all of it is on the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn sync(&self) -> Result<()> {
        let synced = self.file.sync_all();
        synced.map_err(|source| self.failed(source))
    }

    /// Throws away what is in it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.is_cut = false;
        let cleared = self.file.set_len(0);
        cleared.map_err(|source| self.failed(source))
    }

    /// Removes the file.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn remove(self) -> Result<()> {
        remove(&self.path)
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Write {
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.file.metadata().is_ok_and(|file| file.len() == 0) {
            // An empty file left behind harms nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What a partial file holds. A line that is neither conditions nor an answer was cut off.
fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        if let Ok(line) = serde_json::from_str::<Line>(line) {
            if let Some(section) = sections.last_mut() {
                section.lines.push(line);
            }
        } else if let Ok(header) = serde_json::from_str::<Header>(line) {
            sections.push(Section {
                header: header.of_this_format(),
                lines: Vec::new(),
            });
        }
    }
    // Conditions that a kill cut off are nothing yet; anything else is somebody's own file.
    let begins_alike = text.bytes().zip(BEGINNING.bytes()).all(|(a, b)| a == b);
    if sections.is_empty() && (!begins_alike || text.contains('\n')) {
        sections.push(Section {
            header: None,
            lines: Vec::new(),
        });
    }
    sections
}

/// Lines of a finished file of answers; those that are damaged are left out.
///
/// # Errors
/// It cannot be read; that there is none is no error.
pub(crate) fn finished_lines(path: &Path, whose: Whose) -> Result<Vec<Line>> {
    let text = read_text(path)?.unwrap_or_default();
    let parsed = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let whose = Some(whose);
    Ok(parsed.map(|line: Line| Line { whose, ..line }).collect())
}

pub(crate) fn read_text(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stand_beside_the_result() {
        assert_eq!(
            beside(Path::new("a/e.json"), "answers"),
            Path::new("a/e.answers.jsonl")
        );
        assert_eq!(
            beside(Path::new("e"), "tokens"),
            Path::new("e.tokens.jsonl")
        );
    }

    #[test]
    fn what_was_cut_off_stays_and_swallows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("e.json");
        let path = beside(&out, "partial");
        for (there, then) in [
            ("", "a\nb\n"),
            ("whole\n", "whole\na\nb\n"),
            ("whole\ncut", "whole\ncut\na\nb\n"),
        ] {
            fs::write(&path, there).unwrap();
            let (mut partial, _) = Partial::lock(&out).unwrap();
            partial.add("a\n").unwrap();
            partial.add("b\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), then);
        }
        fs::write(&path, "").unwrap();
        drop(Partial::lock(&out).unwrap());
        assert!(!path.exists(), "nothing was written");
    }
}
