//! The differences of two students in every metric of an evaluation, with their intervals.

use super::compare::{Comparison, Evidence, Verdict, same_rows};
use super::format::{signed, signed_range};
use super::html::{self, escape, named, table};
use super::run::Run;
use super::words::{self, direction, title};

/// Pairs in the table; more would be wider than any page.
const PAIRS: usize = 6;

/// A table of one evaluation; nothing if fewer than two runs have it.
pub(super) fn table_of(runs: &[Run], name: &str) -> String {
    let with: Vec<usize> = (0..runs.len())
        .filter(|&index| runs[index].evaluation(name).is_some())
        .collect();
    let mut pairs = Vec::new();
    for (place, &a) in with.iter().enumerate() {
        pairs.extend(with[place + 1..].iter().map(|&b| (a, b)));
    }
    let left_out = pairs.len().saturating_sub(PAIRS);
    pairs.truncate(PAIRS);
    let metrics = with
        .iter()
        .filter_map(|&index| runs[index].evaluation(name));
    let metrics = words::in_order(metrics.flat_map(|e| e.metrics.keys().cloned()).collect());
    let of = |metric: &str, (a, b): (usize, usize)| {
        Comparison::of(metric, runs[a].evaluation(name)?, runs[b].evaluation(name)?)
    };
    let mut head = vec!["difference".to_owned()];
    for &(a, b) in &pairs {
        head.push(format!(
            "{} less {}",
            named(a, &runs[a].label),
            named(b, &runs[b].label)
        ));
    }
    let row = |metric: &String| -> Option<Vec<String>> {
        let comparisons: Vec<Option<Comparison>> =
            pairs.iter().map(|&pair| of(metric, pair)).collect();
        comparisons.iter().flatten().next()?;
        let mut cells = vec![format!(
            "{}<small>{}</small>",
            escape(&title(metric)),
            direction(metric)
        )];
        for (comparison, &(a, b)) in comparisons.iter().zip(&pairs) {
            cells.push(match comparison {
                Some(comparison) => cell(metric, comparison, &runs[a].label, &runs[b].label),
                None => "–".to_owned(),
            });
        }
        Some(cells)
    };
    let rows: Vec<Vec<String>> = metrics.iter().filter_map(row).collect();
    if pairs.is_empty() || rows.is_empty() {
        return String::new();
    }
    let mut text =
        "The difference with its 95 % interval, and who is better if the interval leaves out 0. \
         Paired: row by row on the same rows; unpaired: from the two intervals, wider."
            .to_owned();
    let alike = pairs.iter().all(|&(a, b)| {
        let both = runs[a].evaluation(name).zip(runs[b].evaluation(name));
        both.is_none_or(|(a, b)| same_rows(a, b))
    });
    if !alike {
        text += " Some of these evaluations are of different data, so their numbers say little about each other.";
    }
    if left_out > 0 {
        text += &format!(" {left_out} more pairs are left out.");
    }
    html::about(&text) + &table("numbers", &head, &rows)
}

fn cell(metric: &str, comparison: &Comparison, a: &str, b: &str) -> String {
    let Some((difference, interval)) = comparison.difference() else {
        return format!(
            "{}<small>one number each: no evidence</small>",
            signed(comparison.a - comparison.b)
        );
    };
    let verdict = match comparison.verdict(metric) {
        Verdict::First => format!("<b class=\"best\">{} better</b>", escape(a)),
        Verdict::Second => format!("<b class=\"best\">{} better</b>", escape(b)),
        _ if words::better(metric).is_none() => "does not rank".to_owned(),
        _ => "not decided".to_owned(),
    };
    let how = match comparison.evidence {
        Evidence::Paired { .. } => "paired",
        _ => "unpaired",
    };
    format!(
        "{}<small>{}, {how}</small>{verdict}",
        signed(difference),
        signed_range(interval)
    )
}
