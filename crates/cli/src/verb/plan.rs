//! `distil plan`: checks a configuration and says what the run would take.

use std::path::PathBuf;

use clap::Args;
use distil::config::Config;
use distil::plan::plan;

use crate::output;
use crate::progress::Progress;

/// Check everything a run needs, and predict its memory, disk and time. Starts nothing.
///
/// The configuration, every file and every row are checked, and the models are opened and compared:
/// what this verb accepts, `distil train` begins with. Nothing is written but the cache of models.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil plan run.toml
  distil plan run.toml --set train.batch=64 --json")]
pub(crate) struct Plan {
    /// The configuration, a TOML file
    config: PathBuf,

    /// Set a key of the configuration to another value; may be repeated
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    set: Vec<String>,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Plan, progress: &mut Progress) -> anyhow::Result<()> {
    let config = Config::load(&arguments.config, &arguments.set)?;
    let plan = plan(&config, &mut |event| progress.event(event))?;
    progress.done();
    match arguments.json {
        true => output::json(&plan),
        false => output::line(plan),
    }
}
