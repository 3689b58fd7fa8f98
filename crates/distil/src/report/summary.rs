//! The runs in a sentence each, with the verdict on every pair.

use super::family::{Family, families};
use super::format::{count, duration, large, number, plural, range};
use super::html::{Section, code, escape, missing, paragraph};
use super::results::evaluation_names;
use super::run::Run;
use super::student_t;
use super::verdict::verdicts;
use super::words::{self, direction, title, unit};
use crate::method::about::about;
use crate::record::Measured;

/// What stands below the title.
pub(super) fn subtitle(runs: &[Run]) -> String {
    let mut methods: Vec<String> = Vec::new();
    for method in runs.iter().map(self::methods) {
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    let text = match runs.len() {
        1 => methods.concat(),
        _ => methods.join(" · "),
    };
    escape(&text)
}

/// The section.
pub(super) fn section(runs: &[Run]) -> Option<Section> {
    let mut body = String::new();
    let families = families(runs);
    if families.len() > 1 {
        body += &verdicts(runs);
    }
    for family in &families {
        let name = match runs.len() {
            1 => String::new(),
            _ => family.named(),
        };
        body += &format!(
            "<div class=\"run\">{name}{}</div>\n",
            sentences(family, runs.len() == 1)
        );
    }
    if runs.iter().all(|run| run.evaluations.is_empty()) {
        body += &missing(&no_evaluation(runs));
    }
    Some(Section {
        id: "summary",
        title: "In short",
        body,
    })
}

/// The titles of the methods, stage by stage.
fn methods(run: &Run) -> String {
    let name = |stage: &crate::record::Record| {
        let method = stage.method();
        about(method).map_or(method.to_owned(), |about| about.title.to_owned())
    };
    let names: Vec<String> = run.stages.iter().map(name).collect();
    names.join(", then ")
}

fn sentences(family: &Family<'_>, alone: bool) -> String {
    let run = family.first();
    let Some((first, last)) = run.first().zip(run.last()) else {
        return String::new();
    };
    let teacher = first
        .text("teacher", "model")
        .or(last.text("teacher", "model"));
    let strong = |text: &str| format!("<b>{}</b>", escape(text));
    let mut made = format!("{} ", strong(&methods(run)));
    made += &match teacher {
        Some(teacher) => format!("with the teacher {}", strong(teacher)),
        None => "without a teacher".to_owned(),
    };
    made += &match (run.student, pruned(run)) {
        (Some(student), _) => {
            let parameters = student.parameters.map(|n| large(n as f64));
            let parameters = parameters.map(|n| format!(" and {n} parameters"));
            let layers = plural(student.layers as usize, "layer");
            format!(
                ", a student of <b>{layers}{}</b>",
                parameters.unwrap_or_default()
            )
        }
        (None, Some(layers)) => format!(", a student of <b>{}</b>", plural(layers, "layer")),
        (None, None) => match first.text("student", "model") {
            Some(model) => format!(", the student {}", strong(model)),
            None => String::new(),
        },
    };
    let data = data(run);
    if !data.is_empty() {
        made += &format!(
            ", on {}",
            data.iter()
                .map(|d| strong(d))
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let mut work = vec![plural(run.steps(), "step")];
    if let Some(tokens) = run.tokens() {
        work.push(format!("{} response tokens", count(tokens as u64)));
    }
    if let Some(seconds) = run.seconds() {
        work.push(format!("{} of training", duration(seconds)));
    }
    let of = match family.runs.len() {
        1 => "",
        _ => "; in its first run",
    };
    made += &format!("{of}: {}.", escape(&work.join(", ")));
    let mut text = paragraph(&made);
    if family.runs.len() > 1 {
        text += &paragraph(&format!(
            "Trained {} times with different seeds: {}.",
            family.runs.len(),
            family.members()
        ));
    }
    text += &outcome(family, alone);
    text += &evaluated(family);
    for run in &family.runs {
        text += &ending(run);
    }
    text
}

/// Which step the student is of, if not of the last; how far a run came that has none.
fn ending(run: &Run) -> String {
    let Some(last) = run.last() else {
        return String::new();
    };
    let mut text = String::new();
    let number = |key: &str| last.eval.get(key).and_then(serde_json::Value::as_u64);
    if let (Some(step), Some(steps)) = (number("student_step"), number("steps"))
        && step < steps
    {
        text += &paragraph(&format!(
            "The student of {} is the best checkpoint, of step {} of {}.",
            escape(&run.label),
            count(step),
            count(steps)
        ));
    }
    if !run.finished() {
        let planned = last.metrics.column("steps").unwrap_or_default().iter();
        let planned = planned.rev().find(|n| n.is_finite()).map(|&n| n as usize);
        let of = planned.map_or(String::new(), |n| format!(" of {}", count(n as u64)));
        let steps = count(last.metrics.steps.last().copied().unwrap_or(0) as u64);
        let command = format!(
            "distil train CONFIG.toml --out {} --resume",
            run.path.display()
        );
        text += &missing(&format!(
            "The run has not ended: step {steps}{of} is the last one logged. To go on with it: {}.",
            code(&command)
        ));
    }
    text
}

/// From the start to the end, the main metric first; of several runs, the means.
fn outcome(family: &Family<'_>, alone: bool) -> String {
    let names = words::in_order(family.runs.iter().flat_map(|run| run.measured()).collect());
    let main = words::main(&names);
    let others = names
        .iter()
        .filter(|name| Some(*name) != main && words::better(name).is_some());
    let ranked = main.into_iter().chain(others);
    let part = |name: &String| -> Option<String> {
        let (starts, ends) = family.outcomes(name);
        let mean = |values: &[f64]| (!values.is_empty()).then(|| student_t::mean(values));
        let end = mean(&ends)?;
        let change = match mean(&starts) {
            Some(start) => {
                let better = match (words::beats(name, end, start), start == end) {
                    (true, _) => "better",
                    (_, true) => "the same",
                    (false, false) => "worse",
                };
                format!("{} → <b>{}</b> ({better}; ", number(start), number(end))
            }
            None => format!("<b>{}</b> (", number(end)),
        };
        let mut note = unit(name).to_owned();
        if !note.is_empty() {
            note += ", ";
        }
        Some(format!(
            "{} {change}{note}{})",
            escape(&title(name)),
            direction(name)
        ))
    };
    let parts: Vec<String> = ranked.filter_map(part).collect();
    let means = match family.runs.len() {
        1 => "",
        _ => ", means of the runs",
    };
    match parts.is_empty() {
        false => paragraph(&format!(
            "Before training → after, on the run's own held-out rows{means}: {}.",
            parts.join("; ")
        )),
        // Of several runs, the verdict says that there is nothing to compare.
        true if !alone => String::new(),
        true => {
            let what = "No metric was measured during this run, so it cannot be said whether the student got \
                 better. Set <code>data.eval</code> and <code>eval.metrics</code> in the configuration, or use ";
            let student = family.first().path.join("student");
            let command = format!("distil eval {}", student.display());
            missing(&format!("{what}{}.", code(&command)))
        }
    }
}

/// The main metric of each evaluation; of several runs, its mean.
fn evaluated(family: &Family<'_>) -> String {
    let part = |name: &String| -> Option<String> {
        let files = family.evaluations(name);
        let metrics = files.iter().flat_map(|file| file.metrics.keys().cloned());
        let metrics = words::in_order(metrics.collect());
        let main = words::main(&metrics)?;
        let measured = files.iter().filter_map(|file| file.metrics.get(main));
        let measured: Vec<&Measured> = measured.filter(|m| m.center().is_some()).collect();
        let centers: Vec<f64> = measured.iter().filter_map(|m| m.center()).collect();
        let around = match &measured[..] {
            [one] => one
                .around()
                .map(|around| format!(" (95 % interval {})", range(around))),
            [] => return None,
            several => Some(format!(", mean of {}", plural(several.len(), "run"))),
        };
        let rows = files
            .iter()
            .find_map(|file| file.rows)
            .map_or(String::new(), |rows| format!(", {}", plural(rows, "row")));
        Some(format!(
            "{} <b>{}</b>{} on {}{rows} ({})",
            escape(&title(main)),
            number(student_t::mean(&centers)),
            around.unwrap_or_default(),
            escape(name),
            direction(main)
        ))
    };
    let names = evaluation_names(&family.runs);
    let parts: Vec<String> = names.iter().filter_map(part).collect();
    match parts.is_empty() {
        true => String::new(),
        false => paragraph(&format!("Evaluated: {}.", parts.join("; "))),
    }
}

fn pruned(run: &Run) -> Option<usize> {
    let prune = run.first()?.config.get("student")?.get("prune")?;
    let layers = prune.get("layers").and_then(toml::Value::as_integer);
    let keep = prune.get("keep").and_then(toml::Value::as_array);
    layers
        .and_then(|layers| usize::try_from(layers).ok())
        .or(keep.map(Vec::len))
}

/// The names of the training files.
fn data(run: &Run) -> Vec<String> {
    let train = |stage: &crate::record::Record| {
        let train = stage.config.get("data")?.get("train")?;
        let files = match train {
            toml::Value::Array(files) => files.clone(),
            one => vec![one.clone()],
        };
        let name = |file: &toml::Value| {
            let path = file.as_str()?;
            let name = std::path::Path::new(path).file_name();
            Some(name.map_or(path.to_owned(), |name| name.to_string_lossy().into_owned()))
        };
        Some(files.iter().filter_map(name).collect::<Vec<_>>())
    };
    let mut names: Vec<String> = run.stages.iter().filter_map(train).flatten().collect();
    names.sort();
    names.dedup();
    names
}

fn no_evaluation(runs: &[Run]) -> String {
    let which = runs
        .first()
        .map_or("RUN".into(), |run| run.path.display().to_string());
    let command = format!(
        "distil eval {which}/student --data test.jsonl --seeds 10,20,30 --out {which}/evaluations/test.json"
    );
    let each = if runs.len() > 1 {
        ", for each run with the same file of rows"
    } else {
        ""
    };
    format!(
        "There are no evaluations with intervals over rows, which say how sure a number is. They are made by {}{each}; \
         with <code>--teacher</code> also the divergences from the teacher, exposure bias and the view of tokens.",
        code(&command)
    )
}
