//! What the student says: the run's fixed prompts before and after training, and the answers of an
//! evaluation, beside the reference and the teacher's answer where these are known.

use super::family::{Family, families};
use super::format::{number, plural};
use super::html::{self, Section, code, escape, heading, missing, named};
use super::results::evaluation_names;
use super::run::Run;
use super::words;
use crate::record::{Answer, EvaluationFile, Sample};

/// Prompts in each part.
const PROMPTS: usize = 6;

/// The section.
pub(super) fn section(runs: &[Run]) -> Option<Section> {
    let students = families(runs);
    let runs: Vec<&Run> = students.iter().map(Family::first).collect();
    let names = evaluation_names(&runs);
    let runs = &runs[..];
    let during = during(runs);
    let mut body = match students.iter().any(|family| family.runs.len() > 1) {
        true => html::about("Of a student with several training seeds, its first run answers."),
        false => String::new(),
    };
    body += &match during.is_empty() {
        true => missing(&format!(
            "No samples were kept during training: they need {} and {} above 0.",
            code("data.eval"),
            code("eval.samples")
        )),
        false => during,
    };
    for name in names {
        body += &evaluated(runs, &name);
    }
    Some(Section {
        id: "samples",
        title: "Samples",
        body,
    })
}

/// A text under what it is; HTML in `who`.
fn card(who: &str, text: &str, note: &str) -> String {
    let text = match text.trim().is_empty() {
        true => "<span class=\"nothing\">(nothing)</span>".to_owned(),
        false => escape(text),
    };
    let note = match note.is_empty() {
        true => String::new(),
        false => format!("<p class=\"note\">{}</p>", escape(note)),
    };
    format!(
        "<div class=\"card\"><p class=\"who\">{who}</p><p class=\"said\">{text}</p>{note}</div>"
    )
}

fn exchange(prompt: &str, cards: &str) -> String {
    format!(
        "<div class=\"exchange\"><p class=\"prompt\">{}</p><div class=\"cards\">{cards}</div></div>\n",
        escape(prompt)
    )
}

/// `samples.jsonl` at the first and the last step.
fn during(runs: &[&Run]) -> String {
    let mut prompts: Vec<&str> = Vec::new();
    for sample in runs
        .iter()
        .flat_map(|run| &run.stages)
        .flat_map(|stage| &stage.samples)
    {
        if !prompts.contains(&sample.prompt.as_str()) {
            prompts.push(&sample.prompt);
        }
    }
    let all = prompts.len();
    let mut text = String::new();
    for prompt in prompts.into_iter().take(PROMPTS) {
        let mut cards = String::new();
        for run in runs {
            let samples = run.offsets().flat_map(|(offset, stage)| {
                let of = stage
                    .samples
                    .iter()
                    .filter(|sample| sample.prompt == prompt);
                of.map(move |sample| (offset + sample.step, sample))
            });
            let samples: Vec<(usize, &Sample)> = samples.collect();
            let name = match runs.len() {
                1 => String::new(),
                _ => format!("{} ", named(run.style, &run.label)),
            };
            let shown = match samples[..] {
                [first, .., last] => vec![first, last],
                _ => samples,
            };
            for (step, sample) in shown {
                let when = match step {
                    0 => "before training".to_owned(),
                    step => format!("after {}", plural(step, "step")),
                };
                cards += &card(
                    &format!("{name}{when}"),
                    &sample.response,
                    ending(&sample.finish_reason),
                );
            }
        }
        cards += &known(runs, prompt);
        text += &exchange(prompt, &cards);
    }
    if !text.is_empty() {
        let mut about = "Greedy answers (the likeliest token each time) to the run's fixed prompts. Read them: a metric can rise while answers get worse.".to_owned();
        if all > PROMPTS {
            about += &format!(" {PROMPTS} of {all} prompts; the others are in samples.jsonl.");
        }
        text = format!(
            "{}{}{text}",
            heading("Before and after"),
            html::about(&about)
        );
    }
    text
}

fn ending(finish_reason: &str) -> &'static str {
    match finish_reason {
        "length" => "cut off at the length limit",
        _ => "",
    }
}

/// Reference and teacher's answer to a prompt of the run, if an evaluation has that prompt. A run's
/// prompt has the template around it.
fn known(runs: &[&Run], prompt: &str) -> String {
    let files = runs.iter().flat_map(|run| &run.evaluations);
    let mut found =
        files.flat_map(|file| file.answers.texts.iter().map(move |answer| (file, answer)));
    let same =
        |answer: &Answer| !answer.prompt.is_empty() && prompt.contains(answer.prompt.as_str());
    match found.find(|(_, answer)| same(answer)) {
        Some((file, answer)) => beside(file, answer),
        None => String::new(),
    }
}

fn beside(file: &EvaluationFile, answer: &Answer) -> String {
    let mut cards = String::new();
    let teacher = file
        .tokens
        .iter()
        .find(|row| row.row == answer.row && row.source == "teacher");
    if let Some(teacher) = teacher {
        cards += &card("teacher", &teacher.tokens.concat(), "");
    }
    if let Some(reference) = answer.references.first() {
        let more = match answer.references.len() {
            1 => String::new(),
            count => format!("the first of {count}"),
        };
        cards += &card("reference", reference, &more);
    }
    cards
}

/// The answers of all students to the same rows of an evaluation.
fn evaluated(runs: &[&Run], name: &str) -> String {
    let files: Vec<(&Run, &EvaluationFile)> = runs
        .iter()
        .filter_map(|run| Some((*run, run.evaluation(name)?)))
        .collect();
    let mut rows: Vec<usize> = Vec::new();
    for answer in files.iter().flat_map(|(_, file)| &file.answers.texts) {
        if !rows.contains(&answer.row) {
            rows.push(answer.row);
        }
    }
    rows.sort_unstable();
    let mut text = String::new();
    for row in rows.into_iter().take(PROMPTS) {
        let mut cards = String::new();
        let mut first = None;
        for (run, file) in &files {
            let Some(answer) = file.answers.texts.iter().find(|answer| answer.row == row) else {
                continue;
            };
            let who = match runs.len() {
                1 => "student".to_owned(),
                _ => named(run.style, &run.label),
            };
            let names = words::in_order(answer.metrics.keys().cloned().collect());
            let part = |metric: &String| {
                let value = answer.metrics.get(metric).copied().flatten()?;
                Some(format!("{} {}", words::title(metric), number(value)))
            };
            let numbers: Vec<String> = names.iter().filter_map(part).collect();
            cards += &card(&who, &answer.response, &numbers.join(", "));
            first = first.or(Some((*file, answer)));
        }
        if let Some((file, answer)) = first {
            cards += &beside(file, answer);
            text += &exchange(&answer.prompt, &cards);
        }
    }
    match text.is_empty() {
        true => String::new(),
        false => format!(
            "{}{text}",
            heading(&format!("Answers in the evaluation: {name}"))
        ),
    }
}
