//! What happens while one waits: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::failure::say;
use crate::remaining::{self, Newest};
use distil::event::{Event, StepLine};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// What a bar of optimiser steps is called.
const STEPS: &str = "step";

/// Time between plain lines.
const PAUSE: Duration = Duration::from_secs(10);

/// What the numbers of a step are, said before the first one.
const NUMBERS: &str = "tokens/s counts response tokens trained on; the time left is that of the steps, without evaluations";

/// Tells of progress on standard error.
pub(crate) struct Progress {
    to: To,
    /// The work under way.
    bar: Option<(String, ProgressBar)>,
    /// When a plain line was last written.
    spoken: Option<Instant>,
    /// Seconds of the newest optimiser steps.
    seconds: Newest,
    /// Their response tokens a second.
    speeds: Newest,
    /// Whether it was said what the numbers of a step are.
    explained: bool,
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
            seconds: Newest::default(),
            speeds: Newest::default(),
            explained: false,
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
                    if total > 0 {
                        bar.set_length(total as u64);
                    }
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
        if line.step <= 1 {
            // Another stage may take another time.
            self.seconds.clear();
            self.speeds.clear();
        }
        if !self.explained {
            self.explained = true;
            self.note(NUMBERS);
        }
        self.seconds.push(line.seconds);
        self.speeds.push(line.tokens_per_second);
        let words = words(line, self.seconds.pace(), self.speeds.pace());
        if self.to == To::Terminal {
            self.at(STEPS, line.step, line.step + line.left);
            if let Some((_, bar)) = &self.bar {
                bar.set_message(words);
            }
        } else if self.to == To::Log && (line.step <= 1 || line.left == 0 || self.is_time()) {
            self.spoken = Some(Instant::now());
            say(format_args!("step {}: {words}", place(line)));
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

/// Which step of how many; of about how many, where `train.tokens` ends the run before its last step.
fn place(line: &StepLine) -> String {
    match line.step + line.left {
        end if end < line.steps && line.left > 0 => format!("{}/~{end}", line.step),
        end => format!("{}/{end}", line.step),
    }
}

/// A step in words, the most important first: a narrow terminal cuts the end off. `pace` is the time
/// of a step, in seconds; `speed` its response tokens a second.
fn words(line: &StepLine, pace: Option<f64>, speed: Option<f64>) -> String {
    let mut words = format!("loss {:.4}", line.loss);
    if let Some(speed) = speed {
        words.push_str(&format!(", {speed:.0} tokens/s"));
    }
    if let Some(pace) = pace.filter(|_| line.left > 0) {
        let left = remaining::words(pace * line.left as f64);
        words.push_str(&format!(", {left} left"));
    }
    let kl = ["kl_k3", "kl_k1"]
        .into_iter()
        .find(|name| line.terms.contains_key(name));
    for name in ["reward"].into_iter().chain(kl) {
        if let Some(value) = line.terms.get(name) {
            words.push_str(&format!(", {name} {value:.4}"));
        }
    }
    words.push_str(&format!(", learning rate {:.2e}", line.learning_rate));
    words
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
        // A step's words have the time that is left by themselves.
        (1.., _) if what == STEPS => "{bar:12} {pos}/{len}  {wide_msg}",
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn line(terms: &[(&'static str, f64)]) -> StepLine {
        StepLine {
            step: 10,
            steps: 100,
            left: 90,
            epoch: 0.5,
            tokens: 1000,
            loss: 2.0,
            terms: terms.iter().copied().collect(),
            gradient_norm: 1.0,
            logit_gradients: BTreeMap::new(),
            learning_rate: 1e-4,
            tokens_per_second: 41.3,
            seconds: 2.0,
            phases: BTreeMap::new(),
        }
    }

    #[test]
    fn a_step_tells_how_long_the_run_still_takes() {
        assert_eq!(
            words(&line(&[]), Some(2.0), Some(41.3)),
            "loss 2.0000, 41 tokens/s, 3 min 00 s left, learning rate 1.00e-4"
        );
        let last = StepLine {
            left: 0,
            ..line(&[])
        };
        assert!(!words(&last, Some(2.0), None).contains("left"));
    }

    #[test]
    fn a_run_of_so_many_tokens_ends_before_its_last_step() {
        let step = |step, left| StepLine {
            step,
            steps: 100_000,
            left,
            ..line(&[])
        };
        assert_eq!(place(&step(5, 2)), "5/~7");
        assert_eq!(place(&step(8, 0)), "8/8");
        assert_eq!(place(&line(&[])), "10/100");
        let mut progress = Progress::new(true);
        (progress.to, progress.explained) = (To::Terminal, true);
        for (line, end) in [(step(5, 2), 7), (step(6, 2), 8)] {
            progress.step(&line);
            let (_, bar) = progress.bar.as_ref().unwrap();
            assert_eq!(bar.length(), Some(end), "the bar is full at the end");
        }
    }

    #[test]
    fn reward_and_divergence_are_told_where_there_are_any() {
        let terms = [("kl_k1", 0.25), ("kl_k3", 0.5), ("reward", -1.0)];
        let words = words(&line(&terms), None, None);
        assert!(words.contains(", reward -1.0000, kl_k3 0.5000,"), "{words}");
        assert!(!words.contains("kl_k1"), "{words}");
    }

    #[test]
    fn time_and_speed_are_those_of_the_newest_steps() {
        let mut progress = Progress::new(true);
        for step in 1..=200 {
            let seconds = if step <= 100 { 9.0 } else { 1.0 };
            progress.step(&StepLine {
                step,
                seconds,
                tokens_per_second: 10.0 / seconds,
                ..line(&[])
            });
        }
        let newest = |progress: &mut Progress| (progress.seconds.pace(), progress.speeds.pace());
        assert_eq!(newest(&mut progress), (Some(1.0), Some(10.0)));
        progress.step(&StepLine {
            step: 1,
            seconds: 4.0,
            tokens_per_second: 7.0,
            ..line(&[])
        });
        assert_eq!(
            newest(&mut progress),
            (Some(4.0), Some(7.0)),
            "another stage"
        );
    }
}
