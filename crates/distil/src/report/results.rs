//! Tables of results: the runs' own numbers from start to end, and every evaluation with its
//! intervals, drawn beside the numbers on a scale that all students share.

use std::fmt::Write as _;

use super::differences;
use super::format::{number, plural, range};
use super::html::{Section, escape, heading, missing, named, paragraph, table};
use super::plot::classes;
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
    let mut about = meaning(name).to_owned();
    for part in [unit(name), direction(name)] {
        if !part.is_empty() {
            about += if about.is_empty() { "" } else { "; " };
            about += part;
        }
    }
    format!("{}<small>{}</small>", escape(&title(name)), escape(&about))
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
    let several = values.iter().flatten().count() > 1 && words::better(metric).is_some();
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
        paragraph(&format!(
            "<span class=\"about\">Before the first step and at the end, on {rows_text} rows of \
             <code>data.eval</code>. One number each, without an interval. The best is marked.</span>"
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
    text += &paragraph(&format!("<span class=\"about\">{}</span>", how(&columns)));
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
        cells.push(forest(&columns, &measured));
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
    if let Some(rows) = file.rows {
        parts.push(plural(rows, "row"));
    }
    if let Some(data) = &file.data {
        parts.push(format!("of <code>{}</code>", escape(data)));
    }
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
        let _ = write!(text, " ± {}", number(deviation));
    }
    if let Some(around) = measured.around() {
        let _ = write!(text, "<small>{}</small>", range(around));
    }
    if let (Some(greedy), Some(_)) = (measured.greedy, measured.mean) {
        let _ = write!(text, "<small>greedy {}</small>", number(greedy));
    }
    text
}

/// The intervals of one metric, one below the other on one scale.
fn forest(columns: &[Column<'_>], measured: &[Option<Measured>]) -> String {
    const WIDTH: f64 = 170.0;
    const LINE: f64 = 13.0;
    let known: Vec<(usize, f64, Option<(f64, f64)>)> = measured
        .iter()
        .enumerate()
        .filter_map(|(index, m)| {
            let m = m.as_ref()?;
            Some((index, m.center()?, m.around()))
        })
        .collect();
    let ends = known.iter().flat_map(|(_, center, around)| {
        let (low, high) = around.unwrap_or((*center, *center));
        [low.min(*center), high.max(*center)]
    });
    let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), end| {
        (low.min(end), high.max(end))
    });
    if !(high > low) {
        return "–".to_owned();
    }
    let at = |value: f64| 6.0 + (WIDTH - 12.0) * (value - low) / (high - low);
    let height = known.len() as f64 * LINE + 16.0;
    let mut svg = format!(
        "<svg class=\"forest\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"intervals\">"
    );
    for (line, (index, center, around)) in known.iter().enumerate() {
        let y = line as f64 * LINE + 7.0;
        let column = &columns[*index];
        let _ = write!(svg, "<g class=\"{}\">", classes(column.style));
        let mut said = format!("{}: {}", column.label, number(*center));
        if let Some((from, to)) = around {
            let _ = write!(
                svg,
                "<path class=\"interval\" d=\"M{:.1},{y:.1}H{:.1}M{:.1},{:.1}v6M{:.1},{:.1}v6\"/>",
                at(*from),
                at(*to),
                at(*from),
                y - 3.0,
                at(*to),
                y - 3.0
            );
            let _ = write!(said, " ({})", range((*from, *to)));
        }
        let _ = write!(
            svg,
            "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3.2\"><title>{}</title></circle></g>",
            at(*center),
            escape(&said)
        );
    }
    let y = height - 3.0;
    let _ = write!(
        svg,
        "<text class=\"mark\" x=\"0\" y=\"{y}\">{}</text>\
         <text class=\"mark\" x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{}</text></svg>",
        number(low),
        number(high)
    );
    svg
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
    }
}
