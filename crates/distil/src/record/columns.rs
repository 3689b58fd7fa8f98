//! What the columns of `metrics.jsonl` are called, counted in, and say.

/// A column in words.
#[derive(Debug, Clone, Copy)]
pub struct ColumnWords {
    /// Its key.
    pub key: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// What it says, in a sentence.
    pub meaning: &'static str,
}

const fn word(
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> ColumnWords {
    ColumnWords {
        key,
        title,
        unit,
        meaning,
    }
}

/// Columns with words. Others appear under their keys.
const WORDS: &[ColumnWords] = &[
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

/// The words of a column; none if it has none.
pub fn column_words(key: &str) -> Option<&'static ColumnWords> {
    WORDS.iter().find(|words| words.key == key)
}
