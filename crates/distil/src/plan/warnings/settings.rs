//! Values of the configuration that are allowed and seldom meant.

use super::super::bytes;
use super::Warning;
use crate::config::{Config, Method, Prune, Start};

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

/// A student that is its teacher, for methods whose loss is the distance of the two and nothing else.
/// `layers`: the teacher's.
pub(super) fn same_model(config: &Config, layers: Option<usize>) -> Option<Warning> {
    let ce_share = match &config.method {
        Method::Kd(settings) => settings.term.ce_share,
        Method::Gkd(settings) => settings.term.ce_share,
        Method::DistiLlm(settings) => settings.term.ce_share,
        _ => return None,
    };
    let (teacher, layers) = (config.teacher.as_ref()?, layers?);
    let is_same = match &config.student.start {
        Start::Prune(Prune::Layers(kept)) => *kept == layers,
        Start::Prune(Prune::Keep(kept)) => kept.len() == layers,
        Start::Model(student) => *student == teacher.model,
    };
    (is_same && ce_share == 0.0).then(|| {
        Warning::new(
            "same_model",
            "the student begins as the whole teacher: their distributions are the same, and there is \
             nothing to learn",
            "keep fewer layers (student.prune.layers), or name another student.model",
        )
    })
}

/// A run that needs more memory than there is. `free`: what this machine has left, if it says so.
pub(in super::super) fn too_little_memory(needed: u64, free: Option<u64>) -> Option<Warning> {
    let free = free.filter(|&free| free < needed)?;
    Some(Warning::new(
        "too_little_memory",
        format!(
            "the run needs about {} of memory, and this machine has {} left: the system may end it",
            bytes(needed),
            bytes(free)
        ),
        "end other programs, lower train.micro_batch_tokens or eval.batch, set train.recompute = true, \
         or choose smaller models",
    ))
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
    fn a_student_that_is_its_teacher_has_nothing_to_learn() {
        let of = |text: &str| same_model(&config(text), Some(2)).is_some();
        // The tests' configuration keeps two layers.
        assert!(of("method.name = \"kd\"\n"));
        assert!(of("method.name = \"gkd\"\n"));
        assert!(!of("method = { name = \"kd\", ce_share = 0.5 }\n"));
        assert!(!of("method.name = \"seqkd\"\n"));
        let three = config("method.name = \"kd\"\n");
        assert_eq!(same_model(&three, Some(3)), None);
        assert_eq!(same_model(&three, None), None);
    }

    #[test]
    fn memory_is_compared_with_what_is_left() {
        assert_eq!(too_little_memory(2_000_000_000, None), None);
        assert_eq!(too_little_memory(2_000_000_000, Some(2_000_000_000)), None);
        let found = too_little_memory(2_000_000_000, Some(1_500_000_000)).unwrap();
        assert!(
            found.what.contains("2.0 GB") && found.what.contains("1.5 GB"),
            "{found}"
        );
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
