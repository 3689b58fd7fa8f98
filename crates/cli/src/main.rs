//! The `distil` command. Each verb is a file in `verb/`; the work itself is in the library.
//!
//! Exit status: 0 done; 1 the work failed or was interrupted; 2 the user's input is wrong. Results go
//! to standard output, everything else to standard error.

mod arguments;
mod failure;
mod interrupt;
mod loading;
mod output;
mod progress;
mod verb;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Verb};
use progress::Progress;

fn main() -> ExitCode {
    failure::explain_panics();
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(status) => status,
        Err(error) => failure::report(&error),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .build_global()?;
    }
    let mut progress = Progress::new(arguments.quiet);
    let progress = &mut progress;
    match arguments.verb {
        Verb::Models(models) => verb::models::run(&models)?,
        Verb::Methods(methods) => verb::methods::run(&methods)?,
        Verb::Convert(convert) => verb::convert::run(&convert, progress)?,
        Verb::Prune(prune) => verb::prune::run(&prune, progress)?,
        Verb::Generate(generate) => verb::generate::run(&generate, progress)?,
        Verb::Chat(chat) => verb::chat::run(&chat, progress)?,
        Verb::Reward(reward) => verb::reward::run(&reward, progress)?,
        Verb::Score(score) => verb::score::run(&score, progress)?,
        Verb::Eval(eval) => verb::eval::run(&eval, progress)?,
        Verb::Plan(plan) => verb::plan::run(&plan, progress)?,
        Verb::Bench(bench) => verb::bench::run(&bench, progress)?,
        Verb::Train(train) => return verb::train::run(&train, progress),
        Verb::Quickstart(quickstart) => return verb::quickstart::run(&quickstart, progress),
    }
    Ok(ExitCode::SUCCESS)
}
