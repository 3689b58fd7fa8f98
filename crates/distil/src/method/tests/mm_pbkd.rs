//! MM-PbKD on a small random network: both gradients, the λ = 0 limit, resuming.

use super::*;
use crate::config::{JudgeKind, JudgeSettings, MmPbkd as Settings, Rollout, Sampling};
use crate::method::judge::Judge;
use crate::method::mm_pbkd::{MmPbkd, q_network};
use crate::rollout::on_policy::{OnPolicy, Policy};

const BOUND: f64 = 1.5;

fn with(change: impl Fn(&mut Settings)) -> MmPbkd {
    let mut method = Settings {
        judge: JudgeSettings {
            judge: JudgeKind::Teacher,
            judge_noise: 0.0,
        },
        q_layers: 2,
        q_bound: BOUND,
        q_penalty: 0.3,
        q_learning_rate: 0.0,
        q_steps: 1,
        preference_weight: 0.7,
        off_policy_share: 0.4,
        lm_weight: 0.3,
        rollout: Rollout {
            max_new_tokens: 6,
            sampling: Sampling {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
            },
        },
    };
    change(&mut method);
    let student = Policy {
        how: OnPolicy {
            rollout: method.rollout,
            ..on_policy().how
        },
        precision: Precision::F32,
    };
    // A Q-function away from its start, with verdicts of both kinds of sign below.
    let q = q_network(&tiny_network(3), method.q_layers).unwrap();
    let (samples, judge) = (examples(), Judge::teacher());
    MmPbkd::new(method, teacher(2), student, samples, judge, q, training())
}

fn work(micro_batch_tokens: usize) -> Work {
    Work {
        gradients: Gradients::default(),
        micro_batch_tokens,
        step: 1,
        seed: 5,
        phases: Phases::default(),
        batch: 4,
        progress: 0.0,
        logit_squares: std::collections::BTreeMap::new(),
    }
}

fn term(report: &StepReport, name: &str) -> f64 {
    report.terms.iter().find(|(n, _)| *n == name).unwrap().1
}

/// Moment + λ · mean log σ − penalty of the Q-function on fixed pairs, and the gradient of its negative.
fn q_objective(method: &MmPbkd, micro_batch_tokens: usize) -> (f64, Vec<Vec<f32>>) {
    let student = tiny_network(1);
    let answers: Vec<Example> = examples()
        .into_iter()
        .map(|e| Example {
            response: e.response.iter().map(|id| (id + 5) % 24).collect(),
            ..e
        })
        .collect();
    let mut work = work(micro_batch_tokens);
    let mut all = method
        .pairs(&student, &[0, 1, 2, 3], &answers, &mut work)
        .unwrap();
    // One pair the other way round, one without verdict.
    let mut verdicts = all.iter_mut().flat_map(|pairs| &mut pairs.verdicts);
    *verdicts.next().unwrap() = -1.0;
    *verdicts.next().unwrap() = 0.0;
    let (mut value, mut gradients) = (0.0, Gradients::default());
    for pairs in &all {
        let found = method.q_pass(pairs, 3.0, Some(&mut gradients), &mut work);
        let found = found.unwrap();
        value += found.moment + 0.7 * found.likelihood / 3.0 - found.penalty;
    }
    (value, gradients.values())
}

#[test]
fn the_q_functions_gradient_equals_differences() {
    let mut method = with(|_| {});
    let start = method.q.frozen();
    let (_, gradients) = q_objective(&method, 10_000);
    for which in [0, 1, 2, 7, 10, gradients.len() - 1] {
        let gradient = &gradients[which];
        let entry = (0..gradient.len())
            .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
            .unwrap();
        let h = 2e-3f32;
        let mut value = |by: f32| {
            method.q = moved(&start, which, entry, by).trainable();
            q_objective(&method, 10_000).0
        };
        let slope = (value(h) - value(-h)) / (2.0 * f64::from(h));
        let got = -f64::from(gradient[entry]);
        assert!(
            got != 0.0 && (slope - got).abs() < 0.02 * got.abs() + 1e-4,
            "{which}: {slope} against {got}"
        );
    }
}

#[test]
fn the_students_gradient_equals_differences() {
    let student = tiny_network(1);
    let stepped = |network: Llama| step(&mut with(|_| {}), &network.trainable(), 10_000, 1);
    let gradients = stepped(student.clone()).gradients.values();
    for which in [0, 1, 2, 7, 10] {
        let gradient = &gradients[which];
        let entry = (0..gradient.len())
            .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
            .unwrap();
        let h = 2e-3f32;
        let loss = |by: f32| stepped(moved(&student, which, entry, by)).report.loss;
        let slope = (loss(h) - loss(-h)) / (2.0 * f64::from(h));
        let got = f64::from(gradient[entry]);
        assert!(
            (slope - got).abs() < 0.02 * got.abs() + 1e-3,
            "{which}: {slope} against {got}"
        );
    }
}

#[test]
fn micro_batches_do_not_change_either_gradient() {
    let method = with(|_| {});
    let student = tiny_network(1).trainable();
    let whole = step(&mut with(|_| {}), &student, 10_000, 1);
    let (value, q_whole) = q_objective(&method, 10_000);
    let near = |a: &[Vec<f32>], b: &[Vec<f32>]| {
        for (x, y) in a.iter().flatten().zip(b.iter().flatten()) {
            assert!((x - y).abs() < 1e-5, "{x} {y}");
        }
    };
    for tokens in [1, 25] {
        let split = step(&mut with(|_| {}), &student, tokens, 1);
        assert!((whole.report.loss - split.report.loss).abs() < 1e-5);
        near(&whole.gradients.values(), &split.gradients.values());
        let (split_value, q_split) = q_objective(&method, tokens);
        assert!((value - split_value).abs() < 1e-5);
        near(&q_whole, &q_split);
    }
}

#[test]
fn every_parameter_of_the_student_learns_and_the_q_function_moves() {
    let mut method = with(|s| s.q_learning_rate = 1e-3);
    let mut student = tiny_network(1).trainable();
    let before = method.q.frozen();
    let stepped = step(&mut method, &student, 10_000, 1);
    for ((name, _), gradient) in student.parameters().iter().zip(stepped.gradients.values()) {
        let norm: f32 = gradient.iter().map(|g| g * g).sum();
        assert!(norm.is_finite() && norm > 0.0, "{name}");
    }
    let (mut before, mut after) = (before, method.q.frozen());
    for ((name, a), (_, b)) in before.parameters().into_iter().zip(after.parameters()) {
        let values = |p: Parameter<'_>| match p {
            Parameter::Vector(t) => to_host(t.clone()),
            Parameter::Matrix(t) => to_host(t.clone()),
        };
        assert_ne!(values(a), values(b), "{name}");
    }
}

/// Without preferences the best Q-function sees the total variation: the moment rises towards
/// 2 · B · TV, averaged over the states, and never above.
#[test]
fn without_preferences_the_moment_becomes_total_variation() {
    let student = tiny_network(1);
    let teacher = tiny_network(2);
    let mut method = with(|s| {
        s.preference_weight = 0.0;
        s.q_penalty = 0.0;
        s.off_policy_share = 1.0;
        s.lm_weight = 0.0;
        s.q_learning_rate = 0.01;
        s.q_steps = 10;
    });
    let scored = crate::score::score(
        &student,
        Some((&teacher, 24)),
        &examples(),
        100,
        &mut |_| {},
    );
    let variation: Vec<f32> = scored
        .unwrap()
        .into_iter()
        .flat_map(|score| score.teacher.unwrap().tvd)
        .collect();
    let mean = variation.iter().map(|&x| f64::from(x)).sum::<f64>() / variation.len() as f64;
    let most = 2.0 * BOUND * mean;
    let student = student.trainable();
    let mut moments = Vec::new();
    for number in 1..=30 {
        let report = step(&mut method, &student, 10_000, number).report;
        moments.push(term(&report, "moment"));
    }
    let (first, last) = (moments[0], moments[29]);
    assert!(first < 0.5 * most, "{first} of {most}");
    assert!(last > 0.95 * most && last < most + 1e-4, "{last} of {most}");
}

/// The game brings the student nearer to its teacher. Where nothing keeps the Q-function from
/// saturating it cannot follow, and the student ends far from where it could be.
#[test]
fn the_student_comes_nearer_to_its_teacher() {
    let teacher = tiny_network(2);
    let distance = |student: &Llama| -> f64 {
        let (network, rows) = (student.frozen(), examples());
        let scored = crate::score::score(&network, Some((&teacher, 24)), &rows, 100, &mut |_| {});
        let scored = scored.unwrap().into_iter();
        let all: Vec<f32> = scored.flat_map(|s| s.teacher.unwrap().tvd).collect();
        all.iter().map(|&x| f64::from(x)).sum::<f64>() / all.len() as f64
    };
    let before = distance(&tiny_network(1));
    let after = |preference_weight, q_penalty| {
        let mut method = with(|s| {
            s.preference_weight = preference_weight;
            s.q_penalty = q_penalty;
            s.lm_weight = 0.0;
            s.off_policy_share = 1.0;
            s.q_learning_rate = 0.01;
            s.q_steps = 10;
        });
        let mut student = tiny_network(1).trainable();
        let mut optimizer = Optimizer::new(&training(), &student);
        for number in 1..=100 {
            let stepped = step(&mut method, &student, 10_000, number);
            optimizer.update(&mut student, stepped.gradients, 0.01, 1.0);
        }
        distance(&student)
    };
    for (preference_weight, share) in [(0.0, 0.25), (0.7, 0.6)] {
        let after = after(preference_weight, 0.05);
        assert!(
            after < share * before,
            "{preference_weight}: {before} -> {after}"
        );
    }
    let (kept, saturated) = (after(0.0, 0.05), after(0.0, 0.0));
    assert!(saturated > 2.0 * kept, "{before} -> {kept}, {saturated}");
}

#[test]
fn a_saved_game_goes_on_with_the_same_bits() {
    let change = |s: &mut Settings| s.q_learning_rate = 0.01;
    let student = tiny_network(1).trainable();
    let mut unbroken = with(change);
    for number in 1..=2 {
        step(&mut unbroken, &student, 10_000, number);
    }
    let folder = tempfile::tempdir().unwrap();
    unbroken.save(folder.path()).unwrap();
    let mut resumed = with(change);
    resumed.load(folder.path()).unwrap();
    let [a, b] = [&mut unbroken, &mut resumed].map(|m| step(m, &student, 10_000, 3));
    assert_eq!(a.report.loss.to_bits(), b.report.loss.to_bits());
    assert_eq!(a.report.terms, b.report.terms);
    assert_eq!(a.gradients.values(), b.gradients.values());
    // What is damaged is refused.
    std::fs::write(folder.path().join("q-updates.txt"), "two").unwrap();
    assert!(resumed.load(folder.path()).is_err());
    std::fs::write(folder.path().join("q-network.safetensors"), "x").unwrap();
    assert!(resumed.load(folder.path()).is_err());
}
