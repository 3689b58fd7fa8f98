//! `distil generate`: answers to a prompt or to all prompts of a file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use distil::data::example::{PromptExample, prompts};
use distil::data::read::DataSet;
use distil::data::row::{Content, Prompt, Row, RowSource};
use distil::rollout::{self, Finish, Generation, Response, generate};
use distil_model::Model;
use serde_json::{Value, json};

use crate::arguments::{PrecisionArguments, SamplingArguments};
use crate::output::{self, JsonLines};
use crate::progress::Progress;
use crate::{loading, verb};

/// Let a model answer a prompt, or every prompt of a file.
///
/// With --prompt the answer is printed as text, with --data as one JSON object a row, in the order of
/// the file: {"prompt", "response", "finish_reason": "stop"|"length", "tokens"}. Such a file can be
/// trained on. A row's answer depends on the seed and on the row, not on --batch.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil generate smollm2-135m-instruct --prompt 'Why is the sky blue?'
  distil generate student --data prompts.jsonl --temperature 0 --out answers.jsonl
  distil generate base-model --prompt 'Once upon a time' --raw --top-p 0.9")]
pub(crate) struct Generate {
    /// The model
    model: String,

    /// The prompt
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "data",
        conflicts_with = "data"
    )]
    prompt: Option<String>,

    /// A .jsonl, .json or .parquet file of prompts; answers in it are ignored
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,

    /// Write JSON lines to this file [default: standard output]
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,

    /// Replace --out if it exists
    #[arg(long, requires = "out")]
    force: bool,

    /// Print JSON for --prompt, too
    #[arg(long)]
    json: bool,

    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = super::at_least_one)]
    max_new_tokens: usize,

    #[command(flatten)]
    sampling: SamplingArguments,

    /// Start of the random streams
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = verb::whole::<u64>)]
    seed: u64,

    /// Answers generated at once: more is faster and takes more memory
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = verb::at_least_one)]
    batch: usize,

    #[command(flatten)]
    precision: PrecisionArguments,

    /// Give the prompt to the model as it is, without a template
    #[arg(long, conflicts_with = "template")]
    raw: bool,

    /// How a row becomes a prompt: chat (the model's own), alpaca, or a Jinja text
    #[arg(long, default_value = "chat")]
    template: String,
}

pub(crate) fn run(arguments: &Generate, progress: &mut Progress) -> anyhow::Result<()> {
    let data = match &arguments.data {
        Some(file) => loading::rows(file)?,
        None => one_row(arguments.prompt.clone().unwrap_or_default()),
    };
    let mut lines = JsonLines::new(
        arguments.out.as_deref(),
        arguments.force,
        arguments.data.as_deref(),
    )?;
    let model = loading::asked_model(&arguments.model, arguments.precision, progress)?;
    let template = match arguments.raw {
        true => loading::template("{{ prompt }}", &model)?,
        false => loading::template(&arguments.template, &model)?,
    };
    let (examples, counts) =
        loading::with_encoding(&model, &template, |encoding| prompts(&data, encoding))?;
    loading::warn_left_out(&counts, progress);
    // Room for at least one token of an answer.
    let most = model.network.config().context.saturating_sub(1);
    let measure = |example: &PromptExample| (example.prompt.len(), example.row);
    let examples = loading::keep_fitting("rows", examples, most, measure, &data, progress);
    loading::not_empty(&examples, &data)?;

    let text_only = arguments.data.is_none() && arguments.out.is_none() && !arguments.json;
    let settings = Generation {
        sampling: arguments.sampling.sampling(),
        max_new_tokens: arguments.max_new_tokens,
        seed: arguments.seed,
        batch: arguments.batch,
    };
    let rows: Vec<rollout::Prompt<'_>> = examples
        .iter()
        .map(|example| rollout::Prompt {
            ids: &example.prompt,
            stream: example.row as u64,
        })
        .collect();
    let mut write = |index: usize, response: &Response| -> anyhow::Result<()> {
        let text = text_of(&model, response)?;
        if text_only {
            return output::line(text);
        }
        let row = examples
            .get(index)
            .and_then(|example| data.rows.get(example.row));
        lines.add(&json!({
            "prompt": row.and_then(|row| row.content.prompt()).map(asked),
            "response": text,
            "finish_reason": response.finish,
            "tokens": response.tokens.len(),
        }))
    };
    // Rows finish in any order and are written in that of the file.
    let mut waiting: BTreeMap<usize, Response> = BTreeMap::new();
    let (mut next, mut done, mut failed) = (0, 0, None);
    generate(
        &model.network,
        &model.stop_ids,
        &rows,
        &settings,
        &mut |index, response| {
            done += 1;
            progress.at("answers", done, rows.len());
            waiting.insert(index, response.clone());
            while let Some(response) = waiting.remove(&next) {
                next += 1;
                if failed.is_none() {
                    failed = write(next - 1, &response).err();
                }
            }
        },
    )?;
    progress.done();
    match failed {
        Some(error) => Err(error),
        None => lines.finish(),
    }
}

/// A data set of one prompt.
fn one_row(text: String) -> DataSet {
    DataSet {
        files: vec!["--prompt".into()],
        rows: vec![Row {
            source: RowSource { file: 0, line: 1 },
            content: Content::Prompt(Prompt::Raw(text)),
            cut: false,
        }],
        ..DataSet::default()
    }
}

/// A prompt as the user wrote it, in a form that is read back as the same prompt.
fn asked(prompt: &Prompt) -> Value {
    match prompt {
        Prompt::Raw(text) => json!(text),
        Prompt::Instruction { instruction, input } if input.is_empty() => json!(instruction),
        Prompt::Instruction { instruction, input } => json!(format!("{instruction}\n\n{input}")),
        Prompt::Messages(messages) => json!(messages),
    }
}

/// What a response says, without the token that ended it.
pub(crate) fn text_of(model: &Model, response: &Response) -> anyhow::Result<String> {
    let mut ids = response.tokens.as_slice();
    if let (Finish::Stop, Some((_, before))) = (response.finish, ids.split_last()) {
        ids = before;
    }
    // A network's vocabulary may be padded; the padding has no text.
    let size = model.tokenizer.vocabulary_size();
    let known = ids.iter().copied().filter(|&id| (id as usize) < size);
    Ok(model.tokenizer.decode(&known.collect::<Vec<_>>(), true)?)
}
