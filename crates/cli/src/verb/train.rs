//! `distil train`: a run from its configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use distil::config::Runs;
use distil::event::Event;
use distil::train::{Outcome, Run, train, train_stages};

use crate::failure::say;
use crate::interrupt;
use crate::output;
use crate::progress::Progress;

/// Train a student as a configuration says.
///
/// The run's folder gets the resolved configuration, a line of metrics a step, samples, checkpoints,
/// and in the end the student as a Hugging Face directory. Ctrl-C finishes the step, writes a
/// checkpoint and says how to go on; so does a run that was killed: resumed, it ends with the same
/// bits as one that was not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil plan run.toml
  distil train run.toml --out runs/first
  distil train run.toml --out runs/first --resume
  distil train run.toml --set method.beta=0.5 --set train.steps=100 --out runs/beta")]
pub(crate) struct Train {
    /// The configuration, a TOML file
    config: PathBuf,

    /// The run's folder [default: runs/ and the configuration's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Set a key of the configuration to another value; may be repeated
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    set: Vec<String>,

    /// Go on with the run in the folder from its last checkpoint
    #[arg(long)]
    resume: bool,
}

pub(crate) fn run(arguments: &Train, progress: &mut Progress) -> anyhow::Result<ExitCode> {
    let runs = Runs::load(&arguments.config, &arguments.set)?;
    let out = arguments.out.clone().unwrap_or_else(|| {
        Path::new("runs").join(arguments.config.file_stem().unwrap_or_default())
    });
    let stop = interrupt::on_ctrl_c("finishing this step; Ctrl-C again ends at once")?;
    let mut events = |event: Event<'_>| progress.event(event);
    let outcome = match &runs {
        Runs::One(config) => {
            let run = Run {
                config,
                out: &out,
                resume: arguments.resume,
                interrupt: &stop,
            };
            train(&run, &mut events)?
        }
        Runs::Stages(stages) => train_stages(stages, &out, arguments.resume, &stop, &mut events)?,
    };
    progress.done();
    match outcome {
        Outcome::Finished { student } => {
            output::line(student.display())?;
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Interrupted { step } => {
            say(format_args!(
                "interrupted after step {step}; to go on: {}",
                command(arguments, &out)
            ));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The command that continues this run.
fn command(arguments: &Train, out: &Path) -> String {
    let mut words = vec![
        "distil train".to_owned(),
        quoted(&arguments.config.to_string_lossy()),
        "--out".to_owned(),
        quoted(&out.to_string_lossy()),
    ];
    for set in &arguments.set {
        words.push("--set".into());
        words.push(quoted(set));
    }
    words.push("--resume".into());
    words.join(" ")
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_resume_can_be_pasted() {
        let arguments = Train {
            config: "my runs/a.toml".into(),
            out: None,
            set: vec!["train.steps=3".into(), "data.template=\"it's\"".into()],
            resume: false,
        };
        assert_eq!(
            command(&arguments, Path::new("runs/a")),
            "distil train 'my runs/a.toml' --out runs/a --set train.steps=3 \
             --set 'data.template=\"it'\\''s\"' --resume"
        );
    }
}
