//! `distil quickstart`: a real model distilled, from nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::progress::Progress;
use crate::{interrupt, output};

/// Distil a real model in about ten minutes, and see what it gained.
///
/// Fetches SmolLM2-135M-Instruct, prunes it to a student, lets the teacher answer a few hundred
/// prompts, distils with DPKD, and measures the student before and after on prompts that were held
/// out. One table at the end; the student is in the folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil quickstart
  distil quickstart --out runs/seven --seed 7
  distil chat quickstart/run/student")]
pub(crate) struct Quickstart {
    /// The new folder
    #[arg(long, value_name = "DIR", default_value = "quickstart")]
    out: PathBuf,

    /// Start of the random streams
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(arguments: &Quickstart, progress: &mut Progress) -> anyhow::Result<ExitCode> {
    let stop = interrupt::on_ctrl_c("finishing this step; Ctrl-C again ends at once")?;
    let summary = distil::quickstart::run(&arguments.out, arguments.seed, &stop, &mut |event| {
        progress.event(event);
    })?;
    progress.done();
    output::line(summary)?;
    Ok(ExitCode::SUCCESS)
}
