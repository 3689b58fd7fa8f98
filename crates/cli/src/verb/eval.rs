//! `distil eval`: metrics of a model on held-out rows, of one set or of a suite; two models compared.
//!
//! Here is what can be asked for and the order of the work; what is done for one set of rows is in
//! eval/set.rs.

mod set;

use std::path::{Path, PathBuf};

use clap::Args;
use distil::data::read::DataSet;
use distil::eval::compare::compare;
use distil::eval::metric::{METRIC_NAMES, metric};
use distil::eval::suite::{self, SuiteSet};
use distil::eval::table::{bucket_table, comparison_table, suite_table, table};

use self::set::{Models, Prepared};
use crate::arguments::PrecisionArguments;
use crate::failure::WrongInput;
use crate::progress::Progress;
use crate::{loading, output, verb};

/// Measure a model on held-out rows, or compare two that were measured.
///
/// The model answers every prompt greedily and, with --seeds, once a seed at temperature 1; metrics look
/// at the answers, or at how likely the model finds the rows' own answers. Numbers come with 95 %
/// intervals over rows, and with mean and standard deviation over seeds. --out keeps the result as JSON
/// and every answer beside it; the same command again goes on where it was killed, and with other
/// --metrics measures the answers that are there. --compare tells whether one of two models is better
/// on the same rows.
#[derive(Debug, Args)]
#[command(
    override_usage = "distil eval MODEL (--data FILE | --suite FILE.toml) [OPTIONS]
       distil eval --compare A.json B.json [--json]",
    after_help = "\
Examples:
  distil eval student --data test.jsonl
  distil eval student --data test.jsonl --teacher smollm2-135m-instruct --metrics forward_kl,rouge_l
  distil eval student --data test.jsonl --seeds 10,20,30 --out evaluations/test.json
  distil eval student --suite suite.toml --seeds 10,20,30 --metrics all --out evaluations
  distil eval --compare before/test.json after/test.json"
)]
pub(crate) struct Eval {
    /// The model
    #[arg(required_unless_present = "compare")]
    model: Option<String>,

    /// A .jsonl, .json or .parquet file of prompts with good answers
    #[arg(long, value_name = "FILE", required_unless_present_any = ["suite", "compare"])]
    data: Option<PathBuf>,

    /// A file of good answers to --data, joined by `question_id`, as FastChat has them
    #[arg(long, value_name = "FILE", requires = "data")]
    references: Option<PathBuf>,

    /// A TOML file that names several sets of rows; --out is then a folder
    #[arg(long, value_name = "FILE.toml", conflicts_with = "data")]
    suite: Option<PathBuf>,

    /// Compare two evaluations of the same rows that --out has written
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"],
        conflicts_with_all = ["model", "data", "suite", "out", "metrics", "seeds", "teacher", "buckets",
            "exposure_bias", "token_rows", "max_new_tokens", "template", "rows", "batch",
            "micro_batch_tokens", "precision"])]
    compare: Option<Vec<PathBuf>>,

    /// The model it learnt from, for forward_kl, reverse_kl, tvd, reward, implicit_reward and exposure bias
    #[arg(long, value_name = "MODEL")]
    teacher: Option<String>,

    /// What is measured: forward_kl, reverse_kl, tvd, rouge_l, rouge_1, rouge_2, rouge_lsum, exact_match,
    /// bleu_1 to bleu_4, sacrebleu, chrf, perplexity, reward, implicit_reward, response_tokens, eos_rate,
    /// distinct_1, distinct_2, repetition, or all [default: forward_kl, reverse_kl, rouge_l, exact_match,
    /// perplexity, response_tokens and eos_rate, as far as they can be]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    metrics: Option<Vec<String>>,

    /// Sample the answers, too, at temperature 1 and once for each of these seeds
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = verb::whole::<u64>)]
    seeds: Vec<u64>,

    /// Only sampled answers
    #[arg(long, requires = "seeds")]
    no_greedy: bool,

    /// Borders of buckets of rows by the reference's length in words, or none; printed if given here,
    /// in the file always [default: 30,70]
    #[arg(long, value_name = "LIST", value_parser = borders)]
    buckets: Option<Borders>,

    /// Measure exposure bias, after so many tokens [default of the list: 4,8,16,…]; needs --teacher and
    /// --seeds
    #[arg(long, value_name = "LIST", num_args = 0..=1, require_equals = true, value_delimiter = ',',
        value_parser = verb::at_least_one)]
    exposure_bias: Option<Vec<usize>>,

    /// Rows that --out shows token by token, with --teacher
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = verb::whole::<usize>)]
    token_rows: usize,

    /// Write the result to this file and every answer beside it; goes on with what is there. With --suite
    /// a folder
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,

    /// Replace what --out holds if it is another evaluation
    #[arg(long, requires = "out")]
    force: bool,

    /// Print the result as JSON instead of a table
    #[arg(long)]
    json: bool,

    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = verb::at_least_one)]
    max_new_tokens: usize,

    /// How a row becomes a prompt: chat (the model's own), alpaca, or a Jinja text
    #[arg(long, default_value = "chat")]
    template: String,

    /// Measure on the first N rows only [default: all]
    #[arg(long, value_name = "N", value_parser = verb::at_least_one)]
    rows: Option<usize>,

    /// Answers generated at once: more is faster and takes more memory
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = verb::at_least_one)]
    batch: usize,

    /// Tokens scored at once: sets the memory, not the result
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = verb::at_least_one)]
    micro_batch_tokens: usize,

    #[command(flatten)]
    precision: PrecisionArguments,
}

/// `--buckets`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Borders(Vec<usize>);

/// Rising numbers, or none.
fn borders(text: &str) -> Result<Borders, String> {
    if text == "none" {
        return Ok(Borders(Vec::new()));
    }
    let numbers: Option<Vec<usize>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
    let rising = |numbers: &Vec<usize>| numbers[0] > 0 && numbers.is_sorted_by(|a, b| a < b);
    match numbers.filter(rising) {
        Some(numbers) => Ok(Borders(numbers)),
        None => {
            Err("it must be whole numbers from 1, each larger than the one before, or none".into())
        }
    }
}

pub(crate) fn run(arguments: &Eval, progress: &mut Progress) -> anyhow::Result<()> {
    if let Some([a, b]) = arguments.compare.as_deref() {
        return print_comparison(a, b, arguments.json, progress);
    }
    check(arguments)?;
    let sets = match (&arguments.suite, &arguments.data) {
        (Some(path), _) => suite::read(path)?,
        (None, data) => vec![alone(arguments, data.clone().unwrap_or_default())],
    };
    if let Some(out) = &arguments.out {
        check_out(out, arguments.suite.is_some())?;
    }
    if let Some(out) = &arguments.out {
        for set in &sets {
            for input in std::iter::once(&set.data).chain(&set.references) {
                output::check_not_input(&file_of(arguments, out, set), input)?;
            }
        }
    }
    // Rows first: models can take long to open.
    let sets = sets.into_iter().map(|set| Ok((rows(&set)?, set)));
    let sets = sets.collect::<anyhow::Result<Vec<_>>>()?;
    let models = Models::open(arguments, progress)?;
    // All sets before the first is measured, so that nothing is refused after hours.
    let mut ready = Vec::new();
    for (data, set) in sets {
        let name = set.name.clone();
        let prepared = Prepared::new(arguments, set, &data, &models, progress);
        ready.push(match arguments.suite {
            Some(_) => prepared.map_err(|error| in_set(&name, error))?,
            None => prepared?,
        });
    }
    let mut results = Vec::new();
    for prepared in ready {
        results.push(prepared.measure(&models, arguments.json, progress)?);
    }
    if arguments.json {
        return Ok(());
    }
    match (&results[..], arguments.suite.is_some()) {
        ([(_, measured)], false) => {
            output::line(table(measured))?;
            match &arguments.buckets {
                Some(_) if !measured.buckets.is_empty() => {
                    output::line(format!("\n{}", bucket_table(&measured.buckets)))
                }
                _ => Ok(()),
            }
        }
        _ => output::line(suite_table(&results)),
    }
}

/// An error with the set that it is of in front, and the same status.
fn in_set(name: &str, error: anyhow::Error) -> anyhow::Error {
    error.context(format!("set {name}"))
}

/// What can be seen without opening a file.
fn check(arguments: &Eval) -> anyhow::Result<()> {
    let refuse = |what: String, fix: String| Err(WrongInput::new(what, fix).into());
    for name in arguments.metrics.iter().flatten() {
        if name != "all" && metric(name).is_none() {
            return refuse(
                format!("--metrics: there is no metric `{name}`"),
                format!("choose from {}, or all", METRIC_NAMES.join(", ")),
            );
        }
    }
    let twice = |seed: &u64| {
        arguments
            .seeds
            .iter()
            .filter(|other| *other == seed)
            .count()
            > 1
    };
    if let Some(seed) = arguments.seeds.iter().find(|seed| twice(seed)) {
        return refuse(
            format!("--seeds: {seed} is there twice"),
            "give each seed once: the same seed gives the same answers".into(),
        );
    }
    let exposure = arguments.exposure_bias.is_some();
    if exposure && (arguments.teacher.is_none() || arguments.seeds.is_empty()) {
        return refuse(
            "--exposure-bias compares answers sampled by the model and by its teacher".into(),
            "add --teacher MODEL and --seeds 10,20,30".into(),
        );
    }
    Ok(())
}

fn check_out(out: &Path, is_suite: bool) -> anyhow::Result<()> {
    match is_suite {
        true if out.is_file() => Err(WrongInput::new(
            format!("--out {} is a file", out.display()),
            "name a folder: a suite writes a file for each set",
        )
        .into()),
        true => Ok(()),
        // What is in the file is looked at later; here only that it can be one.
        false => output::check_file(out, true),
    }
}

/// The rows of a set, with their answers.
fn rows(set: &SuiteSet) -> anyhow::Result<DataSet> {
    match &set.references {
        Some(references) => Ok(DataSet::read_with_answers(&set.data, references)?),
        None => loading::rows(&set.data),
    }
}

/// The file of a set's result.
fn file_of(arguments: &Eval, out: &Path, set: &SuiteSet) -> PathBuf {
    match arguments.suite.is_some() {
        true => out.join(format!("{}.json", set.name)),
        false => out.to_owned(),
    }
}

/// The only set of an evaluation without a suite.
fn alone(arguments: &Eval, data: PathBuf) -> SuiteSet {
    let stem = data.file_stem().unwrap_or_default().to_string_lossy();
    SuiteSet {
        name: stem.into_owned(),
        data,
        references: arguments.references.clone(),
        template: None,
        max_new_tokens: None,
        rows: None,
    }
}

fn print_comparison(a: &Path, b: &Path, json: bool, progress: &mut Progress) -> anyhow::Result<()> {
    let comparison = compare(a, b)?;
    for note in &comparison.notes {
        progress.warn(note);
    }
    match json {
        true => output::json(&comparison),
        false => output::line(comparison_table(&comparison)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_rise() {
        assert_eq!(borders("30,70"), Ok(Borders(vec![30, 70])));
        assert_eq!(borders("none"), Ok(Borders(Vec::new())));
        for wrong in ["", "0,3", "70,30", "3,3", "a", "3,"] {
            assert!(borders(wrong).is_err(), "{wrong}");
        }
    }
}
