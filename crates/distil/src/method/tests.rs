//! Every method on a small random network: fixed points, independence of micro-batches, gradients
//! everywhere, a batch that is learnt by heart.

mod mm_pbkd;
mod sampled;

use distil_kernels::{Precision, to_host};
use distil_model::{Llama, Parameter};

use super::pass::Teacher;
use super::*;
use crate::config;
use crate::data::example::{Example, PromptExample};
use crate::rollout::on_policy::{OnPolicy, Policy};
use crate::step::{Gradients, Optimizer, Phases};
use crate::testing::{moved, tiny_network};

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
    Teacher::live(tiny_network(seed), 24)
}

fn on_policy() -> Policy {
    Policy {
        how: OnPolicy {
            rollout: config::Rollout {
                max_new_tokens: 6,
                sampling: config::Sampling {
                    temperature: 1.0,
                    top_k: 0,
                    top_p: 1.0,
                },
            },
            stop_ids: vec![0],
            batch: 4,
        },
        precision: Precision::F32,
    }
}

fn prompts() -> Vec<PromptExample> {
    let prompt = |example: Example| PromptExample {
        prompt: example.prompt,
        text: String::new(),
        references: Vec::new(),
        row: example.row,
    };
    examples().into_iter().map(prompt).collect()
}

/// The `[method]` table with its defaults and these keys.
fn configured(keys: &str) -> config::Method {
    let corpus = match keys.contains("corpus") {
        true => "data.corpus = \"c.jsonl\"\n",
        false => "",
    };
    let text = format!(
        "teacher.model = \"x.gguf\"\nstudent.prune.layers = 1\ndata.train = \"a.jsonl\"\n\
         {corpus}[method]\n{keys}\n"
    );
    let path = std::path::Path::new("run.toml");
    config::Config::parse(&text, path, &[]).unwrap().method
}

/// Methods whose loss is no measure of progress: its value says what was sampled.
fn policy_gradients(teacher_seed: u64) -> Vec<(&'static str, Box<dyn Method>)> {
    let minillm = |keys: &str| {
        let config::Method::MiniLlm(settings) = configured(keys) else {
            panic!("{keys}")
        };
        Box::new(minillm::MiniLlmMethod {
            settings,
            teacher: teacher(teacher_seed),
            student: on_policy(),
            prompts: prompts(),
            texts: examples().into_iter().rev().collect(),
        }) as Box<dyn Method>
    };
    let llmr = |keys: &str, templates: Vec<Vec<PromptExample>>| {
        let config::Method::Llmr(settings) = configured(keys) else {
            panic!("{keys}")
        };
        Box::new(llmr::LlmrMethod {
            settings,
            teacher: teacher(teacher_seed),
            student: on_policy(),
            prompts: prompts(),
            templates,
            model: None,
            behaviour: None,
        }) as Box<dyn Method>
    };
    let pbkd = |keys: &str| {
        let config::Method::Pbkd(settings) = configured(&format!(
            "name = \"pbkd\"\nlm_weight = 0\nreward_layers = 2\nreward_learning_rate = 0.01\n{keys}"
        )) else {
            panic!("{keys}")
        };
        Box::new(pbkd::testing::pbkd(
            settings,
            teacher(teacher_seed),
            on_policy(),
            examples(),
            &training(),
        )) as Box<dyn Method>
    };
    let name = "name = \"llmr\"\n";
    let all = format!(
        "{name}value = \"soft\"\nbaseline = \"min_variance\"\nbootstrap_every = 2\n\
         normalize_advantage = true\nweight_clip = 1.5\nflatten_weight = 0.1\nsync_every = 4"
    );
    vec![
        ("minillm", minillm("name = \"minillm\"\nlm_weight = 0")),
        (
            "minillm without its remedies",
            minillm(
                "name = \"minillm\"\nteacher_mix = 0\nsingle_step = false\nlength_normalize = false\n\
                 lm_weight = 0",
            ),
        ),
        ("minillm with its text", minillm("name = \"minillm\"")),
        ("llmr", llmr(name, Vec::new())),
        ("llmr, all variants", llmr(&all, Vec::new())),
        (
            "llmr, two templates",
            llmr(name, vec![prompts(), prompts().into_iter().rev().collect()]),
        ),
        (
            "pbkd, online",
            pbkd("judge = \"teacher\"\niteration_steps = 3\nkl_weight = 0.1"),
        ),
        (
            "pbkd, offline",
            pbkd(
                "judge = \"teacher\"\nmode = \"offline\"\nsamples_per_prompt = 2\n\
                 baseline = \"teacher\"",
            ),
        ),
        (
            "pbkd by likelihood",
            pbkd("judge = \"teacher_likelihood\"\niteration_steps = 5\nsamples_per_prompt = 4"),
        ),
    ]
}

fn methods(teacher_seed: u64) -> Vec<(&'static str, Box<dyn Method>)> {
    let kd_of = |ce_share, temperature| {
        let term = config::DivergenceTerm {
            divergence: config::Divergence::ForwardKl,
            divergence_temperature: temperature,
            ce_share,
        };
        Box::new(kd::method(term, teacher(teacher_seed), examples())) as Box<dyn Method>
    };
    let dpkd = |keys: &str| {
        let text = format!("name = \"dpkd\"\nbeta = 0.5\nlm_weight = 0.5\n{keys}");
        let config::Method::Dpkd(config::Dpkd {
            form: config::DpkdForm::Sequence(form),
            beta,
        }) = configured(&text)
        else {
            panic!("{keys}")
        };
        let teacher = teacher(teacher_seed);
        super::dpkd::testing::sequence_form(form, beta, teacher, on_policy(), examples())
    };
    let token = |keys: &str| {
        let text = format!("name = \"dpkd\"\nform = \"token\"\nbeta = 0.5\n{keys}");
        let config::Method::Dpkd(config::Dpkd {
            form: config::DpkdForm::Token(form),
            beta,
        }) = configured(&text)
        else {
            panic!("{keys}")
        };
        super::dpkd::testing::token_form(form, beta, teacher(teacher_seed), examples())
    };
    let gkd = |student_share| {
        let settings = config::Gkd {
            term: config::DivergenceTerm {
                divergence: config::Divergence::Jsd { jsd_beta: 0.5 },
                divergence_temperature: 1.0,
                ce_share: 0.0,
            },
            student_share,
            rollout: on_policy().how.rollout,
        };
        let method = gkd::method(&settings, teacher(teacher_seed), on_policy(), examples());
        Box::new(method) as Box<dyn Method>
    };
    let distillm = || {
        let settings = config::DistiLlm {
            term: config::DivergenceTerm {
                divergence: config::Divergence::SkewKl { skew_alpha: 0.1 },
                divergence_temperature: 1.0,
                ce_share: 0.0,
            },
            threshold_step: 1.0,
            threshold_tolerance: 0.0,
            replay_rows: 8,
            rollout: on_policy().how.rollout,
        };
        let mut method = distillm::method(settings, teacher(teacher_seed), on_policy(), examples());
        // The validation loss has risen: the student's own responses are used.
        for loss in [1.0, 2.0] {
            method.evaluated(&[("forward_kl".into(), loss)]);
        }
        Box::new(method) as Box<dyn Method>
    };
    vec![
        ("sft", Box::new(sft::method(examples()))),
        ("kd", kd_of(0.0, 1.0)),
        ("kd with cross-entropy at T = 2", kd_of(0.3, 2.0)),
        ("dpkd, sequence", dpkd("")),
        ("dpkd, token", token("")),
        (
            "dpkd, token, ipo",
            token("token_loss = \"ipo\"\nreference = \"none\""),
        ),
        ("dpkd, token, with a corpus", token("corpus_weight = 0.5")),
        ("dpkd with a corpus", dpkd("lm_source = \"corpus\"")),
        ("dpo", dpkd("loss = \"dpo\"\nlabel_smoothing = 0.1")),
        ("ipo", dpkd("loss = \"ipo\"\nipo_tau = 1.0")),
        ("cpo", dpkd("loss = \"cpo\"")),
        (
            "simpo on the data's pairs",
            dpkd("loss = \"simpo\"\npairs = \"data\""),
        ),
        ("gkd, data", gkd(0.0)),
        ("gkd, on-policy", gkd(1.0)),
        ("distillm", distillm()),
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
    seeded_step(method, student, micro_batch_tokens, number, 5)
}

fn seeded_step(
    method: &mut dyn Method,
    student: &Llama,
    micro_batch_tokens: usize,
    number: usize,
    seed: u64,
) -> Stepped {
    let rows = [0, 1, 2, 3];
    let mut work = Work {
        progress: 0.0,
        logit_squares: std::collections::BTreeMap::new(),
        gradients: Gradients::default(),
        micro_batch_tokens,
        step: number,
        seed,
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
    let all = || methods(2).into_iter().chain(policy_gradients(2));
    // A method with a state of its own begins anew for every way to split.
    for index in 0..all().count() {
        let fresh = || all().nth(index).unwrap();
        let (name, mut method) = fresh();
        let student = tiny_network(1).trainable();
        let whole = step(&mut *method, &student, 10_000, 1);
        for tokens in [1, 12, 25] {
            let split = step(&mut *fresh().1, &student, tokens, 1);
            let (a, b) = (whole.report.loss, split.report.loss);
            // 1e-5 and, for a loss above 10, what f32 can hold of it.
            assert!(
                (a - b).abs() < f64::max(1e-5, 1e-6 * a.abs()),
                "{name}: {a} {b}"
            );
            assert_eq!(whole.report.tokens, split.report.tokens, "{name}");
            for (a, b) in whole
                .gradients
                .values()
                .iter()
                .zip(split.gradients.values())
            {
                // Burn's own sums are less exact than the kernels': their rounding shows where an
                // entry is small against the largest of its parameter.
                let largest = a.iter().fold(1.0f32, |most, x| most.max(x.abs()));
                for (x, y) in a.iter().zip(&b) {
                    let scale = match distil_kernels::is_portable() {
                        false => x.abs().max(1.0),
                        true => largest,
                    };
                    assert!((x - y).abs() < 1e-5 * scale, "{name}: {x} {y}");
                }
            }
        }
    }
}

/// Invariant 4: every parameter learns, the teacher does not.
#[test]
fn every_parameter_has_a_finite_gradient() {
    for (name, mut method) in methods(2).into_iter().chain(policy_gradients(2)) {
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

/// A student whose factors are rounded to bf16 has a finite gradient everywhere, which points where
/// that of f32 does; what is sampled is the same. The token form of DPKD trains on the student's
/// likeliest token: where two are nearly alike, rounding chooses another.
#[test]
fn a_step_in_bf16_goes_the_way_of_one_in_f32() {
    let all = || methods(2).into_iter().chain(policy_gradients(2));
    for index in 0..all().count() {
        let gradient = |precision| {
            let (name, mut method) = all().nth(index).unwrap();
            let student = tiny_network(1).in_precision(precision).trainable();
            let stepped = step(&mut *method, &student, 10_000, 1);
            assert!(stepped.report.loss.is_finite(), "{name}");
            (name, stepped.gradients.values())
        };
        let (name, exact) = gradient(Precision::F32);
        let (_, rounded) = gradient(Precision::Bf16);
        assert_eq!(exact.len(), rounded.len(), "{name}");
        for gradient in &rounded {
            let norm: f32 = gradient.iter().map(|g| g * g).sum();
            assert!(norm.is_finite() && norm > 0.0, "{name}");
        }
        let (exact, rounded) = (exact.concat(), rounded.concat());
        assert_ne!(exact, rounded, "{name}");
        let product = |a: &[f32], b: &[f32]| -> f64 {
            let both = a.iter().zip(b);
            both.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
        };
        let norms = product(&exact, &exact) * product(&rounded, &rounded);
        let cosine = product(&exact, &rounded) / norms.sqrt();
        let smooth = !name.starts_with("dpkd, token");
        assert!(cosine > 0.99 || !smooth, "{name}: {cosine}");
    }
}

/// A packed teacher says what it says unpacked; the student learns the same of it.
#[test]
fn a_packed_teacher_equals_one_with_rounded_factors() {
    let term = config::DivergenceTerm {
        divergence: config::Divergence::ForwardKl,
        divergence_temperature: 1.0,
        ce_share: 0.0,
    };
    let student = tiny_network(1).trainable();
    let gradient = |network: Llama| {
        let teacher = Teacher::live(network, 24);
        let mut method = kd::method(term, teacher, examples());
        step(&mut method, &student, 10_000, 1)
            .gradients
            .values()
            .concat()
    };
    let rounded = tiny_network(2).in_precision(Precision::Bf16);
    let [exact, plain, packed] = [tiny_network(2), rounded.clone(), rounded.packed()].map(gradient);
    assert_ne!(exact, plain);
    for (a, b) in plain.iter().zip(packed) {
        assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{a} {b}");
    }
    let unchanged = [tiny_network(2), tiny_network(2).packed()].map(gradient);
    assert_eq!(unchanged[0], unchanged[1], "f32 is not packed");
}

/// Invariant 2: a student equal to its teacher has nothing to learn from the teacher.
#[test]
fn self_distillation_is_a_fixed_point() {
    let student = tiny_network(1).trainable();
    let kd = &mut methods(1)[1].1;
    let stepped = step(&mut **kd, &student, 10_000, 1);
    // Burn's own operations differ in the last bit with and without a record for the gradient.
    match distil_kernels::is_portable() {
        false => assert_eq!(stepped.report.loss, 0.0),
        true => assert!(stepped.report.loss.abs() < 1e-7),
    }
    assert!(stepped.gradients.norm() < 1e-6);
    let dpkd = &mut methods(1)[3].1;
    let report = step(&mut **dpkd, &student, 10_000, 1).report;
    let term = |name| report.terms.iter().find(|(n, _)| *n == name).unwrap().1;
    assert!(term("margin").abs() < 1e-6, "{}", term("margin"));
    assert!((term("preference") - std::f64::consts::LN_2).abs() < 1e-6);
}

/// Of MiniLLM too: no ratio, no return, no single-step term.
#[test]
fn minillm_leaves_a_student_that_is_its_teacher() {
    for (name, mut method) in policy_gradients(1).into_iter().take(2) {
        let student = tiny_network(1).trainable();
        let norm = step(&mut *method, &student, 10_000, 1).gradients.norm();
        assert!(norm < 1e-5, "{name}: {norm}");
    }
}

/// Reading every prompt as it is, through a template, is the same as without templates.
#[test]
fn llmr_with_the_datas_own_template_is_llmr() {
    let student = tiny_network(1).trainable();
    let config::Method::Llmr(settings) = configured("name = \"llmr\"") else {
        panic!()
    };
    let step_with = |templates: Vec<Vec<PromptExample>>| {
        let mut method = llmr::LlmrMethod {
            settings: settings.clone(),
            teacher: teacher(2),
            student: on_policy(),
            prompts: prompts(),
            templates,
            model: None,
            behaviour: None,
        };
        step(&mut method, &student, 10_000, 1).gradients.values()
    };
    let plain = step_with(Vec::new()).concat();
    for (a, b) in plain
        .iter()
        .zip(step_with(vec![prompts(), prompts()]).concat())
    {
        assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{a} {b}");
    }
}

/// What policy gradients are for rises (or falls) from the first twenty steps to the last twenty: on
/// average over seeds by so many standard errors that by luck alone it happens with probability 0.01
/// (Student's t with one degree of freedom less than seeds). How strongly a method's number follows
/// what is trained decides how many seeds that takes.
#[test]
fn policy_gradients_improve_what_they_are_for() {
    const STEPS: usize = 100;
    let wanted = [
        ("minillm", "kl_k1", -1.0, 4, 4.54),
        ("llmr", "return", 1.0, 4, 4.54),
        // The judge comes to prefer the student's responses more often.
        ("pbkd by likelihood", "teacher_preferred", -1.0, 20, 2.54),
    ];
    for (wanted, term, sign, seeds, errors) in wanted {
        let mut changes = Vec::new();
        for seed in 0..seeds {
            let methods = policy_gradients(2);
            let (_, mut method) = methods
                .into_iter()
                .find(|(name, _)| *name == wanted)
                .unwrap();
            let mut student = tiny_network(1).trainable();
            let mut optimizer = Optimizer::new(&training(), &student);
            let (mut first, mut last) = (0.0, 0.0);
            for number in 1..=STEPS {
                let stepped = seeded_step(&mut *method, &student, 10_000, number, seed);
                let terms = &stepped.report.terms;
                let value = terms.iter().find(|(name, _)| *name == term).unwrap().1;
                match number {
                    1..=20 => first += value,
                    number if number > STEPS - 20 => last += value,
                    _ => {}
                }
                optimizer.update(&mut student, stepped.gradients, 0.01, 1.0);
            }
            changes.push(sign * (last - first));
        }
        let count = changes.len() as f64;
        let mean = changes.iter().sum::<f64>() / count;
        let squares = changes.iter().map(|change| (change - mean).powi(2));
        let error = (squares.sum::<f64>() / (count - 1.0) / count).sqrt();
        assert!(mean > errors * error, "{wanted}: {changes:?}");
    }
}

/// Sixty updates on one batch: the loss falls a long way.
#[test]
fn one_batch_is_learnt_by_heart() {
    for (name, mut method) in methods(2) {
        let mut student = tiny_network(1).trainable();
        let mut optimizer = Optimizer::new(&training(), &student);
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

/// Without a language-modelling term beside it, every preference loss by itself comes to order all
/// of a batch's pairs.
#[test]
fn preferences_alone_are_learnt() {
    for keys in [
        "",
        "loss = \"dpo\"",
        "loss = \"ipo\"\nipo_tau = 1.0",
        "loss = \"cpo\"",
        "loss = \"simpo\"",
        "reference = \"none\"",
        "label_smoothing = 0.1",
    ] {
        let text = format!("name = \"dpkd\"\nbeta = 0.5\nlm_weight = 0\npairs = \"data\"\n{keys}");
        let config::Method::Dpkd(config::Dpkd {
            form: config::DpkdForm::Sequence(form),
            beta,
        }) = configured(&text)
        else {
            panic!("{keys}")
        };
        let mut method =
            super::dpkd::testing::sequence_form(form, beta, teacher(2), on_policy(), examples());
        let mut student = tiny_network(1).trainable();
        let mut optimizer = Optimizer::new(&training(), &student);
        let (mut first, mut last) = (None, (0.0, 0.0));
        for number in 1..=60 {
            let stepped = step(&mut *method, &student, 10_000, number);
            let term = |name| {
                let terms = &stepped.report.terms;
                terms.iter().find(|(n, _)| *n == name).unwrap().1
            };
            last = (stepped.report.loss, term("preference_accuracy"));
            first.get_or_insert(last);
            optimizer.update(&mut student, stepped.gradients, 0.02, 1.0);
        }
        let first = first.unwrap();
        assert!(last.0 < first.0, "{keys}: {first:?} -> {last:?}");
        assert_eq!(last.1, 1.0, "{keys}: {first:?} -> {last:?}");
    }
}

fn training() -> config::Train {
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
