//! Evaluations as tables for people: a metric a line.

use std::collections::BTreeMap;

use super::compare::{Comparison, Difference};
use super::metric::{Better, metric};
use super::outcome::{Bucket, Estimate, Summary};
use super::protocol::Measured;

/// Cells of a line, and columns as wide as their widest cell.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let text = |line: &Vec<String>| {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(text).collect::<Vec<_>>().join("\n")
}

fn number(value: f64) -> String {
    format!("{value:.4}")
}

fn interval(interval: Option<[f64; 2]>) -> String {
    interval.map_or("–".into(), |[low, high]| format!("[{low:.4}, {high:.4}]"))
}

fn unit_and_better(name: &str) -> [String; 2] {
    let info = metric(name);
    let better = match info.and_then(|info| info.better) {
        Some(Better::Lower) => "lower",
        Some(Better::Higher) => "higher",
        None => "–",
    };
    [info.map_or("", |info| info.unit).into(), better.into()]
}

/// An evaluation: value and interval, and mean, deviation and interval over seeds if there are any.
pub fn table(measured: &Measured) -> String {
    let seeds = measured
        .runs
        .iter()
        .filter(|run| run.seed.is_some())
        .count();
    let mut head = vec!["metric".to_owned()];
    let sampled = measured.metrics.iter().any(|(_, s)| s.sampled.is_some());
    let plain = !sampled || measured.metrics.iter().any(|(_, s)| first(s).is_some());
    if plain {
        head.extend(["value".into(), "95 %".into()]);
    }
    if sampled {
        head.extend(["sampled".into(), "deviation".into(), "95 %".into()]);
    }
    head.extend(["unit".into(), "better".into()]);
    let mut lines = vec![head];
    for (name, summary) in &measured.metrics {
        let mut line = vec![name.clone()];
        if plain {
            line.extend(match first(summary) {
                Some(estimate) => [number(estimate.value), interval(estimate.interval)],
                None => ["–".into(), "–".into()],
            });
        }
        if sampled {
            line.extend(match &summary.sampled {
                Some(sampled) => [
                    number(sampled.mean),
                    sampled.standard_deviation.map_or("–".into(), number),
                    interval(sampled.interval),
                ],
                None => ["–".into(), "–".into(), "–".into()],
            });
        }
        line.extend(unit_and_better(name));
        lines.push(line);
    }
    let mut text = aligned(&lines);
    text.push_str(&format!("\nmeasured on {}", rows(measured.rows)));
    if seeds > 0 {
        let plural = if seeds == 1 { "" } else { "s" };
        text.push_str(&format!("; sampled: {seeds} seed{plural} at temperature 1"));
    }
    if measured.rows == 1 {
        text.push_str("; one row has no interval");
    }
    let metrics = measured.metrics.iter();
    let counts = metrics.map(|(name, summary)| (name.as_str(), summary.rows));
    text.push_str(&fewer_rows(measured.rows, counts));
    let nan = measured
        .metrics
        .iter()
        .filter(|(_, summary)| summary.main().is_nan());
    let nan: Vec<&str> = nan.map(|(name, _)| name.as_str()).collect();
    if !nan.is_empty() {
        text.push_str(&format!("\nnot a number: {}", nan.join(", ")));
    }
    if let Some(exposure) = &measured.exposure_bias {
        let mut lines = vec![
            ["length", "regret", "expected", "ExError %", "95 %"]
                .map(String::from)
                .to_vec(),
        ];
        let shown = |value: Option<f64>| value.map_or("–".into(), number);
        for (index, length) in exposure.lengths.iter().enumerate() {
            lines.push(vec![
                length.to_string(),
                shown(exposure.regret[index]),
                shown(exposure.expected[index]),
                shown(exposure.ex_error_percent[index]),
                interval(exposure.ex_error_interval[index]),
            ]);
        }
        text.push_str(&format!("\n\nexposure bias\n{}", aligned(&lines)));
    }
    text
}

/// Every metric by the length of the reference; of sampled runs the mean.
pub fn bucket_table(buckets: &[Bucket]) -> String {
    let name = |bucket: &Bucket| match bucket.to {
        Some(to) => format!("({}, {to}]", bucket.from),
        None => format!("({}, ∞)", bucket.from),
    };
    let mut head = vec!["words of the reference".to_owned()];
    head.extend(buckets.iter().map(name));
    let mut counts = vec!["rows".to_owned()];
    counts.extend(buckets.iter().map(|bucket| bucket.rows.to_string()));
    let mut lines = vec![head, counts];
    let names = buckets.iter().map(|bucket| &bucket.metrics);
    let names = names.max_by_key(|metrics| metrics.len());
    for (name, _) in names.into_iter().flatten() {
        let mut line = vec![name.clone()];
        line.extend(buckets.iter().map(|bucket| {
            let found = bucket.metrics.iter().find(|(other, _)| other == name);
            found.map_or("–".into(), |(_, summary)| number(summary.main()))
        }));
        lines.push(line);
    }
    aligned(&lines)
}

/// Several sets side by side: a metric a line, a set a column; of sampled runs the mean.
pub fn suite_table(sets: &[(String, Measured)]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in sets.iter().flat_map(|(_, measured)| &measured.metrics) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut head = vec!["metric".to_owned()];
    head.extend(sets.iter().map(|(set, _)| set.clone()));
    head.extend(["unit".into(), "better".into()]);
    let mut counts = vec!["rows".to_owned()];
    counts.extend(sets.iter().map(|(_, measured)| measured.rows.to_string()));
    let mut lines = vec![head, counts];
    for name in names {
        let mut line = vec![name.to_owned()];
        line.extend(sets.iter().map(|(_, measured)| {
            let found = measured.metrics.iter().find(|(other, _)| other == name);
            found.map_or("–".into(), |(_, summary)| number(summary.main()))
        }));
        line.extend(unit_and_better(name));
        lines.push(line);
    }
    aligned(&lines)
}

/// Two models on the same rows.
pub fn comparison_table(comparison: &Comparison) -> String {
    let head = [
        "metric",
        "of",
        "A",
        "B",
        "B − A",
        "95 %",
        "P(B better)",
        "p",
    ];
    let mut lines = vec![head.map(String::from).to_vec()];
    let shown = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.3}"));
    for difference in &comparison.differences {
        let Difference { metric, of, .. } = difference;
        lines.push(vec![
            metric.clone(),
            of.name().into(),
            number(difference.a),
            number(difference.b),
            format!("{:+.4}", difference.difference),
            interval(difference.interval),
            shown(difference.probability_b_better),
            shown(difference.p_value),
        ]);
    }
    let mut text = format!("A: {}\nB: {}\n", comparison.a, comparison.b);
    text.push_str(&aligned(&lines));
    text.push_str(&format!("\ncompared on {}", rows(comparison.rows)));
    let differences = comparison.differences.iter();
    let counts = differences.map(|difference| (difference.metric.as_str(), difference.rows));
    text.push_str(&fewer_rows(comparison.rows, counts));
    text
}

/// The metrics that say something of fewer than `all` rows, a line for each number of rows.
fn fewer_rows<'a>(all: usize, metrics: impl Iterator<Item = (&'a str, usize)>) -> String {
    let mut by_count: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (name, count) in metrics.filter(|(_, count)| *count < all) {
        let names = by_count.entry(count).or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let line = |(count, names): (&usize, &Vec<&str>)| {
        format!("\nof {} only: {}", rows(*count), names.join(", "))
    };
    by_count.iter().rev().map(line).collect()
}

fn first(summary: &Summary) -> Option<Estimate> {
    summary.value.or(summary.greedy)
}

fn rows(count: usize) -> String {
    format!("{count} row{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::eval::outcome::Sampled;
    use crate::eval::protocol::Run;

    fn measured(runs: Vec<Run>, metrics: Vec<(&str, Summary)>) -> Measured {
        Measured {
            rows: 7,
            runs,
            metrics: metrics
                .into_iter()
                .map(|(name, s)| (name.to_owned(), s))
                .collect(),
            buckets: Vec::new(),
            exposure_bias: None,
            signatures: Map::new(),
            by_row: Map::new(),
            answers: Vec::new(),
            tokens: Vec::new(),
        }
    }

    fn estimate(value: f64, interval: Option<[f64; 2]>) -> Option<Estimate> {
        Some(Estimate { value, interval })
    }

    #[test]
    fn without_and_with_seeds() {
        let kl = Summary {
            rows: 7,
            value: estimate(0.51234, Some([0.5, 0.525])),
            ..Summary::default()
        };
        let rate = Summary {
            rows: 7,
            greedy: estimate(1.0, None),
            ..Summary::default()
        };
        let greedy = measured(
            vec![Run::GREEDY],
            vec![("forward_kl", kl.clone()), ("eos_rate", rate)],
        );
        let expected = "\
metric      value   95 %              unit          better
forward_kl  0.5123  [0.5000, 0.5250]  nats a token  lower
eos_rate    1.0000  –                 0 to 1        –
measured on 7 rows";
        assert_eq!(table(&greedy), expected);

        let sampled = Summary {
            rows: 3,
            sampled: Some(Sampled::new(vec![0.25, 0.75], Some([0.25, 0.75]))),
            ..Summary::default()
        };
        let seeds = measured(
            vec![Run::sampled(1), Run::sampled(2)],
            vec![("forward_kl", kl.clone()), ("rouge_l", sampled)],
        );
        let expected = "\
metric      value   95 %              sampled  deviation  95 %              unit          better
forward_kl  0.5123  [0.5000, 0.5250]  –        –          –                 nats a token  lower
rouge_l     –       –                 0.5000   0.3536     [0.2500, 0.7500]  0 to 1        higher
measured on 7 rows; sampled: 2 seeds at temperature 1
of 3 rows only: rouge_l";
        assert_eq!(table(&seeds), expected);
        let sets = [("dolly".to_owned(), seeds), ("vicuna".to_owned(), greedy)];
        let expected = "\
metric      dolly   vicuna  unit          better
rows        7       7
forward_kl  0.5123  0.5123  nats a token  lower
rouge_l     0.5000  –       0 to 1        higher
eos_rate    –       1.0000  0 to 1        –";
        assert_eq!(suite_table(&sets), expected);

        let exposure_only = measured(vec![Run::sampled(1)], vec![("forward_kl", kl)]);
        let text = table(&exposure_only);
        assert!(!text.contains("deviation"), "no column of nothing: {text}");
    }
}
