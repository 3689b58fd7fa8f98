//! `distil export`: runs for TensorBoard, data frames and Weights & Biases; model cards.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{ArgGroup, Args};
use distil::export::{card, csv, records, tensorboard, wandb};
use distil_model::files;

use crate::failure::WrongInput;
use crate::output;

/// Write what runs logged for TensorBoard, as CSV, or for Weights & Biases; renew a model card.
///
/// A run may still be going on: what it has logged so far is written. Each stage of a schedule is a run
/// of its own. What was written is printed, a file a line. A file that exists already is replaced only
/// with --force.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("format").required(true).multiple(true)
        .args(["tensorboard", "csv", "wandb", "card"])),
    after_help = "\
Examples:
  distil export runs/first --tensorboard logs && tensorboard --logdir logs
  distil export runs/first runs/second --csv runs.csv
  distil export runs/first --wandb first.jsonl
  distil export runs/first --card --force")]
pub(crate) struct Export {
    /// The folders of the runs
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,

    /// Write an event file for each run, in a folder of its name below DIR
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,

    /// Write all runs as one table, a row a step
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Write all runs as lines that a few lines of Python log with wandb, offline if wanted
    #[arg(long, value_name = "FILE.jsonl")]
    wandb: Option<PathBuf>,

    /// Write the model card of each run's student, README.md in its folder, with the results that
    /// stand in the run's evaluations/ now
    #[arg(long)]
    card: bool,

    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(export: &Export) -> anyhow::Result<()> {
    let mut all: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    if export.tensorboard.is_some() || export.csv.is_some() || export.wandb.is_some() {
        let records = records(&export.runs)?;
        if let Some(logs) = &export.tensorboard {
            let file = |record| (tensorboard::path(logs, record), tensorboard::events(record));
            all.extend(records.iter().map(file));
        }
        if let Some(path) = &export.csv {
            all.push((path.clone(), csv::table(&records).into_bytes()));
        }
        if let Some(path) = &export.wandb {
            all.push((path.clone(), wandb::lines(&records).into_bytes()));
        }
    }
    if export.card {
        for run in &export.runs {
            let cards = card::cards(run)?.into_iter();
            all.extend(cards.map(|(path, text)| (path, text.into_bytes())));
        }
    }
    // Refused before anything is written.
    for (place, (path, bytes)) in all.iter().enumerate() {
        check(path, export.force)?;
        let mut before = all[..place].iter();
        if before.any(|(other, content)| other == path && content != bytes) {
            let what = format!("two of the exports would be {}", path.display());
            return Err(WrongInput::new(what, "give each a file of its own").into());
        }
    }
    for (path, bytes) in &all {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        files::write_whole(path, bytes)?;
        output::line(path.display())?;
    }
    Ok(())
}

fn check(path: &Path, force: bool) -> anyhow::Result<()> {
    let refuse = |what: &str, fix: &str| {
        let what = format!("{} {what}", path.display());
        Err(WrongInput::new(what, fix).into())
    };
    if path.is_dir() {
        return refuse("is a folder", "name a file in it");
    }
    match path.exists() && !force {
        true => refuse(
            "exists already",
            "choose another place, or pass --force to replace it",
        ),
        false => Ok(()),
    }
}
