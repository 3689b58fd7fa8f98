//! The one gate: `cargo xtask ci` is all that a contributor has to run, and what CI runs.
//!
//! It ends with a line `N passed, N failed`: tests of all crates and checks of the end-to-end run.

mod ci;
mod end_to_end;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask ci [--fast]
       cargo xtask end-to-end

  ci           format, clippy, documentation, tests, and the end-to-end run
  --fast       without the end-to-end run
  end-to-end   the binary on a real model of 100 MB, which is fetched once";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["ci"] => ci::run(ci::EndToEnd::Yes),
        ["ci", "--fast"] => ci::run(ci::EndToEnd::No),
        ["end-to-end"] => ci::run_end_to_end(),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
