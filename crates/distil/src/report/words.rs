//! What the metrics and the columns of `metrics.jsonl` are called, counted in, and say.

use crate::eval::metric::{Better, METRICS, metric};

/// A column of `metrics.jsonl`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    /// Its key.
    pub(super) key: &'static str,
    /// Its title.
    pub(super) title: &'static str,
    /// Its unit; empty if it has none.
    pub(super) unit: &'static str,
    /// What it says, in a sentence.
    pub(super) meaning: &'static str,
}

const fn word(
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> Word {
    Word {
        key,
        title,
        unit,
        meaning,
    }
}

/// Columns with words. Others appear under their keys.
const WORDS: &[Word] = &[
    word(
        "loss",
        "loss",
        "nats",
        "What the step minimises; its terms follow.",
    ),
    word(
        "cross_entropy",
        "cross-entropy",
        "nats a token",
        "Negative log-likelihood of the trained text.",
    ),
    word(
        "divergence",
        "divergence",
        "nats a token",
        "How far the student's distribution is from the teacher's.",
    ),
    word(
        "preference",
        "preference loss",
        "nats a pair",
        "Small if the preferred response is the likelier one.",
    ),
    word(
        "language_modelling",
        "language modelling",
        "nats a token",
        "Cross-entropy on other texts, beside the main term.",
    ),
    word(
        "corpus",
        "corpus",
        "nats a token",
        "Cross-entropy on the corpus.",
    ),
    word(
        "policy_gradient",
        "policy gradient",
        "value",
        "Log-probabilities times their weights; the gradient matters, not the value.",
    ),
    word(
        "flatness",
        "flatness",
        "value",
        "The flattening term of the policy gradient.",
    ),
    word(
        "single_step_kl",
        "single-step KL",
        "nats a token",
        "Reverse KL at each position of the sampled text.",
    ),
    word(
        "moment",
        "moment",
        "value",
        "Advantage of the teacher over the student under the Q-function.",
    ),
    word(
        "gradient_norm",
        "gradient norm",
        "norm",
        "Norm of the whole gradient before clipping.",
    ),
    word("learning_rate", "learning rate", "rate", "Of each step."),
    word(
        "tokens_per_second",
        "speed",
        "tokens/s",
        "Response tokens trained on, a second of the step.",
    ),
    word(
        "student_entropy",
        "student's entropy",
        "nats",
        "Uncertainty of the student's next token; near zero after a collapse.",
    ),
    word(
        "response_tokens",
        "response length",
        "tokens",
        "Mean length of the sampled responses, EOS included.",
    ),
    word(
        "eos_rate",
        "EOS rate",
        "share",
        "Sampled responses that ended by themselves.",
    ),
    word(
        "distinct_1",
        "distinct-1",
        "share",
        "Different tokens among all sampled; low if the student repeats itself.",
    ),
    word(
        "distinct_2",
        "distinct-2",
        "share",
        "Different pairs of tokens among all sampled; low if the student repeats itself.",
    ),
    word(
        "teacher_mass_on_student_top",
        "teacher's mass on the student's top",
        "probability",
        "What the teacher gives to the student's likeliest token.",
    ),
    word(
        "student_mass_on_teacher_top",
        "student's mass on the teacher's top",
        "probability",
        "What the student gives to the teacher's likeliest token.",
    ),
    word(
        "kl_k1",
        "KL, estimate k1",
        "nats a token",
        "Mean of log q/p on the sampled tokens.",
    ),
    word(
        "kl_k3",
        "KL, estimate k3",
        "nats a token",
        "Mean of p/q − 1 − log p/q on the sampled tokens; never negative.",
    ),
    word(
        "reward",
        "reward",
        "reward",
        "Mean reward of what is sampled: of a token or of a response, as the method has it.",
    ),
    word(
        "return",
        "return",
        "reward",
        "Mean return from the first token of a response.",
    ),
    word(
        "reward_std",
        "spread of the reward",
        "reward",
        "Standard deviation of the reward within the step.",
    ),
    word(
        "preference_accuracy",
        "preference accuracy",
        "share",
        "Pairs whose preferred response has the larger reward.",
    ),
    word(
        "margin",
        "margin",
        "nats",
        "Reward of the preferred less that of the other response.",
    ),
];

/// The words of a column; the key itself if it has none.
pub(super) fn column(key: &str) -> (String, &'static str, &'static str) {
    match WORDS.iter().find(|word| word.key == key) {
        Some(word) => (word.title.to_owned(), word.unit, word.meaning),
        None => (readable(key), "value", ""),
    }
}

/// A metric's name for people.
pub(super) fn title(name: &str) -> String {
    match name {
        "forward_kl" => "forward KL".to_owned(),
        "reverse_kl" => "reverse KL".to_owned(),
        "tvd" => "TVD".to_owned(),
        "rouge_1" => "ROUGE-1".to_owned(),
        "rouge_2" => "ROUGE-2".to_owned(),
        "rouge_l" => "ROUGE-L".to_owned(),
        "rouge_lsum" => "ROUGE-Lsum".to_owned(),
        "sacrebleu" => "BLEU (sacreBLEU)".to_owned(),
        "chrf" => "chrF2".to_owned(),
        "exact_match" => "exact match".to_owned(),
        "response_tokens" => "response length".to_owned(),
        "eos_rate" => "EOS rate".to_owned(),
        "reward" => "induced reward".to_owned(),
        "implicit_reward" => "implicit reward".to_owned(),
        name => match name.strip_prefix("bleu_") {
            Some(order) => format!("BLEU-{order} (NLTK)"),
            None => readable(name),
        },
    }
}

fn readable(key: &str) -> String {
    key.replace('_', " ")
}

/// What a metric is counted in.
pub(super) fn unit(name: &str) -> &'static str {
    metric(name).map_or("", |metric| metric.unit)
}

/// What a metric says.
pub(super) fn meaning(name: &str) -> &'static str {
    metric(name).map_or("", |metric| metric.meaning)
}

/// Which direction is better.
pub(super) fn better(name: &str) -> Option<Better> {
    metric(name)?.better
}

/// The direction in words.
pub(super) fn direction(name: &str) -> &'static str {
    match better(name) {
        Some(Better::Lower) => "lower is better",
        Some(Better::Higher) => "higher is better",
        None => "neither direction is better",
    }
}

/// Whether `a` is better than `b`.
pub(super) fn beats(name: &str, a: f64, b: f64) -> bool {
    match better(name) {
        Some(Better::Lower) => a < b,
        Some(Better::Higher) => a > b,
        None => false,
    }
}

/// The metrics by which students are compared, best evidence first: quality of whole answers before
/// agreement with the teacher on given text.
const MAIN: [&str; 5] = [
    "rouge_l",
    "exact_match",
    "forward_kl",
    "reverse_kl",
    "perplexity",
];

/// The main metric of these: by [`MAIN`], else the first with a direction.
pub(super) fn main(names: &[String]) -> Option<&String> {
    let known = MAIN
        .iter()
        .find_map(|main| names.iter().find(|name| name == main));
    known.or_else(|| names.iter().find(|name| better(name).is_some()))
}

/// Each name once, in the order of the list of metrics, others behind them by alphabet.
pub(super) fn in_order(mut names: Vec<String>) -> Vec<String> {
    let place = |name: &str| {
        let known = METRICS.iter().position(|metric| metric.name == name);
        known.unwrap_or(METRICS.len())
    };
    names.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_ordered_and_compared_in_their_direction() {
        let names = ["zeta", "rouge_l", "alpha", "forward_kl", "rouge_l"];
        let names = in_order(names.map(str::to_owned).to_vec());
        assert_eq!(names, ["forward_kl", "rouge_l", "alpha", "zeta"]);
        assert_eq!(main(&names).unwrap(), "rouge_l");
        assert_eq!(main(&["zeta".to_owned()]), None);
        assert!(beats("forward_kl", 0.1, 0.2) && beats("rouge_l", 0.2, 0.1));
        assert!(!beats("eos_rate", 1.0, 0.0) && !beats("zeta", 1.0, 0.0));
        assert!(MAIN.iter().all(|name| better(name).is_some()));
    }
}
