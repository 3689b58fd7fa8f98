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
mod remaining;
mod verb;
mod watch;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Verb};
use progress::Progress;

/// Keeps memory that was freed for the next step, see [`keep_memory`].
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_memory();
    failure::explain_panics();
    let arguments = Arguments::parse();
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads.map_or(0, NonZeroUsize::get))
        .stack_size(8 << 20)
        .build_global();
    if let Err(error) = threads {
        return failure::report(&error.into());
    }
    // On one of the pool's threads: handing every small operation over to the pool from outside
    // would cost a sleep and a wake-up each.
    match rayon::scope(|_| run(arguments)) {
        Ok(status) => status,
        Err(error) => failure::report(&error),
    }
}

/// Never gives freed memory back to the system: a step needs what the one before needed, and fresh
/// pages cost more time than much of what is computed in them.
fn keep_memory() {
    // SAFETY: sets one number of the allocator; negative means never.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
    }
}

/// `mi_option_purge_delay` in the allocator's `mimalloc.h`.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
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
        Verb::Export(export) => verb::export::run(&export)?,
        Verb::Report(report) => verb::report::run(&report)?,
        Verb::Plan(plan) => verb::plan::run(&plan, progress)?,
        Verb::Bench(bench) => verb::bench::run(&bench, progress)?,
        Verb::Train(train) => return verb::train::run(&train, progress),
        Verb::Watch(watch) => return verb::watch::run(&watch),
        Verb::Quickstart(quickstart) => return verb::quickstart::run(&quickstart, progress),
    }
    Ok(ExitCode::SUCCESS)
}
