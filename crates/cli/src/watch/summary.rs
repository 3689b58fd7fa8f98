//! The run in plain lines, for a pipe, a log, or a terminal that can do no more.

use super::panels;
use super::run::Run;
use super::state::State;
use super::text::{flat, number};

/// What a curve is summed up for.
const CURVES: [&str; 6] = [
    "loss",
    "reward",
    "kl_k1",
    "kl_k3",
    "gradient_norm",
    "tokens_per_second",
];

/// Cells of a line.
const WIDTH: usize = 100;

/// The lines.
pub(crate) fn summary(run: &Run) -> Vec<String> {
    let state = State::default();
    let stage = run.stage(None);
    let metrics = stage.metrics();
    let mut lines = vec![format!(
        "{}: {}",
        panels::title(run, &state, stage),
        panels::standing(run, stage)
    )];
    match stage.step() {
        None => lines.push(format!("no step yet: {}", stage.preparation())),
        Some(_) => lines.push(panels::progress(run, stage, 0)),
    }
    for name in CURVES {
        let Some(column) = metrics.column(name) else {
            continue;
        };
        let finite = || column.iter().copied().filter(|value| value.is_finite());
        let (Some(first), Some(last)) = (finite().next(), finite().next_back()) else {
            continue;
        };
        let lowest = finite().fold(f64::INFINITY, f64::min);
        let highest = finite().fold(f64::NEG_INFINITY, f64::max);
        let [first, last, lowest, highest] = [first, last, lowest, highest].map(number);
        lines.push(format!(
            "{name} {last} (first {first}, lowest {lowest}, highest {highest})"
        ));
    }
    if !metrics.evaluations.is_empty() {
        let (title, rows) = panels::evaluation(stage);
        lines.push(title);
        lines.extend(rows.iter().map(|row| format!("  {}", row.trim_end())));
    }
    let choices = run.choices(&state);
    if let (title, Some(sample)) = panels::sample(stage, &state, &choices) {
        lines.push(title);
        let text = panels::short(stage, sample, WIDTH);
        lines.extend(text.iter().map(|line| format!("  {line}")));
    }
    for warning in &metrics.warnings {
        let text = flat(&warning.text);
        lines.push(format!("warning of step {}: {text}", warning.step));
    }
    lines.extend(panels::unreadable(stage));
    lines.extend(
        run.trouble
            .as_ref()
            .map(|trouble| format!("trouble: {}", flat(trouble))),
    );
    lines
}
