//! The metrics: what each is called, what it means, and how it is computed from what was measured.
//!
//! Two things can be measured. *Answers*: the student answers each prompt, and an answer is looked at
//! by itself or against the row's references. *References*: the student, and a teacher if there is
//! one, say how likely each token of a row's reference is (teacher forcing; EOS included).

use super::evaluate::Answer;
use super::exact_match::exact_match;
use super::rouge::{Stemming, rouge_l_best};
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
    /// Of the student's scores of the references.
    References(fn(&[TokenScores]) -> f64),
    /// Of both models' scores of the references: the mean over tokens of a number of one token.
    AgainstTeacher(fn(&TeacherScores) -> &[f32]),
}

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
        name: "rouge_l",
        meaning: "ROUGE-L (F-measure, stemmed) of the answer against its best reference",
        unit: "0 to 1",
        better: Some(Better::Higher),
        measure: Measure::AgainstReferences(|references, answer| {
            rouge_l_best(references, answer, Stemming::Porter).fmeasure
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
        name: "perplexity",
        meaning: "exp of the student's mean negative log-likelihood of the references' tokens",
        unit: "from 1",
        better: Some(Better::Lower),
        measure: Measure::References(|scores| {
            (-mean(scores.iter().flat_map(|score| &score.logprobs))).exp()
        }),
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
        matches!(self.measure, Measure::AgainstTeacher(_))
    }

    /// Whether rows need references (good answers).
    pub fn needs_references(&self) -> bool {
        !matches!(self.measure, Measure::Answer(_))
    }

    /// Whether the student has to answer prompts.
    pub fn needs_answers(&self) -> bool {
        matches!(
            self.measure,
            Measure::Answer(_) | Measure::AgainstReferences(_)
        )
    }
}

/// In f64, since a sum of thousands of f32 would lose digits.
pub(crate) fn mean<'a>(values: impl Iterator<Item = &'a f32>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), &value| {
        (sum + f64::from(value), count + 1)
    });
    sum / count as f64
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
        assert_eq!(needs("eos_rate"), (false, false, true));
    }

    #[test]
    fn perplexity_weighs_tokens_alike_not_rows() {
        let row = |logprobs: &[f32]| TokenScores {
            logprobs: logprobs.to_vec(),
            teacher: None,
        };
        let Measure::References(perplexity) = metric("perplexity").unwrap().measure else {
            panic!("perplexity is of the references");
        };
        let half = 0.5_f32.ln();
        let eighth = 0.125_f32.ln();
        // Three tokens at 1/2 and one at 1/8: (8 · 8)^(1/4).
        let got = perplexity(&[row(&[half, half, half]), row(&[eighth])]);
        assert!((got - 64_f64.powf(0.25)).abs() < 1e-6, "{got}");
    }
}
