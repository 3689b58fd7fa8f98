//! `distil plan`: checks a configuration and says what the run would be and take.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use distil::config::Runs;
use distil::plan::{Plan as Planned, bytes, plan, plan_continued, span};
use serde::Serialize;

use crate::output;
use crate::progress::Progress;

/// Check everything a run needs, show what it trains on, and predict its memory, disk and time.
/// Starts nothing.
///
/// The configuration, every file and every row are checked, and the models are opened and compared:
/// what this verb accepts, `distil train` begins with. Rows that are left out are counted by reason. Three
/// rows are shown as the model reads them, with what is trained on between ⟦ and ⟧. In the end stands
/// what looks like a mistake. Nothing is written but the cache of models.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil plan run.toml
  distil plan run.toml --set train.batch=64 --json

Colours are for terminals, and not where NO_COLOR is set.")]
pub(crate) struct Plan {
    /// The configuration, a TOML file
    config: PathBuf,

    /// Set a key of the configuration to another value; may be repeated
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    set: Vec<String>,

    /// Print a JSON object, of a schedule one a stage
    #[arg(long)]
    json: bool,
}

/// A plan and, in a schedule, its stage.
#[derive(Serialize)]
struct Stage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    #[serde(flatten)]
    plan: &'a Planned,
}

pub(crate) fn run(arguments: &Plan, progress: &mut Progress) -> anyhow::Result<()> {
    match Runs::load(&arguments.config, &arguments.set)? {
        Runs::One(config) => {
            let plan = plan(&config, &mut |event| progress.event(event))?;
            progress.done();
            show(arguments, None, &plan)
        }
        Runs::Stages(stages) => {
            let (mut seconds, mut disk) = (0.0, 0);
            for (index, stage) in stages.iter().enumerate() {
                let mut events = |event: distil::event::Event<'_>| progress.event(event);
                let plan = match index {
                    0 => plan(&stage.config, &mut events)?,
                    _ => plan_continued(&stage.config, &mut events)?,
                };
                progress.done();
                seconds += plan.seconds;
                disk += plan.disk_bytes();
                if !arguments.json {
                    let (number, of) = (index + 1, stages.len());
                    output::line(format_args!("stage {number} of {of}: {}", stage.name))?;
                }
                show(arguments, Some(&stage.name), &plan)?;
                if !arguments.json {
                    output::line("")?;
                }
            }
            if !arguments.json {
                let (time, disk) = (span(seconds), bytes(disk));
                output::line(format_args!(
                    "all stages about {time}, and {disk} of disk if nothing is removed between them"
                ))?;
            }
            Ok(())
        }
    }
}

fn show(arguments: &Plan, stage: Option<&str>, plan: &Planned) -> anyhow::Result<()> {
    match (arguments.json, wants_colours()) {
        (true, _) => output::json(&Stage { stage, plan }),
        (false, true) => output::line(plan.coloured()),
        (false, false) => output::line(plan),
    }
}

/// Whether standard output is a terminal that may have colours (<https://no-color.org>).
fn wants_colours() -> bool {
    let is = |name: &str, unwanted: fn(&str) -> bool| {
        std::env::var_os(name).is_some_and(|value| unwanted(&value.to_string_lossy()))
    };
    std::io::stdout().is_terminal()
        && !is("NO_COLOR", |value| !value.is_empty())
        && !is("TERM", |value| value == "dumb")
}
