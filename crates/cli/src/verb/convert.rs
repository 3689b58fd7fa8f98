//! `distil convert`: any model as a Hugging Face directory in f32.

use std::path::PathBuf;

use clap::Args;

use crate::progress::Progress;
use crate::{loading, output};

/// Write a model as a Hugging Face directory that transformers and vLLM load.
///
/// The weights are written in f32: a quantised .gguf becomes larger, not better. Tokenizer, chat
/// template and generation settings come along.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil convert model.Q4_1.gguf --out model
  distil convert smollm2-135m-instruct --out smollm2")]
pub(crate) struct Convert {
    /// The model
    model: String,

    /// The new folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(convert: &Convert, progress: &mut Progress) -> anyhow::Result<()> {
    output::check_folder(&convert.out)?;
    let model = loading::model(&convert.model, progress)?;
    model.save(&convert.out)?;
    output::line(convert.out.display())
}
