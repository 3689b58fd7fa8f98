//! The resolved configuration as TOML (<https://toml.io/en/v1.0.0>), in the order of the list of keys.

use std::fmt::Display;
use std::path::Path;

use toml::Value;

use super::keys::KEYS;
use super::{Config, Data, Eval, Length, Method, Prune, Start, Train};

/// TOML text in the making.
struct Writer(String);

impl Writer {
    fn table(&mut self, name: &str) {
        self.0.push_str(&format!("\n[{name}]\n"));
    }

    /// A value that is written as Rust writes it: whole numbers and switches.
    fn plain(&mut self, name: &str, value: impl Display) {
        self.0.push_str(&format!("{name} = {value}\n"));
    }

    /// The shortest decimal that reads back as the same bits.
    fn number(&mut self, name: &str, value: f64) {
        self.plain(name, format_args!("{value:?}"));
    }

    fn text(&mut self, name: &str, value: &str) {
        self.plain(name, Value::from(value));
    }

    fn list(&mut self, name: &str, values: impl IntoIterator<Item = impl Into<String>>) {
        let values = values.into_iter().map(|value| Value::String(value.into()));
        self.plain(name, Value::Array(values.collect()));
    }

    fn unset(&mut self, name: &str) {
        self.0.push_str(&format!("# {name} is not set\n"));
    }
}

pub(crate) fn to_toml(config: &Config) -> String {
    let mut out = Writer(String::from(
        "# Resolved: every key of this run. Paths are absolute.\n",
    ));
    out.plain("seed", config.seed);
    out.table("teacher");
    match &config.teacher {
        Some(teacher) => {
            out.text("model", &teacher.model);
            out.plain("cache", teacher.cache);
            out.text("precision", teacher.precision.name());
        }
        None => {
            out.unset("model");
            out.unset("cache");
            out.unset("precision");
        }
    }
    out.table("student");
    let student = &config.student;
    match &student.start {
        Start::Prune(Prune::Layers(layers)) => {
            out.plain("prune", format_args!("{{ layers = {layers} }}"))
        }
        Start::Prune(Prune::Keep(keep)) => {
            out.plain("prune", format_args!("{{ keep = {keep:?} }}"))
        }
        Start::Model(model) => out.text("model", model),
    }
    out.text("precision", student.precision.name());
    out.text("sampling_precision", student.sampling_precision.name());
    data(&mut out, &config.data);
    method(&mut out, &config.method);
    train(&mut out, &config.train);
    eval(&mut out, &config.eval);
    out.0
}

fn data(out: &mut Writer, data: &Data) {
    let path = |path: &Path| path.display().to_string();
    out.table("data");
    out.list("train", data.train.iter().map(|file| path(file)));
    match &data.eval {
        Some(eval) => out.text("eval", &path(eval)),
        None => out.unset("eval"),
    }
    out.list("corpus", data.corpus.iter().map(|file| path(file)));
    out.text("template", &data.template);
    out.plain("max_prompt_tokens", data.max_prompt_tokens);
    out.plain("max_response_tokens", data.max_response_tokens);
    out.text("on_bad_row", data.on_bad_row.name());
    match data.limit {
        Some(limit) => out.plain("limit", limit),
        None => out.unset("limit"),
    }
}

/// The method's keys in the order of the list.
fn method(out: &mut Writer, method: &Method) {
    out.table("method");
    let values = super::method::table(method);
    let mut written: Vec<&str> = Vec::new();
    for key in KEYS {
        let Some(name) = key.path.strip_prefix("method.") else {
            continue;
        };
        if let Some(value) = values.get(name).filter(|_| !written.contains(&name)) {
            match value {
                Value::Float(number) => out.number(name, *number),
                value => out.plain(name, value),
            }
            written.push(name);
        }
    }
}

fn train(out: &mut Writer, train: &Train) {
    out.table("train");
    match train.length {
        Length::Steps(steps) => out.plain("steps", steps),
        Length::Epochs(epochs) => out.number("epochs", epochs),
    }
    match train.tokens {
        Some(tokens) => out.plain("tokens", tokens),
        None => out.unset("tokens"),
    }
    out.plain("batch", train.batch);
    out.plain("micro_batch_tokens", train.micro_batch_tokens);
    out.number("learning_rate", train.learning_rate);
    out.text("schedule", train.schedule.name());
    out.plain("warmup_steps", train.warmup_steps);
    out.number("min_learning_rate_ratio", train.min_learning_rate_ratio);
    out.number("weight_decay", train.weight_decay);
    out.number("beta1", train.beta1);
    out.number("beta2", train.beta2);
    out.number("epsilon", train.epsilon);
    out.number("clip_norm", train.clip_norm);
    out.plain("checkpoint_every", train.checkpoint_every);
    out.plain("keep_last", train.keep_last);
    out.plain("keep_best", train.keep_best);
    out.plain("recompute", train.recompute);
}

fn eval(out: &mut Writer, eval: &Eval) {
    out.table("eval");
    out.plain("every", eval.every);
    out.list("metrics", &eval.metrics);
    match &eval.best_metric {
        Some(metric) => out.text("best_metric", metric),
        None => out.unset("best_metric"),
    }
    out.plain("rows", eval.rows);
    out.plain("samples", eval.samples);
    out.plain("max_new_tokens", eval.max_new_tokens);
    out.plain("batch", eval.batch);
}
