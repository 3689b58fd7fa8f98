//! What was logged at every step, as curves against steps.
//!
//! With one run, what belongs together shares a plot: terms of the loss, phases of a step. With
//! several, a plot shows one quantity of all of them.

use super::format::{number, plural};
use super::html::{Section, about, figure, figures, introduced, missing};
use super::plot::{Axis, Curve, Dot, Plot, Side};
use super::run::Run;
use super::thin::{MOST, READABLE, extremes, means};
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
    let mut body = String::new();
    for run in runs.iter().filter(|run| run.steps() == 0) {
        body += &missing(&format!(
            "{} has no step in its metrics.jsonl, so it has no curves.",
            super::html::escape(&run.label)
        ));
    }
    if runs.iter().any(|run| run.steps() > 0) {
        body += &about(&explanation(runs));
        body += &group(
            "Reward and KL",
            "The two trends of a method that learns from a reward: it should rise while the \
            divergence from the teacher stays bounded. A reward that rises with a KL that runs away is a reward that is \
            being exploited.",
            trends(runs),
        );
        body += &group(
            "Loss and its terms",
            "In the unit of each term. Terms are compared by their gradients below, not by \
            their values.",
            terms(runs, TERMS, "terms of the loss"),
        );
        body += &group(
            "Gradient of each term in the logits",
            "Euclidean norm of each term's gradient in the student's \
            logits, as it enters the loss: which term pulls how hard.",
            gradients(runs),
        );
    }
    body += &group(
        "Evaluation during training",
        "The student on held-out rows; step 0 is before training.",
        evaluations(runs),
    );
    body += &group(
        "Optimiser",
        "",
        each(runs, &["learning_rate", "gradient_norm"]),
    );
    body += &group("Speed", "", speed(runs));
    body += &group("What the student samples", "", each(runs, SAMPLED));
    body += &group(
        "More diagnostics",
        "The method's page in the book says what they mean (distil methods NAME).",
        diagnostics(runs),
    );
    (!body.is_empty()).then_some(Section {
        id: "curves",
        title: "Curves",
        body,
    })
}

fn explanation(runs: &[Run]) -> String {
    let smooth = runs.iter().any(|run| run.steps() >= READABLE);
    let mut text = match smooth {
        true => "Faint: every step. Strong: a moving mean over a fortieth of the steps.",
        false => "Every step is drawn.",
    }
    .to_owned();
    if let Some(longest) = runs
        .iter()
        .map(Run::steps)
        .max()
        .filter(|&steps| steps > MOST)
    {
        text += &format!(
            " Of {}, a curve has about {MOST} points: the lowest and the highest of each piece, so no peak is lost.",
            plural(longest, "step")
        );
    }
    text += " A gap is where there is no number. An axis is logarithmic where values span more than two powers of ten.";
    text
}

fn group(title: &str, text: &str, plots: Vec<String>) -> String {
    match plots.is_empty() {
        true => String::new(),
        false => introduced(title, text) + &figures(&plots),
    }
}

/// Rules where a stage of a schedule begins; with one run only, since others may have other stages.
fn stages(runs: &[Run]) -> Vec<(f64, String)> {
    let [run] = runs else {
        return Vec::new();
    };
    let later = run.offsets().skip(1);
    let rule = |(offset, stage): (usize, &crate::record::Record)| {
        let name = stage
            .name
            .rsplit_once('/')
            .map_or(stage.name.as_str(), |(_, name)| name);
        (offset as f64, name.to_owned())
    };
    later.map(rule).collect()
}

/// The curve of a column; none if the run has no number in it.
fn curve(run: &Run, key: &str, name: &str, style: usize) -> Option<Curve> {
    let columns = run.columns(key);
    if columns.iter().all(|column| column.finite() == 0) {
        return None;
    }
    let most = (MOST / columns.len().max(1)).max(2);
    let (mut faint, mut line) = (Vec::new(), Vec::new());
    let several = columns.len() > 1;
    for column in columns {
        let drawn = extremes(column, most);
        match means(column) {
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
    Some(Curve {
        name: name.to_owned(),
        style,
        line,
        faint,
        ..Curve::default()
    })
}

fn plot(runs: &[Run], title: &str, unit: &str, curves: Vec<Curve>) -> Plot {
    Plot {
        label: format!("{title} against optimiser steps"),
        x: Axis::of("optimiser step").holding(&[0.0]),
        left: Axis::of(unit),
        legend: true,
        rules: stages(runs),
        curves,
        ..Plot::default()
    }
}

/// A plot of one column, the runs laid over each other.
fn one(runs: &[Run], key: &str) -> Option<String> {
    let (title, unit, meaning) = words::column(key);
    let curves = runs.iter().enumerate();
    let curves: Vec<Curve> = curves
        .filter_map(|(index, run)| curve(run, key, &run.label, index))
        .collect();
    let plot = plot(runs, &title, unit, curves);
    (!plot.is_empty()).then(|| figure(&title, &plot.svg(), &super::html::escape(meaning)))
}

fn each(runs: &[Run], keys: &[&str]) -> Vec<String> {
    keys.iter().filter_map(|key| one(runs, key)).collect()
}

/// A plot of several columns of one run.
fn overlay(
    runs: &[Run],
    run: &Run,
    title: &str,
    unit: &str,
    keys: &[(String, String)],
) -> Option<String> {
    let curves = keys.iter().enumerate();
    let mut curves: Vec<Curve> = curves
        .filter_map(|(style, (key, name))| curve(run, key, name, style))
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
    let plot = plot(runs, title, unit, curves);
    (!plot.is_empty()).then(|| figure(title, &plot.svg(), &caption))
}

/// The columns that some run has, among these.
fn present<'a>(runs: &[Run], keys: &[&'a str]) -> Vec<&'a str> {
    let there = |key: &&&str| runs.iter().any(|run| !run.columns(key).is_empty());
    keys.iter().filter(there).copied().collect()
}

fn terms(runs: &[Run], keys: &[&str], title: &str) -> Vec<String> {
    let keys = present(runs, keys);
    match (runs, keys.len()) {
        ([run], 3..) => {
            let mut plots = each(runs, &["loss"]);
            let named = keys.iter().filter(|key| **key != "loss");
            let named = named.map(|key| ((*key).to_owned(), words::column(key).0));
            plots.extend(overlay(
                runs,
                run,
                title,
                "value",
                &named.collect::<Vec<_>>(),
            ));
            plots
        }
        _ => each(runs, &keys),
    }
}

/// Names of columns below `prefix`, without it.
fn below(runs: &[Run], prefix: &str) -> Vec<String> {
    let stages = runs.iter().flat_map(|run| &run.stages);
    let names = stages.flat_map(|stage| stage.metrics.names());
    let mut names: Vec<String> = names
        .filter_map(|name| name.strip_prefix(prefix))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

fn gradients(runs: &[Run]) -> Vec<String> {
    let keys = below(runs, "logit_gradients.");
    let key = |term: &String| (format!("logit_gradients.{term}"), words::column(term).0);
    let keys: Vec<(String, String)> = keys.iter().map(key).collect();
    match runs {
        [run] => overlay(runs, run, "gradient norms in the logits", "norm", &keys)
            .into_iter()
            .collect(),
        _ => {
            let plot = |(key, name): &(String, String)| {
                let curves = runs.iter().enumerate();
                let curves = curves
                    .filter_map(|(i, run)| curve(run, key, &run.label, i))
                    .collect();
                let title = format!("gradient of {name}");
                let plot = plot(runs, &title, "norm", curves);
                (!plot.is_empty()).then(|| figure(&title, &plot.svg(), ""))
            };
            keys.iter().filter_map(plot).collect()
        }
    }
}

fn speed(runs: &[Run]) -> Vec<String> {
    let mut plots = each(runs, &["tokens_per_second"]);
    let phases = below(runs, "phases.");
    let key = |phase: &String| (format!("phases.{phase}"), words::column(phase).0);
    let keys: Vec<(String, String)> = phases.iter().map(key).collect();
    for run in runs {
        let title = match runs.len() {
            1 => "phases of a step".to_owned(),
            _ => format!("phases of a step: {}", run.label),
        };
        plots.extend(overlay(runs, run, &title, "seconds", &keys));
    }
    plots
}

/// Reward on the left, KL on the right, a plot for each run on the same axes.
fn trends(runs: &[Run]) -> Vec<String> {
    let kl = |run: &Run| {
        let keys = ["kl_k3", "kl_k1"];
        keys.into_iter()
            .find(|key| run.columns(key).iter().any(|column| column.finite() > 0))
    };
    let both = |run: &&Run| kl(run).is_some() || !run.columns("reward").is_empty();
    let bounds = |key: &str| -> Vec<f64> {
        let columns: Vec<_> = runs.iter().flat_map(|run| run.columns(key)).collect();
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
    // Several runs on the same axes; the last step of the longest is on each.
    let (reward, divergence) = match runs.len() {
        1 => (Vec::new(), Vec::new()),
        _ => (
            bounds("reward"),
            [bounds("kl_k3"), bounds("kl_k1")].concat(),
        ),
    };
    let one = |run: &Run| {
        let reward_curve = curve(run, "reward", "reward", 0);
        let kl_curve = kl(run).and_then(|key| {
            let name = match key {
                "kl_k3" => "KL(student ‖ teacher), k3",
                _ => "KL(student ‖ teacher), k1",
            };
            curve(run, key, name, 1)
        });
        let title = match (runs.len(), reward_curve.is_some(), kl_curve.is_some()) {
            (1, true, true) => "reward and KL".to_owned(),
            (1, true, false) => "reward".to_owned(),
            (1, false, _) => "KL on the student's samples".to_owned(),
            _ => run.label.clone(),
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
            ..plot(runs, &title, "", curves)
        };
        (!plot.is_empty()).then(|| figure(&title, &plot.svg(), ""))
    };
    runs.iter().filter(both).filter_map(one).collect()
}

fn evaluations(runs: &[Run]) -> Vec<String> {
    let of = runs.iter().flat_map(|run| &run.stages);
    let names = of
        .flat_map(|stage| &stage.metrics.evaluations)
        .flat_map(|e| e.metrics.keys());
    let names = words::in_order(names.cloned().collect());
    let plot_of = |name: &String| {
        let dots = |run: &Run| -> Vec<Dot> {
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
        };
        let curves = runs.iter().enumerate().map(|(style, run)| {
            let dots = dots(run);
            Curve {
                name: run.label.clone(),
                style,
                line: dots.iter().map(|dot| (dot.x, dot.y)).collect(),
                dots: if dots.len() > MOST / 4 {
                    Vec::new()
                } else {
                    dots
                },
                ..Curve::default()
            }
        });
        let curves = curves.filter(|curve| !curve.line.is_empty()).collect();
        let title = words::title(name);
        let plot = plot(runs, &title, words::unit(name), curves);
        let caption = format!("{}; {}.", words::meaning(name), words::direction(name));
        let caption = caption.trim_start_matches("; ");
        (!plot.is_empty()).then(|| figure(&title, &plot.svg(), &super::html::escape(caption)))
    };
    names.iter().filter_map(plot_of).collect()
}

fn diagnostics(runs: &[Run]) -> Vec<String> {
    let mut plots = Vec::new();
    let together: Vec<&str> = TOGETHER
        .iter()
        .flat_map(|keys| keys.iter().copied())
        .collect();
    for keys in TOGETHER {
        match runs {
            [run] => {
                let named = present(runs, keys).into_iter();
                let named: Vec<(String, String)> = named
                    .map(|key| (key.to_owned(), words::column(key).0))
                    .collect();
                let names: Vec<&str> = named.iter().map(|(_, name)| name.as_str()).collect();
                plots.extend(overlay(runs, run, &names.join(", "), "value", &named));
            }
            _ => plots.extend(each(runs, keys)),
        }
    }
    for name in below(runs, "") {
        let known = [TERMS, SAMPLED, ELSEWHERE, &together[..]];
        let elsewhere = known.iter().any(|keys| keys.contains(&name.as_str()));
        if !elsewhere && !name.starts_with("phases.") && !name.starts_with("logit_gradients.") {
            plots.extend(one(runs, &name));
        }
    }
    plots
}
