//! Metrics by the length of the reference, and exposure bias: does the student fall off where answers
//! are long, and how much of that is because it reads its own mistakes?
//!
//! ExError%(l) = 100 · (R(l) − l ε(l)) / (l ε(l)) with R(l) the KL summed over the first l positions
//! of the student's own prefixes and ε(l) its mean over those of the teacher's (Arora et al. 2022;
//! MiniLLM, appendix B.5). 0 is a student that its own prefixes do not harm.

use super::format::{number, plural, range};
use super::html::{Section, code, details, escape, figure, figures, introduced, missing};
use super::plot::{Axis, Curve, Dot, Plot};
use super::results::evaluation_names;
use super::run::{Run, evaluations_of};
use super::words;
use crate::record::{Bucket, EvaluationFile, ExposureBias};

/// The section.
pub(super) fn section(runs: &[Run]) -> Option<Section> {
    let names = evaluation_names(runs);
    let mut body = String::new();
    let mut biased = false;
    for name in &names {
        let files = evaluations_of(runs, name);
        let plots = buckets(&files);
        if !plots.is_empty() {
            let title = format!("By length of the reference: {name}");
            let about = "The rows in groups by the length of their reference in words, with 95 % intervals. Does the student \
                keep up where answers are long?";
            body += &introduced(&title, about);
            let (shown, folded): (Vec<_>, Vec<_>) =
                plots.into_iter().partition(|(shown, _)| *shown);
            let drawn = |plots: Vec<(bool, String)>| {
                let plots: Vec<String> = plots.into_iter().map(|(_, plot)| plot).collect();
                figures(&plots)
            };
            body += &drawn(shown);
            if !folded.is_empty() {
                body += &details("Other metrics by length", &drawn(folded));
            }
        }
        let plots = exposure(&files);
        if !plots.is_empty() {
            biased = true;
            let title = format!("Exposure bias: {name}");
            let about = "A prefix is the beginning of an answer, which the model continues. In use a student continues \
                its own prefixes, mistakes included; in training it may have seen better ones only. KL(teacher ‖ student), how \
                far the student's next-token probabilities are from the teacher's, is shown at each position on both kinds of \
                prefixes. ExError% says by how much more than on the teacher's prefixes the student errs on its own, \
                summed up to a length: 0 % means that its own prefixes do no harm; lower is better.";
            body += &introduced(&title, about);
            body += &figures(&plots);
        }
    }
    if !names.is_empty() && !biased {
        body += &missing(&format!(
            "Exposure bias was not measured. {} with {} measures it.",
            code("distil eval"),
            code("--exposure-bias")
        ));
    }
    (!body.is_empty()).then_some(Section {
        id: "length",
        title: "Length and exposure bias",
        body,
    })
}

/// A bucket's lower border is the upper one of the bucket before, to which a length on it belongs.
fn bucket_name(bucket: &Bucket) -> String {
    match (bucket.from, bucket.to) {
        (0, Some(to)) => format!("up to {to}"),
        (from, Some(to)) => format!("{}–{to}", from + 1),
        (from, None) => format!("over {from}"),
    }
}

/// Metrics whose plots are shown at once; the others fold.
const SHOWN: [&str; 6] = [
    "rouge_l",
    "exact_match",
    "forward_kl",
    "reverse_kl",
    "reward",
    "response_tokens",
];

/// A plot for each metric that buckets have, and whether it is shown at once.
fn buckets(files: &[(&Run, &EvaluationFile)]) -> Vec<(bool, String)> {
    let Some((_, first)) = files.iter().find(|(_, file)| !file.buckets.is_empty()) else {
        return Vec::new();
    };
    let all = files.iter().flat_map(|(_, file)| &file.buckets);
    let metrics = words::in_order(
        all.flat_map(|bucket| bucket.metrics.keys().cloned())
            .collect(),
    );
    let marks: Vec<(f64, String)> = first
        .buckets
        .iter()
        .enumerate()
        .map(|(place, bucket)| (place as f64, bucket_name(bucket)))
        .collect();
    let last = marks.len() as f64 - 0.5;
    let rows = first
        .buckets
        .iter()
        .filter_map(|bucket| bucket.rows.map(|rows| rows.to_string()));
    let rows: Vec<String> = rows.collect();
    let plot_of = |metric: &String| {
        let curves = files.iter().enumerate().map(|(order, (run, file))| {
            // Side by side, so that intervals do not hide each other; and within their group.
            let apart = (0.8 / files.len() as f64).min(0.12);
            let shift = (order as f64 - (files.len() as f64 - 1.0) / 2.0) * apart;
            let label = &run.label;
            let dot = |(place, bucket): (usize, &Bucket)| {
                let measured = bucket.metrics.get(metric)?;
                let y = measured.center()?;
                let interval = measured.around();
                let around =
                    interval.map_or(String::new(), |around| format!(" ({})", range(around)));
                let rows = bucket
                    .rows
                    .map_or(String::new(), |rows| format!(", {}", plural(rows, "row")));
                Some(Dot {
                    x: place as f64 + shift,
                    y,
                    interval,
                    title: format!(
                        "{label}, {}{rows}: {}{around}",
                        bucket_name(bucket),
                        number(y)
                    ),
                })
            };
            let dots: Vec<Dot> = file.buckets.iter().enumerate().filter_map(dot).collect();
            Curve {
                name: run.family.clone(),
                style: run.style,
                faint: dots.iter().map(|dot| (dot.x, dot.y)).collect(),
                line: Vec::new(),
                dots,
                ..Curve::default()
            }
        });
        let title = words::title(metric);
        let plot = Plot {
            label: format!("{title} by length of the reference"),
            x: Axis {
                marks: marks.clone(),
                linear: true,
                ..Axis::of("length of the reference, words").holding(&[-0.5, last])
            },
            // Some are all but 0, which a logarithm would stretch over the plot.
            left: Axis {
                linear: true,
                ..Axis::of(words::unit(metric))
            },
            legend: true,
            curves: curves.collect(),
            ..Plot::default()
        };
        let mut caption = format!("{}; {}.", words::meaning(metric), words::direction(metric));
        if !rows.is_empty() {
            caption += &format!(" Rows in the groups: {}.", rows.join(", "));
        }
        let caption = caption.trim_start_matches("; ");
        let shown = SHOWN.contains(&metric.as_str());
        (!plot.is_empty()).then(|| (shown, figure(&title, &plot.svg(), &escape(caption))))
    };
    metrics.iter().filter_map(plot_of).collect()
}

/// KL by position for each student, and ExError% of all.
fn exposure(files: &[(&Run, &EvaluationFile)]) -> Vec<String> {
    let known: Vec<(&Run, &ExposureBias)> = files
        .iter()
        .filter_map(|(run, file)| Some((*run, file.exposure_bias.as_ref()?)))
        .collect();
    let mut plots = Vec::new();
    let curves = known.iter().map(|(run, bias)| {
        let label = &run.label;
        let points = bias.lengths.iter().zip(&bias.ex_error_percent);
        let dots: Vec<Dot> = points
            .map(|(&x, &y)| Dot {
                x,
                y,
                interval: None,
                title: format!("{label}, first {} tokens: {} %", number(x), number(y)),
            })
            .collect();
        Curve {
            name: run.family.clone(),
            style: run.style,
            line: dots.iter().map(|dot| (dot.x, dot.y)).collect(),
            dots,
            ..Curve::default()
        }
    });
    let error = Plot {
        label: "ExError against length".into(),
        x: Axis::of("tokens from the start").holding(&[0.0]),
        left: Axis {
            linear: true,
            ..Axis::of("ExError, %").holding(&[0.0])
        },
        legend: true,
        curves: curves.collect(),
        ..Plot::default()
    };
    if !error.is_empty() {
        let caption =
            "Excess KL on the student's own prefixes, summed up to each length; lower is better.";
        plots.push(figure("ExError% against length", &error.svg(), caption));
    }
    let heights = known.iter().flat_map(|(_, bias)| {
        let by = &bias.by_position;
        by.student_prefix.iter().chain(&by.teacher_prefix).copied()
    });
    let top = heights.filter(|y| y.is_finite()).fold(0.0, f64::max);
    let mut shown: Vec<usize> = Vec::new();
    for (run, bias) in &known {
        // Of several training seeds, the first run stands for all.
        if shown.contains(&run.style) {
            continue;
        }
        shown.push(run.style);
        let label = &run.label;
        let by = &bias.by_position;
        let line = |values: &[f64]| -> Vec<(f64, f64)> {
            let points = values.iter().enumerate();
            points.map(|(t, &kl)| ((t + 1) as f64, kl)).collect()
        };
        let curve = |name: &str, style: usize, values: &[f64]| Curve {
            name: name.to_owned(),
            style,
            line: line(values),
            ..Curve::default()
        };
        let plot = Plot {
            label: "KL by position".into(),
            x: Axis::of("position in the response, tokens").holding(&[0.0]),
            // The same axis for every student.
            left: Axis {
                linear: true,
                ..Axis::of("KL(teacher ‖ student), nats").holding(&[0.0, top])
            },
            legend: true,
            curves: vec![
                curve("student's prefixes", 0, &by.student_prefix),
                curve("teacher's prefixes", 1, &by.teacher_prefix),
            ],
            ..Plot::default()
        };
        if plot.is_empty() {
            continue;
        }
        let title = match files.len() {
            1 => "KL by position".to_owned(),
            _ => format!("KL by position: {label}"),
        };
        let reach = by
            .rows
            .iter()
            .rev()
            .find(|rows| rows.is_finite())
            .zip(by.rows.first());
        let caption = reach.map_or(String::new(), |(last, first)| {
            format!(
                "{} responses at the first position, {} at the last: late positions are means of few.",
                number(*first),
                number(*last)
            )
        });
        plots.push(figure(&title, &plot.svg(), &caption));
    }
    plots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(from: usize, to: Option<usize>) -> Bucket {
        serde_json::from_value(
            serde_json::json!({"from": from, "to": to, "rows": 3, "metrics": {}}),
        )
        .unwrap()
    }

    /// As `distil eval` counts: a length on a border belongs to the bucket below.
    #[test]
    fn buckets_are_named_by_the_lengths_in_them() {
        let names = [bucket(0, Some(30)), bucket(30, Some(70)), bucket(70, None)];
        assert_eq!(
            names.each_ref().map(bucket_name),
            ["up to 30", "31–70", "over 70"]
        );
    }
}
