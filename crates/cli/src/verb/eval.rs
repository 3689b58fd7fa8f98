//! `distil eval`: metrics of a model on held-out rows, of one set or of a suite; two models compared.

use std::path::{Path, PathBuf};

use clap::Args;
use distil::data::example::{Example, PromptExample};
use distil::data::read::DataSet;
use distil::eval::compare::compare;
use distil::eval::evaluate::EvalSet;
use distil::eval::exposure::usual_lengths;
use distil::eval::kept::{
    Conditions, Header, Kept, beside, data_sha256, tokenizer_sha256, weights_sha256,
};
use distil::eval::metric::{DEFAULT_METRICS, METRIC_NAMES, metric};
use distil::eval::outcome::{FORMAT, Subject, to_json};
use distil::eval::protocol::{Measured, Protocol, Run, measurable_metrics, measure};
use distil::eval::suite::{self, SuiteSet};
use distil::eval::table::{bucket_table, comparison_table, suite_table, table};
use distil_model::Model;

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
        conflicts_with_all = ["model", "data", "suite", "out", "metrics", "seeds", "teacher"])]
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

    /// Write the result to this file and every answer beside it; goes on with what is there
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

/// The models, opened once for all sets, and what their files are.
struct Models {
    student: Model,
    teacher: Option<Model>,
    /// Of weights, tokenizer and the teacher's weights; empty where nothing is written.
    sha256: [String; 3],
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
    // Before models are opened, which can take long.
    for set in &sets {
        rows(set)?;
        if let Some(out) = arguments
            .out
            .as_ref()
            .map(|out| file_of(arguments, out, set))
        {
            output::check_not_input(&out, &set.data)?;
        }
    }
    let models = open(arguments, progress)?;
    let mut results = Vec::new();
    for set in sets {
        let measured = one_set(arguments, &set, &models, progress)?;
        results.push((set.name, measured));
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

fn open(arguments: &Eval, progress: &mut Progress) -> anyhow::Result<Models> {
    let precision = arguments.precision;
    let name = arguments.model.as_deref().unwrap_or_default();
    let student = loading::asked_model(name, precision, progress)?;
    let teacher = match &arguments.teacher {
        Some(reference) => Some(loading::asked_model(reference, precision, progress)?),
        None => None,
    };
    let sha256 = match arguments.out.is_some() || arguments.json {
        false => Default::default(),
        true => [
            weights_sha256(&student)?,
            tokenizer_sha256(&student),
            teacher
                .as_ref()
                .map(weights_sha256)
                .transpose()?
                .unwrap_or_default(),
        ],
    };
    Ok(Models {
        student,
        teacher,
        sha256,
    })
}

/// Measures one set, writes its files, and prints it as JSON if that is asked for.
fn one_set(
    arguments: &Eval,
    set: &SuiteSet,
    models: &Models,
    progress: &mut Progress,
) -> anyhow::Result<Measured> {
    let Models {
        student,
        teacher,
        sha256: [weights, tokenizer, of_teacher],
    } = models;
    let spec = set.template.as_deref().unwrap_or(&arguments.template);
    let rows = eval_set(set, spec, arguments.rows, models, progress)?;
    let max_new_tokens = set.max_new_tokens.unwrap_or(arguments.max_new_tokens);
    let greedy = (!arguments.no_greedy).then_some(Run::GREEDY);
    let sampled = arguments.seeds.iter().map(|&seed| Run::sampled(seed));
    let protocol = Protocol {
        metrics: metrics(arguments, teacher.is_some(), &rows)?,
        runs: greedy.into_iter().chain(sampled).collect(),
        buckets: arguments
            .buckets
            .clone()
            .map_or(vec![30, 70], |borders| borders.0),
        exposure_lengths: arguments
            .exposure_bias
            .clone()
            .map(|lengths| match lengths.is_empty() {
                true => usual_lengths(max_new_tokens),
                false => lengths,
            }),
        token_rows: if arguments.out.is_some() {
            arguments.token_rows
        } else {
            0
        },
        max_new_tokens,
        batch: arguments.batch,
        micro_batch_tokens: arguments.micro_batch_tokens,
    };
    let answering = protocol.exposure_lengths.is_some()
        || protocol
            .metrics
            .iter()
            .any(|name| metric(name).is_some_and(|m| m.needs_answers()));
    let header = Header {
        format: FORMAT,
        conditions: Conditions {
            data_sha256: data_sha256(&set.data, set.references.as_deref())?,
            weights_sha256: weights.clone(),
            tokenizer_sha256: tokenizer.clone(),
            precision: arguments.precision.precision(),
            template: spec.to_owned(),
            max_new_tokens,
        },
        teacher_sha256: teacher.as_ref().map(|_| of_teacher.clone()),
        runs: if answering {
            protocol.runs.clone()
        } else {
            Vec::new()
        },
    };
    let out = arguments.out.as_ref();
    let out = out.map(|out| file_of(arguments, out, set));
    let mut kept = match &out {
        Some(out) => {
            output::check_file(out, true)?;
            let (prompts, metrics) = (&rows.prompts, &protocol.metrics);
            Kept::open(out, &header, prompts, metrics, arguments.force)?
        }
        None => Kept::nothing(&header.runs),
    };
    let (there, all) = (kept.count(), rows.prompts.len() * header.runs.len());
    if let Some(out) = out.as_ref().filter(|_| there > 0) {
        let answers = beside(out, "answers");
        progress.note(&format!(
            "{there} of {all} answers are there already, in {}",
            answers.display()
        ));
    }
    let mut hear = |what: &str, done, total| progress.at(what, done, total);
    let measured = measure(
        student,
        teacher.as_ref(),
        &rows,
        &protocol,
        &mut kept,
        &mut hear,
    )?;
    progress.done();
    let subject = Subject {
        name: set.name.clone(),
        model: arguments.model.clone().unwrap_or_default(),
        teacher: arguments.teacher.clone(),
        data: set.data.clone(),
        references: set.references.clone(),
    };
    if arguments.json {
        let mut brief = to_json(&subject, &header, &measured);
        // Long lists are for the file.
        if let Some(object) = brief.as_object_mut() {
            object.remove("by_row");
        }
        output::json(&brief)?;
    }
    kept.finish(&subject, &header, &measured)?;
    if let Some(out) = out {
        progress.note(&format!("written: {}", out.display()));
    }
    Ok(measured)
}

/// The set's rows as token ids, without those that do not fit into the models' contexts.
fn eval_set(
    set: &SuiteSet,
    template: &str,
    limit: Option<usize>,
    models: &Models,
    progress: &mut Progress,
) -> anyhow::Result<EvalSet> {
    let data = rows(set)?;
    let template = loading::template(template, &models.student)?;
    let mut rows = loading::with_encoding(&models.student, &template, |encoding| {
        EvalSet::new(&data, encoding, set.rows.or(limit))
    })?;
    let context = |model: &Model| model.network.config().context;
    let student = context(&models.student);
    let most = models.teacher.iter().map(context).fold(student, usize::min);
    let prompt = |prompt: &PromptExample| (prompt.prompt.len() + 1, prompt.row);
    rows.prompts = loading::keep_fitting(rows.prompts, most, prompt, &data, progress);
    let example = |example: &Example| (example.len(), example.row);
    rows.examples = loading::keep_fitting(rows.examples, most, example, &data, progress);
    Ok(rows)
}

/// The metrics asked for, each once; where none are named, and of all, those that can be measured.
fn metrics(arguments: &Eval, has_teacher: bool, set: &EvalSet) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in arguments
        .metrics
        .iter()
        .flatten()
        .filter(|name| *name != "all")
    {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let all = arguments.metrics.iter().flatten().any(|name| name == "all");
    let more = match (all, arguments.metrics.is_none()) {
        (true, _) => measurable_metrics(METRIC_NAMES, has_teacher, set),
        (false, true) => measurable_metrics(DEFAULT_METRICS, has_teacher, set),
        (false, false) => Vec::new(),
    };
    for name in more {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.is_empty() {
        false => Ok(names),
        true => Err(WrongInput::new(
            "no metric can be measured on these rows",
            "give rows with prompts or answers within the model's context",
        )
        .into()),
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
