//! `distil reward`: what a teacher's logits pay for given responses, token by token.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use distil::config::StateValue;
use distil::data::example::{Example, examples};
use distil::data::read::{DataSet, references};
use distil::data::row::Content;
use distil::eval::rank_correlation::spearman;
use distil::eval::rouge::{Stemming, rouge_l_best};
use distil::reward::{TokenRewards, induced_rewards};
use distil_model::Model;
use serde_json::json;

use crate::arguments::PrecisionArguments;
use crate::failure::WrongInput;
use crate::output::JsonLines;
use crate::progress::Progress;
use crate::{loading, verb};

/// Write the reward that a teacher's logits induce of every token of given responses.
///
/// One JSON object a row, in the order of the file: {"token_ids", "q", "reward", "return"}, lists over
/// the response's tokens, the token that ends it included. Rows over the teacher's context have no
/// line; they are named on standard error. If rows have a "reference", the rank correlation of the
/// whole response's return with its ROUGE-L is printed on standard error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil reward smollm2-135m-instruct --data test.jsonl --out rewards.jsonl
  distil reward teacher --data answers.jsonl --out rewards.jsonl --value soft \\
    --template chat --template 'Answer this: {{ prompt }}'")]
pub(crate) struct Reward {
    /// The model whose logits are the reward
    teacher: String,

    /// A .jsonl, .json or .parquet file of prompts with responses
    #[arg(long, value_name = "FILE")]
    data: PathBuf,

    /// The file to write
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,

    /// Replace --out if it exists
    #[arg(long)]
    force: bool,

    /// Value of the next state: its largest q, the teacher's mean q, or log Σ exp q
    #[arg(long, value_enum, default_value = "max")]
    value: Value,

    /// How a row becomes a prompt: chat (the model's own), alpaca, or a Jinja text; given several
    /// times, the rewards are averaged
    #[arg(long, default_value = "chat")]
    template: Vec<String>,

    /// Tokens computed at once: sets the memory, not the result
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = verb::at_least_one)]
    micro_batch_tokens: usize,

    #[command(flatten)]
    precision: PrecisionArguments,
}

/// `--value`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Value {
    Max,
    Expected,
    Soft,
}

pub(crate) fn run(arguments: &Reward, progress: &mut Progress) -> anyhow::Result<()> {
    let data = loading::rows(&arguments.data)?;
    if let Some(row) = data
        .rows
        .iter()
        .find(|row| matches!(row.content, Content::Text(_)))
    {
        return Err(WrongInput::new(
            format!(
                "{}: the row is a text without a prompt",
                data.place(row.source)
            ),
            "give prompts with responses",
        )
        .into());
    }
    let references = references(&arguments.data)?;
    let mut lines = JsonLines::new(Some(&arguments.out), arguments.force, Some(&arguments.data))?;
    let teacher = loading::asked_model(&arguments.teacher, arguments.precision, progress)?;
    let config = teacher.network.config();
    let rows = readings(arguments, &data, &teacher, progress)?;
    let measure = |row: &Vec<Example>| {
        let longest = row.iter().map(Example::len).max().unwrap_or_default();
        (longest, row.first().map_or(0, |example| example.row))
    };
    let rows = loading::keep_fitting("rows", rows, config.context, measure, &data, progress);
    loading::not_empty(&rows, &data)?;
    let by_template: Vec<Vec<Example>> = (0..arguments.template.len())
        .map(|t| rows.iter().filter_map(|row| row.get(t).cloned()).collect())
        .collect();
    let value = match arguments.value {
        Value::Max => StateValue::Max,
        Value::Expected => StateValue::Expected,
        Value::Soft => StateValue::Soft,
    };
    let total = rows.len() * by_template.len();
    let rewards = induced_rewards(
        &teacher.network,
        teacher.network.tokens(),
        &teacher.stop_ids,
        &by_template,
        value,
        arguments.micro_batch_tokens,
        &mut |done| progress.at("rows", done, total),
    )?;
    progress.done();
    let responses = by_template.into_iter().next().unwrap_or_default();
    for (example, rewards) in responses.iter().zip(&rewards) {
        // The last token of a response that was cut off has none: null.
        let reward = rewards.reward.iter().map(|&r| Some(r));
        let reward: Vec<Option<f64>> = reward
            .chain(std::iter::repeat(None))
            .take(rewards.q.len())
            .collect();
        lines.add(&json!({
            "token_ids": example.response,
            "q": rewards.q,
            "reward": reward,
            "return": rewards.returns,
        }))?;
    }
    lines.finish()?;
    progress.note(&format!(
        "{} rows in {}",
        rows.len(),
        arguments.out.display()
    ));
    correlate(&data, &references, &responses, &rewards, progress);
    Ok(())
}

/// Every row as each template renders it. The response's tokens are those after the first template.
fn readings(
    arguments: &Reward,
    data: &DataSet,
    teacher: &Model,
    progress: &mut Progress,
) -> anyhow::Result<Vec<Vec<Example>>> {
    let mut rows: Vec<Vec<Example>> = Vec::new();
    for (index, text) in arguments.template.iter().enumerate() {
        let template = loading::template(text, teacher)?;
        let (read, counts) =
            loading::with_encoding(teacher, &template, |encoding| examples(data, encoding))?;
        if let Some(empty) = read.iter().find(|example| example.prompt.is_empty()) {
            let source = data.rows.get(empty.row).map(|row| row.source);
            return Err(WrongInput::new(
                format!(
                    "{}: the prompt has no token under the template `{text}`",
                    source.map(|source| data.place(source)).unwrap_or_default()
                ),
                "remove the row, or choose another --template",
            )
            .into());
        }
        if index == 0 {
            loading::warn_left_out(&counts, progress);
            rows = read.into_iter().map(|example| vec![example]).collect();
            continue;
        }
        let mut prompts: HashMap<usize, Vec<u32>> = read
            .into_iter()
            .map(|example| (example.row, example.prompt))
            .collect();
        rows.retain_mut(|row| {
            let first = row.first().cloned();
            let again = first.and_then(|first| {
                let prompt = prompts.remove(&first.row)?;
                Some(Example { prompt, ..first })
            });
            let kept = again.is_some();
            row.extend(again);
            kept
        });
    }
    Ok(rows)
}

/// Says how far the return of a response and its ROUGE-L rank the rows alike, where rows have
/// references.
fn correlate(
    data: &DataSet,
    references: &HashMap<usize, Vec<String>>,
    responses: &[Example],
    rewards: &[TokenRewards],
    progress: &mut Progress,
) {
    let (mut totals, mut overlaps) = (Vec::new(), Vec::new());
    for (example, rewards) in responses.iter().zip(rewards) {
        let row = data.rows.get(example.row);
        let texts = references.get(&example.row);
        let response = row.and_then(|row| row.content.references().first());
        if let (Some(texts), Some(response), Some(&total)) =
            (texts, response, rewards.returns.first())
        {
            totals.push(total);
            overlaps.push(rouge_l_best(texts, response, Stemming::Porter).fmeasure);
        }
    }
    let count = totals.len();
    if count == 0 {
        return;
    }
    progress.note(&match spearman(&totals, &overlaps) {
        Some(rho) => {
            format!("Spearman correlation of return and ROUGE-L: {rho:.4} over {count} rows")
        }
        None => format!(
            "no Spearman correlation of return and ROUGE-L over {count} rows: it needs two \
             rows that differ in both"
        ),
    });
}
