//! The quickstart: a complete distillation, from a public model to a table, in a few minutes.
//!
//! ```text
//! OUT/quickstart.toml   what is trained and how: a configuration of `distil train`
//! OUT/data/train.jsonl  prompts
//! OUT/data/eval.jsonl   held-out prompts with the teacher's greedy answers
//! OUT/run/              the run's folder, without checkpoints at the end; the result is run/student
//! OUT/quickstart.json   the summary, once all is done
//! ```
//!
//! Every step leaves its file and is skipped where the file is there already. A quickstart that was
//! broken off, at any moment, is continued by the same call; one that is finished shows its summary
//! again.

mod plan;
mod prompts;
mod summary;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use distil_model::{Model, files};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use summary::{Exchange, Quality, Size, Summary};

use crate::config::{Config, Sampling};
use crate::data::example::PromptExample;
use crate::data::row;
use crate::data::template::Template;
use crate::error::{Error, Result};
use crate::eval::evaluate::{EvalSet, GREEDY, Settings, answer};
use crate::event::Event;
use crate::rollout::{Generation, Prompt, generate};
use crate::train::{Outcome, Run, open_model, train};
use plan::{PLAN, Plan};

/// A line of `eval.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Reference {
    prompt: String,
    response: String,
}

/// Runs the quickstart in the folder `out`, or continues it, or reads its summary if it is finished.
///
/// # Errors
/// [`Error::Run`] if `out` holds something else, or a quickstart with another seed or of another
/// version, or if `interrupt` was set (what was done is kept); and those of fetching the teacher and
/// of the training.
pub fn run(
    out: &Path,
    seed: u64,
    interrupt: &AtomicBool,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Summary> {
    run_plan(&PLAN, out, seed, interrupt, events)
}

fn run_plan(
    plan: &Plan<'_>,
    out: &Path,
    seed: u64,
    interrupt: &AtomicBool,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Summary> {
    let config = configuration(plan, out, seed)?;
    let summary_path = out.join("quickstart.json");
    if let Some(summary) = Summary::read(&summary_path)? {
        events(Event::Note("this quickstart is finished already"));
        return Ok(summary);
    }
    let run_folder = out.join("run");
    let continued = run_folder.exists();

    let teacher = open_model(plan.teacher, events)?;
    let start = Instant::now();
    write_data(plan, out, seed, &teacher, events)?;
    // The training opens a teacher of its own; two would only take memory.
    drop(teacher);
    let stopped = |progress: String| Error::Run {
        path: out.to_owned(),
        what: format!("the quickstart was interrupted {progress}"),
        fix: "run the same command again to continue it".into(),
    };
    if interrupt.load(Ordering::Relaxed) {
        return Err(stopped("before the training".into()));
    }
    let training = Run {
        config: &config,
        out: &run_folder,
        resume: true,
        interrupt,
    };
    let student = match train(&training, events)? {
        Outcome::Finished { student } => student,
        Outcome::Interrupted { step } => {
            return Err(stopped(format!("after {step} of {} steps", plan.steps)));
        }
    };
    let measured = Measured::read(&run_folder)?;
    let prompts = read_references(out)?;
    let size = |reference: &str, events: &mut dyn FnMut(Event<'_>)| {
        size_and_speed(
            plan,
            seed,
            &open_model(reference, events)?,
            &prompts,
            events,
        )
    };
    let summary = Summary {
        before: measured.start,
        after: measured.student,
        teacher_size: size(plan.teacher, events)?,
        student_size: size(&student.to_string_lossy(), events)?,
        held_out_prompts: prompts.len(),
        train_prompts: plan.train_prompts,
        steps: measured.steps,
        tokens: measured.tokens,
        training_seconds: measured.training_seconds,
        wall_seconds: start.elapsed().as_secs_f64(),
        continued,
        exchanges: exchanges(plan, &run_folder, measured.steps, &prompts)?,
        student,
    };
    summary.write(&summary_path)?;
    // Three times the student's size, and of no more use.
    let _ = fs::remove_dir_all(run_folder.join("checkpoints"));
    Ok(summary)
}

/// Claims the folder: `quickstart.toml` is its first file and says what it is for.
fn configuration(plan: &Plan<'_>, out: &Path, seed: u64) -> Result<Config> {
    let path = out.join("quickstart.toml");
    let text = plan.configuration(seed);
    let refuse = |what: &str| {
        Err(Error::Run {
            path: out.to_owned(),
            what: what.into(),
            fix: "choose another --out, or remove this folder".into(),
        })
    };
    if path.exists() {
        if read(&path)? != text {
            return refuse("this quickstart was begun with another seed or another version");
        }
    } else {
        if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
            return refuse("the folder holds something other than a quickstart");
        }
        create(out)?;
        files::write_whole(&path, text.as_bytes())?;
    }
    Config::parse(&text, &path, &[])
}

/// Writes the prompts, and lets the teacher answer those that are held out.
fn write_data(
    plan: &Plan<'_>,
    out: &Path,
    seed: u64,
    teacher: &Model,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<()> {
    let data = out.join("data");
    let (train_path, eval_path) = (data.join("train.jsonl"), data.join("eval.jsonl"));
    if train_path.exists() && eval_path.exists() {
        return Ok(());
    }
    create(&data)?;
    let prompts = prompts::compose(seed, plan.train_prompts, plan.held_out_prompts);
    write_rows(
        &train_path,
        prompts
            .train
            .iter()
            .map(|prompt| json!({ "prompt": prompt })),
    )?;
    let set = EvalSet {
        prompts: as_read(teacher, prompts.held_out.iter())?,
        examples: Vec::new(),
    };
    let settings = Settings {
        metrics: Vec::new(),
        sampling: GREEDY,
        sampling_precision: None,
        max_new_tokens: plan.max_new_tokens,
        batch: plan.sampling_batch,
        seed,
        micro_batch_tokens: plan.micro_batch_tokens,
    };
    let what = "the teacher answers the held-out prompts";
    let answers = answer(teacher, &set, &settings, &mut |done, total| {
        events(Event::Progress { what, done, total });
    })?;
    let rows = prompts.held_out.into_iter().zip(answers);
    let references = rows.map(|(prompt, answer)| Reference {
        prompt,
        response: answer.response,
    });
    write_rows(&eval_path, references)
}

fn write_rows(path: &Path, rows: impl Iterator<Item = impl Serialize>) -> Result<()> {
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(&row).unwrap_or_default();
        text.push('\n');
    }
    Ok(files::write_whole(path, text.as_bytes())?)
}

/// Prompts in the model's chat template, as text and as token ids.
fn as_read<'a>(
    model: &Model,
    prompts: impl Iterator<Item = &'a String>,
) -> Result<Vec<PromptExample>> {
    let template = Template::new("chat", model.tokenizer.chat_template())?;
    let example = |(row, prompt): (usize, &String)| {
        let text = template.render(&row::Prompt::Raw(prompt.clone()))?;
        Ok(PromptExample {
            prompt: model.tokenizer.encode_prompt(&text)?,
            text,
            references: Vec::new(),
            row,
        })
    };
    prompts.enumerate().map(example).collect()
}

/// What the training says of itself in `eval.json`.
#[derive(Debug, Deserialize)]
struct Measured {
    start: Quality,
    student: Quality,
    steps: usize,
    tokens: u64,
    training_seconds: f64,
}

impl Measured {
    fn read(run_folder: &Path) -> Result<Self> {
        let path = run_folder.join("eval.json");
        serde_json::from_str(&read(&path)?).map_err(|error| damaged(&path, &error))
    }
}

fn damaged(path: &Path, error: &serde_json::Error) -> Error {
    Error::Run {
        path: path.to_owned(),
        what: format!("the file is damaged ({error})"),
        fix: "start again with another --out".into(),
    }
}

/// The held-out prompts with the teacher's answers.
fn read_references(out: &Path) -> Result<Vec<Reference>> {
    let path = out.join("data").join("eval.jsonl");
    let text = read(&path)?;
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<serde_json::Result<_>>()
        .map_err(|error| damaged(&path, &error))
}

/// Counts parameters and measures how fast full batches are sampled: nothing ends a sequence early.
fn size_and_speed(
    plan: &Plan<'_>,
    seed: u64,
    model: &Model,
    prompts: &[Reference],
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Size> {
    events(Event::Note("measuring the sampling speed"));
    let prompts = prompts
        .iter()
        .take(plan.sampling_batch)
        .map(|row| &row.prompt);
    let prompts = as_read(model, prompts)?;
    let rows: Vec<Prompt<'_>> = prompts
        .iter()
        .map(|prompt| Prompt {
            ids: &prompt.prompt,
            stream: prompt.row as u64,
        })
        .collect();
    let generation = Generation {
        sampling: Sampling {
            temperature: 1.0,
            ..GREEDY
        },
        max_new_tokens: plan.speed_tokens,
        seed,
        batch: plan.sampling_batch,
    };
    let start = Instant::now();
    let responses = generate(&model.network, &[], &rows, &generation, &mut |_, _| {})?;
    let seconds = start.elapsed().as_secs_f64();
    let tokens: usize = responses.iter().map(|response| response.tokens.len()).sum();
    let parameters = model.network.size();
    Ok(Size {
        layers: model.network.config().layers,
        parameters,
        megabytes: parameters as f64 * 4.0 / 1e6,
        tokens_per_second: tokens as f64 / seconds,
    })
}

/// A line of the run's `samples.jsonl`.
#[derive(Debug, Deserialize)]
struct Sample {
    step: usize,
    /// In the chat template.
    prompt: String,
    response: String,
}

/// The first prompts with all three models' answers.
fn exchanges(
    plan: &Plan<'_>,
    run_folder: &Path,
    last_step: usize,
    references: &[Reference],
) -> Result<Vec<Exchange>> {
    let path = run_folder.join("samples.jsonl");
    let lines = read(&path)?;
    let samples: Vec<Sample> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<serde_json::Result<_>>()
        .map_err(|error| damaged(&path, &error))?;
    let said = |step: usize, prompt: &str| {
        let fits = |sample: &&Sample| sample.step == step && sample.prompt.contains(prompt);
        samples
            .iter()
            .find(fits)
            .map(|sample| sample.response.clone())
    };
    let exchange = |row: &Reference| {
        Some(Exchange {
            prompt: row.prompt.clone(),
            teacher: row.response.clone(),
            before: said(0, &row.prompt)?,
            after: said(last_step, &row.prompt)?,
        })
    };
    Ok(references
        .iter()
        .take(plan.shown)
        .filter_map(exchange)
        .collect())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|source| Error::Write {
        path: folder.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
