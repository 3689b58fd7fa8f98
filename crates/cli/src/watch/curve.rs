//! The curves that a run has, and how many of their points a screen can show.
//!
//! A plot of w columns shows a curve of a million steps as w parts of equal length. Of each the
//! lowest and the highest value are drawn, so that a single bad step is seen; or the mean, if the
//! user wants the trend.

use std::borrow::Cow;
use std::collections::BTreeSet;

use distil::eval::metric::metric;
use distil::record::{Metrics, column_words};

/// What a run is first looked at for, in this order. The rest follows in alphabetical order.
const FIRST: [&str; 8] = [
    "loss",
    "reward",
    "reward_gap",
    "return",
    "kl_k3",
    "kl_k1",
    "gradient_norm",
    "tokens_per_second",
];

/// Columns that tell where the run is, not how it goes.
const PLACE: [&str; 3] = ["steps", "epoch", "tokens"];

/// Begins the name of a metric's curve over the evaluations.
const EVALUATION: &str = "evaluation: ";

/// Names of the curves there are.
pub(crate) fn names(metrics: &Metrics) -> Vec<String> {
    let there: Vec<&str> = metrics.names().filter(|n| !PLACE.contains(n)).collect();
    let mut names: Vec<String> = FIRST
        .iter()
        .filter(|name| there.contains(name))
        .map(|&name| name.to_owned())
        .collect();
    let measured = metrics.evaluations.iter().flat_map(|e| e.metrics.keys());
    let measured: BTreeSet<&String> = measured.collect();
    names.extend(measured.iter().map(|name| format!("{EVALUATION}{name}")));
    // Times and gradients of parts come last.
    let rest = there.iter().filter(|name| !FIRST.contains(name));
    let (parts, whole): (Vec<&str>, Vec<&str>) = rest.partition(|name| name.contains('.'));
    names.extend(whole.into_iter().chain(parts).map(str::to_owned));
    names
}

/// What a curve is counted in, where that is more than a number; else empty.
pub(crate) fn unit(name: &str) -> &'static str {
    let unit = match name.strip_prefix(EVALUATION) {
        Some(name) => metric(name).map_or("", |metric| metric.unit),
        None if name == "seconds" || name.starts_with("phases.") => return "s",
        None => column_words(name).map_or("", |words| words.unit),
    };
    match unit.starts_with("nats") || unit.starts_with("tokens") {
        true => unit,
        false => "",
    }
}

/// Where the meaning of all other curves stands.
const BOOK: &str = "see the book, \"The run's folder\" and the method's page";

/// What a curve shows, in a sentence.
pub(crate) fn meaning(name: &str) -> &'static str {
    match name.strip_prefix(EVALUATION) {
        Some(name) => metric(name).map_or(BOOK, |metric| metric.meaning),
        None => column_words(name).map_or(BOOK, |words| words.meaning),
    }
}

/// A curve, NaN where a step has no value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve<'a> {
    /// Optimiser steps, in order.
    pub(crate) steps: Cow<'a, [usize]>,
    /// A value for each.
    pub(crate) values: Cow<'a, [f64]>,
}

impl<'a> Curve<'a> {
    /// The curve of this name, of the newest `newest` steps or of all.
    pub(crate) fn of(metrics: &'a Metrics, name: &str, newest: Option<usize>) -> Self {
        let from = newest.map_or(0, |newest| metrics.steps.len().saturating_sub(newest));
        if let Some(metric) = name.strip_prefix(EVALUATION) {
            let first = metrics.steps.get(from).copied().filter(|_| from > 0);
            let points = metrics.evaluations.iter().filter_map(|evaluated| {
                let value = evaluated.metrics.get(metric)?;
                (evaluated.step >= first.unwrap_or(0)).then_some((evaluated.step, *value))
            });
            let (steps, values): (Vec<usize>, Vec<f64>) = points.unzip();
            return Self {
                steps: steps.into(),
                values: values.into(),
            };
        }
        let values = metrics.column(name).unwrap_or_default();
        Self {
            steps: metrics.steps.get(from..).unwrap_or_default().into(),
            values: values.get(from..).unwrap_or_default().into(),
        }
    }

    /// The newest value.
    pub(crate) fn newest(&self) -> Option<f64> {
        self.values.iter().rev().copied().find(|v| v.is_finite())
    }

    /// At most `count` parts of equal length; those without a value are left out.
    pub(crate) fn parts(&self, count: usize) -> Vec<Part> {
        let length = self.steps.len().min(self.values.len());
        let count = count.min(length);
        (0..count)
            .filter_map(|part| {
                let range = part * length / count..(part + 1) * length / count;
                let values = &self.values[range.clone()];
                let finite = || values.iter().copied().filter(|value| value.is_finite());
                let (first, last) = (self.steps[range.start], self.steps[range.end - 1]);
                Some(Part {
                    step: f64::midpoint(first as f64, last as f64),
                    low: finite().reduce(f64::min)?,
                    high: finite().reduce(f64::max)?,
                    mean: finite().sum::<f64>() / finite().count() as f64,
                })
            })
            .collect()
    }
}

/// Consecutive steps of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Part {
    /// The middle of its steps.
    pub(crate) step: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) mean: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve<'a>(values: &'a [f64]) -> Curve<'a> {
        Curve {
            steps: (1..=values.len()).collect(),
            values: values.into(),
        }
    }

    #[test]
    fn a_long_curve_keeps_its_extremes() {
        let mut values = vec![1.0; 1_000_000];
        values[777_777] = 50.0;
        values[3] = f64::NAN;
        let parts = curve(&values).parts(152);
        assert_eq!(parts.len(), 152);
        assert_eq!(parts.iter().filter(|part| part.high == 50.0).count(), 1);
        assert!(parts.iter().all(|part| part.low == 1.0 && part.mean < 1.01));
        assert!(parts.windows(2).all(|pair| pair[0].step < pair[1].step));
    }

    #[test]
    fn units_stand_where_they_say_something() {
        let units = [
            "loss",
            "tokens_per_second",
            "phases.head",
            "evaluation: forward_kl",
        ]
        .map(unit);
        assert_eq!(units, ["nats", "tokens/s", "s", "nats a token"]);
        for name in ["gradient_norm", "nobody's", "evaluation: rouge_l"] {
            assert_eq!(unit(name), "", "{name}");
        }
        assert!(meaning("gradient_norm").contains("before clipping"));
    }

    #[test]
    fn a_short_curve_is_drawn_as_it_is() {
        let parts = curve(&[1.0, f64::NAN, 3.0]).parts(10);
        let points: Vec<_> = parts.iter().map(|part| (part.step, part.mean)).collect();
        assert_eq!(points, [(1.0, 1.0), (3.0, 3.0)]);
        assert_eq!(curve(&[1.0, f64::NAN]).newest(), Some(1.0));
        assert_eq!(curve(&[]).parts(10), []);
        assert_eq!(curve(&[1.0]).parts(0), []);
        assert_eq!(curve(&[1.0, 2.0, 6.0]).parts(1)[0].mean, 3.0);
    }
}
