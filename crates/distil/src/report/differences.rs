//! The differences of two students in every metric of an evaluation, with their intervals, and what
//! several training seeds say of each student.

use super::compare::{Comparison, Evidence, Verdict, same_rows, surely_best};
use super::family::{Family, families, metrics};
use super::format::{like, number, plural, signed, signed_range};
use super::html::{self, escape, heading, named, turned};
use super::results::best_cell;
use super::run::Run;
use super::student_t;
use super::verdict::pairs;
use super::words::{self, direction, title};

/// Pairs that stand as columns; of more, each is a row.
const PAIRS: usize = 6;

fn metric_cell(metric: &str) -> String {
    format!(
        "{}<small>{}</small>",
        escape(&title(metric)),
        direction(metric)
    )
}

/// Whether this evaluation, or without a name the runs' own, is there of several runs of a family.
pub(super) fn of_several_seeds(runs: &[Run], evaluation: Option<&str>) -> bool {
    families(runs).iter().any(|family| match evaluation {
        Some(name) => family.evaluations(name).len() > 1,
        None => family.runs.len() > 1,
    })
}

/// "Over training seeds": a table of the families' means; nothing if no family was measured several
/// times.
pub(super) fn over_seeds(runs: &[Run], evaluation: Option<&str>) -> String {
    if !of_several_seeds(runs, evaluation) {
        return String::new();
    }
    let families = families(runs);
    let with = |family: &&Family<'_>| match evaluation {
        Some(name) => !family.evaluations(name).is_empty(),
        None => family.runs.iter().any(|run| !run.measured().is_empty()),
    };
    let families: Vec<Family<'_>> = families.iter().filter(with).cloned().collect();
    let mut head = vec!["metric".to_owned()];
    head.extend(families.iter().map(Family::named));
    let row = |metric: &String| -> Option<Vec<String>> {
        let values: Vec<Vec<f64>> = families
            .iter()
            .map(|family| family.values(metric, evaluation))
            .collect();
        if values.iter().all(Vec::is_empty) {
            return None;
        }
        let means: Vec<Option<f64>> = values
            .iter()
            .map(|values| (!values.is_empty()).then(|| student_t::mean(values)))
            .collect();
        let best = surely_best(metric, &means, |a, b| {
            Comparison::of(metric, &families[a], &families[b], evaluation)
        });
        let mut cells = vec![metric_cell(metric)];
        for (place, (values, mean)) in values.iter().zip(&means).enumerate() {
            let Some(mean) = mean else {
                cells.push("–".to_owned());
                continue;
            };
            let half = student_t::half_width(values)
                .map_or(String::new(), |half| format!(" ± {}", like(*mean, half)));
            let each: Vec<String> = values.iter().map(|value| number(*value)).collect();
            cells.push(format!(
                "{}{half}<small>{}: {}</small>",
                best_cell(&number(*mean), best == Some(place)),
                plural(values.len(), "run"),
                each.join(", ")
            ));
        }
        Some(cells)
    };
    let names = metrics(&families, evaluation);
    let rows: Vec<Vec<String>> = names.iter().filter_map(row).collect();
    let mut text = heading(&match evaluation {
        Some(name) => format!("Over training seeds: {name}"),
        None => "Over training seeds: measured by the runs themselves".to_owned(),
    });
    text += &html::about(
        "Runs with the same configuration but for <code>seed</code> are one student, trained several times. A \
         number is the mean of its runs that have ended, ± half of the 95 % interval of that mean (Student's t): what training \
         again with other seeds would give. Marked is a student that is better than all others by every interval of the difference, which stands below.",
    );
    text + &turned("numbers", &head, &rows, families.len() > html::COLUMNS)
}

/// The differences of the families in every metric; nothing if fewer than two have the evaluation.
pub(super) fn table_of(runs: &[Run], evaluation: Option<&str>) -> String {
    let families = families(runs);
    let with = |family: &&Family<'_>| match evaluation {
        Some(name) => !family.evaluations(name).is_empty(),
        None => true,
    };
    let families: Vec<Family<'_>> = families.iter().filter(with).cloned().collect();
    let pairs = pairs(&families);
    let many = pairs.len() > PAIRS;
    let mut head = vec!["difference".to_owned()];
    for &(a, b) in &pairs {
        let (a, b) = (&families[a], &families[b]);
        head.push(format!(
            "{} minus {}",
            named(a.style, a.label),
            named(b.style, b.label)
        ));
    }
    let row = |metric: &String| -> Option<Vec<String>> {
        // Many students are compared by what ranks them.
        if many && words::better(metric).is_none() {
            return None;
        }
        let comparisons: Vec<Option<Comparison>> = pairs
            .iter()
            .map(|&(a, b)| Comparison::of(metric, &families[a], &families[b], evaluation))
            .collect();
        comparisons.iter().flatten().next()?;
        let mut cells = vec![metric_cell(metric)];
        for (comparison, &(a, b)) in comparisons.iter().zip(&pairs) {
            cells.push(match comparison {
                Some(comparison) => cell(metric, comparison, families[a].label, families[b].label),
                None => "–".to_owned(),
            });
        }
        Some(cells)
    };
    let names = metrics(&families, evaluation);
    let rows: Vec<Vec<String>> = names.iter().filter_map(row).collect();
    if pairs.is_empty() || rows.is_empty() {
        return String::new();
    }
    let mut text =
        "Each difference with its 95 % interval, and which student is better if every interval leaves out 0."
            .to_owned();
    if evaluation.is_some() {
        text += " Paired: both on the same draws of rows; unpaired: from the two students' own intervals, which is \
                 wider.";
    }
    if pairs
        .iter()
        .any(|&(a, b)| families[a].runs.len() > 1 && families[b].runs.len() > 1)
    {
        text += " Over seeds: of the means over training runs (Welch's t).";
    }
    let first = evaluation.and_then(|name| families[0].evaluations(name).first().copied());
    let alike = evaluation.is_none_or(|name| {
        let all = families.iter().flat_map(|family| family.evaluations(name));
        first.is_none_or(|first| all.into_iter().all(|file| same_rows(first, file)))
    });
    if !alike {
        text += " Some of these evaluations are of different data, so their numbers say little about each other.";
    }
    html::about(&text) + &turned("numbers", &head, &rows, many)
}

fn cell(metric: &str, comparison: &Comparison, a: &str, b: &str) -> String {
    let mut text = signed(comparison.difference());
    if let Some(interval) = comparison.over_rows() {
        let how = match comparison.evidence {
            Evidence::Paired { .. } => "paired",
            _ => "unpaired",
        };
        text += &format!("<small>{}, {how}</small>", signed_range(interval));
    }
    if let Some(interval) = comparison.over_seeds() {
        text += &format!("<small>{}, over seeds</small>", signed_range(interval));
    }
    text += &match comparison.verdict(metric) {
        Verdict::NoEvidence => "<small>one number each: no evidence</small>".to_owned(),
        Verdict::First => format!("<b class=\"best\">{} better</b>", escape(a)),
        Verdict::Second => format!("<b class=\"best\">{} better</b>", escape(b)),
        Verdict::Undecided if words::better(metric).is_none() => {
            "<small>neither direction is better</small>".to_owned()
        }
        Verdict::Undecided => "not decided".to_owned(),
    };
    text
}
