//! Notices when what a student says collapses: shorter and shorter responses, responses that no longer
//! end, the same words again and again, a distribution without entropy. It says so once, in words.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Steps that a mean is taken over: the first ones are what the newest ones are compared with.
const WINDOW: usize = 10;

/// How a collapse shows in one of a step's terms.
struct Sign {
    /// Name in `metrics.jsonl`.
    term: &'static str,
    /// Below this share of the first steps' mean, and below `most`, it is a collapse.
    share: f64,
    most: f64,
    /// A smaller mean of the first steps says nothing.
    least_before: f64,
    /// What the user is told, between the term's name with its means and what to do.
    what: &'static str,
    fix: &'static str,
}

const SIGNS: [Sign; 4] = [
    Sign {
        term: "response_tokens",
        share: 0.2,
        most: 8.0,
        least_before: 0.0,
        what: "the student's responses are shrinking to nothing",
        fix: "lower train.learning_rate; for llmr choose a baseline of the state, for minillm \
              length_normalize = true, or give a language-modelling term weight",
    },
    Sign {
        term: "eos_rate",
        share: 0.05,
        most: 1.0,
        least_before: 0.1,
        what: "the student's responses no longer end by themselves",
        fix: "lower train.learning_rate, or give a language-modelling term weight",
    },
    Sign {
        term: "distinct_2",
        share: 0.5,
        most: 0.5,
        least_before: 0.0,
        what: "the student repeats itself",
        fix: "lower train.learning_rate, or give a language-modelling or KL term weight",
    },
    Sign {
        term: "student_entropy",
        share: 0.1,
        most: 0.5,
        least_before: 0.0,
        what: "the student's distribution is collapsing to single tokens",
        fix: "lower train.learning_rate, or add flatten_weight (llmr) or kl_weight (pbkd)",
    },
];

/// What has been seen of a run; kept in checkpoints, so that a resumed run says the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Collapse {
    terms: BTreeMap<String, Seen>,
    warned: bool,
    /// Steps in a row without a response that was learnt from.
    #[serde(default)]
    dropped: usize,
}

/// One term so far; steps that do not report it do not count.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Seen {
    first: Vec<f64>,
    newest: VecDeque<f64>,
}

impl Collapse {
    /// Takes a step's terms in; the first sign of a collapse gives one warning.
    pub(crate) fn after(
        &mut self,
        step: usize,
        terms: &BTreeMap<&'static str, f64>,
    ) -> Option<String> {
        let mut warning = None;
        self.dropped = match terms.get("dropped") {
            Some(&share) if share >= 1.0 => self.dropped + 1,
            _ => 0,
        };
        if self.dropped == WINDOW {
            warning = Some(format!(
                "step {step}: no response of the last {WINDOW} steps ended, and unfinished = \"drop\" \
                 leaves nothing to learn from; raise method.max_new_tokens, or choose \"mask\""
            ));
        }
        // A student that only reads learns to be sure of the text: no collapse.
        let samples = terms.contains_key("response_tokens");
        for sign in SIGNS.iter().filter(|_| samples) {
            let Some(&value) = terms.get(sign.term) else {
                continue;
            };
            let seen = self.terms.entry(sign.term.to_owned()).or_default();
            if seen.first.len() < WINDOW {
                seen.first.push(value);
                continue;
            }
            seen.newest.push_back(value);
            if seen.newest.len() > WINDOW {
                seen.newest.pop_front();
            }
            let mean = |sum: f64| sum / WINDOW as f64;
            let (before, now) = (
                mean(seen.first.iter().sum()),
                mean(seen.newest.iter().sum()),
            );
            let collapsed =
                now < sign.share * before && now < sign.most && before >= sign.least_before;
            if seen.newest.len() == WINDOW && collapsed && warning.is_none() {
                warning = Some(format!(
                    "step {step}: {}: {} was {before:.3} in its first {WINDOW} steps and is \
                     {now:.3} now; {}",
                    sign.what, sign.term, sign.fix
                ));
            }
        }
        let warning = warning.filter(|_| !self.warned);
        self.warned |= warning.is_some();
        warning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(term: &'static str, values: impl Iterator<Item = f64>) -> Vec<(usize, String)> {
        let mut collapse = Collapse::default();
        let warnings = values.zip(1..).filter_map(|(value, step)| {
            // As if resumed after every step.
            let text = serde_json::to_string(&collapse).unwrap();
            collapse = serde_json::from_str(&text).unwrap();
            let terms = BTreeMap::from([("response_tokens", 30.0), (term, value)]);
            let warning = collapse.after(step, &terms);
            Some((step, warning?))
        });
        warnings.collect()
    }

    #[test]
    fn a_collapse_is_told_once_and_in_words() {
        let lengths = (0..60).map(|step| 50.0 * 0.93_f64.powi(step));
        let warnings = run("response_tokens", lengths);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let text = &warnings[0].1;
        assert!(text.contains("shrinking to nothing"), "{text}");
        assert!(text.contains("train.learning_rate"), "{text}");
        for (term, now) in [
            ("eos_rate", 0.0),
            ("distinct_2", 0.1),
            ("student_entropy", 0.01),
        ] {
            let values = (0..40).map(|step| if step < 15 { 0.6 } else { now });
            let warnings = run(term, values);
            assert_eq!(warnings.len(), 1, "{term}");
            assert!(warnings[0].1.contains(term));
        }
    }

    #[test]
    fn learning_from_nothing_is_told() {
        let warnings = run("dropped", (0..30).map(|_| 1.0));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].1.contains("max_new_tokens"), "{warnings:?}");
        assert!(run("dropped", (0..30).map(|step| f64::from(step % 5) / 4.0)).is_empty());
    }

    #[test]
    fn ordinary_runs_are_left_alone() {
        let wobbling = (0..200).map(|step| 30.0 + 15.0 * f64::from(step).sin());
        assert!(run("response_tokens", wobbling).is_empty());
        assert!(run("distinct_2", (0..30).map(|_| 0.9)).is_empty());
        // Answers that were long by accident become short ones.
        let shorter = (0..60).map(|step| if step < 20 { 60.0 } else { 9.0 });
        assert!(run("response_tokens", shorter).is_empty());
        // Next to nothing ended at the start either: no change, no warning.
        assert!(run("eos_rate", (0..40).map(|_| 0.0)).is_empty());
        assert!(run("loss", (0..40).map(|step| 1.0 / f64::from(step + 1))).is_empty());
    }
}
