//! Tables of results: the runs' own numbers from start to end, and every evaluation with its
//! intervals, drawn beside the numbers on a scale that all students share.

use std::fmt::Write as _;

use super::differences;
use super::forest::{Interval, forest};
use super::format::{like, number, plural, range};
use super::html::{Section, about, escape, heading, missing, named, table};
use super::run::Run;
use super::words::{self, direction, meaning, title, unit};
use crate::record::{EvaluationFile, Measured};

/// The section.
pub(super) fn section(runs: &[Run]) -> Option<Section> {
    let mut body = String::new();
    for name in evaluation_names(runs) {
        body += &evaluation(runs, &name);
        body += &differences::table_of(runs, &name);
    }
    body += &ends(runs);
    (!body.is_empty()).then_some(Section {
        id: "results",
        title: "Results",
        body,
    })
}

/// The evaluations of all runs, each name once.
pub(super) fn evaluation_names(runs: &[Run]) -> Vec<String> {
    let all = runs.iter().flat_map(|run| &run.evaluations);
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

/// The best of some values marks its cell.
fn best(metric: &str, values: &[Option<f64>]) -> Vec<bool> {
    let finite = values.iter().flatten().filter(|value| value.is_finite());
    let top = finite
        .copied()
        .reduce(|best, value| match words::beats(metric, value, best) {
            true => value,
            false => best,
        });
    let several = values.iter().flatten().any(|value| Some(*value) != top);
    let several = several && words::better(metric).is_some();
    let marked = |value: &Option<f64>| several && value.is_some() && *value == top;
    values.iter().map(marked).collect()
}

fn value_cell(text: &str, best: bool) -> String {
    match best {
        true => format!("<b class=\"best\" title=\"the best in its row\">{text}</b>"),
        false => text.to_owned(),
    }
}

/// `eval.json`, or the evaluations during the run.
fn ends(runs: &[Run]) -> String {
    let names = words::in_order(runs.iter().flat_map(Run::measured).collect());
    if names.is_empty() {
        return String::new();
    }
    let mut head = vec!["metric".to_owned()];
    for (index, run) in runs.iter().enumerate() {
        let end = match run.last() {
            Some(stage) if stage.eval.is_null() => "last evaluation",
            _ => "student",
        };
        let name = match runs.len() {
            1 => String::new(),
            _ => format!("{}<br>", named(index, &run.label)),
        };
        head.push(format!("{name}start"));
        head.push(format!("{name}{end}"));
    }
    let row = |name: &String| {
        let pairs: Vec<(Option<f64>, Option<f64>)> =
            runs.iter().map(|run| run.outcome(name)).collect();
        let candidates: Vec<Option<f64>> = match pairs[..] {
            [(start, end)] => vec![start, end],
            _ => pairs.iter().map(|(_, end)| *end).collect(),
        };
        let marks = best(name, &candidates);
        let shown = |value: Option<f64>| value.map_or("–".to_owned(), number);
        let mut cells = vec![metric_cell(name)];
        for (index, (start, end)) in pairs.iter().enumerate() {
            let (start_best, end_best) = match pairs.len() {
                1 => (marks[0], marks[1]),
                _ => (false, marks[index]),
            };
            cells.push(value_cell(&shown(*start), start_best));
            cells.push(value_cell(&shown(*end), end_best));
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
             <code>data.eval</code>. One number each, without an interval. The best is marked."
        )),
        table("numbers", &head, &rows)
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
    for (index, run) in runs.iter().enumerate() {
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
                style: index,
                label,
                file,
            });
        }
    }
    let all = columns.iter().flat_map(|column| column.file.metrics.keys());
    let metrics = words::in_order(all.cloned().collect());
    let mut text = heading(&format!("Evaluation: {name}"));
    text += &about(&how(&columns));
    if metrics.is_empty() {
        return text + &missing("The file has no metrics.");
    }
    let mut head = vec!["metric".to_owned()];
    head.extend(
        columns
            .iter()
            .map(|column| named(column.style, &column.label)),
    );
    head.push("95 % intervals".to_owned());
    let row = |metric: &String| {
        let of = |column: &Column<'_>| column.file.metrics.get(metric).cloned();
        let measured: Vec<Option<Measured>> = columns.iter().map(of).collect();
        let center = |m: &Option<Measured>| m.as_ref().and_then(Measured::center);
        let centers: Vec<Option<f64>> = measured.iter().map(center).collect();
        let marks = best(metric, &centers);
        let mut cells = vec![metric_cell(metric)];
        for (measured, mark) in measured.iter().zip(marks) {
            cells.push(measured_cell(measured.as_ref(), mark));
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
    text + &table("numbers evaluation", &head, &rows)
}

/// How an evaluation was made.
fn how(columns: &[Column<'_>]) -> String {
    let mut ways: Vec<String> = columns.iter().map(|column| way(column.file)).collect();
    ways.dedup();
    let ways = match ways.len() {
        1 => ways.concat(),
        _ => format!("Not alike: {}", ways.join("; ")),
    };
    format!(
        "{ways}. With several seeds, a number is their mean ± standard deviation; the 95 % interval below it is from rows \
         drawn anew (bootstrap). The best number is marked."
    )
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
        parts.push(escape(precision));
    }
    parts.join(", ")
}

fn measured_cell(measured: Option<&Measured>, best: bool) -> String {
    let Some((measured, center)) = measured.and_then(|m| Some((m, m.center()?))) else {
        return "–".to_owned();
    };
    let mut text = value_cell(&number(center), best);
    if let Some(deviation) = measured.standard_deviation.filter(|d| d.is_finite()) {
        let _ = write!(text, " ± {}", like(center, deviation));
    }
    if let Some(around) = measured.around() {
        let _ = write!(text, "<small>{}</small>", range(around));
    }
    if let (Some(greedy), Some(_)) = (measured.greedy, measured.mean) {
        let _ = write!(text, "<small>greedy {}</small>", number(greedy));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_best_in_its_direction() {
        let values = [Some(0.3), None, Some(0.2), Some(f64::NAN)];
        assert_eq!(best("forward_kl", &values), [false, false, true, false]);
        assert_eq!(best("rouge_l", &values), [true, false, false, false]);
        assert_eq!(best("eos_rate", &values), [false; 4], "it does not rank");
        assert_eq!(best("rouge_l", &[Some(0.3), None]), [false, false], "alone");
        assert_eq!(best("rouge_l", &[Some(0.3); 2]), [false, false], "equal");
    }
}
