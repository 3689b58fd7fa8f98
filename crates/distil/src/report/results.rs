//! Tables of results: the runs' own numbers from start to end, and every evaluation with its
//! intervals, drawn beside the numbers on a scale that all students share.

use std::borrow::Borrow;
use std::fmt::Write as _;

use super::compare::{Comparison, surely_best};
use super::differences;
use super::forest::{Interval, forest};
use super::format::{like, number, plural, range};
use super::html::{COLUMNS, Section, about, escape, heading, missing, named, turned};
use super::run::Run;
use super::words::{self, direction, meaning, title, unit};
use crate::record::{EvaluationFile, Measured};

/// The section.
pub(super) fn section(runs: &[Run]) -> Option<Section> {
    let mut body = String::new();
    for name in evaluation_names(runs) {
        body += &differences::over_seeds(runs, Some(&name));
        body += &evaluation(runs, &name);
        body += &differences::table_of(runs, Some(&name));
    }
    body += &ends(runs);
    let over_seeds = differences::over_seeds(runs, None);
    if !over_seeds.is_empty() {
        body += &over_seeds;
        body += &differences::table_of(runs, None);
    }
    (!body.is_empty()).then_some(Section {
        id: "results",
        title: "Results",
        body,
    })
}

/// The evaluations of all runs, each name once.
pub(super) fn evaluation_names<R: Borrow<Run>>(runs: &[R]) -> Vec<String> {
    let all = runs.iter().flat_map(|run| &run.borrow().evaluations);
    let mut names: Vec<String> = Vec::new();
    for evaluation in all {
        if !names.contains(&evaluation.name) {
            names.push(evaluation.name.clone());
        }
    }
    names
}

/// A metric's name with what it says and which way is better.
fn metric_cell(name: &str) -> String {
    let mut words = meaning(name).to_owned();
    for part in [unit(name), direction(name)] {
        if !part.is_empty() {
            words += if words.is_empty() { "" } else { "; " };
            words += part;
        }
    }
    format!("{}<small>{}</small>", escape(&title(name)), escape(&words))
}

/// A number, marked if it is the best for sure.
pub(super) fn best_cell(text: &str, best: bool) -> String {
    match best {
        true => format!(
            "<b class=\"best\" title=\"better than all others: every 95 % interval of the difference leaves out 0\">{text}</b>"
        ),
        false => text.to_owned(),
    }
}

/// `eval.json`, or the evaluations during the run.
fn ends(runs: &[Run]) -> String {
    let names = words::in_order(runs.iter().flat_map(Run::measured).collect());
    if names.is_empty() {
        return String::new();
    }
    let many = runs.len() > COLUMNS;
    let mut head = vec!["metric".to_owned()];
    for run in runs {
        let end = match run.last() {
            Some(stage) if stage.eval.is_null() => "last evaluation",
            _ => "student",
        };
        let name = match runs.len() {
            1 => String::new(),
            _ => format!("{}<br>", named(run.style, &run.label)),
        };
        if many {
            let open = run.last().is_some_and(|stage| stage.eval.is_null());
            let note = if open {
                "<small>not ended: last evaluation</small>"
            } else {
                ""
            };
            head.push(format!("{}{note}", named(run.style, &run.label)));
        } else {
            head.push(format!("{name}start"));
            head.push(format!("{name}{end}"));
        }
    }
    let row = |name: &String| {
        let shown = |value: Option<f64>| value.map_or("–".to_owned(), number);
        let mut cells = vec![metric_cell(name)];
        for run in runs {
            let (start, end) = run.outcome(name);
            if many {
                cells.push(format!(
                    "{}<small>start {}</small>",
                    shown(end),
                    shown(start)
                ));
            } else {
                cells.extend([shown(start), shown(end)]);
            }
        }
        cells
    };
    let rows: Vec<Vec<String>> = names.iter().map(row).collect();
    let eval_rows = runs.iter().filter_map(|run| {
        let rows = run.last()?.config.get("eval")?.get("rows")?;
        rows.as_integer()
    });
    let rows_text = eval_rows
        .max()
        .map_or("some".to_owned(), |rows| format!("at most {rows}"));
    format!(
        "{}{}{}",
        heading("Measured by the run itself"),
        about(&format!(
            "Before the first step and at the end, on {rows_text} rows of \
             <code>data.eval</code>. One number of each run, without an interval, so none is marked as the best."
        )),
        turned("numbers", &head, &rows, many)
    )
}

/// One column of an evaluation's table.
struct Column<'a> {
    style: usize,
    label: String,
    file: &'a EvaluationFile,
}

/// A table of one evaluation.
fn evaluation(runs: &[Run], name: &str) -> String {
    let mut columns = Vec::new();
    for run in runs {
        let files: Vec<&EvaluationFile> =
            run.evaluations.iter().filter(|e| e.name == name).collect();
        for file in &files {
            let mut label = run.label.clone();
            // Several models of one run, for instance its checkpoints.
            if files.len() > 1 {
                let model = file.model.as_deref().unwrap_or("?");
                let model = std::path::Path::new(model).file_name();
                let model = model.map(|name| name.to_string_lossy().into_owned());
                label = format!("{label}: {}", model.unwrap_or_default());
            }
            columns.push(Column {
                style: run.style,
                label,
                file,
            });
        }
    }
    let all = columns.iter().flat_map(|column| column.file.metrics.keys());
    let metrics = words::in_order(all.cloned().collect());
    let mut text = heading(&format!("Evaluation: {name}"));
    // Of several training seeds, the table over them says who is the best.
    let marks = columns.len() > 1 && !differences::of_several_seeds(runs, Some(name));
    let many = columns.len() > COLUMNS;
    text += &about(&how(&columns, marks));
    if metrics.is_empty() {
        return text + &missing("The file has no metrics.");
    }
    let mut head = vec!["metric".to_owned()];
    head.extend(
        columns
            .iter()
            .map(|column| named(column.style, &column.label)),
    );
    if !many {
        head.push("95 % intervals".to_owned());
    }
    let row = |metric: &String| {
        let of = |column: &Column<'_>| column.file.metrics.get(metric).cloned();
        let measured: Vec<Option<Measured>> = columns.iter().map(of).collect();
        let center = |m: &Option<Measured>| m.as_ref().and_then(Measured::center);
        let centers: Vec<Option<f64>> = measured.iter().map(center).collect();
        let best = match marks {
            true => surely_best(metric, &centers, |a, b| {
                Comparison::of_files(metric, &[columns[a].file], &[columns[b].file])
            }),
            false => None,
        };
        let mut cells = vec![metric_cell(metric)];
        for (place, measured) in measured.iter().enumerate() {
            cells.push(measured_cell(measured.as_ref(), best == Some(place)));
        }
        if many {
            return cells;
        }
        let students = columns.iter().zip(&measured);
        let student = |(column, measured): (&Column<'_>, &Option<Measured>)| {
            let measured = measured.as_ref()?;
            Some(Interval {
                style: column.style,
                label: column.label.clone(),
                center: measured.center()?,
                around: measured.around(),
            })
        };
        cells.push(forest(&students.filter_map(student).collect::<Vec<_>>()));
        cells
    };
    let rows: Vec<Vec<String>> = metrics.iter().map(row).collect();
    text + &turned("numbers evaluation", &head, &rows, many)
}

/// How an evaluation was made.
fn how(columns: &[Column<'_>], marks: bool) -> String {
    let mut ways: Vec<String> = Vec::new();
    for way in columns.iter().map(|column| way(column.file)) {
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    let ways = match ways.len() {
        1 => ways.concat(),
        _ => format!("Not alike: {}", ways.join("; ")),
    };
    let mut text = format!(
        "{ways}. With several seeds for sampling answers, a number is their mean ± standard deviation. Below it is \
         its 95 % interval: what other rows of the same kind would give (bootstrap, rows drawn with replacement)."
    );
    if marks {
        text += " Marked is a number that is better than all others: the 95 % interval of its difference \
                 from each, which stands below, leaves out 0. Where none is marked, it is not decided which is best.";
    }
    text
}

fn way(file: &EvaluationFile) -> String {
    let mut parts = Vec::new();
    let rows = file
        .rows
        .map_or("rows".to_owned(), |rows| plural(rows, "row"));
    parts.push(match &file.data {
        Some(data) => format!("{rows} of <code>{}</code>", escape(data)),
        None => rows,
    });
    let seeds: Vec<String> = file
        .runs
        .iter()
        .filter_map(|run| run.seed)
        .map(|s| s.to_string())
        .collect();
    let greedy = file.runs.iter().any(|run| run.seed.is_none());
    let mut drawn = Vec::new();
    if greedy {
        drawn.push("greedy answers".to_owned());
    }
    if !seeds.is_empty() {
        let temperature = file.runs.iter().find(|run| run.seed.is_some());
        let temperature = temperature.and_then(|run| run.temperature);
        let at = temperature.map_or(String::new(), |t| format!(" at temperature {}", number(t)));
        drawn.push(format!(
            "answers sampled{at} with seeds {}",
            seeds.join(", ")
        ));
    }
    if !drawn.is_empty() {
        parts.push(drawn.join(" and "));
    }
    if let Some(most) = file.max_new_tokens {
        parts.push(format!("of at most {most} tokens"));
    }
    if let Some(teacher) = &file.teacher {
        parts.push(format!("teacher {}", escape(teacher)));
    }
    if let Some(precision) = &file.precision {
        parts.push(format!("computed in {}", escape(precision)));
    }
    parts.join(", ")
}

fn measured_cell(measured: Option<&Measured>, best: bool) -> String {
    let Some((measured, center)) = measured.and_then(|m| Some((m, m.center()?))) else {
        return "–".to_owned();
    };
    let mut text = best_cell(&number(center), best);
    if let Some(deviation) = measured.standard_deviation.filter(|d| d.is_finite()) {
        let _ = write!(text, " ± {}", like(center, deviation));
    }
    if let Some(around) = measured.around() {
        let _ = write!(text, "<small>95 %: {}</small>", range(around));
    }
    if let (Some(greedy), Some(_)) = (measured.greedy, measured.mean) {
        let _ = write!(text, "<small>greedy {}</small>", number(greedy));
    }
    text
}
