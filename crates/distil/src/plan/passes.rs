//! How often a step takes each network over each text, counted in forward passes.
//!
//! A backward pass is two forward passes' work. A network's layers and its head are counted apart: a
//! policy gradient looks at the logits first and differentiates them afterwards, and the moment of
//! MM-PbKD multiplies three heads several times with hidden states that it has.
//!
//! | method | student's layers, head | teacher's layers, head |
//! |---|---|---|
//! | one objective a position | 3, 3 | 1, 1; layers 0 where they are cached |
//! | preference loss | 3, 1 + 3 | 1, 1 if it is the reference |
//! | policy gradient | 3, 1 + 3; layers 1 + 3 if a step is several micro-batches | 1, 1, and 1 more of the head for KL(q‖p) |
//! | MM-PbKD, k Q steps | 1 + 3, 2k + 1 + 6 | 1, 2k + 1 |
//!
//! The networks beside them: PbKD's reward model, whose head is a dot product, goes over the pairs 1 + 3
//! times and over the game's samples 3 times in each of its steps, and over the samples once more when the
//! student's answers are paid; MM-PbKD's Q-function 3 and 8 times in each step and 2 and 3 times more.
//!
//! Not counted, because nobody knows it beforehand or because it is small: rounds of PbKD's fit
//! after the first (there are at most five), the few positions that only diagnostics look at, and
//! responses that LLMR leaves out.

use super::texts::{
    Sequences, Text, objective_texts, opponent_pairs, opponent_samples, trained_texts,
};
use crate::config::{Dpkd, DpkdForm, JudgeKind, Method, Pbkd, PbkdMode};
use crate::method::MEASURED_PAIRS;

/// A forward and a backward pass.
const TRAINED: f64 = 3.0;

/// Forward passes' work on a text for each row of a step, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Passes {
    pub(super) text: Text,
    /// Through the layers, prompt and response.
    pub(super) layers: f64,
    /// Of the head, at the response's positions.
    pub(super) head: f64,
}

fn of(sequences: Sequences, layers: f64, head: f64) -> impl Iterator<Item = Passes> {
    sequences.into_iter().map(move |(text, count)| Passes {
        text,
        layers: count * layers,
        head: count * head,
    })
}

/// The student's. `split`: whether a step is several micro-batches.
pub(super) fn student_passes(method: &Method, split: bool) -> Vec<Passes> {
    let objective = objective_texts(method);
    let mut term = trained_texts(method);
    term.drain(..objective.len());
    let (layers, head) = match method {
        Method::MiniLlm(_) | Method::Llmr(_) | Method::Pbkd(_) => {
            (TRAINED + f64::from(u8::from(split)), 1.0 + TRAINED)
        }
        Method::Dpkd(Dpkd {
            form: DpkdForm::Sequence(_),
            ..
        }) => (TRAINED, 1.0 + TRAINED),
        Method::MmPbkd(settings) => (
            1.0 + TRAINED,
            (2 * settings.q_steps + 1) as f64 + 2.0 * TRAINED,
        ),
        _ => (TRAINED, TRAINED),
    };
    of(objective, layers, head)
        .chain(of(term, TRAINED, TRAINED))
        .collect()
}

/// The teacher's. `cached`: whether its hidden states on the training texts are kept.
pub(super) fn teacher_passes(method: &Method, cached: bool) -> Vec<Passes> {
    let objective = objective_texts(method);
    match method {
        Method::Sft | Method::SeqKd(_) => Vec::new(),
        Method::Dpkd(Dpkd {
            form: DpkdForm::Sequence(form),
            ..
        }) if !form.loss.needs_reference() => Vec::new(),
        Method::MiniLlm(settings) => {
            let head = 1.0 + f64::from(u8::from(settings.single_step));
            of(objective, 1.0, head).collect()
        }
        Method::Llmr(settings) => {
            let templates = 1.0 + settings.templates.len() as f64;
            of(objective, templates, templates).collect()
        }
        Method::Pbkd(settings) => {
            // The judge asks for the likelihood of both samples of every new pair.
            let judged = match &settings.mode {
                PbkdMode::Online { judge, .. } => likelihood(judge.judge, 2.0),
                PbkdMode::Offline { .. } => 0.0,
            };
            let kl = f64::from(u8::from(settings.kl_weight > 0.0));
            of(objective, 1.0 + judged, 1.0 + judged + kl).collect()
        }
        Method::MmPbkd(settings) => {
            let looks = (2 * settings.q_steps + 1) as f64;
            let judged = likelihood(settings.judge.judge, 1.0);
            of(objective, 1.0, looks + judged).collect()
        }
        _ => {
            let kept = kept_text(method);
            let read = match method {
                Method::Dpkd(Dpkd {
                    form: DpkdForm::Token(_),
                    ..
                }) => trained_texts(method),
                _ => objective,
            };
            let layers = |text| f64::from(u8::from(!(cached && text == kept)));
            of(read, 1.0, 1.0)
                .map(|passes| Passes {
                    layers: passes.layers * layers(passes.text),
                    ..passes
                })
                .collect()
        }
    }
}

/// The text that a cached teacher reads once.
pub(super) fn kept_text(method: &Method) -> Text {
    match method.reads_responses() {
        true => Text::Data,
        false => Text::Sampled,
    }
}

fn likelihood(judge: JudgeKind, passes: f64) -> f64 {
    match judge {
        JudgeKind::TeacherLikelihood => passes,
        JudgeKind::RougeL | JudgeKind::Teacher => 0.0,
    }
}

/// Those of the network that the student plays against.
pub(super) fn third_passes(method: &Method) -> Vec<Passes> {
    match method {
        Method::Pbkd(settings) => {
            let steps = settings.reward_steps as f64;
            let fits = match settings.mode {
                PbkdMode::Online {
                    iteration_steps, ..
                } => settings.fit_steps as f64 / iteration_steps.max(1) as f64,
                PbkdMode::Offline { .. } => 0.0,
            };
            let learnt = 1.0 - settings.held_out_share;
            let game = TRAINED * steps * learnt + 1.0;
            let pairs = (1.0 + TRAINED) * (steps + fits);
            of(opponent_samples(method), game, 0.0)
                .chain(of(opponent_pairs(method), pairs, 0.0))
                .collect()
        }
        Method::MmPbkd(settings) => {
            let steps = settings.q_steps as f64;
            let (layers, head) = (TRAINED * steps + 2.0, 8.0 * steps + 3.0);
            of(opponent_samples(method), layers, head).collect()
        }
        _ => Vec::new(),
    }
}

/// Pairs that PbKD's reward model is measured on in a step, however many rows the step has.
pub(super) fn measured_pairs(method: &Method) -> f64 {
    let Method::Pbkd(settings) = method else {
        return 0.0;
    };
    // After the reward's steps; around a fit twice more.
    let times = match settings.mode {
        PbkdMode::Online {
            iteration_steps, ..
        } => 1.0 + 2.0 / iteration_steps.max(1) as f64,
        PbkdMode::Offline { .. } => 1.0,
    };
    times * MEASURED_PAIRS as f64
}

/// Steps of `train.batch` pairs each in which offline PbKD fits its reward model, once.
pub(super) fn first_fit(method: &Method) -> f64 {
    match method {
        Method::Pbkd(
            settings @ Pbkd {
                mode: PbkdMode::Offline { .. },
                ..
            },
        ) => settings.fit_steps as f64 * (1.0 + TRAINED),
        _ => 0.0,
    }
}

/// Pairs for each row whose likelihood offline PbKD's judge asks for, once.
pub(super) fn first_judged(method: &Method) -> f64 {
    match method {
        Method::Pbkd(
            settings @ Pbkd {
                mode: PbkdMode::Offline { .. },
                ..
            },
        ) => settings.mode.judge().map_or(0.0, |judge| {
            likelihood(judge.judge, settings.samples_per_prompt as f64)
        }),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, method};
    use super::*;
    use crate::config::TeacherInSteps;

    fn total(passes: &[Passes]) -> (f64, f64) {
        let sum = |of: fn(&Passes) -> f64| passes.iter().map(of).sum();
        (sum(|p| p.layers), sum(|p| p.head))
    }

    #[test]
    fn every_method_has_its_passes_a_row() {
        // Layers and head of the student, of the teacher.
        for (text, student, teacher) in [
            ("name = \"sft\"", (3.0, 3.0), (0.0, 0.0)),
            ("name = \"kd\"", (3.0, 3.0), (1.0, 1.0)),
            (
                "name = \"kd\"\nresponses = \"teacher\"",
                (3.0, 3.0),
                (1.0, 1.0),
            ),
            (
                "name = \"seqkd\"\nsamples_per_prompt = 4",
                (3.0, 3.0),
                (0.0, 0.0),
            ),
            (
                "name = \"gkd\"\nstudent_share = 0.25",
                (3.0, 3.0),
                (1.0, 1.0),
            ),
            ("name = \"distillm\"", (3.0, 3.0), (1.0, 1.0)),
            // The policy gradient, and cross-entropy on as many texts of the data.
            ("name = \"minillm\"", (6.0, 7.0), (1.0, 2.0)),
            (
                "name = \"minillm\"\nlm_weight = 0.0\nsingle_step = false",
                (3.0, 4.0),
                (1.0, 1.0),
            ),
            ("name = \"dpkd\"", (6.0, 8.0), (2.0, 2.0)),
            (
                "name = \"dpkd\"\nlm_source = \"data\"",
                (9.0, 11.0),
                (2.0, 2.0),
            ),
            ("name = \"dpkd\"\nloss = \"cpo\"", (6.0, 8.0), (0.0, 0.0)),
            ("name = \"dpkd\"\npairs = \"data\"", (6.0, 8.0), (2.0, 2.0)),
            ("name = \"dpkd\"\nform = \"token\"", (3.0, 3.0), (1.0, 1.0)),
            ("name = \"llmr\"", (3.0, 4.0), (1.0, 1.0)),
            (
                "name = \"llmr\"\ntemplates = [\"chat\", \"alpaca\"]",
                (3.0, 4.0),
                (3.0, 3.0),
            ),
            (
                "name = \"pbkd\"\nsamples_per_prompt = 3\nkl_weight = 0.0",
                (12.0, 15.0),
                (3.0, 3.0),
            ),
            (
                "name = \"pbkd\"\nlm_weight = 0.0\nkl_weight = 0.5",
                (3.0, 4.0),
                (1.0, 2.0),
            ),
            (
                "name = \"pbkd\"\njudge = \"teacher_likelihood\"\nkl_weight = 0.0",
                (6.0, 7.0),
                (3.0, 3.0),
            ),
            ("name = \"mm_pbkd\"\nq_steps = 1", (8.0, 18.0), (2.0, 6.0)),
            (
                "name = \"mm_pbkd\"\nq_steps = 2\njudge = \"teacher_likelihood\"",
                (8.0, 22.0),
                (2.0, 12.0),
            ),
        ] {
            let method = method(text);
            let found = (
                total(&student_passes(&method, false)),
                total(&teacher_passes(&method, false)),
            );
            assert_eq!(found, (student, teacher), "{text}");
        }
    }

    /// What the forward pass before the weights cost again, where its activations were not kept.
    #[test]
    fn a_policy_gradient_in_several_micro_batches_goes_forward_twice() {
        let llmr = method("name = \"llmr\"");
        assert_eq!(total(&student_passes(&llmr, true)), (4.0, 4.0));
        let kd = method("name = \"kd\"");
        assert_eq!(total(&student_passes(&kd, true)), (3.0, 3.0));
    }

    #[test]
    fn a_cached_teacher_has_its_head_left() {
        let gkd = method("name = \"gkd\"\nstudent_share = 0.25");
        assert_eq!(total(&teacher_passes(&gkd, true)), (0.25, 1.0));
        let kd = method("name = \"kd\"\nresponses = \"teacher\"");
        assert_eq!(total(&teacher_passes(&kd, true)), (0.0, 1.0));
        let corpus = "data.corpus = \"c.jsonl\"\n[method]\nname = \"dpkd\"\n\
                      form = \"token\"\ncorpus_weight = 0.5\n";
        let dpkd = config(corpus).method;
        assert_eq!(total(&teacher_passes(&dpkd, true)), (1.0, 2.0));
    }

    #[test]
    fn a_teacher_that_the_steps_do_not_need_has_no_passes() {
        for (text, cached) in [
            ("name = \"sft\"", false),
            ("name = \"seqkd\"", false),
            ("name = \"kd\"", false),
            ("name = \"kd\"", true),
            ("name = \"kd\"\nresponses = \"teacher\"", true),
            ("name = \"gkd\"\nstudent_share = 0.25", true),
            ("name = \"gkd\"\nstudent_share = 0.0", true),
            ("name = \"dpkd\"", false),
            ("name = \"dpkd\"\nloss = \"cpo\"", false),
            ("name = \"dpkd\"\nform = \"token\"", true),
            ("name = \"minillm\"", false),
            ("name = \"llmr\"", false),
            ("name = \"pbkd\"", false),
            ("name = \"mm_pbkd\"", false),
        ] {
            let method = method(text);
            let (layers, head) = total(&teacher_passes(&method, cached));
            let expected = match (layers > 0.0, head > 0.0) {
                (false, false) => TeacherInSteps::Nothing,
                (false, true) => TeacherInSteps::Head,
                _ => TeacherInSteps::Whole,
            };
            assert_eq!(method.teacher_in_steps(cached), expected, "{text}");
        }
    }

    #[test]
    fn the_game_has_passes_of_its_own() {
        // Three reward steps, each on a pair (1 + 3) and on both samples (3), of which a fifth is held
        // out; a fit of 20 steps every 10; the samples once more when they are paid.
        let online = "name = \"pbkd\"\niteration_steps = 10\nfit_steps = 20\nreward_steps = 3\n\
                      held_out_share = 0.2";
        let online = method(online);
        let (layers, head) = total(&third_passes(&online));
        let expected = 2.0 * (3.0 * 3.0 * 0.8 + 1.0) + 2.0 * 4.0 * (3.0 + 2.0);
        assert!((layers - expected).abs() < 1e-9, "{layers} {expected}");
        assert_eq!(head, 0.0);
        assert_eq!(measured_pairs(&online), 1.2 * MEASURED_PAIRS as f64);
        assert_eq!((first_fit(&online), first_judged(&online)), (0.0, 0.0));

        let offline = "name = \"pbkd\"\nmode = \"offline\"\nfit_steps = 7\n\
                       judge = \"teacher_likelihood\"\nsamples_per_prompt = 2";
        let offline = method(offline);
        assert_eq!(measured_pairs(&offline), MEASURED_PAIRS as f64);
        assert_eq!((first_fit(&offline), first_judged(&offline)), (28.0, 2.0));

        // Each of two Q steps 3 through the layers and 8 of the head, both samples.
        let moment = method("name = \"mm_pbkd\"\nq_steps = 2");
        assert_eq!(total(&third_passes(&moment)), (16.0, 38.0));
        assert!(third_passes(&method("name = \"llmr\"")).is_empty());
    }
}
