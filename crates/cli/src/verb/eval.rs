//! `distil eval`: metrics of a model on held-out rows.

use std::path::PathBuf;

use clap::Args;
use distil::config::Sampling;
use distil::data::example::{Example, PromptExample};
use distil::eval::evaluate::{EvalSet, Evaluation, GREEDY, Settings, evaluate, measurable};
use distil::eval::metric::{METRIC_NAMES, METRICS, metric};
use distil_model::{Model, files};
use serde_json::{Map, Value, json};

use crate::arguments::PrecisionArguments;
use crate::failure::WrongInput;
use crate::progress::Progress;
use crate::{loading, output, verb};

/// Measure a model on held-out rows.
///
/// rouge_l, exact_match, response_tokens and eos_rate look at the answers the model gives, greedily or,
/// with --seeds, sampled at temperature 1 once a seed (mean and standard deviation). perplexity,
/// forward_kl and reverse_kl look at how likely the model finds the rows' own answers; the last two
/// need --teacher. The table goes to the screen; --out keeps it with every answer as JSON.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  distil eval student --data test.jsonl
  distil eval student --data test.jsonl --teacher smollm2-135m-instruct --metrics forward_kl,rouge_l
  distil eval student --data test.jsonl --metrics rouge_l --seeds 10,20,30 --out eval.json")]
pub(crate) struct Eval {
    /// The model
    model: String,

    /// A .jsonl, .json or .parquet file of prompts with good answers
    #[arg(long, value_name = "FILE")]
    data: PathBuf,

    /// The model it learnt from, for forward_kl and reverse_kl
    #[arg(long, value_name = "MODEL")]
    teacher: Option<String>,

    /// What is measured: forward_kl, reverse_kl, rouge_l, exact_match, perplexity, response_tokens,
    /// eos_rate [default: all that can be]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    metrics: Option<Vec<String>>,

    /// Sample the answers at temperature 1, once for each of these seeds [default: greedy answers]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    seeds: Option<Vec<u64>>,

    /// Write the result with every answer to this file
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,

    /// Replace --out if it exists
    #[arg(long, requires = "out")]
    force: bool,

    /// Print the metrics as JSON instead of a table
    #[arg(long)]
    json: bool,

    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = verb::at_least_one)]
    max_new_tokens: usize,

    /// How a row becomes a prompt: chat (the model's own), alpaca, or a Jinja text
    #[arg(long, default_value = "chat")]
    template: String,

    /// Measure on the first N rows only [default: all]
    #[arg(long, value_name = "N")]
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

pub(crate) fn run(arguments: &Eval, progress: &mut Progress) -> anyhow::Result<()> {
    let metrics = metrics(arguments)?;
    if let Some(out) = &arguments.out {
        output::check_file(out, arguments.force)?;
    }
    let data = loading::rows(&arguments.data)?;
    let precision = arguments.precision;
    let model = loading::asked_model(&arguments.model, precision, progress)?;
    let teacher = match &arguments.teacher {
        Some(reference) => Some(loading::asked_model(reference, precision, progress)?),
        None => None,
    };
    let template = loading::template(&arguments.template, &model)?;
    let mut set = loading::with_encoding(&model, &template, |encoding| {
        EvalSet::new(&data, encoding, arguments.rows)
    })?;
    let context = |model: &Model| model.network.config().context;
    let most = teacher
        .iter()
        .map(context)
        .fold(context(&model), usize::min);
    let prompt = |prompt: &PromptExample| (prompt.prompt.len() + 1, prompt.row);
    set.prompts = loading::keep_fitting(set.prompts, most, prompt, &data, progress);
    let example = |example: &Example| (example.len(), example.row);
    set.examples = loading::keep_fitting(set.examples, most, example, &data, progress);

    let metrics = match arguments.metrics {
        Some(_) => metrics,
        None => measurable_of(metrics, teacher.is_some(), &set)?,
    };
    let mut settings = Settings {
        metrics: metrics.clone(),
        sampling: GREEDY,
        sampling_precision: None,
        max_new_tokens: arguments.max_new_tokens,
        batch: arguments.batch,
        seed: 0,
        micro_batch_tokens: arguments.micro_batch_tokens,
    };
    let mut measure = |settings: &Settings, what: &str| {
        let result = evaluate(
            &model,
            teacher.as_ref(),
            &set,
            settings,
            &mut |done, total| {
                progress.at(what, done, total);
            },
        );
        progress.done();
        result
    };
    let mut report = json!({
        "model": arguments.model,
        "teacher": arguments.teacher,
        "data": arguments.data,
        "precision": precision.precision(),
    });
    let (table, summary) = match &arguments.seeds {
        None => {
            let evaluation = measure(&settings, "rows")?;
            (evaluation.to_string(), evaluation.to_json())
        }
        Some(seeds) => {
            let mut evaluations = Vec::new();
            for &seed in seeds {
                settings.seed = seed;
                settings.sampling = Sampling {
                    temperature: 1.0,
                    ..GREEDY
                };
                evaluations.push((seed, measure(&settings, &format!("rows, seed {seed}"))?));
                // What does not look at answers is the same for every seed.
                settings
                    .metrics
                    .retain(|name| metric(name).is_some_and(|m| m.needs_answers()));
                if settings.metrics.is_empty() {
                    break;
                }
            }
            over_seeds(&metrics, &evaluations)
        }
    };
    if let (Some(report), Value::Object(summary)) = (report.as_object_mut(), summary) {
        report.extend(summary);
    }
    if let Some(out) = &arguments.out {
        files::write_whole(out, format!("{report:#}\n").as_bytes())?;
    }
    match arguments.json {
        true => {
            // The answers are for the file.
            let brief = without_answers(&report);
            output::json(&brief)
        }
        false => output::line(table),
    }
}

/// The metrics asked for, or all that can be measured.
fn metrics(arguments: &Eval) -> anyhow::Result<Vec<String>> {
    let Some(asked) = &arguments.metrics else {
        let can = METRICS
            .iter()
            .filter(|metric| !metric.needs_teacher() || arguments.teacher.is_some());
        return Ok(can.map(|metric| metric.name.to_owned()).collect());
    };
    let unknown = asked.iter().find(|name| metric(name).is_none());
    match unknown {
        None => Ok(asked.clone()),
        Some(name) => Err(WrongInput::new(
            format!("--metrics: there is no metric `{name}`"),
            format!("choose from {}", METRIC_NAMES.join(", ")),
        )
        .into()),
    }
}

/// Those metrics that these rows can be measured by.
fn measurable_of(
    names: Vec<String>,
    has_teacher: bool,
    set: &EvalSet,
) -> anyhow::Result<Vec<String>> {
    let can = |name: &String| metric(name).is_some_and(|m| measurable(m, has_teacher, set));
    let names: Vec<String> = names.into_iter().filter(can).collect();
    match names.is_empty() {
        false => Ok(names),
        true => Err(WrongInput::new(
            "no metric can be measured on these rows",
            "give rows with prompts or answers within the model's context",
        )
        .into()),
    }
}

/// Table and JSON of several evaluations: mean and standard deviation (n − 1) of each metric.
fn over_seeds(metrics: &[String], evaluations: &[(u64, Evaluation)]) -> (String, Value) {
    let mut table = format!("{:<16} {:>12} {:>12}\n", "metric", "mean", "deviation");
    let (mut means, mut deviations) = (Map::new(), Map::new());
    for name in metrics {
        let values: Vec<f64> = evaluations
            .iter()
            .filter_map(|(_, e)| e.get(name))
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.len() > 1).then(|| {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            (squares / (values.len() - 1) as f64).sqrt()
        });
        let shown = deviation.map_or("–".to_owned(), |deviation| format!("{deviation:.4}"));
        table.push_str(&format!("{name:<16} {mean:>12.4} {shown:>12}\n"));
        means.insert(name.clone(), json!(mean));
        deviations.insert(name.clone(), json!(deviation));
    }
    let rows = evaluations
        .first()
        .map_or(0, |(_, evaluation)| evaluation.rows);
    table.push_str(&format!(
        "measured on {rows} rows, {} seeds, temperature 1",
        evaluations.len()
    ));
    let each: Vec<Value> = evaluations
        .iter()
        .map(|(seed, evaluation)| {
            let mut value = json!({ "seed": seed });
            if let (Some(object), Value::Object(rest)) =
                (value.as_object_mut(), evaluation.to_json())
            {
                object.extend(rest);
            }
            value
        })
        .collect();
    let summary = json!({
        "rows": rows, "metrics": means, "standard_deviation": deviations, "seeds": each,
    });
    (table, summary)
}

fn without_answers(report: &Value) -> Value {
    let mut brief = report.clone();
    let strip = |value: &mut Value| {
        if let Some(object) = value.as_object_mut() {
            object.remove("answers");
        }
    };
    strip(&mut brief);
    if let Some(seeds) = brief.get_mut("seeds").and_then(Value::as_array_mut) {
        seeds.iter_mut().for_each(strip);
    }
    brief
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_over_seeds() {
        let evaluation = |rouge_l: f64, perplexity: Option<f64>| Evaluation {
            metrics: perplexity
                .map(|value| ("perplexity".to_owned(), value))
                .into_iter()
                .chain([("rouge_l".to_owned(), rouge_l)])
                .collect(),
            answers: Vec::new(),
            rows: 7,
        };
        let evaluations = [
            (10, evaluation(0.1, Some(9.0))),
            (20, evaluation(0.2, None)),
            (30, evaluation(0.6, None)),
        ];
        let metrics = ["perplexity".to_owned(), "rouge_l".to_owned()];
        let (table, summary) = over_seeds(&metrics, &evaluations);
        assert!((summary["metrics"]["rouge_l"].as_f64().unwrap() - 0.3).abs() < 1e-12);
        // √((0.04 + 0.01 + 0.09) / 2)
        let deviation = summary["standard_deviation"]["rouge_l"].as_f64().unwrap();
        assert!((deviation - 0.07_f64.sqrt()).abs() < 1e-12);
        assert_eq!(summary["metrics"]["perplexity"], 9.0);
        assert_eq!(summary["standard_deviation"]["perplexity"], Value::Null);
        assert_eq!(summary["seeds"][1]["seed"], 20);
        assert!(table.contains("3 seeds"), "{table}");
    }
}
