//! Which of two students is better, in a sentence for every pair.

use super::compare::{Comparison, Evidence, Verdict};
use super::format::{number, plural, signed, signed_range};
use super::html::{escape, named};
use super::run::Run;
use super::words::{self, direction, title};

/// Runs of which every pair gets a sentence; of more, each against the best.
const PAIRWISE: usize = 4;

/// A sentence for every pair and every evaluation.
pub(super) fn verdicts(runs: &[Run]) -> String {
    let pairs: Vec<(usize, usize)> = match runs.len() <= PAIRWISE {
        true => (0..runs.len())
            .flat_map(|a| (a + 1..runs.len()).map(move |b| (a, b)))
            .collect(),
        false => {
            let best = best(runs);
            (0..runs.len())
                .filter(|&i| i != best)
                .map(|i| (best, i))
                .collect()
        }
    };
    let mut text = String::new();
    let mut paired_rows = false;
    for (a, b) in pairs {
        for (name, metric, comparison) in comparisons(&runs[a], &runs[b]) {
            paired_rows |= matches!(comparison.evidence, Evidence::Paired { .. });
            let names = [named(a, &runs[a].label), named(b, &runs[b].label)];
            text += &sentence(&names, name.as_deref(), &metric, &comparison);
        }
        if comparisons(&runs[a], &runs[b]).is_empty() {
            text += &format!(
                "<li><strong class=\"open\">Cannot be compared.</strong> {} and {} have no metric in common.</li>\n",
                named(a, &runs[a].label),
                named(b, &runs[b].label)
            );
        }
    }
    let note = match paired_rows {
        true => {
            "An interval covers the choice of rows and, with several seeds, of samples. It does not cover \
             another training seed: of that, one run each says nothing."
        }
        false => "One training run each: what another training seed would give is not known.",
    };
    format!(
        "<div class=\"verdict\"><h3>Which student is better</h3><ul>\n{text}</ul><p class=\"about\">{note}</p></div>\n"
    )
}

/// The run with the best main metric.
fn best(runs: &[Run]) -> usize {
    let names = words::in_order(runs.iter().flat_map(Run::measured).collect());
    let Some(main) = words::main(&names) else {
        return 0;
    };
    let mut best = 0;
    for index in 1..runs.len() {
        let (this, that) = (runs[index].outcome(main).1, runs[best].outcome(main).1);
        if this.is_some_and(|this| that.is_none_or(|that| words::beats(main, this, that))) {
            best = index;
        }
    }
    best
}

/// By the main metric of each evaluation that both have; of the runs' own numbers if there is none.
fn comparisons(a: &Run, b: &Run) -> Vec<(Option<String>, String, Comparison)> {
    let mut names: Vec<&String> = a.evaluations.iter().map(|e| &e.name).collect();
    names.dedup();
    let mut found = Vec::new();
    for name in names {
        let (Some(ours), Some(theirs)) = (a.evaluation(name), b.evaluation(name)) else {
            continue;
        };
        let common = ours
            .metrics
            .keys()
            .filter(|metric| theirs.metrics.contains_key(*metric));
        let common = words::in_order(common.cloned().collect());
        let Some(main) = words::main(&common) else {
            continue;
        };
        if let Some(comparison) = Comparison::of(main, ours, theirs) {
            found.push((Some(name.clone()), main.clone(), comparison));
        }
    }
    if found.is_empty() {
        let ours = a.measured();
        let common: Vec<String> = b
            .measured()
            .into_iter()
            .filter(|m| ours.contains(m))
            .collect();
        // Only what both measured at their ends can be compared.
        let common: Vec<String> = common
            .into_iter()
            .filter(|m| a.outcome(m).1.is_some() && b.outcome(m).1.is_some())
            .collect();
        if let Some(main) = words::main(&common)
            && let Some(comparison) = Comparison::of_ends(main, a, b)
        {
            found.push((None, main.clone(), comparison));
        }
    }
    found
}

fn sentence(
    [a, b]: &[String; 2],
    evaluation: Option<&str>,
    metric: &str,
    comparison: &Comparison,
) -> String {
    let on = evaluation.map_or(String::new(), |name| format!(" on {}", escape(name)));
    let by = format!("{}{on}", escape(&title(metric)));
    let numbers = format!("{} against {}", number(comparison.a), number(comparison.b));
    let verdict = comparison.verdict(metric);
    let better = match verdict {
        Verdict::First => Some((a, b)),
        Verdict::Second => Some((b, a)),
        _ => None,
    };
    let how = match &comparison.evidence {
        Evidence::Paired { rows, .. } => {
            format!(
                "the same {} answered by both, compared row by row",
                plural(*rows, "row")
            )
        }
        Evidence::Unpaired { .. } => {
            "from the two intervals, since there are no answers to the same rows to pair".to_owned()
        }
        Evidence::Numbers => String::new(),
    };
    let text = match (comparison.difference(), better) {
        (Some((difference, interval)), Some((winner, loser))) => format!(
            "<strong class=\"sure\">{winner} is better than {loser}</strong> by {by}: {numbers} ({}). \
             The difference is {}, and with 95 % confidence it is {}, which leaves out 0 ({how}).",
            direction(metric),
            signed(difference),
            signed_range(interval)
        ),
        (Some((difference, interval)), None) => format!(
            "<strong class=\"open\">Not decided between {a} and {b}</strong> by {by}: {numbers} ({}). \
             The difference is {}, and with 95 % confidence it is {}: no difference at all is possible ({how}). \
             More rows or more seeds would narrow this.",
            direction(metric),
            signed(difference),
            signed_range(interval)
        ),
        (None, _) => {
            let seems = match words::beats(metric, comparison.a, comparison.b) {
                true => format!("{a} has the better number"),
                false if comparison.a == comparison.b => "the numbers are the same".to_owned(),
                false => format!("{b} has the better number"),
            };
            format!(
                "<strong class=\"open\">No evidence between {a} and {b}</strong> beyond a single number each: \
                 by {by}, {seems} ({numbers}; {}), but nothing says how sure that is.",
                direction(metric)
            )
        }
    };
    format!("<li>{text}</li>\n")
}
