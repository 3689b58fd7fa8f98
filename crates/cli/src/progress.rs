//! What happens while one waits: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::failure::say;
use distil::train::{Event, StepLine};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Time between plain lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Tells of progress on standard error.
pub(crate) struct Progress {
    to: To,
    /// The work under way.
    bar: Option<(String, ProgressBar)>,
    /// When a plain line was last written.
    spoken: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Nobody,
    Terminal,
    Log,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        let to = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => To::Nobody,
            (false, true) => To::Terminal,
            (false, false) => To::Log,
        };
        Self {
            to,
            bar: None,
            spoken: None,
        }
    }

    /// One line, said once.
    pub(crate) fn note(&mut self, text: &str) {
        if self.to != To::Nobody {
            self.say(text);
        }
    }

    /// One line that the user must know, `--quiet` or not.
    pub(crate) fn warn(&mut self, text: &str) {
        self.say(&format!("warning: {text}"));
    }

    /// `done` of `total`, or of an unknown total (0); elsewhere than on a terminal at most a line
    /// every ten seconds.
    pub(crate) fn at(&mut self, what: &str, done: usize, total: usize) {
        match self.to {
            To::Nobody => {}
            To::Terminal => {
                if self.bar.as_ref().is_none_or(|(shown, _)| shown != what) {
                    self.done();
                    self.bar = Some((what.to_owned(), bar(what, total)));
                }
                if let Some((_, bar)) = &self.bar {
                    bar.set_position(done as u64);
                }
            }
            // The first line comes after a pause, so that short work says nothing.
            To::Log => {
                if self.is_time() {
                    self.spoken = Some(Instant::now());
                    match total {
                        0 => say(format_args!("{what}: {}", count(what, done))),
                        _ => say(format_args!(
                            "{what}: {} of {}",
                            count(what, done),
                            count(what, total)
                        )),
                    }
                }
            }
        }
    }

    /// What a run says.
    pub(crate) fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Note(text) => self.note(text),
            Event::Warning(text) => self.warn(text),
            Event::Progress { what, done, total } => self.at(what, done, total),
            Event::Step(line) => self.step(line),
            Event::Evaluated { step, metrics } => {
                let metrics: Vec<String> = metrics
                    .iter()
                    .map(|(name, value)| format!("{name} {value:.4}"))
                    .collect();
                self.done();
                self.note(&format!("after step {step}: {}", metrics.join(", ")));
            }
            Event::Saved { step, path } => {
                self.note(&format!("checkpoint of step {step} in {}", path.display()));
            }
        }
    }

    /// A step of training; elsewhere than on a terminal the first, the last, and one now and then.
    fn step(&mut self, line: &StepLine) {
        let words = format!(
            "loss {:.4}, learning rate {:.2e}, {:.0} tokens/s",
            line.loss, line.learning_rate, line.tokens_per_second
        );
        if self.to == To::Terminal {
            self.at("step", line.step, line.steps);
            if let Some((_, bar)) = &self.bar {
                bar.set_message(words);
            }
        } else if self.to == To::Log
            && (line.step <= 1 || line.step >= line.steps || self.is_time())
        {
            self.spoken = Some(Instant::now());
            say(format_args!("step {}/{}: {words}", line.step, line.steps));
        }
    }

    /// Ends the bar.
    pub(crate) fn done(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.spoken = None;
    }

    fn say(&mut self, text: &str) {
        match &self.bar {
            Some((_, bar)) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Whether a plain line is due; begins to wait if none was written yet.
    fn is_time(&mut self) -> bool {
        self.spoken.get_or_insert_with(Instant::now).elapsed() >= PAUSE
    }
}

/// Downloads are counted in bytes, all else in units.
fn is_download(what: &str) -> bool {
    what.starts_with("fetching")
}

fn count(what: &str, number: usize) -> String {
    match is_download(what) {
        true => HumanBytes(number as u64).to_string(),
        false => number.to_string(),
    }
}

fn bar(what: &str, total: usize) -> ProgressBar {
    let template = match (total, is_download(what)) {
        (0, _) => "{spinner} {pos}  {msg}",
        (_, true) => "{bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}  {msg}",
        (_, false) => "{bar:24} {pos}/{len} {eta}  {msg}",
    };
    let bar = match total {
        0 => ProgressBar::no_length(),
        total => ProgressBar::new(total as u64),
    };
    let bar = bar.with_message(what.to_owned());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}
