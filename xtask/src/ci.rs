//! The steps of the gate. They use one profile and one set of features, so that the dependencies are
//! built once for tests and binary, and checked once for clippy and documentation.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::{browser, end_to_end};

/// Whether the binary is run on a real model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndToEnd {
    Yes,
    No,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// A step that failed; the text says how to repeat it.
type Outcome<T> = Result<T, String>;

/// Runs every step, stops at the first that fails, and ends with what was counted.
pub(crate) fn run(end_to_end: EndToEnd) -> ExitCode {
    let mut counts = Counts::default();
    let outcome = steps(end_to_end, &mut counts);
    report(outcome, counts)
}

/// Runs the last step alone.
pub(crate) fn run_end_to_end() -> ExitCode {
    let mut counts = Counts::default();
    let outcome = the_end_to_end_run(&mut counts);
    report(outcome, counts)
}

/// Runs the step with the browser alone.
pub(crate) fn run_browser() -> ExitCode {
    let mut counts = Counts::default();
    let outcome = reports_in_a_browser(&mut counts);
    report(outcome, counts)
}

fn report(outcome: Outcome<()>, mut counts: Counts) -> ExitCode {
    if let Err(message) = &outcome {
        // A step without tests of its own failed.
        counts.failed = counts.failed.max(1);
        eprintln!("\n{message}");
    }
    println!("\n{} passed, {} failed", counts.passed, counts.failed);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn steps(end_to_end: EndToEnd, counts: &mut Counts) -> Outcome<()> {
    step("format", || cargo("fmt --all --check", &[]))?;
    step("clippy", || {
        cargo(
            "clippy --locked --workspace --all-targets -- -D warnings",
            &[],
        )
    })?;
    step("documentation", || {
        let strict = [("RUSTDOCFLAGS", "-D warnings")];
        cargo("doc --locked --workspace --no-deps", &strict)
    })?;
    step("tests", || {
        tests("test --locked --workspace --no-fail-fast", &[], counts)
    })?;
    // What other machines run, and what GPUs do.
    let libraries = "test --locked --workspace --no-fail-fast --lib";
    step("tests without AVX-512", || {
        tests(libraries, &[("DISTIL_INSTRUCTIONS", "avx2")], counts)
    })?;
    step("tests of the portable compositions", || {
        tests(libraries, &[("DISTIL_PORTABLE", "1")], counts)
    })?;
    reports_in_a_browser(counts)?;
    if end_to_end == EndToEnd::Yes {
        the_end_to_end_run(counts)?;
    }
    Ok(())
}

fn reports_in_a_browser(counts: &mut Counts) -> Outcome<()> {
    step("report in a browser", || {
        cargo("build --locked --workspace", &[])?;
        let home = root().join("target/report-in-a-browser");
        browser::run(&binary()?, &home, counts)
    })
}

fn the_end_to_end_run(counts: &mut Counts) -> Outcome<()> {
    step("end to end", || {
        cargo("build --locked --workspace", &[])?;
        let run = end_to_end::run(&binary()?, &root().join("target/end-to-end"));
        counts.add(run.counts);
        run.outcome
    })
}

fn step(name: &str, work: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    println!("\n── {name} ──");
    let start = Instant::now();
    work().map_err(|repeat| format!("{name} failed; to repeat it: {repeat}"))?;
    println!("── {name}: ok in {:.0} s ──", start.elapsed().as_secs_f64());
    Ok(())
}

/// The workspace's folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The `distil` that was built beside this program.
fn binary() -> Outcome<PathBuf> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(this.with_file_name(format!("distil{}", std::env::consts::EXE_SUFFIX)))
}

fn command(words: &str, variables: &[(&str, &str)]) -> (Command, String) {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(program);
    command
        .args(words.split(' '))
        .envs(variables.iter().copied())
        .current_dir(root());
    let set: String = variables
        .iter()
        .map(|(name, value)| format!("{name}='{value}' "))
        .collect();
    (command, format!("{set}cargo {words}"))
}

fn cargo(words: &str, variables: &[(&str, &str)]) -> Outcome<()> {
    let (mut command, repeat) = command(words, variables);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(repeat),
        Err(error) => Err(format!("{repeat} ({error})")),
    }
}

/// Runs all tests, passes on what they print, and sums their summaries.
fn tests(words: &str, variables: &[(&str, &str)], counts: &mut Counts) -> Outcome<()> {
    let (mut command, repeat) = command(words, variables);
    let failed = |error: std::io::Error| format!("{repeat} ({error})");
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(failed)?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            counts.add(summary(&line).unwrap_or_default());
        }
    }
    match child.wait().map_err(failed)?.success() {
        true => Ok(()),
        false => Err(repeat),
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; …`.
fn summary(line: &str) -> Option<Counts> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(what));
        part.and_then(|number| number.trim().parse().ok())
    };
    Some(Counts {
        passed: number(" passed")?,
        failed: number(" failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_read_and_nothing_else() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        let counts = Counts {
            passed: 12,
            failed: 3,
        };
        assert_eq!(summary(line), Some(counts));
        assert_eq!(summary("test result: ok"), None);
        assert_eq!(summary("test a ... ok"), None);
    }
}
