//! `distil report`: runs as one HTML file.

use std::path::{Path, PathBuf};

use clap::Args;
use distil::report::report;
use distil_model::files;

use crate::output;

/// Write a report of one run, or of several side by side, as one HTML file.
///
/// Results with their intervals, which of two students is better and how sure that is, every curve,
/// answers before and after, configuration and cost. The file needs no network. Evaluations come from
/// RUN/evaluations, where `distil eval --out RUN/evaluations/NAME.json` puts them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil report runs/kd
  distil report runs/kd runs/llmr --out comparison.html")]
pub(crate) struct Report {
    /// The runs' folders, as `distil train` wrote them
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,

    /// The file to write [default: RUN/report.html; of several runs, report.html here]
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,

    /// Replace --out if it exists; a run's own report.html is always made anew
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(arguments: &Report) -> anyhow::Result<()> {
    let own = match (&arguments.out, &arguments.runs[..]) {
        (None, [run]) => Some(run.join("report.html")),
        _ => None,
    };
    let named = || arguments.out.as_deref().unwrap_or(Path::new("report.html"));
    if own.is_none() {
        output::check_file(named(), arguments.force)?;
    }
    let html = report(&arguments.runs)?;
    let path = own.as_deref().unwrap_or_else(named);
    files::write_whole(path, html.as_bytes())?;
    output::line(path.display())
}
