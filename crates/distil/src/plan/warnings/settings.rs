//! Values of the configuration that are allowed and seldom meant.

use super::Warning;
use crate::config::{Config, Method};

/// Ten times what the examples use for a policy gradient, and for everything else.
const HIGH: [f64; 2] = [1e-4, 2e-3];

/// Below this, hundreds of steps move no weight by more than rounding to bf16 does.
const LOW: f64 = 1e-7;

/// Below this, a student that lost layers mends slowly: the examples use ten times as much.
const LOW_FOR_LOST_LAYERS: f64 = 2e-5;

/// Held-out rows below which a difference between two runs is mostly chance.
const FEW: usize = 30;

/// Methods whose gradient is made of sampled responses and their returns.
fn is_policy_gradient(method: &Method) -> bool {
    matches!(
        method,
        Method::MiniLlm(_) | Method::Llmr(_) | Method::Pbkd(_)
    )
}

/// A learning rate far from what the method takes. `lost_layers`: the student was just pruned.
pub(super) fn learning_rate(config: &Config, lost_layers: bool) -> Option<Warning> {
    let (rate, method) = (config.train.learning_rate, &config.method);
    let noisy = is_policy_gradient(method);
    let high = match noisy {
        true => HIGH[0],
        false => HIGH[1],
    };
    let name = "learning_rate";
    let value = format!("train.learning_rate = {rate:e}");
    if rate > high {
        let what = format!(
            "{value} is more than ten times what the examples use for methods like `{}`: training may \
             diverge",
            method.name()
        );
        return Some(Warning::new(name, what, usual(noisy)));
    }
    if rate < LOW {
        let what = format!("{value} changes next to nothing");
        return Some(Warning::new(name, what, usual(noisy)));
    }
    if lost_layers && !noisy && rate < LOW_FOR_LOST_LAYERS {
        let what =
            format!("{value} is low for a student that lost layers and must learn to speak again");
        return Some(Warning::new(name, what, usual(noisy)).note());
    }
    None
}

fn usual(noisy: bool) -> &'static str {
    match noisy {
        true => "the examples use 1e-5 for a policy gradient",
        false => {
            "the examples use 2e-4 for a student that lost layers, 1e-5 is the default for a whole one"
        }
    }
}

/// An evaluation on so few rows that it decides nothing.
pub(super) fn few_held_out(rows: usize) -> Option<Warning> {
    (rows < FEW).then(|| {
        Warning::new(
            "few_held_out",
            format!(
                "no more than {rows} of the held-out rows are measured: differences between runs are \
                 mostly chance"
            ),
            format!("raise eval.rows, or give data.eval at least {FEW} rows within the limits"),
        )
    })
}

/// Samples of another distribution than the one that the method's formula speaks of.
pub(super) fn sampling(method: &Method) -> Option<Warning> {
    let sampling = method.rollout()?.sampling;
    if sampling.is_plain() {
        return None;
    }
    let what = match method {
        Method::MmPbkd(_) => {
            "mm_pbkd's moment is a mean over samples of the student and the teacher themselves; with \
             temperature, top_k or top_p they are of other distributions, and nothing corrects that"
        }
        Method::Pbkd(_) => {
            "pbkd's reward compares samples of the student and the teacher themselves; with \
             temperature, top_k or top_p they are of other distributions, and only the student's own \
             step corrects that, token by token"
        }
        Method::Llmr(_) | Method::MiniLlm(_) => {
            "with temperature, top_k or top_p responses are of another distribution than the \
             student's: the policy gradient corrects that by the ratio of each token alone, not of \
             those before it"
        }
        // Nothing else takes an expectation over its samples.
        _ => return None,
    };
    let fix = "leave temperature at 1, top_k at 0 and top_p at 1, unless it is meant";
    Some(Warning::new("sampling", what, fix))
}

/// A batch of more rows than there are.
pub(super) fn batch_over_rows(batch: usize, rows: usize) -> Option<Warning> {
    (batch > rows).then(|| {
        Warning::new(
            "batch_over_rows",
            format!(
                "train.batch = {batch}, and {rows} rows are used: every step goes over all of them"
            ),
            format!("lower train.batch to {rows} or less, or give more rows"),
        )
        .note()
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{config, method};
    use super::super::Level;
    use super::*;

    #[test]
    fn a_learning_rate_has_a_range_by_method() {
        let of = |name: &str, rate: &str, lost: bool| {
            let text = format!("method.name = \"{name}\"\ntrain.learning_rate = {rate}\n");
            learning_rate(&config(&text), lost).map(|warning| warning.level)
        };
        for (name, rate, lost, level) in [
            ("kd", "2e-4", true, None),
            ("kd", "1e-5", false, None),
            ("kd", "1e-5", true, Some(Level::Note)),
            ("kd", "1e-2", false, Some(Level::Warning)),
            ("kd", "1e-9", false, Some(Level::Warning)),
            ("llmr", "1e-5", true, None),
            ("llmr", "2e-4", true, Some(Level::Warning)),
        ] {
            assert_eq!(of(name, rate, lost), level, "{name} {rate}");
        }
    }

    #[test]
    fn few_rows_decide_nothing() {
        assert!(few_held_out(29).is_some() && few_held_out(0).is_some());
        assert_eq!(few_held_out(30), None);
    }

    #[test]
    fn sampling_matters_to_methods_with_an_expectation() {
        let of = |text: &str| sampling(&method(text)).map(|warning| warning.what);
        assert_eq!(of("name = \"mm_pbkd\""), None);
        assert_eq!(of("name = \"gkd\"\ntemperature = 0.7"), None);
        assert_eq!(of("name = \"sft\""), None);
        let moment = of("name = \"mm_pbkd\"\ntemperature = 0.7").unwrap();
        assert!(moment.contains("nothing corrects"), "{moment}");
        for text in [
            "name = \"llmr\"\ntop_p = 0.9",
            "name = \"minillm\"\ntemperature = 2.0",
            "name = \"pbkd\"\ntop_k = 5",
        ] {
            assert!(of(text).is_some(), "{text}");
        }
    }

    #[test]
    fn a_batch_is_compared_with_the_rows() {
        assert_eq!(batch_over_rows(8, 8), None);
        assert!(batch_over_rows(9, 8).unwrap().what.contains("8 rows"));
    }
}
