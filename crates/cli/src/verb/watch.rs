//! `distil watch`: a run's curves, numbers and samples while it goes on.

use std::io::{IsTerminal, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::output;
use crate::watch::draw::draw;
use crate::watch::run::Run;
use crate::watch::state::{State, Wish};
use crate::watch::summary::summary;

/// Watch a run in the terminal, while it goes on or afterwards.
///
/// Shows where the run is and how long it still takes, its curves, the last evaluation, what the
/// student says, and warnings. It only reads the run's folder, so it may start and end at any time, on
/// another machine, too, that sees the folder. `?` shows the keys.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil watch runs/first
  distil watch runs/first --once
  distil watch runs/first | head -3")]
pub(crate) struct Watch {
    /// The run's folder, as given to `distil train --out`
    run: PathBuf,

    /// Print where the run is, and end; so it is where standard output is no terminal
    #[arg(long)]
    once: bool,
}

/// Time between two looks at the files.
const PAUSE: Duration = Duration::from_secs(1);

/// Time between two looks at the signals.
const TICK: Duration = Duration::from_millis(200);

/// Bytes of a file that are read before the screen is drawn again.
const PORTION: u64 = 8 << 20;

pub(crate) fn run(arguments: &Watch) -> anyhow::Result<ExitCode> {
    let mut run = Run::open(&arguments.run)?;
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if arguments.once || dumb || !stdout().is_terminal() {
        run.update(None, u64::MAX);
        for line in summary(&run) {
            output::line(line)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let end = Arc::new(AtomicBool::new(false));
    // There is no terminal any more, nothing to restore, and waiting for its keys may not return.
    #[cfg(unix)]
    signal_hook::flag::register_conditional_shutdown(
        signal_hook::consts::SIGHUP,
        1,
        Arc::new(AtomicBool::new(true)),
    )?;
    for signal in [SIGINT, SIGTERM] {
        // The second one ends the program wherever it is.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&end))?;
        signal_hook::flag::register(signal, Arc::clone(&end))?;
    }
    // Puts itself before the hook that explains panics, so that a panic restores the terminal, too.
    let opened = ratatui::try_init().context("cannot draw on this terminal; try --once");
    let ended = opened.and_then(|mut terminal| watch(&mut terminal, &mut run, &end));
    // An error means that there is no terminal any more.
    let _ = ratatui::try_restore();
    ended
}

/// Reads and draws until the user or a signal ends it.
fn watch(
    terminal: &mut DefaultTerminal,
    run: &mut Run,
    end: &AtomicBool,
) -> anyhow::Result<ExitCode> {
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut state = State::default();
    let (mut look, mut at_once) = (Instant::now(), true);
    loop {
        if at_once || (!state.paused && Instant::now() >= look) {
            at_once = !run.update(state.stage, PORTION);
            look = Instant::now() + PAUSE;
        }
        let mut furthest = 0;
        terminal
            .draw(|frame| furthest = draw(frame.buffer_mut(), &state, run, colours))
            .context("cannot draw on the terminal")?;
        state.scroll = state.scroll.min(furthest);
        loop {
            if end.load(Ordering::Relaxed) {
                return Ok(ExitCode::FAILURE);
            }
            let wait = match (at_once, state.paused) {
                (true, _) => Duration::ZERO,
                (false, true) => TICK,
                (false, false) => look.saturating_duration_since(Instant::now()).min(TICK),
            };
            if event::poll(wait).context("cannot read the keyboard")? {
                match event::read().context("cannot read the keyboard")? {
                    Event::Key(key) => match state.key(key, &run.choices(&state)) {
                        Wish::End => return Ok(ExitCode::SUCCESS),
                        Wish::Read => at_once = true,
                        Wish::Show => {}
                    },
                    Event::Resize(..) => {}
                    _ => continue,
                }
                break;
            }
            if at_once || (!state.paused && Instant::now() >= look) {
                break;
            }
        }
    }
}
