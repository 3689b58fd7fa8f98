//! Every method on a small random network: fixed points, independence of micro-batches, gradients
//! everywhere, a batch that is learnt by heart.

mod mm_pbkd;

use distil_kernels::to_host;
use distil_model::{Llama, Parameter};

use super::pass::Teacher;
use super::*;
use crate::config;
use crate::data::example::Example;
use crate::testing::tiny_network;
use crate::train::Optimizer;

fn examples() -> Vec<Example> {
    let example = |prompt: &[u32], response: &[u32], row| Example {
        prompt: prompt.into(),
        response: response.into(),
        row,
    };
    vec![
        example(&[3, 4, 5], &[6, 7, 0], 0),
        example(&[9, 1], &[2, 0], 1),
        example(&[11, 12], &[8, 13, 8, 14, 15, 0], 2),
        example(&[20], &[21, 22, 0], 3),
    ]
}

fn teacher(seed: u64) -> Teacher {
    Teacher {
        network: tiny_network(seed),
        vocabulary: 24,
    }
}

fn methods(teacher_seed: u64) -> Vec<(&'static str, Box<dyn Method>)> {
    let kd_of = |ce_share, temperature| {
        let settings = config::Kd {
            term: config::DivergenceTerm {
                divergence: config::Divergence::ForwardKl,
                divergence_temperature: temperature,
                ce_share,
            },
        };
        Box::new(kd::method(&settings, teacher(teacher_seed), examples())) as Box<dyn Method>
    };
    let sequence = super::dpkd::testing::sequence_form(teacher(teacher_seed), examples());
    let token = super::dpkd::testing::token_form(teacher(teacher_seed), examples());
    vec![
        ("sft", Box::new(sft::method(examples()))),
        ("kd", kd_of(0.0, 1.0)),
        ("kd with cross-entropy at T = 2", kd_of(0.3, 2.0)),
        ("dpkd, sequence", sequence),
        ("dpkd, token", token),
    ]
}

struct Stepped {
    report: StepReport,
    gradients: Gradients,
}

fn step(
    method: &mut dyn Method,
    student: &Llama,
    micro_batch_tokens: usize,
    number: usize,
) -> Stepped {
    let rows = [0, 1, 2, 3];
    let mut work = Work {
        gradients: Gradients::default(),
        micro_batch_tokens,
        step: number,
        seed: 5,
        phases: Phases::default(),
        batch: rows.len(),
    };
    let report = method.step(student, &rows, &mut work).unwrap();
    Stepped {
        report,
        gradients: work.gradients,
    }
}

/// Invariant 1: how a step is split changes its gradient by rounding only.
#[test]
fn micro_batches_do_not_change_loss_or_gradient() {
    for (name, mut method) in methods(2) {
        let student = tiny_network(1).trainable();
        let whole = step(&mut *method, &student, 10_000, 1);
        for tokens in [1, 12, 25] {
            let split = step(&mut *method, &student, tokens, 1);
            assert!(
                (whole.report.loss - split.report.loss).abs() < 1e-5,
                "{name}"
            );
            assert_eq!(whole.report.tokens, split.report.tokens, "{name}");
            for (a, b) in whole
                .gradients
                .values()
                .iter()
                .zip(split.gradients.values())
            {
                for (x, y) in a.iter().zip(&b) {
                    assert!((x - y).abs() < 1e-5, "{name}: {x} {y}");
                }
            }
        }
    }
}

/// Invariant 4: every parameter learns, the teacher does not.
#[test]
fn every_parameter_has_a_finite_gradient() {
    for (name, mut method) in methods(2) {
        let mut student = tiny_network(1).trainable();
        let stepped = step(&mut *method, &student, 10_000, 1);
        let values = stepped.gradients.values();
        let parameters = student.parameters();
        assert_eq!(values.len(), parameters.len(), "{name}");
        for ((parameter, _), gradient) in parameters.iter().zip(values) {
            let norm: f32 = gradient.iter().map(|g| g * g).sum();
            assert!(norm.is_finite() && norm > 0.0, "{name}: {parameter}");
        }
    }
}

/// Invariant 2: a student equal to its teacher has nothing to learn from the teacher.
#[test]
fn self_distillation_is_a_fixed_point() {
    let student = tiny_network(1).trainable();
    let kd = &mut methods(1)[1].1;
    let stepped = step(&mut **kd, &student, 10_000, 1);
    assert_eq!(stepped.report.loss, 0.0);
    assert!(stepped.gradients.norm() < 1e-6);
    let dpkd = &mut methods(1)[3].1;
    let report = step(&mut **dpkd, &student, 10_000, 1).report;
    let term = |name| report.terms.iter().find(|(n, _)| *n == name).unwrap().1;
    assert!(term("margin").abs() < 1e-6, "{}", term("margin"));
    assert!((term("preference") - std::f64::consts::LN_2).abs() < 1e-6);
}

/// Sixty updates on one batch: the loss falls a long way.
#[test]
fn one_batch_is_learnt_by_heart() {
    for (name, mut method) in methods(2) {
        let mut student = tiny_network(1).trainable();
        let mut optimizer = Optimizer::new(&settings(), &student);
        let (mut first, mut last) = (None, 0.0);
        for number in 1..=60 {
            let stepped = step(&mut *method, &student, 10_000, number);
            last = stepped.report.loss;
            first.get_or_insert(last);
            optimizer.update(&mut student, stepped.gradients, 0.02, 1.0);
        }
        let first = first.unwrap();
        // Soft targets and preferences have losses above zero that no student gets below.
        let limit = match name {
            "sft" | "kd" => 0.1,
            _ => 0.75,
        };
        assert!(last < limit * first, "{name}: {first} -> {last}");
    }
}

fn settings() -> config::Train {
    let text = "[student]\nmodel = \"hf:a/b\"\n[data]\ntrain = \"x.jsonl\"\n\
                [method]\nname = \"sft\"\n[train]\nsteps = 60\nweight_decay = 0.0\n";
    let path = std::path::Path::new("run.toml");
    config::Config::parse(text, path, &[]).unwrap().train
}

/// The gradient of DPKD's whole loss (two passes, weights between them) against differences of its
/// value, with the student's samples held fixed by the step's random stream.
#[test]
fn dpkd_sequence_gradient_equals_differences() {
    let method = &mut methods(2)[3].1;
    let student = tiny_network(1);
    let analytic = step(&mut **method, &student.clone().trainable(), 10_000, 1)
        .gradients
        .values();
    let h = 2e-3f32;
    let mut checked = 0;
    for which in [0, 1, 2, 7, 10] {
        let gradient = &analytic[which];
        // The largest entry: the difference's own rounding matters least there.
        let entry = (0..gradient.len())
            .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
            .unwrap();
        let mut loss = |by: f32| {
            let moved = moved(&student, which, entry, by).trainable();
            step(&mut **method, &moved, 10_000, 1).report.loss
        };
        let slope = (loss(h) - loss(-h)) / (2.0 * f64::from(h));
        let got = f64::from(gradient[entry]);
        assert!(
            (slope - got).abs() < 0.02 * got.abs() + 1e-3,
            "{which}: {slope} against {got}"
        );
        checked += 1;
    }
    assert_eq!(checked, 5);
}

fn moved(network: &Llama, which: usize, entry: usize, by: f32) -> Llama {
    let mut network = network.clone();
    let change = |mut values: Vec<f32>| {
        values[entry] += by;
        values
    };
    for (index, (_, parameter)) in network.parameters().into_iter().enumerate() {
        if index != which {
            continue;
        }
        match parameter {
            Parameter::Vector(t) => {
                let data = burn::tensor::TensorData::new(change(to_host(t.clone())), t.dims());
                *t = burn::tensor::Tensor::from_data(data, &t.device());
            }
            Parameter::Matrix(t) => {
                let data = burn::tensor::TensorData::new(change(to_host(t.clone())), t.dims());
                *t = burn::tensor::Tensor::from_data(data, &t.device());
            }
        }
    }
    network
}

/// KD of the chunked head equals the dense definition.
#[test]
fn kd_loss_equals_the_dense_definition() {
    let (student, teacher) = (tiny_network(1), tiny_network(2));
    let scores = crate::score::score(
        &student,
        Some((&teacher, 24)),
        &examples(),
        100,
        &mut |_| {},
    )
    .unwrap();
    let (mut sum, mut count) = (0.0, 0);
    for score in scores {
        let kl = score.teacher.unwrap().forward_kl;
        sum += kl.iter().map(|&x| f64::from(x)).sum::<f64>();
        count += kl.len();
    }
    let report = step(&mut *methods(2)[1].1, &student.trainable(), 12, 1).report;
    assert_eq!(report.tokens, count);
    assert!((report.loss - sum / count as f64).abs() < 1e-6);
}
