//! `distil plan`: checks a configuration and says what the run would take.

use std::path::PathBuf;

use clap::Args;
use distil::config::{Config, Runs};
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
    let configs: Vec<(String, Config)> = match Runs::load(&arguments.config, &arguments.set)? {
        Runs::One(config) => vec![(String::new(), *config)],
        Runs::Stages(stages) => stages
            .into_iter()
            .map(|stage| (stage.name, stage.config))
            .collect(),
    };
    for (name, config) in configs {
        let plan = plan(&config, &mut |event| progress.event(event))?;
        progress.done();
        match arguments.json {
            true => output::json(&plan)?,
            false => {
                if !name.is_empty() {
                    output::line(format_args!("stage {name}"))?;
                }
                output::line(plan)?;
            }
        }
    }
    Ok(())
}
