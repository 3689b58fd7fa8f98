//! Results: lines on standard output, or files that appear whole and replace nothing by accident.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use distil_model::files;
use serde::Serialize;

use crate::failure::WrongInput;

/// Prints a line of the result. Whoever reads it may stop reading (`| head`); that ends the program
/// quietly.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.context("cannot write to standard output"),
    }
}

/// One JSON object on a line.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// Refuses a file that exists already, unless `force`; makes the folder it goes into.
pub(crate) fn check_file(path: &Path, force: bool) -> anyhow::Result<()> {
    if path.is_dir() {
        return Err(WrongInput::new(
            format!("--out {} is a folder", path.display()),
            "name a file in it",
        )
        .into());
    }
    if path.exists() && !force {
        return Err(WrongInput::new(
            format!("{} exists already", path.display()),
            "choose another --out, or pass --force to replace it",
        )
        .into());
    }
    match path.parent() {
        Some(folder) => std::fs::create_dir_all(folder).map_err(|source| {
            distil::Error::Write {
                path: folder.to_owned(),
                source,
            }
            .into()
        }),
        None => Ok(()),
    }
}

/// Refuses to replace what is read, `--force` or not: rows cannot be made again.
pub(crate) fn check_not_input(out: &Path, input: &Path) -> anyhow::Result<()> {
    let is_same = match (out.canonicalize(), input.canonicalize()) {
        (Ok(out), Ok(input)) => out == input,
        _ => false,
    };
    match is_same {
        false => Ok(()),
        true => Err(WrongInput::new(
            format!("--out {} is the file that is read", out.display()),
            "choose another --out",
        )
        .into()),
    }
}

/// Refuses a folder that exists already.
pub(crate) fn check_folder(path: &Path) -> anyhow::Result<()> {
    match path.exists() {
        false => Ok(()),
        true => Err(WrongInput::new(
            format!("the output folder {} exists already", path.display()),
            "choose another --out, or remove it first",
        )
        .into()),
    }
}

/// A JSONL result: on standard output line by line, or a file at the end.
pub(crate) struct JsonLines {
    file: Option<(PathBuf, Vec<u8>)>,
}

impl JsonLines {
    /// Standard output if there is no path. `input`: the file that it is made of, if it is of one.
    pub(crate) fn new(
        path: Option<&Path>,
        force: bool,
        input: Option<&Path>,
    ) -> anyhow::Result<Self> {
        if let Some(path) = path {
            if let Some(input) = input {
                check_not_input(path, input)?;
            }
            check_file(path, force)?;
        }
        Ok(Self {
            file: path.map(|path| (path.to_owned(), Vec::new())),
        })
    }

    pub(crate) fn add(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let Some((_, bytes)) = &mut self.file else {
            return json(value);
        };
        serde_json::to_writer(&mut *bytes, value)?;
        bytes.push(b'\n');
        Ok(())
    }

    pub(crate) fn finish(self) -> anyhow::Result<()> {
        if let Some((path, bytes)) = self.file {
            files::write_whole(&path, &bytes)?;
        }
        Ok(())
    }
}

/// Breaks a text into lines of at most `width` characters, each after `indent`.
pub(crate) fn wrap(text: &str, indent: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(
            wrap("a bc  def ghijklmno", " ", 6),
            " a bc\n def\n ghijklmno"
        );
    }

    #[test]
    fn nothing_is_replaced_by_accident() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/out.jsonl");
        let mut lines = JsonLines::new(Some(&file), false, None).unwrap();
        lines.add(&[1, 2]).unwrap();
        assert!(!file.exists(), "it appears whole");
        lines.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "[1,2]\n");
        let error = check_file(&file, false).unwrap_err().to_string();
        assert!(
            error.contains("exists already; choose another --out"),
            "{error}"
        );
        assert!(check_file(&file, true).is_ok());
        let itself = folder.path().join("new/../new/out.jsonl");
        assert!(JsonLines::new(Some(&itself), true, Some(&file)).is_err());
        assert!(JsonLines::new(Some(&file), true, Some(folder.path())).is_ok());
        assert!(check_file(folder.path(), true).is_err());
        assert!(check_folder(folder.path()).is_err());
        assert!(check_folder(&folder.path().join("other")).is_ok());
    }
}
