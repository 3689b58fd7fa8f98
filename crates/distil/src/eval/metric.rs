//! The metrics: what each is called, what it means, and how it is computed from what was measured.
//!
//! Two things can be measured. *Answers*: the student answers each prompt, and an answer is looked at
//! by itself, against the row's references, or by the models. *References*: the student, and a teacher
//! if there is one, say how likely each token of a row's reference is (teacher forcing; EOS included).
//!
//! Nearly every metric is a function of sums over rows: a mean over answers of the answers' numbers and
//! their count, BLEU of counted n-grams, perplexity of log-likelihoods and tokens. A row gives its
//! summands once, and whatever looks at some rows only, or at rows several times (buckets, the
//! bootstrap, a comparison), adds them up again. What does not add up is `Measure::Whole`.

use super::bleu::{nltk, sacrebleu};
use super::chrf;
use super::distinct::distinct;
use super::evaluate::Answer;
use super::exact_match::exact_match;
use super::repetition::repetition;
use super::rouge::{Stemming, rouge_l_best, rouge_lsum_best, rouge_n_best};
use crate::score::{TeacherScores, TokenScores};

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct MetricInfo {
    /// Its name in configurations, on the command line and in files.
    pub name: &'static str,
    /// What it says, in one sentence.
    pub meaning: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// Which direction is better; `None` if it describes the answers but does not rank them.
    pub better: Option<Better>,
    pub(crate) measure: Measure,
}

/// Which direction of a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Small values.
    Lower,
    /// Large values.
    Higher,
}

/// What a metric is computed from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Measure {
    /// The mean over all answers of a number of one answer.
    Answer(fn(&Answer) -> f64),
    /// The mean, over answers to prompts that have references, of references against the answer.
    AgainstReferences(fn(&[String], &str) -> f64),
    /// The mean over all answers of what the models say of one.
    Judged(Judged),
    /// Of the sums, over answers to prompts that have references, of the numbers `row`.
    Sums {
        row: fn(&[String], &str) -> Vec<f64>,
        of: fn(&[f64]) -> f64,
    },
    /// Of all answers together.
    Whole(fn(&[&str]) -> f64),
    /// Of the sums over rows of numbers of the student's scores of a row's reference.
    References {
        row: fn(&TokenScores) -> Vec<f64>,
        of: fn(&[f64]) -> f64,
    },
    /// Of both models' scores of the references: the mean over tokens of a number of one token.
    AgainstTeacher(fn(&TeacherScores) -> &[f32]),
}

/// What models say of an answer; see [`super::judged`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// The return that the teacher's logits induce.
    Reward,
    /// log q/p of the whole answer.
    ImplicitReward,
}

/// What is measured unless a user says otherwise; in each case as far as it can be.
pub const DEFAULT_METRICS: &[&str] = &[
    "forward_kl",
    "reverse_kl",
    "rouge_l",
    "exact_match",
    "perplexity",
    "response_tokens",
    "eos_rate",
];

/// Every metric.
pub const METRICS: &[MetricInfo] = &[
    MetricInfo {
        name: "forward_kl",
        meaning: "KL(teacher ‖ student) on the references: what the student misses of the teacher",
        unit: "nats a token",
        better: Some(Better::Lower),
        measure: Measure::AgainstTeacher(|scores| &scores.forward_kl),
    },
    MetricInfo {
        name: "reverse_kl",
        meaning: "KL(student ‖ teacher) on the references: what the student says and the teacher would not",
        unit: "nats a token",
        better: Some(Better::Lower),
        measure: Measure::AgainstTeacher(|scores| &scores.reverse_kl),
    },
    MetricInfo {
        name: "tvd",
        meaning: "total variation distance of teacher and student on the references",
        unit: "0 to 1",
        better: Some(Better::Lower),
        measure: Measure::AgainstTeacher(|scores| &scores.tvd),
    },
    MetricInfo {
        name: "rouge_l",
        meaning: "ROUGE-L (F-measure, stemmed) of the answer against its best reference",
        unit: "0 to 1",
        better: Some(Better::Higher),
        measure: Measure::AgainstReferences(|references, answer| {
            rouge_l_best(references, answer, Stemming::Porter).fmeasure
        }),
    },
    MetricInfo {
        name: "rouge_1",
        meaning: "ROUGE-1 (F-measure, stemmed) of the answer against its best reference",
        unit: "0 to 1",
        better: Some(Better::Higher),
        measure: Measure::AgainstReferences(|references, answer| {
            rouge_n_best(1, references, answer, Stemming::Porter).fmeasure
        }),
    },
    MetricInfo {
        name: "rouge_2",
        meaning: "ROUGE-2 (F-measure, stemmed) of the answer against its best reference",
        unit: "0 to 1",
        better: Some(Better::Higher),
        measure: Measure::AgainstReferences(|references, answer| {
            rouge_n_best(2, references, answer, Stemming::Porter).fmeasure
        }),
    },
    MetricInfo {
        name: "rouge_lsum",
        meaning: "ROUGE-Lsum (F-measure, stemmed) of the answer against its best reference",
        unit: "0 to 1",
        better: Some(Better::Higher),
        measure: Measure::AgainstReferences(|references, answer| {
            rouge_lsum_best(references, answer, Stemming::Porter).fmeasure
        }),
    },
    MetricInfo {
        name: "exact_match",
        meaning: "share of answers that equal a reference but for case, punctuation and spacing",
        unit: "0 to 1",
        better: Some(Better::Higher),
        measure: Measure::AgainstReferences(|references, answer| {
            f64::from(exact_match(references, answer))
        }),
    },
    MetricInfo {
        name: "bleu_1",
        meaning: "BLEU-1 of the corpus as NLTK computes it, on lower-cased words without smoothing",
        unit: "0 to 1",
        better: Some(Better::Higher),
        measure: Measure::Sums {
            row: nltk::sums,
            of: |sums| nltk::from_sums(sums, 1),
        },
    },
    MetricInfo {
        name: "bleu_2",
        meaning: "BLEU-2 of the corpus as NLTK computes it, on lower-cased words without smoothing",
        unit: "0 to 1",
        better: Some(Better::Higher),
        measure: Measure::Sums {
            row: nltk::sums,
            of: |sums| nltk::from_sums(sums, 2),
        },
    },
    MetricInfo {
        name: "bleu_3",
        meaning: "BLEU-3 of the corpus as NLTK computes it, on lower-cased words without smoothing",
        unit: "0 to 1",
        better: Some(Better::Higher),
        measure: Measure::Sums {
            row: nltk::sums,
            of: |sums| nltk::from_sums(sums, 3),
        },
    },
    MetricInfo {
        name: "bleu_4",
        meaning: "BLEU-4 of the corpus as NLTK computes it, on lower-cased words without smoothing",
        unit: "0 to 1",
        better: Some(Better::Higher),
        measure: Measure::Sums {
            row: nltk::sums,
            of: |sums| nltk::from_sums(sums, 4),
        },
    },
    MetricInfo {
        name: "sacrebleu",
        meaning: "BLEU-4 of the corpus as sacreBLEU computes it, on 13a tokens with exponential smoothing",
        unit: "0 to 100",
        better: Some(Better::Higher),
        measure: Measure::Sums {
            row: sacrebleu::sums,
            of: sacrebleu::from_sums,
        },
    },
    MetricInfo {
        name: "chrf",
        meaning: "chrF2 of the corpus: n-grams of characters in common with the references",
        unit: "0 to 100",
        better: Some(Better::Higher),
        measure: Measure::Sums {
            row: chrf::sums,
            of: chrf::from_sums,
        },
    },
    MetricInfo {
        name: "perplexity",
        meaning: "exp of the student's mean negative log-likelihood of the references' tokens",
        unit: "from 1",
        better: Some(Better::Lower),
        measure: Measure::References {
            row: |scores| sum_and_count(&scores.logprobs),
            of: |sums| (-mean(sums)).exp(),
        },
    },
    MetricInfo {
        name: "reward",
        meaning: "return of the answer under the reward that the teacher's logits induce (LLMR)",
        unit: "nats",
        better: Some(Better::Higher),
        measure: Measure::Judged(Judged::Reward),
    },
    MetricInfo {
        name: "implicit_reward",
        meaning: "log of the student's probability of the answer over the teacher's (DPKD)",
        unit: "nats",
        better: None,
        measure: Measure::Judged(Judged::ImplicitReward),
    },
    MetricInfo {
        name: "response_tokens",
        meaning: "mean length of the answers, EOS included",
        unit: "tokens",
        better: None,
        measure: Measure::Answer(|answer| answer.tokens as f64),
    },
    MetricInfo {
        name: "eos_rate",
        meaning: "share of answers that ended by themselves rather than at the length limit",
        unit: "0 to 1",
        better: None,
        measure: Measure::Answer(|answer| f64::from(answer.ended())),
    },
    MetricInfo {
        name: "distinct_1",
        meaning: "different words of all answers over all their words",
        unit: "0 to 1",
        better: None,
        measure: Measure::Whole(|answers| distinct(answers, 1)),
    },
    MetricInfo {
        name: "distinct_2",
        meaning: "different pairs of words of all answers over all their pairs",
        unit: "0 to 1",
        better: None,
        measure: Measure::Whole(|answers| distinct(answers, 2)),
    },
    MetricInfo {
        name: "repetition",
        meaning: "share of an answer's runs of four words that it has said before",
        unit: "0 to 1",
        better: Some(Better::Lower),
        measure: Measure::Answer(|answer| repetition(&answer.response)),
    },
];

/// Names of the metrics, in the order of [`METRICS`].
pub const METRIC_NAMES: &[&str] = &{
    let mut names = [""; METRICS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = METRICS[index].name;
        index += 1;
    }
    names
};

/// The metric of this name.
pub fn metric(name: &str) -> Option<&'static MetricInfo> {
    METRICS.iter().find(|metric| metric.name == name)
}

impl MetricInfo {
    /// Whether it compares with a teacher.
    pub fn needs_teacher(&self) -> bool {
        matches!(
            self.measure,
            Measure::AgainstTeacher(_) | Measure::Judged(_)
        )
    }

    /// Whether rows need references (good answers).
    pub fn needs_references(&self) -> bool {
        !matches!(
            self.measure,
            Measure::Answer(_) | Measure::Judged(_) | Measure::Whole(_)
        )
    }

    /// Whether the student has to answer prompts; if not, it is of the references.
    pub fn needs_answers(&self) -> bool {
        !matches!(
            self.measure,
            Measure::References { .. } | Measure::AgainstTeacher(_)
        )
    }
}

/// The summands of a mean, in f64, since a sum of thousands of f32 would lose digits.
pub(crate) fn sum_and_count(values: &[f32]) -> Vec<f64> {
    let sum = values.iter().map(|&value| f64::from(value)).sum();
    vec![sum, values.len() as f64]
}

/// The mean of [`sum_and_count`]s that were added up.
pub(crate) fn mean(sums: &[f64]) -> f64 {
    match sums {
        [sum, count, ..] => sum / count,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (index, name) in METRIC_NAMES.iter().enumerate() {
            assert_eq!(metric(name).map(|metric| metric.name), Some(*name));
            assert!(!METRIC_NAMES[index + 1..].contains(name), "{name}");
        }
        assert!(metric("rouge").is_none());
        for name in DEFAULT_METRICS {
            assert!(metric(name).is_some(), "{name}");
        }
    }

    #[test]
    fn needs_follow_from_the_measure() {
        let needs = |name: &str| {
            let metric = metric(name).unwrap();
            (
                metric.needs_teacher(),
                metric.needs_references(),
                metric.needs_answers(),
            )
        };
        assert_eq!(needs("forward_kl"), (true, true, false));
        assert_eq!(needs("perplexity"), (false, true, false));
        assert_eq!(needs("rouge_l"), (false, true, true));
        assert_eq!(needs("sacrebleu"), (false, true, true));
        assert_eq!(needs("eos_rate"), (false, false, true));
        assert_eq!(needs("distinct_1"), (false, false, true));
        assert_eq!(needs("reward"), (true, false, true));
    }
}
