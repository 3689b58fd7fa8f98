//! Which of two students is better, in a sentence for every pair.

use super::compare::{Comparison, Evidence, Verdict, leaves_out_zero};
use super::family::{Family, families, metrics};
use super::format::{number, plural, signed, signed_range};
use super::html::{escape, named};
use super::results::evaluation_names;
use super::run::Run;
use super::words::{self, direction, title};
use crate::eval::metric::metric;

/// Students of which every pair gets a sentence; of more, each against the best.
const PAIRWISE: usize = 4;

/// The pairs to compare, by place: all of few students; of many, each with the one whose main metric
/// is best.
pub(super) fn pairs(families: &[Family<'_>]) -> Vec<(usize, usize)> {
    match families.len() <= PAIRWISE {
        true => (0..families.len())
            .flat_map(|a| (a + 1..families.len()).map(move |b| (a, b)))
            .collect(),
        false => {
            let best = best(families);
            (0..families.len())
                .filter(|&other| other != best)
                .map(|other| (best, other))
                .collect()
        }
    }
}

/// A sentence for every pair and every evaluation.
pub(super) fn verdicts(runs: &[Run]) -> String {
    let families = families(runs);
    let names = evaluation_names(runs);
    let mut text = String::new();
    let (mut rows, mut seeds, mut without) = (false, false, false);
    for (a, b) in pairs(&families) {
        let (a, b) = (&families[a], &families[b]);
        let comparisons = comparisons(&names, a, b, families.len() <= PAIRWISE);
        for (name, metric, comparison) in &comparisons {
            rows |= comparison.over_rows().is_some();
            seeds |= comparison.seeds.is_some();
            without |= comparison.seeds.is_none();
            text += &sentence(a, b, name.as_deref(), metric, comparison);
        }
        if comparisons.is_empty() {
            text += &format!(
                "<li><strong class=\"open\">Cannot be compared.</strong> {} and {} have no metric in common.</li>\n",
                named(a.style, a.label),
                named(b.style, b.label)
            );
        }
    }
    let mut notes = Vec::new();
    if rows {
        notes.push(
            "An interval over the rows says what other questions of the same kind would give these very \
             students.",
        );
    }
    if seeds {
        notes.push(
            "An interval over training seeds (Student's t, as Welch has it) says what training each student \
             again would give. A student is called better only if every interval leaves out 0.",
        );
    }
    if without {
        notes.push(
            "Where a student was trained once, nobody knows what another training seed would give: train \
             with several seeds and report all of the runs.",
        );
    }
    if families.len() > PAIRWISE {
        notes.push(
            "Of more than four students, each is compared with the one that has the best number.",
        );
    }
    format!(
        "<div class=\"verdict\"><h3>Which student is better</h3><ul>\n{text}</ul><p class=\"about\">{}</p></div>\n",
        notes.join(" ")
    )
}

/// The place of the student with the best main metric: of the first evaluation that all have, else of
/// what the runs measured at their ends.
fn best(families: &[Family<'_>]) -> usize {
    let mut names: Vec<&String> = Vec::new();
    for run in families.iter().flat_map(|family| &family.runs) {
        for name in run.evaluations.iter().map(|evaluation| &evaluation.name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let all_have = |name: &&&String| families.iter().all(|f| !f.evaluations(name).is_empty());
    let name = names.iter().find(all_have);
    let metrics = metrics(families, name.map(|name| name.as_str()));
    let Some(main) = words::main(&metrics) else {
        return 0;
    };
    let value = |family: &Family<'_>| -> Option<f64> {
        let values = family.values(main, name.map(|name| name.as_str()));
        (!values.is_empty()).then(|| super::student_t::mean(&values))
    };
    let mut best = 0;
    for index in 1..families.len() {
        let (this, that) = (value(&families[index]), value(&families[best]));
        if this.is_some_and(|this| that.is_none_or(|that| words::beats(main, this, that))) {
            best = index;
        }
    }
    best
}

/// By the main metric of each evaluation that both have. By the runs' own numbers if there is none, and,
/// of few students, if those alone know of several training seeds.
fn comparisons(
    names: &[String],
    a: &Family<'_>,
    b: &Family<'_>,
    few: bool,
) -> Vec<(Option<String>, String, Comparison)> {
    let mut found = Vec::new();
    for name in names {
        let has = |family: &Family<'_>, metric: &String| {
            let files = family.evaluations(name);
            files.iter().any(|file| file.metrics.contains_key(metric))
        };
        let ours = a.evaluations(name);
        let ours = ours.iter().flat_map(|file| file.metrics.keys().cloned());
        let common = words::in_order(ours.filter(|metric| has(b, metric)).collect());
        let Some(main) = words::main(&common) else {
            continue;
        };
        if let Some(comparison) = Comparison::of(main, a, b, Some(name)) {
            found.push((Some(name.clone()), main.clone(), comparison));
        }
    }
    let seeds = found.iter().any(|(_, _, known)| known.seeds.is_some());
    if found.is_empty() || (few && !seeds) {
        // Only what both measured at their ends can be compared.
        let ends = |family: &Family<'_>, metric: &String| !family.outcomes(metric).1.is_empty();
        let ours = a.runs.iter().flat_map(|run| run.measured());
        let common = ours.filter(|metric| ends(a, metric) && ends(b, metric));
        let common = words::in_order(common.collect());
        if let Some(main) = words::main(&common)
            && let Some(comparison) = Comparison::of(main, a, b, None)
            && (found.is_empty() || comparison.seeds.is_some())
        {
            found.push((None, main.clone(), comparison));
        }
    }
    found
}

fn sentence(
    a: &Family<'_>,
    b: &Family<'_>,
    evaluation: Option<&str>,
    metric: &str,
    comparison: &Comparison,
) -> String {
    // The better one first, so that numbers and differences read as the sentence does.
    if comparison.verdict(metric) == Verdict::Second {
        return sentence(b, a, evaluation, metric, &comparison.swapped());
    }
    let on = evaluation.map_or(" on the runs' own held-out rows".to_owned(), |name| {
        format!(" on {}", escape(name))
    });
    let by = format!(
        "{}{}{on}",
        escape(&title(metric)),
        answers(a, evaluation, metric)
    );
    let numbers = format!("{} against {}", number(comparison.a), number(comparison.b));
    let (first, second) = (named(a.style, a.label), named(b.style, b.label));
    let head = match comparison.verdict(metric) {
        Verdict::First | Verdict::Second => {
            format!("<strong class=\"sure\">{first} is better than {second}</strong>")
        }
        Verdict::Undecided => {
            format!("<strong class=\"open\">Not decided between {first} and {second}</strong>")
        }
        Verdict::NoEvidence => {
            let seems = match words::beats(metric, comparison.a, comparison.b) {
                true => format!("{first} has the better number"),
                false if comparison.a == comparison.b => "the numbers are the same".to_owned(),
                false => format!("{second} has the better number"),
            };
            return format!(
                "<li><strong class=\"open\">No evidence between {first} and {second}</strong> beyond a single \
                 number each: by {by}, {seems} ({numbers}; {}), but nothing says how sure that is.</li>\n",
                direction(metric)
            );
        }
    };
    let mut text = format!(
        "{head} by {by}: {numbers} ({}). {} minus {} is {}.",
        direction(metric),
        escape(a.label),
        escape(b.label),
        signed(comparison.difference())
    );
    if let Some(interval) = comparison.over_rows() {
        text += &format!(
            " Over the rows{} ({}).",
            says(interval),
            how(metric, &comparison.evidence)
        );
        if !leaves_out_zero(interval) {
            text += " More rows, or more seeds for sampling answers, would narrow this.";
        }
        if comparison.seeds.is_none() {
            text += &trained_once(a, b, evaluation);
        }
    }
    if let Some(seeds) = &comparison.seeds {
        let (ours, theirs) = (plural(seeds.runs.0, "run"), plural(seeds.runs.1, "run"));
        text += &match seeds.interval {
            Some(interval) => {
                let mut text = format!(
                    " Over training seeds{} ({ours} against {theirs}).",
                    says(interval)
                );
                if !leaves_out_zero(interval) {
                    text += " More training seeds would narrow this.";
                }
                text
            }
            None => format!(
                " Over training seeds nothing can be said: {ours} and {theirs} without any difference among them."
            ),
        };
    }
    text += &evaluation.map_or(String::new(), |name| others(a, b, name, metric));
    format!("<li>{text}</li>\n")
}

/// Which answers a metric looked at.
fn answers(family: &Family<'_>, evaluation: Option<&str>, name: &str) -> &'static str {
    if !metric(name).is_none_or(|metric| metric.needs_answers()) {
        return "";
    }
    let files = evaluation.map_or(Vec::new(), |name| family.evaluations(name));
    let measured = files.first().and_then(|file| file.metrics.get(name));
    match measured {
        Some(measured) if measured.mean.is_some() => " of sampled answers",
        _ => " of greedy answers",
    }
}

/// What a comparison without training seeds is not about.
fn trained_once(a: &Family<'_>, b: &Family<'_>, evaluation: Option<&str>) -> String {
    let all = |family: &Family<'_>| {
        evaluation.is_none_or(|name| family.evaluations(name).len() == family.runs.len())
    };
    let label = |family: &Family<'_>| escape(family.label);
    match (a.runs.len(), b.runs.len()) {
        (1, 1) => " Each was trained once: this is about these two students, not about how they were trained."
            .to_owned(),
        (ours, theirs) if !(all(a) && all(b)) => format!(
            " Not all training runs were evaluated ({} has {}, {} has {theirs}), so this is not about other \
             training seeds.",
            label(a),
            plural(ours, "run"),
            label(b)
        ),
        (ours, _) => format!(
            " {} was trained once, so this is not about other training seeds.",
            if ours == 1 { label(a) } else { label(b) }
        ),
    }
}

/// What the other metrics of an evaluation say, in a sentence; first of all how long the answers are.
fn others(a: &Family<'_>, b: &Family<'_>, evaluation: &str, main: &str) -> String {
    let (ours, theirs) = (a.evaluations(evaluation), b.evaluations(evaluation));
    let of = |metric: &str| Comparison::of_files(metric, &ours, &theirs);
    let names = ours.iter().flat_map(|file| file.metrics.keys().cloned());
    let names = words::in_order(names.collect());
    let ranked = |name: &&String| name.as_str() != main && words::better(name).is_some();
    let (mut first, mut second, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for name in names.iter().filter(ranked) {
        let Some(comparison) = of(name) else { continue };
        match comparison.verdict(name) {
            Verdict::First => first.push(escape(&title(name))),
            Verdict::Second => second.push(escape(&title(name))),
            Verdict::Undecided | Verdict::NoEvidence => open.push(escape(&title(name))),
        }
    }
    let mut parts = Vec::new();
    for (label, metrics) in [(a.label, first), (b.label, second)] {
        if !metrics.is_empty() {
            parts.push(format!(
                "{} is better by {}",
                escape(label),
                metrics.join(", ")
            ));
        }
    }
    if !open.is_empty() {
        parts.push(format!("not decided: {}", open.join(", ")));
    }
    let mut text = String::new();
    if !parts.is_empty() {
        text += &format!(" <small>Other metrics: {}.", parts.join("; "));
        if let Some(lengths) = of("response_tokens") {
            text += &format!(
                " Answers have {} against {} tokens, which most metrics of answers depend on.",
                number(lengths.a),
                number(lengths.b)
            );
        }
        text += "</small>";
    }
    text
}

fn says(interval: (f64, f64)) -> String {
    let what = match leaves_out_zero(interval) {
        true => "which leaves out 0",
        false => "so there may be no difference at all",
    };
    format!(
        " it is, with 95 % confidence, {}, {what}",
        signed_range(interval)
    )
}

fn how(name: &str, evidence: &Evidence) -> String {
    let answers = metric(name).is_none_or(|metric| metric.needs_answers());
    match evidence {
        Evidence::Paired { rows, .. } if answers => format!(
            "the same {} answered by both, compared row by row",
            plural(*rows, "row")
        ),
        Evidence::Paired { rows, .. } => format!(
            "both measured on the references of the same {}, compared row by row",
            plural(*rows, "row")
        ),
        _ => {
            "from the two intervals, since there are no numbers of the same rows to pair".to_owned()
        }
    }
}
