//! `distil score`: how likely a model finds given responses, token by token.

use std::path::PathBuf;

use clap::Args;
use distil::data::example::{Example, examples};
use distil::score::score;
use distil::teacher::align;
use serde_json::json;

use crate::arguments::PrecisionArguments;
use crate::output::JsonLines;
use crate::progress::Progress;
use crate::{loading, verb};

/// Write the log-probability of every token of given responses.
///
/// One JSON object a row, in the order of the file: {"token_ids", "logprobs"} of the response's tokens,
/// the token that ends it included; natural logarithm. With --teacher also "teacher_logprobs",
/// "forward_kl", "reverse_kl", "jsd" (β = 0.5) and "tvd", lists over the same tokens. Rows over the
/// model's context have no line; they are named on standard error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil score student --data test.jsonl --out scores.jsonl
  distil score student --data test.jsonl --teacher smollm2-135m-instruct --out scores.jsonl
  distil score student --data test.jsonl --precision bf16 --out rounded.jsonl")]
pub(crate) struct Score {
    /// The model
    model: String,

    /// A .jsonl, .json or .parquet file of prompts with responses
    #[arg(long, value_name = "FILE")]
    data: PathBuf,

    /// The file to write
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,

    /// Replace --out if it exists
    #[arg(long)]
    force: bool,

    /// Compare with this model, which has the same vocabulary
    #[arg(long, value_name = "MODEL")]
    teacher: Option<String>,

    /// How a row becomes a prompt: chat (the model's own), alpaca, or a Jinja text
    #[arg(long, default_value = "chat")]
    template: String,

    /// Tokens computed at once: sets the memory, not the result
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = verb::at_least_one)]
    micro_batch_tokens: usize,

    #[command(flatten)]
    precision: PrecisionArguments,
}

pub(crate) fn run(arguments: &Score, progress: &mut Progress) -> anyhow::Result<()> {
    let data = loading::rows(&arguments.data)?;
    let mut lines = JsonLines::new(Some(&arguments.out), arguments.force, Some(&arguments.data))?;
    let precision = arguments.precision;
    let model = loading::asked_model(&arguments.model, precision, progress)?;
    let teacher = match &arguments.teacher {
        Some(reference) => Some(loading::asked_model(reference, precision, progress)?),
        None => None,
    };
    let mut context = model.network.config().context;
    let teacher = match &teacher {
        Some(teacher) => {
            context = context.min(teacher.network.config().context);
            Some((&teacher.network, align(teacher, &model)?))
        }
        None => None,
    };
    let template = loading::template(&arguments.template, &model)?;
    let (rows, counts) =
        loading::with_encoding(&model, &template, |encoding| examples(&data, encoding))?;
    loading::warn_left_out(&counts, progress);
    let measure = |example: &Example| (example.len(), example.row);
    let rows = loading::keep_fitting("rows", rows, context, measure, &data, progress);
    loading::not_empty(&rows, &data)?;
    let scores = score(
        &model.network,
        teacher,
        &rows,
        arguments.micro_batch_tokens,
        &mut |done| progress.at("rows", done, rows.len()),
    )?;
    progress.done();
    for (row, score) in rows.iter().zip(scores) {
        // Without a prompt the first token has nothing before it and no score.
        let from = row.response.len().saturating_sub(score.logprobs.len());
        let mut line = json!({
            "token_ids": row.response.get(from..),
            "logprobs": score.logprobs,
        });
        if let (Some(teacher), Some(object)) = (score.teacher, line.as_object_mut()) {
            object.insert("teacher_logprobs".into(), json!(teacher.logprobs));
            object.insert("forward_kl".into(), json!(teacher.forward_kl));
            object.insert("reverse_kl".into(), json!(teacher.reverse_kl));
            object.insert("jsd".into(), json!(teacher.jsd));
            object.insert("tvd".into(), json!(teacher.tvd));
        }
        lines.add(&line)?;
    }
    lines.finish()?;
    progress.note(&format!(
        "{} rows in {}",
        rows.len(),
        arguments.out.display()
    ));
    Ok(())
}
