//! What a user sees when something goes wrong, and the exit status that scripts see.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use distil_model::ModelError;

/// The work failed.
const WORK_FAILED: u8 = 1;

/// The user's input is wrong.
const INPUT_WRONG: u8 = 2;

/// The command line asks for something that cannot be, which only shows once files are looked at.
#[derive(Debug)]
pub(crate) struct WrongInput {
    what: String,
    fix: String,
}

impl WrongInput {
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for WrongInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.fix)
    }
}

impl std::error::Error for WrongInput {}

/// A line on standard error. Nobody may be there to read it (`2>&1 | tee`, and Ctrl-C ends tee,
/// too): that must not end the work, as `eprintln!` would.
pub(crate) fn say(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints the error and returns its status.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many of our messages give the system's reason themselves.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    say(format_args!("error: {text}"));
    ExitCode::from(status(error))
}

fn status(error: &anyhow::Error) -> u8 {
    let input = if let Some(error) = error.downcast_ref::<distil::Error>() {
        error.is_input()
    } else if let Some(error) = error.downcast_ref::<ModelError>() {
        error.is_input()
    } else {
        error.is::<WrongInput>()
    };
    if input { INPUT_WRONG } else { WORK_FAILED }
}

/// Lets a panic, which is always a mistake of ours, end the program with a plain sentence.
pub(crate) fn explain_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let what = panic.payload_as_str().unwrap_or("no reason given");
        say(format_args!(
            "error: this is a bug in distil, please report it with the command that caused it: \
             {what} ({}, distil {})",
            place.unwrap_or_else(|| "unknown place".into()),
            env!("CARGO_PKG_VERSION")
        ));
        // At once: other threads must not go on with half of a result.
        std::process::exit(WORK_FAILED.into());
    }));
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn input_and_work_have_their_statuses() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let path = PathBuf::from("x");
        let write = ModelError::Write {
            path: path.clone(),
            source: full(),
        };
        assert_eq!(status(&distil::Error::from(write).into()), 1);
        let read = distil::Error::Read {
            path,
            source: full(),
        };
        assert_eq!(status(&anyhow::Error::from(read).context("while")), 2);
        assert_eq!(status(&WrongInput::new("no", "yes").into()), 2);
        assert_eq!(status(&full().into()), 1);
    }
}
