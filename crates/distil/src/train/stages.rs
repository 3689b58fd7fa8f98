//! A schedule of stages: runs in a row, each starting from the student of the one before.
//!
//! Every stage is a run's folder of its own, `stages/1-kd/` and so on, so that it is resumed, watched
//! and evaluated like any other. The last one's student and results stand in the schedule's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use distil_model::files;

use super::{Outcome, Run, train};
use crate::config::{Stage, Start};
use crate::error::{Error, Result};
use crate::event::Event;

/// Runs the stages that are not finished yet.
///
/// # Errors
/// As [`train`]; `out` exists and `resume` is not set.
pub fn train_stages(
    stages: &[Stage],
    out: &Path,
    resume: bool,
    interrupt: &AtomicBool,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    let occupied = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    let folder = out.join("stages");
    let refused = |what: &str, fix: &str| Error::Run {
        path: out.to_owned(),
        what: what.into(),
        fix: fix.into(),
    };
    if occupied && !resume {
        return Err(refused(
            "the output folder exists already",
            "continue that run with --resume, or choose another --out",
        ));
    }
    if occupied && !folder.exists() {
        return Err(refused(
            "there is no folder stages/ in it, so this is not a run with stages",
            "choose another --out",
        ));
    }
    let result = run_all(stages, out, &folder, interrupt, events);
    if result.is_err() {
        // Succeeds only if nothing was done: then the same --out can be used again.
        let _ = fs::remove_dir(&folder).and_then(|()| fs::remove_dir(out));
    }
    result
}

fn run_all(
    stages: &[Stage],
    out: &Path,
    folder: &Path,
    interrupt: &AtomicBool,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    fs::create_dir_all(folder).map_err(|source| Error::Write {
        path: folder.to_owned(),
        source,
    })?;
    let mut newest: Option<PathBuf> = None;
    for (index, stage) in stages.iter().enumerate() {
        let (number, of) = (index + 1, stages.len());
        let method = stage.config.method.name();
        events(Event::Note(&format!("stage {number} of {of}: {method}")));
        let mut config = stage.config.clone();
        if let Some(student) = &newest {
            config.student.start = Start::Model(text_of(student)?);
        }
        let path = folder.join(&stage.name);
        let run = Run {
            config: &config,
            out: &path,
            resume: true,
            interrupt,
        };
        match train(&run, events)? {
            Outcome::Finished { student } => {
                newest = Some(std::path::absolute(&student).map_err(|source| Error::Read {
                    path: student,
                    source,
                })?);
            }
            interrupted => return Ok(interrupted),
        }
    }
    let student = out.join("student");
    if let (Some(last), Some(stage)) = (newest, stages.last())
        && !student.exists()
    {
        copy(
            &folder.join(&stage.name).join("eval.json"),
            &out.join("eval.json"),
        )?;
        files::folder_whole(&student, |inside| -> Result<()> {
            let entries = fs::read_dir(&last).map_err(|source| Error::Read {
                path: last.clone(),
                source,
            })?;
            for entry in entries.flatten() {
                copy(&entry.path(), &inside.join(entry.file_name()))?;
            }
            Ok(())
        })?;
    }
    Ok(Outcome::Finished { student })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = fs::copy(from, to).map_err(|source| Error::Write {
        path: to.to_owned(),
        source,
    });
    copied.map(|_| ())
}

/// A path as a model reference.
fn text_of(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::Run {
        path: path.to_owned(),
        what: "the folder's name is not valid Unicode, so the next stage cannot name its student"
            .into(),
        fix: "choose another --out".into(),
    })
}
