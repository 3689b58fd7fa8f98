//! The one gate: `cargo xtask ci` is all that a contributor has to run, and what CI runs.
//!
//! It ends with a line `N passed, N failed`: tests of all crates and checks of the end-to-end run.

mod browser;
mod ci;
mod compare;
mod end_to_end;
mod pbkd_study;
mod pictures;
mod python;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask ci [--fast]
       cargo xtask end-to-end
       cargo xtask browser
       cargo xtask compare [--out DIR] [--seeds N] [--tokens N] [--methods A,B] [--set KEY=VALUE]
                           [--test-rows N]
       cargo xtask pictures REPORT.html DIR NAME SECTION[:HEIGHT]…
       cargo xtask pbkd-study

  ci           format, clippy, documentation, tests, reports in a browser, and the end-to-end run
  --fast       without the end-to-end run
  end-to-end   the binary on a real model of 100 MB, which is fetched once
  browser      reports of two runs in a headless Chromium, which is installed if apt-get can
  compare      every method on one task from one start with the same student tokens: a table of
               means with 95 % intervals [default: 3 seeds, 4000 tokens, runs/compare]; then the
               first seed's students on rows of a test set [default: 100], and a report of all runs
  pictures     sections of a report as DIR/NAME-SECTION.png, for the book
  pbkd-study   PbKD's rates on problems with a known reward: the table and picture of the book";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ci"] => ci::run(ci::EndToEnd::Yes),
        ["ci", "--fast"] => ci::run(ci::EndToEnd::No),
        ["end-to-end"] => ci::run_end_to_end(),
        ["browser"] => ci::run_browser(),
        ["pbkd-study"] => exit(pbkd_study::run(24)),
        ["pictures", page, out, name, sections @ ..] if !sections.is_empty() => exit(
            pictures::run(Path::new(page), Path::new(out), name, sections),
        ),
        ["compare", options @ ..] => {
            exit(compare::Options::parse(options).and_then(|options| compare::run(&options)))
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn exit(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}
