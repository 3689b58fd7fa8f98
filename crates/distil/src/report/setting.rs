//! What a reader needs to repeat a run and to trust it: configuration, environment, cost, warnings.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::family::{Family, families};
use super::format::{count, duration, number};
use super::html::{Section, about, details, escape, missing, named, paragraph, table};
use super::plot::classes;
use super::run::Run;

/// The resolved configuration; of several runs, what differs first.
pub(super) fn configuration(runs: &[Run]) -> Option<Section> {
    let mut body = String::new();
    if runs.len() > 1 {
        body += &differing(runs);
    }
    for run in families(runs).iter().map(Family::first) {
        for stage in &run.stages {
            let name = match (runs.len(), run.stages.len()) {
                (1, 1) => "Every key of the run".to_owned(),
                _ => format!("Every key of {}", named(run.style, &stage.name)),
            };
            let text = toml::to_string(&stage.config).unwrap_or_default();
            body += &details(&name, &format!("<pre>{}</pre>", escape(&text)));
        }
    }
    Some(Section {
        id: "configuration",
        title: "Configuration",
        body,
    })
}

/// Every key with its value, as `table.key`; of a schedule, with the stage's number before it.
fn flat(run: &Run) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for (number, stage) in run.stages.iter().enumerate() {
        let before = match run.stages.len() {
            1 => String::new(),
            _ => format!("stage {}: ", number + 1),
        };
        for (name, value) in &stage.config {
            flatten(&format!("{before}{name}"), value, &mut keys);
        }
    }
    keys
}

fn flatten(name: &str, value: &toml::Value, keys: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                flatten(&format!("{name}.{key}"), value, keys);
            }
        }
        toml::Value::String(text) => drop(keys.insert(name.to_owned(), text.clone())),
        value => drop(keys.insert(name.to_owned(), value.to_string())),
    }
}

/// What the runs of a student have: one value where they agree, else each of them.
fn joined(runs: &[BTreeMap<String, String>]) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in runs.iter().flatten() {
        let values = all.entry(key.clone()).or_default();
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    all.into_iter()
        .map(|(key, values)| (key, values.join(", ")))
        .collect()
}

fn differing(runs: &[Run]) -> String {
    let families = families(runs);
    let flat = |family: &Family<'_>| {
        let runs: Vec<_> = family.runs.iter().map(|run| flat(run)).collect();
        joined(&runs)
    };
    let all: Vec<BTreeMap<String, String>> = families.iter().map(flat).collect();
    let mut names: Vec<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let differs = |name: &&&String| {
        let first = all.first().and_then(|keys| keys.get(**name));
        all.iter().any(|keys| keys.get(**name) != first)
    };
    let rows: Vec<Vec<String>> = names
        .iter()
        .filter(differs)
        .map(|name| {
            let cell = |keys: &BTreeMap<String, String>| {
                let value = keys.get(*name);
                value.map_or("–".to_owned(), |value| {
                    format!("<code>{}</code>", escape(value))
                })
            };
            let mut cells = vec![format!("<code>{}</code>", escape(name))];
            cells.extend(all.iter().map(cell));
            cells
        })
        .collect();
    if families.len() == 1 {
        return about(&format!(
            "The runs differ in their seed alone: {}.",
            families[0].members()
        ));
    }
    if rows.is_empty() {
        return paragraph("The runs have the same configuration, key by key.");
    }
    let mut head = vec!["key".to_owned()];
    head.extend(families.iter().map(Family::named));
    format!(
        "{}{}",
        about(
            "The keys that differ; all others are the same. – is a key that a run does not have."
        ),
        table("keys", &head, &rows)
    )
}

/// Version, machine, hashes.
pub(super) fn environment(runs: &[Run]) -> Option<Section> {
    let of = |run: &Run| {
        let mut keys = BTreeMap::new();
        let mut order = Vec::new();
        if let Some(Value::Object(environment)) = run.last().map(|stage| &stage.environment) {
            for (key, value) in environment {
                match value {
                    Value::Object(inner) => {
                        for (name, value) in inner {
                            let name = format!("{key}: {name}");
                            order.push(name.clone());
                            keys.insert(name, plain(value));
                        }
                    }
                    value => {
                        order.push(key.clone());
                        keys.insert(key.clone(), plain(value));
                    }
                }
            }
        }
        (order, keys)
    };
    let families = families(runs);
    let of = |family: &Family<'_>| {
        let runs: (Vec<_>, Vec<_>) = family.runs.iter().map(|run| of(run)).unzip();
        (runs.0.concat(), joined(&runs.1))
    };
    let all: Vec<(Vec<String>, BTreeMap<String, String>)> = families.iter().map(of).collect();
    let mut names: Vec<&String> = Vec::new();
    for name in all.iter().flat_map(|(order, _)| order) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            let mut cells = vec![escape(name)];
            cells.extend(all.iter().map(|(_, keys)| {
                keys.get(*name)
                    .map_or("–".to_owned(), |value| escape(value))
            }));
            cells
        })
        .collect();
    let body = match rows.is_empty() {
        true => missing("There is no environment.json: the run ended before its first step."),
        false => {
            let mut head = Vec::new();
            if families.len() > 1 {
                head.push(String::new());
                head.extend(families.iter().map(Family::named));
            }
            table("keys", &head, &rows)
        }
    };
    Some(Section {
        id: "environment",
        title: "Environment",
        body,
    })
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// Time by phase, tokens, speed.
pub(super) fn cost(runs: &[Run]) -> Option<Section> {
    let mut body = String::new();
    let mut students: Vec<usize> = Vec::new();
    for run in runs {
        let Some(seconds) = run.seconds().filter(|_| run.steps() > 0) else {
            continue;
        };
        let mut facts = vec![format!("{} of training", duration(seconds))];
        if let Some(tokens) = run.tokens() {
            facts.push(format!("{} response tokens", count(tokens as u64)));
            if seconds > 0.0 {
                facts.push(format!("{} tokens a second", number(tokens / seconds)));
            }
        }
        facts.push(format!("{} a step", duration(seconds / run.steps() as f64)));
        let before: f64 = run
            .stages
            .iter()
            .filter_map(|stage| stage.eval.get("preparation_seconds")?.as_f64())
            .sum();
        if before >= 0.01 {
            facts.push(format!("{} of preparation before", duration(before)));
        }
        let name = match runs.len() {
            1 => String::new(),
            _ => format!("{} ", named(run.style, &run.label)),
        };
        body += &paragraph(&format!("{name}{}", escape(&facts.join(", "))));
        // Of several training seeds, the first run shows where the time goes.
        if !students.contains(&run.style) {
            students.push(run.style);
            body += &phases(run);
        }
    }
    (!body.is_empty()).then_some(Section {
        id: "cost",
        title: "Cost",
        body,
    })
}

/// The parts of a step, the longest first.
fn phases(run: &Run) -> String {
    let names = run.stages.iter().flat_map(|stage| stage.metrics.names());
    let mut names: Vec<&str> = names
        .filter_map(|name| name.strip_prefix("phases."))
        .collect();
    names.sort_unstable();
    names.dedup();
    let total = |name: &&str| Some(((*name).to_owned(), run.total(&format!("phases.{name}"))?));
    let mut phases: Vec<(String, f64)> = names.iter().filter_map(total).collect();
    phases.sort_by(|a, b| b.1.total_cmp(&a.1));
    let named: f64 = phases.iter().map(|(_, seconds)| seconds).sum();
    let all = run.total("seconds").unwrap_or(named).max(named);
    if phases.is_empty() || all <= 0.0 {
        return String::new();
    }
    if all - named > 0.001 * all {
        phases.push(("other".to_owned(), all - named));
    }
    let rows: Vec<Vec<String>> = phases
        .iter()
        .map(|(name, seconds)| {
            let share = seconds / all;
            let mut bar = String::new();
            let _ = write!(
                bar,
                "<svg class=\"bar {}\" viewBox=\"0 0 200 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
                 <rect width=\"{:.1}\" height=\"10\"/></svg>",
                classes(0),
                200.0 * share
            );
            vec![
                escape(&name.replace('_', " ")),
                duration(*seconds),
                format!("{:.1} %", 100.0 * share),
                bar,
            ]
        })
        .collect();
    let head = ["phase", "time", "share", ""].map(str::to_owned);
    table("numbers phases", &head, &rows)
}

/// Warnings of one run in the report.
const WARNINGS: usize = 50;

/// What the runs warned of, and what could not be read.
pub(super) fn warnings(runs: &[Run]) -> Option<Section> {
    let mut items = String::new();
    for run in runs {
        let name = match runs.len() {
            1 => String::new(),
            _ => format!("{} ", named(run.style, &run.label)),
        };
        let all = run.offsets().flat_map(|(offset, stage)| {
            let warnings = stage.metrics.warnings.iter();
            warnings.map(move |warning| (offset, warning))
        });
        let all: Vec<_> = all.collect();
        let more = all.len().saturating_sub(WARNINGS);
        for (offset, warning) in all.into_iter().take(WARNINGS) {
            let step = count((offset + warning.step) as u64);
            let _ = writeln!(
                items,
                "<li>{name}step {step}: {}</li>",
                escape(&warning.text)
            );
        }
        if more > 0 {
            let _ = writeln!(
                items,
                "<li>{name}{} more of its warnings are in metrics.jsonl</li>",
                count(more as u64)
            );
        }
        for what in &run.unreadable {
            let _ = writeln!(items, "<li>{name}{}</li>", escape(what));
        }
    }
    let body = match items.is_empty() {
        true => paragraph("None."),
        false => format!("<ul class=\"warnings\">\n{items}</ul>"),
    };
    Some(Section {
        id: "warnings",
        title: "Warnings",
        body,
    })
}
