//! What was logged at every step, as curves against steps.
//!
//! With one student, what belongs together shares a plot: terms of the loss, phases of a step. With
//! several, a plot shows one quantity of all of them. Runs that differ in their seed alone are one
//! student, whose curve is their mean.

use super::family::{Family, Means, families};
use super::format::{number, plural};
use super::html::{Section, about, figure, figures, introduced, missing};
use super::plot::{Axis, Curve, Dot, Plot, Side};
use super::run::Run;
use super::thin::{Column, MOST, READABLE, extremes, means};
use super::words;

/// Terms of a loss, in the order of its plots.
const TERMS: &[&str] = &[
    "loss",
    "cross_entropy",
    "divergence",
    "preference",
    "policy_gradient",
    "single_step_kl",
    "reverse_kl",
    "moment",
    "moment_on_policy",
    "moment_off_policy",
    "flatness",
    "language_modelling",
    "corpus",
];

/// What the student samples and how sure it is.
const SAMPLED: &[&str] = &[
    "response_tokens",
    "eos_rate",
    "student_entropy",
    "distinct_1",
    "distinct_2",
    "teacher_mass_on_student_top",
    "student_mass_on_teacher_top",
];

/// Diagnostics that belong into one plot.
const TOGETHER: &[&[&str]] = &[
    &["reward_chosen", "reward_rejected"],
    &["log_q_chosen", "log_q_rejected"],
    &["log_ratio_chosen", "log_ratio_rejected"],
    &["chosen_tokens", "rejected_tokens"],
    &["advantage_teacher", "advantage_student"],
];

/// What is no curve: counters, and what has a plot of its own.
const ELSEWHERE: &[&str] = &[
    "steps",
    "epoch",
    "tokens",
    "seconds",
    "reward",
    "kl_k1",
    "kl_k3",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
];

/// The section.
pub(super) fn section(runs: &[Run]) -> Option<Section> {
    let all = families(runs);
    let families = &all[..];
    let mut body = String::new();
    for run in runs.iter().filter(|run| run.steps() == 0) {
        body += &missing(&format!(
            "{} has no step in its metrics.jsonl, so it has no curves.",
            super::html::escape(&run.label)
        ));
    }
    if runs.iter().any(|run| run.steps() > 0) {
        body += &about(&explanation(runs, families));
        body += &group(
            "Reward and KL",
            "The two trends of a method that learns from a reward: it should rise while the \
            divergence from the teacher stays bounded. A reward that rises with a KL that runs away is a reward that is \
            being exploited.",
            trends(families),
        );
        body += &group(
            "Loss and its terms",
            "In the unit of each term. Terms are compared by their gradients below, not by \
            their values.",
            terms(families, TERMS, "terms of the loss"),
        );
        body += &group(
            "Gradient of each term in the logits",
            "Euclidean norm of each term's gradient in the student's \
            logits, as it enters the loss: which term pulls how hard.",
            gradients(families),
        );
    }
    body += &group(
        "Evaluation during training",
        "The student on held-out rows; step 0 is before training.",
        evaluations(families),
    );
    body += &group(
        "Optimiser",
        "",
        each(families, &["learning_rate", "gradient_norm"]),
    );
    body += &group("Speed", "", speed(families));
    body += &group("What the student samples", "", each(families, SAMPLED));
    body += &group(
        "More diagnostics",
        "The method's page in the book says what they mean (distil methods NAME).",
        diagnostics(families),
    );
    (!body.is_empty()).then_some(Section {
        id: "curves",
        title: "Curves",
        body,
    })
}

fn explanation(runs: &[Run], families: &[Family<'_>]) -> String {
    let smooth = runs.iter().any(|run| run.steps() >= READABLE);
    let mut text = match smooth {
        true => {
            "The faint line is every step; the strong one is a moving mean over a fortieth of the steps."
        }
        false => "Every step is drawn.",
    }
    .to_owned();
    if families.iter().any(|family| family.runs.len() > 1) {
        text += " The strong line of a student with several training seeds is the mean over its runs; faint are the \
                 runs.";
    }
    if families.len() > FEW {
        text += " Of so many students, faint lines are left out wherever there is a strong one.";
    }
    if let Some(longest) = runs
        .iter()
        .map(Run::steps)
        .max()
        .filter(|&steps| steps > points(families.len()))
    {
        text += &format!(
            " Of {}, a curve has about {} points: the lowest and the highest of each piece, so no peak is lost.",
            plural(longest, "step"),
            points(families.len())
        );
    }
    text += " A gap is where there is no number. An axis is logarithmic where values span more than two powers of ten.";
    text
}

/// Students whose faint lines can still be told apart.
const FEW: usize = 6;

/// Points of a curve among so many: fewer of each, so that a report of many runs stays small.
fn points(curves: usize) -> usize {
    (4 * MOST / curves.max(1)).clamp(120, MOST)
}

fn group(title: &str, text: &str, plots: Vec<String>) -> String {
    match plots.is_empty() {
        true => String::new(),
        false => introduced(title, text) + &figures(&plots),
    }
}

/// Rules where a stage of a schedule begins; with one student only, since others may have other stages.
fn stages(families: &[Family<'_>]) -> Vec<(f64, String)> {
    let [family] = families else {
        return Vec::new();
    };
    let later = family.first().offsets().skip(1);
    let rule = |(offset, stage): (usize, &crate::record::Record)| {
        let name = stage
            .name
            .rsplit_once('/')
            .map_or(stage.name.as_str(), |(_, name)| name);
        (offset as f64, name.to_owned())
    };
    later.map(rule).collect()
}

/// The curve of a column; none if no run has a number in it. `among` curves share the plot.
fn curve(family: &Family<'_>, key: &str, name: &str, style: usize, among: usize) -> Option<Curve> {
    let most = points(among);
    let runs = family.runs.iter().map(|run| run.columns(key));
    let runs: Vec<Vec<Column<'_>>> = runs
        .filter(|columns| columns.iter().any(|column| column.finite() > 0))
        .collect();
    let mut curve = match &runs[..] {
        [] => return None,
        [columns] => {
            let (faint, line) = lines(columns, most);
            Curve {
                line,
                faint,
                ..Curve::default()
            }
        }
        _ => {
            let means = family.means(key);
            let means: Vec<Column<'_>> = means.iter().map(Means::column).collect();
            let (all, smooth) = lines(&means, most);
            let each = runs.iter().flat_map(|columns| {
                let (all, smooth) = lines(columns, most);
                if smooth.is_empty() { all } else { smooth }
            });
            Curve {
                line: if smooth.is_empty() { all } else { smooth },
                faint: each.collect(),
                ..Curve::default()
            }
        }
    };
    if among > FEW && curve.line.iter().any(|(_, y)| y.is_finite()) {
        curve.faint.clear();
    }
    curve.name = name.to_owned();
    curve.style = style;
    Some(curve)
}

type Points = Vec<(f64, f64)>;

/// Every step, and the moving mean if the run is long enough for one.
fn lines(columns: &[Column<'_>], most: usize) -> (Points, Points) {
    let most = (most / columns.len().max(1)).max(2);
    let (mut faint, mut line) = (Vec::new(), Vec::new());
    let several = columns.len() > 1;
    for &column in columns {
        let drawn = extremes(column, most);
        match means(column, most / 3) {
            Some((_, means)) => line.extend(means),
            // A stage too short for means joins the strong line as it is.
            None if several => line.extend(drawn.iter().copied()),
            None => {}
        }
        faint.extend(drawn);
        // The pen is lifted between stages.
        faint.push((f64::NAN, f64::NAN));
        line.push((f64::NAN, f64::NAN));
    }
    if line.iter().all(|(_, y)| y.is_nan()) {
        line.clear();
    }
    (faint, line)
}

fn plot(families: &[Family<'_>], title: &str, unit: &str, curves: Vec<Curve>) -> Plot {
    Plot {
        label: format!("{title} against optimiser steps"),
        x: Axis::of("optimiser step").holding(&[0.0]),
        left: Axis::of(unit),
        legend: true,
        rules: stages(families),
        curves,
        ..Plot::default()
    }
}

/// A plot of one column, the runs laid over each other.
fn one(families: &[Family<'_>], key: &str) -> Option<String> {
    let (title, unit, meaning) = words::column(key);
    let plot = plot(families, &title, unit, overlaid(families, key));
    (!plot.is_empty()).then(|| figure(&title, &plot.svg(), &super::html::escape(meaning)))
}

/// A column's curves of all students.
fn overlaid(families: &[Family<'_>], key: &str) -> Vec<Curve> {
    let curves = families.iter();
    curves
        .filter_map(|f| curve(f, key, f.label, f.style, families.len()))
        .collect()
}

fn each(families: &[Family<'_>], keys: &[&str]) -> Vec<String> {
    keys.iter().filter_map(|key| one(families, key)).collect()
}

/// A plot of several columns of one student.
fn overlay(
    families: &[Family<'_>],
    family: &Family<'_>,
    title: &str,
    unit: &str,
    keys: &[(String, String)],
) -> Option<String> {
    let curves = keys.iter().enumerate();
    let mut curves: Vec<Curve> = curves
        .filter_map(|(style, (key, name))| curve(family, key, name, style, keys.len()))
        .collect();
    if curves.len() > 3 {
        for curve in curves.iter_mut().filter(|curve| !curve.line.is_empty()) {
            curve.faint.clear();
        }
    }
    // A curve alone has no legend to name it.
    let caption = match &curves[..] {
        [one] if one.name != title => format!("Of {}.", super::html::escape(&one.name)),
        _ => String::new(),
    };
    let plot = plot(families, title, unit, curves);
    (!plot.is_empty()).then(|| figure(title, &plot.svg(), &caption))
}

/// The columns that some run has, among these.
fn present<'a>(families: &[Family<'_>], keys: &[&'a str]) -> Vec<&'a str> {
    let runs = families.iter().flat_map(|family| &family.runs);
    let there = |key: &&&str| runs.clone().any(|run| !run.columns(key).is_empty());
    keys.iter().filter(there).copied().collect()
}

fn terms(families: &[Family<'_>], keys: &[&str], title: &str) -> Vec<String> {
    let keys = present(families, keys);
    match (families, keys.len()) {
        ([family], 3..) => {
            let mut plots = each(families, &["loss"]);
            let named = keys.iter().filter(|key| **key != "loss");
            let named = named.map(|key| ((*key).to_owned(), words::column(key).0));
            plots.extend(overlay(
                families,
                family,
                title,
                "value",
                &named.collect::<Vec<_>>(),
            ));
            plots
        }
        _ => each(families, &keys),
    }
}

/// Names of columns below `prefix`, without it.
fn below(families: &[Family<'_>], prefix: &str) -> Vec<String> {
    let runs = families.iter().flat_map(|family| &family.runs);
    let stages = runs.flat_map(|run| &run.stages);
    let names = stages.flat_map(|stage| stage.metrics.names());
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_prefix(prefix))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

fn gradients(families: &[Family<'_>]) -> Vec<String> {
    let keys = below(families, "logit_gradients.");
    let key = |term: &String| (format!("logit_gradients.{term}"), words::column(term).0);
    let keys: Vec<(String, String)> = keys.iter().map(key).collect();
    match families {
        [family] => overlay(
            families,
            family,
            "gradient norms in the logits",
            "norm",
            &keys,
        )
        .into_iter()
        .collect(),
        _ => {
            let plot = |(key, name): &(String, String)| {
                let title = format!("gradient of {name}");
                let plot = plot(families, &title, "norm", overlaid(families, key));
                (!plot.is_empty()).then(|| figure(&title, &plot.svg(), ""))
            };
            keys.iter().filter_map(plot).collect()
        }
    }
}

fn speed(families: &[Family<'_>]) -> Vec<String> {
    let mut plots = each(families, &["tokens_per_second"]);
    let phases = below(families, "phases.");
    let key = |phase: &String| (format!("phases.{phase}"), words::column(phase).0);
    let keys: Vec<(String, String)> = phases.iter().map(key).collect();
    for family in families {
        let title = match families.len() {
            1 => "phases of a step".to_owned(),
            _ => format!("phases of a step: {}", family.label),
        };
        plots.extend(overlay(families, family, &title, "seconds", &keys));
    }
    plots
}

/// Reward on the left, KL on the right, a plot for each student on the same axes.
fn trends(families: &[Family<'_>]) -> Vec<String> {
    let finite = |family: &Family<'_>, key: &str| {
        let mut columns = family.runs.iter().flat_map(|run| run.columns(key));
        columns.any(|column| column.finite() > 0)
    };
    let kl = |family: &Family<'_>| {
        let mut keys = ["kl_k3", "kl_k1"].into_iter();
        keys.find(|key| finite(family, key))
    };
    let both = |family: &&Family<'_>| kl(family).is_some() || finite(family, "reward");
    let bounds = |key: &str| -> Vec<f64> {
        let runs = families.iter().flat_map(|family| &family.runs);
        let columns: Vec<_> = runs.flat_map(|run| run.columns(key)).collect();
        let values = columns
            .iter()
            .flat_map(|column| column.values)
            .filter(|v| v.is_finite());
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| {
            (low.min(v), high.max(v))
        });
        if low > high {
            Vec::new()
        } else {
            vec![low, high]
        }
    };
    // Several students on the same axes.
    let (reward, divergence) = match families.len() {
        1 => (Vec::new(), Vec::new()),
        _ => (
            bounds("reward"),
            [bounds("kl_k3"), bounds("kl_k1")].concat(),
        ),
    };
    let one = |family: &Family<'_>| {
        let reward_curve = curve(family, "reward", "reward", 0, families.len());
        let kl_curve = kl(family).and_then(|key| {
            let name = match key {
                "kl_k3" => "KL(student ‖ teacher), k3",
                _ => "KL(student ‖ teacher), k1",
            };
            curve(family, key, name, 1, families.len())
        });
        let title = match (families.len(), reward_curve.is_some(), kl_curve.is_some()) {
            (1, true, true) => "reward and KL".to_owned(),
            (1, true, false) => "reward".to_owned(),
            (1, false, _) => "KL on the student's samples".to_owned(),
            _ => family.label.to_owned(),
        };
        let (left, right) = match (reward_curve.is_some(), kl_curve.is_some()) {
            (true, true) => (
                Axis::of("reward").holding(&reward),
                Some(Axis::of("KL, nats a token").holding(&divergence)),
            ),
            (true, false) => (Axis::of("reward").holding(&reward), None),
            _ => (Axis::of("KL, nats a token").holding(&divergence), None),
        };
        let mut curves: Vec<Curve> = reward_curve.into_iter().collect();
        curves.extend(kl_curve.map(|curve| Curve {
            side: if right.is_some() {
                Side::Right
            } else {
                Side::Left
            },
            ..curve
        }));
        let plot = Plot {
            left,
            right,
            ..plot(families, &title, "", curves)
        };
        (!plot.is_empty()).then(|| figure(&title, &plot.svg(), ""))
    };
    families.iter().filter(both).filter_map(one).collect()
}

fn evaluations(families: &[Family<'_>]) -> Vec<String> {
    let runs = families.iter().flat_map(|family| &family.runs);
    let names = runs
        .flat_map(|run| &run.stages)
        .flat_map(|stage| &stage.metrics.evaluations)
        .flat_map(|e| e.metrics.keys());
    let names = words::in_order(names.cloned().collect());
    let plot_of = |name: &String| {
        let curves = families.iter().map(|family| {
            let dots: Vec<Vec<Dot>> = family.runs.iter().map(|run| evaluated(run, name)).collect();
            let line = match &dots[..] {
                [dots] => dots.iter().map(|dot| (dot.x, dot.y)).collect(),
                _ => means_of_dots(&dots),
            };
            let line = thinned(&line);
            let dots: Vec<Dot> = dots.into_iter().flatten().collect();
            Curve {
                name: family.label.to_owned(),
                style: family.style,
                line,
                dots: if dots.len() > MOST / 4 {
                    Vec::new()
                } else {
                    dots
                },
                ..Curve::default()
            }
        });
        let curves = curves.filter(|curve| !curve.line.is_empty() || !curve.dots.is_empty());
        let title = words::title(name);
        let plot = plot(families, &title, words::unit(name), curves.collect());
        let caption = format!("{}; {}.", words::meaning(name), words::direction(name));
        let caption = caption.trim_start_matches("; ");
        (!plot.is_empty()).then(|| figure(&title, &plot.svg(), &super::html::escape(caption)))
    };
    names.iter().filter_map(plot_of).collect()
}

/// A line at whole steps, with few enough points.
fn thinned(line: &[(f64, f64)]) -> Points {
    let (steps, values): (Vec<usize>, Vec<f64>) =
        line.iter().map(|&(x, y)| (x as usize, y)).unzip();
    let column = Column {
        offset: 0,
        steps: &steps,
        values: &values,
    };
    extremes(column, MOST)
}

/// What a run's own evaluations measured of a metric.
fn evaluated(run: &Run, name: &str) -> Vec<Dot> {
    let mut dots = Vec::new();
    for (offset, stage) in run.offsets() {
        for evaluated in &stage.metrics.evaluations {
            let Some(&y) = evaluated.metrics.get(name) else {
                continue;
            };
            let step = offset + evaluated.step;
            dots.push(Dot {
                x: step as f64,
                y,
                title: format!("{}, step {step}: {}", run.label, number(y)),
                interval: None,
            });
        }
    }
    dots
}

/// The mean at each place that all runs have.
fn means_of_dots(runs: &[Vec<Dot>]) -> Vec<(f64, f64)> {
    let Some((first, others)) = runs.split_first() else {
        return Vec::new();
    };
    let mean = |dot: &Dot| {
        let of = |run: &Vec<Dot>| Some(run.iter().find(|other| other.x == dot.x)?.y);
        let rest: Option<f64> = others.iter().map(of).sum();
        Some((dot.x, (dot.y + rest?) / runs.len() as f64))
    };
    first.iter().filter_map(mean).collect()
}

fn diagnostics(families: &[Family<'_>]) -> Vec<String> {
    let mut plots = Vec::new();
    let together: Vec<&str> = TOGETHER
        .iter()
        .flat_map(|keys| keys.iter().copied())
        .collect();
    for keys in TOGETHER {
        match families {
            [family] => {
                let named = present(families, keys).into_iter();
                let named: Vec<(String, String)> = named
                    .map(|key| (key.to_owned(), words::column(key).0))
                    .collect();
                let names: Vec<&str> = named.iter().map(|(_, name)| name.as_str()).collect();
                plots.extend(overlay(
                    families,
                    family,
                    &names.join(", "),
                    "value",
                    &named,
                ));
            }
            _ => plots.extend(each(families, keys)),
        }
    }
    for name in below(families, "") {
        let known = [TERMS, SAMPLED, ELSEWHERE, &together[..]];
        let elsewhere = known.iter().any(|keys| keys.contains(&name.as_str()));
        if !elsewhere && !name.starts_with("phases.") && !name.starts_with("logit_gradients.") {
            plots.extend(one(families, &name));
        }
    }
    plots
}
