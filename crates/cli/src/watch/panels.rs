//! The texts of the screen, line by line: where the run is, how it goes, what was measured and said.

use distil::eval::metric::{Better, metric};
use distil::record::{Live, Sample, Standing};

use super::question::question;
use super::run::Run;
use super::state::{Choices, State};
use super::text::{clip_front, flat, harmless, number, signed, width, wrap};
use crate::remaining::{pace, words};

/// A silence of more seconds than this is worth a word.
const SILENCE: u64 = 60;

/// What the run is doing.
pub(crate) fn standing(run: &Run, stage: &Live) -> String {
    let since = |quiet: std::time::Duration| {
        let what = match stage.metrics().steps.is_empty() {
            true => "nothing written",
            false => "no new step",
        };
        format!("{what} for {}", words(quiet.as_secs_f64()))
    };
    match run.standing {
        Standing::Finished => "finished".into(),
        Standing::Stopped { quiet } => format!("stopped ({})", since(quiet)),
        Standing::Running { quiet } if quiet.as_secs() > SILENCE => {
            format!("running, {}", since(quiet))
        }
        Standing::Running { .. } => "running".into(),
    }
}

/// Run, method and stage.
pub(crate) fn title(run: &Run, state: &State, stage: &Live) -> String {
    let mut title = flat(stage.name());
    if let Some(method) = stage.method() {
        title.push_str(&format!("  {}", flat(method)));
    }
    let stages = run.stages().len();
    if stages > 1 {
        let number = run.index(state.stage) + 1;
        title.push_str(&format!("  stage {number} of {stages} begun"));
    }
    title
}

/// How far the run is, with a bar if there is room for one.
pub(crate) fn progress(run: &Run, stage: &Live, room: usize) -> String {
    let (Some((step, steps)), Some(left)) = (stage.step(), stage.steps_left()) else {
        return "no step yet".into();
    };
    let share = step as f64 / (step + left).max(1) as f64;
    let mut end = format!("{:3.0} %", (share * 100.0).floor());
    // A narrow screen cuts the end off.
    if let Some(time) = time(run, stage) {
        end.push_str(&format!("  {time}"));
    }
    if let Some(epoch) = stage.metrics().last("epoch") {
        end.push_str(&format!("  epoch {epoch:.2}"));
    }
    let begin = match step + left {
        // As many steps as `train.tokens` leaves time for, which is known at the end.
        end if end < steps && left > 0 => format!("step {step} of about {end}"),
        end => format!("step {step} of {end}"),
    };
    let cells = room.saturating_sub(begin.len() + end.len() + 3).min(40);
    if cells < 5 {
        return format!("{begin}  {}", end.trim_start());
    }
    let full = (share * cells as f64).floor() as usize;
    let bar = "█".repeat(full) + &"░".repeat(cells - full);
    format!("{begin}  {bar} {end}")
}

/// The time that the run's steps took, or still take.
pub(crate) fn time(run: &Run, stage: &Live) -> Option<String> {
    match run.standing {
        Standing::Finished => {
            let seconds = stage.metrics().column("seconds")?.iter();
            let took: f64 = seconds.filter(|second| second.is_finite()).sum();
            Some(format!("steps took {}", words(took)))
        }
        Standing::Running { .. } => Some(format!("{} left", words(run.left(stage)?))),
        Standing::Stopped { .. } => Some(format!("{} were left", words(run.left(stage)?))),
    }
}

/// The newest numbers, the most important first.
pub(crate) fn numbers(run: &Run, stage: &Live) -> Vec<String> {
    let metrics = stage.metrics();
    let newest = |name: &str| metrics.last(name).map(number);
    // That there is no number must be seen, too.
    let always = |name: &str| Some(number(*metrics.column(name)?.last()?));
    let kl = newest("kl_k3").map(|value| ("kl_k3", value));
    let kl = kl.or_else(|| Some(("kl_k1", newest("kl_k1")?)));
    let speed = metrics.column("tokens_per_second").and_then(pace);
    [
        always("loss").map(|loss| format!("loss {loss}")),
        newest("reward").map(|reward| format!("reward {reward}")),
        kl.map(|(name, value)| format!("{name} {value}")),
        always("gradient_norm").map(|norm| format!("gradient norm {norm}")),
        speed.map(|speed| format!("{} tokens/s", number(speed))),
        run.pace.map(|pace| format!("{} s a step", number(pace))),
        newest("learning_rate").map(|rate| format!("learning rate {rate}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// As many of the items as fit on a line.
pub(crate) fn fitting(items: &[String], room: usize) -> String {
    let mut line = String::new();
    for item in items {
        let gap = if line.is_empty() { "" } else { "  " };
        if width(&line) + gap.len() + width(item) > room {
            break;
        }
        line.push_str(gap);
        line.push_str(item);
    }
    line
}

/// Heading and rows of the newest evaluation, with the change since the first one.
pub(crate) fn evaluation(stage: &Live) -> (String, Vec<String>) {
    let evaluations = &stage.metrics().evaluations;
    let (Some(first), Some(newest)) = (evaluations.first(), evaluations.last()) else {
        return ("evaluation".into(), vec!["None yet.".into()]);
    };
    let longest = newest.metrics.keys().map(|name| name.len()).max();
    let longest = longest.unwrap_or(0).clamp(6, 16);
    let is_start = newest.step == first.step;
    let mut rows = vec![match is_start {
        true => format!("{:longest$} {:>8}", "metric", "value"),
        false => {
            let since = format!("since step {}", first.step);
            format!("{:longest$} {:>8}  {since}", "metric", "value")
        }
    }];
    for (name, value) in &newest.metrics {
        let mut row = format!("{:longest$} {:>8}", flat(name), number(*value));
        if let Some(before) = first.metrics.get(name).filter(|_| !is_start) {
            let change = value - before;
            let word = match metric(name).and_then(|metric| metric.better) {
                _ if change == 0.0 => "same",
                None => "",
                Some(Better::Higher) if change > 0.0 => "better",
                Some(Better::Lower) if change < 0.0 => "better",
                Some(_) => "worse",
            };
            row.push_str(&format!("  {:>8} {word}", signed(change)));
        }
        rows.push(row);
    }
    (format!("evaluation of step {}", newest.step), rows)
}

/// The sample that is shown, with its heading.
pub(crate) fn sample<'a>(
    stage: &'a Live,
    state: &State,
    choices: &Choices,
) -> (String, Option<&'a Sample>) {
    let step = state.evaluation.or(choices.evaluations.last().copied());
    let mut of_step = stage.samples().iter().filter(|s| Some(s.step) == step);
    let place = state.sample.min(choices.samples.saturating_sub(1));
    match of_step.nth(place) {
        Some(sample) => {
            let (number, of) = (place + 1, choices.samples);
            (
                format!("sample {number} of {of}, step {}", sample.step),
                Some(sample),
            )
        }
        None => ("sample".into(), None),
    }
}

/// A sample in few lines: the end of its question and its answer.
pub(crate) fn short(stage: &Live, sample: &Sample, cells: usize) -> Vec<String> {
    let of_step = stage.samples().iter().filter(|s| s.step == sample.step);
    let question = question(&sample.prompt, of_step.map(|s| s.prompt.as_str()));
    let prompt = clip_front(&flat(question), 2 * cells.saturating_sub(8));
    let mut lines = wrap(&format!("prompt: {prompt}"), cells);
    lines.extend(wrap(&format!("answer: {}", flat(&answer(sample))), cells));
    lines
}

/// A whole sample.
pub(crate) fn whole(sample: &Sample, cells: usize) -> Vec<String> {
    let text = format!(
        "prompt:\n{}\n\nanswer:\n{}",
        harmless(&sample.prompt),
        answer(sample)
    );
    wrap(&text, cells)
}

fn answer(sample: &Sample) -> String {
    let answer = harmless(&sample.response);
    match sample.finish_reason.as_str() {
        "length" => format!("{answer} [cut off: it did not end by itself]"),
        _ => answer,
    }
}

/// All warnings, the newest first.
pub(crate) fn warnings(stage: &Live, cells: usize) -> Vec<String> {
    let warnings = stage.metrics().warnings.iter().rev();
    let lines = warnings.flat_map(|warning| {
        let text = format!("step {}: {}\n", warning.step, harmless(&warning.text));
        wrap(&text, cells)
    });
    let mut lines: Vec<String> = lines.collect();
    if let Some(text) = unreadable(stage) {
        lines.extend(wrap(&text, cells));
    }
    if lines.is_empty() {
        lines.push("None.".into());
    }
    lines
}

/// How many lines are missing from what is shown, if any.
pub(crate) fn unreadable(stage: &Live) -> Option<String> {
    match stage.metrics().unreadable {
        0 => None,
        1 => Some("1 line of metrics.jsonl cannot be read and is left out".into()),
        count => Some(format!(
            "{count} lines of metrics.jsonl cannot be read and are left out"
        )),
    }
}

/// One line about what goes wrong, if anything does.
pub(crate) fn alert(run: &Run, stage: &Live) -> Option<String> {
    if let Some(trouble) = &run.trouble {
        return Some(flat(trouble));
    }
    let warnings = &stage.metrics().warnings;
    let Some(newest) = warnings.last() else {
        return unreadable(stage);
    };
    let count = match warnings.len() {
        1 => "1 warning".to_owned(),
        count => format!("{count} warnings"),
    };
    let text = flat(&newest.text);
    Some(format!(
        "{count} (w shows all), step {}: {text}",
        newest.step
    ))
}
