//! The landscape of a reward: what answers the teacher's induced reward favours. A reward that merely
//! counts tokens shows as a slope against length; one that is worth learning rises with quality.

use super::format::{number, plural};
use super::html::{Section, escape, figure, figures, introduced};
use super::plot::{Axis, Curve, Dot, Plot};
use super::results::evaluation_names;
use super::run::{Run, evaluations_of};
use super::words;
use crate::eval::rank_correlation::spearman;
use crate::record::EvaluationFile;

/// Points of one run in one plot.
const MOST: usize = 500;

/// Points of all runs in one plot.
const ALL: usize = 1500;

/// Rewards that an answer may carry.
const REWARDS: [&str; 2] = ["reward", "implicit_reward"];

/// The section.
pub(super) fn section(runs: &[Run]) -> Option<Section> {
    let mut body = String::new();
    for name in evaluation_names(runs) {
        let files = evaluations_of(runs, &name);
        for reward in REWARDS {
            let plots = plots(&files, reward);
            if plots.is_empty() {
                continue;
            }
            let title = format!("{}: {name}", words::title(reward));
            let about = format!(
                "A point is an answer. Its height: {}. Does the reward favour answers that are good, or merely \
                 answers that are long or short?",
                words::meaning(reward)
            );
            body += &introduced(&title, &about);
            body += &figures(&plots);
        }
    }
    (!body.is_empty()).then_some(Section {
        id: "landscape",
        title: "Reward of the answers",
        body,
    })
}

/// The reward against length, and against the metric of quality that answers have.
fn plots(files: &[(&Run, &EvaluationFile)], reward: &str) -> Vec<String> {
    let mut against = vec![(
        None,
        "response length".to_owned(),
        "tokens of the answer".to_owned(),
    )];
    let all = files
        .iter()
        .flat_map(|(_, file)| file.answers.metrics.keys());
    let metrics = words::in_order(all.cloned().collect());
    let quality = metrics.iter().filter(|name| words::better(name).is_some());
    if let Some(main) = words::main(&quality.cloned().collect::<Vec<_>>()) {
        let title = words::title(main);
        let label = format!("{title} of the answer");
        against.push((Some(main.clone()), title, label));
    }
    let mut plots = Vec::new();
    for (metric, title, label) in against {
        let mut curves = Vec::new();
        let mut caption = Vec::new();
        for (run, file) in files {
            let name = &run.label;
            let points = points(file, metric.as_deref(), reward);
            if points.is_empty() {
                continue;
            }
            let (xs, ys): (Vec<f64>, Vec<f64>) = points.iter().map(|(_, x, y)| (*x, *y)).unzip();
            let rho = spearman(&xs, &ys).map_or("–".to_owned(), number);
            let all = points.len();
            let every = all.div_ceil(MOST.min(ALL / files.len()).max(1));
            let shown: Vec<Dot> = points
                .iter()
                .step_by(every)
                .map(|point| dot(name, point, &title))
                .collect();
            let part = match every {
                1 => String::new(),
                _ => format!(", every {every}th drawn"),
            };
            caption.push(format!(
                "{}: {rho} ({}{part})",
                escape(name),
                plural(all, "answer")
            ));
            curves.push(Curve {
                name: run.family.clone(),
                style: run.style,
                dots: shown,
                cloud: true,
                ..Curve::default()
            });
        }
        let plot = Plot {
            label: format!("reward against {title}"),
            x: Axis {
                linear: true,
                ..Axis::of(&label)
            },
            left: Axis {
                linear: true,
                ..Axis::of(words::unit(reward))
            },
            legend: true,
            curves,
            ..Plot::default()
        };
        if !plot.is_empty() {
            let caption = format!(
                "Spearman's rank correlation (1: both rise together, 0: unrelated, −1: one falls as the other rises) \
                 of {}.",
                caption.join("; ")
            );
            plots.push(figure(
                &format!("reward against {title}"),
                &plot.svg(),
                &caption,
            ));
        }
    }
    plots
}

/// Row, abscissa and reward of every answer that has both.
fn points(file: &EvaluationFile, metric: Option<&str>, reward: &str) -> Vec<(usize, f64, f64)> {
    let answers = &file.answers;
    let xs = match metric {
        None => Some(&answers.tokens),
        Some(metric) => answers.metrics.get(metric),
    };
    let (Some(xs), Some(ys)) = (xs, answers.metrics.get(reward)) else {
        return Vec::new();
    };
    let rows = answers.places.iter().map(|&(_, row)| row);
    let points = rows.zip(xs).zip(ys).map(|((row, &x), &y)| (row, x, y));
    points
        .filter(|(_, x, y)| x.is_finite() && y.is_finite())
        .collect()
}

fn dot(name: &str, &(row, x, y): &(usize, f64, f64), what: &str) -> Dot {
    Dot {
        x,
        y,
        interval: None,
        title: format!(
            "{name}, row {row}: {what} {}, reward {}",
            number(x),
            number(y)
        ),
    }
}
