//! The gradients of methods that sample, against differences of a loss that is made another way: from
//! the scores of the same responses, with the weights held.

use burn::tensor::Device;

use super::kept_states::KeptStates;
use super::*;
use crate::config::StateValue;
use crate::objective::minillm::{Sampled, step_weights};
use crate::reward::induced_rewards;
use crate::rollout::Mixture;
use crate::rollout::on_policy::Answers;
use crate::score::{TokenScores, score};

fn work() -> Work {
    Work {
        gradients: Gradients::default(),
        micro_batch_tokens: 10_000,
        step: 2,
        seed: 5,
        phases: Phases::default(),
        batch: 4,
        progress: 0.0,
        logit_squares: std::collections::BTreeMap::new(),
    }
}

fn scores(student: &Llama, teacher: &Teacher, responses: &[Example]) -> Vec<TokenScores> {
    let teacher = Some((teacher.network(), teacher.vocabulary));
    score(student, teacher, responses, 10_000, &mut |_| {}).unwrap()
}

/// The largest entry of every parameter's gradient, against the difference of `loss`.
fn equals_differences(name: &str, gradients: &Gradients, loss: &dyn Fn(&Llama) -> f64) {
    let student = tiny_network(1);
    let step = 2e-3f32;
    for (which, gradient) in gradients.values().iter().enumerate() {
        let entry = (0..gradient.len())
            .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
            .unwrap();
        let at = |by: f32| loss(&moved(&student, which, entry, by));
        let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
        let got = f64::from(gradient[entry]);
        assert!(got.abs() > 1e-3, "{name}, {which}: nothing to compare");
        assert!(
            (slope - got).abs() < 0.02 * got.abs() + 1e-3,
            "{name}, {which}: {slope} against {got}"
        );
    }
}

fn ask(student: &Policy, network: &Llama, mixture: Option<Mixture<'_>>) -> Answers {
    let prompts = prompts();
    let asks = minillm::asks(&prompts, &[0, 1, 2, 3]);
    match mixture {
        Some(mixture) => student.answer_mixed(network, mixture, &asks, &mut work()),
        None => student.answer(network, &asks, &mut work()),
    }
    .unwrap()
}

/// A lagging policy, top-k, clipping, dropped responses: all that stands between a reward and the
/// student.
#[test]
fn llmrs_gradient_equals_differences() {
    let config::Method::Llmr(settings) = configured(
        "name = \"llmr\"\nvalue = \"expected\"\nbaseline = \"none\"\nreturn_scale = 2.0\n\
         weight_clip = 0.5\nunfinished = \"drop\"\nsync_every = 4\ntop_k = 5\nmax_new_tokens = 8",
    ) else {
        panic!()
    };
    let mut sampler = on_policy();
    sampler.how.rollout = settings.rollout;
    sampler.how.stop_ids = vec![0, 5, 12];
    let behaviour = tiny_network(3);
    let mut method = llmr::LlmrMethod {
        settings,
        teacher: teacher(2),
        student: sampler.clone(),
        prompts: prompts(),
        templates: Vec::new(),
        model: None,
        behaviour: Some(behaviour.clone()),
    };
    let (student, mut work) = (tiny_network(1), work());
    let report = method
        .step(&student.clone().trainable(), &[0, 1, 2, 3], &mut work)
        .unwrap();

    let answers = ask(&sampler, &behaviour, None);
    let ended: Vec<usize> = (0..4).filter(|&i| answers.finished[i]).collect();
    let share = ended.len() as f64 / 4.0;
    assert!(
        0.0 < share && share < 1.0,
        "some are dropped, some are not: {:?}",
        answers.examples
    );
    let kept: Vec<Example> = ended.iter().map(|&i| answers.examples[i].clone()).collect();
    let readings = [kept.clone()];
    let value = StateValue::Expected;
    let network = tiny_network(2);
    let rewards = induced_rewards(
        &network,
        24,
        &[0, 5, 12],
        &readings,
        value,
        10_000,
        &mut |_| {},
    )
    .unwrap();
    let of_teacher = teacher(2);
    let now = scores(&student, &of_teacher, &kept);
    let (mut weights, mut clipped, mut ratios) = (Vec::new(), 0, Vec::new());
    for ((&i, reward), score) in ended.iter().zip(&rewards).zip(&now) {
        let tokens = reward.returns.iter().zip(&score.logprobs);
        let tokens = tokens.zip(&answers.logprobs[i]);
        let row: Vec<f64> = tokens
            .map(|((g, &q), &b)| {
                let ratio = f64::from(q - b).exp();
                ratios.push(ratio);
                let weight = g / 2.0 * ratio;
                clipped += usize::from(weight.abs() > 0.5);
                weight.clamp(-0.5, 0.5)
            })
            .collect();
        weights.push(row);
    }
    let count = ratios.len();
    assert!(
        0 < clipped && clipped < count,
        "{clipped} of {count}: {weights:?}"
    );
    assert!(ratios.iter().any(|ratio| (ratio - 1.0).abs() > 0.1));
    assert_eq!(report.tokens, count);
    let loss = |network: &Llama| -> f64 {
        let scores = scores(network, &of_teacher, &kept);
        let rows = scores.iter().zip(&weights);
        let sum: f64 = rows
            .flat_map(|(score, weights)| score.logprobs.iter().zip(weights))
            .map(|(&q, w)| -w * f64::from(q))
            .sum();
        share * sum / count as f64
    };
    assert!((loss(&student) - report.loss).abs() < 1e-5);
    equals_differences("llmr", &work.gradients, &loss);
}

/// On its own samples an untruncated student has ratios of one; a policy that lags keeps to the
/// weights it was made of until it is due.
#[test]
fn a_lagging_policy_stays_what_it_was_until_it_is_due() {
    let config::Method::Llmr(settings) = configured("name = \"llmr\"\nsync_every = 3") else {
        panic!()
    };
    let mut method = llmr::LlmrMethod {
        settings,
        teacher: teacher(2),
        student: on_policy(),
        prompts: prompts(),
        templates: Vec::new(),
        model: None,
        behaviour: None,
    };
    let ratio = |method: &mut llmr::LlmrMethod, student: u64, number: usize| {
        let student = tiny_network(student).trainable();
        let report = step(method, &student, 10_000, number).report;
        let found = report.terms.iter().find(|(name, _)| *name == "ratio_max");
        found.unwrap().1
    };
    assert!((ratio(&mut method, 1, 1) - 1.0).abs() < 1e-4, "fresh");
    assert!(
        (ratio(&mut method, 3, 2) - 1.0).abs() > 0.1,
        "of the first student"
    );
    assert!((ratio(&mut method, 3, 3) - 1.0).abs() > 0.1, "still");
    assert!((ratio(&mut method, 3, 4) - 1.0).abs() < 1e-4, "refreshed");
}

/// Whatever the student is trained in, it answers in the precision of its samples. Scored in that of
/// its training, each token has the ratio of the two.
#[test]
fn a_student_answers_in_the_precision_of_its_samples() {
    use Precision::{Bf16, F32};
    let logprobs = |trained: Precision, sampled: Precision| {
        let network = tiny_network(1).in_precision(trained).trainable();
        let mut student = on_policy();
        student.precision = sampled;
        ask(&student, &network, None).logprobs
    };
    let [exact, rounded] = [F32, Bf16].map(|precision| logprobs(precision, precision));
    assert_ne!(exact, rounded);
    assert_eq!(logprobs(Bf16, F32), exact);
    assert_eq!(logprobs(F32, Bf16), rounded);

    let config::Method::Llmr(settings) = configured("name = \"llmr\"") else {
        panic!()
    };
    let furthest = |sampled: Precision| {
        let mut method = llmr::LlmrMethod {
            settings: settings.clone(),
            teacher: teacher(2),
            student: on_policy(),
            prompts: prompts(),
            templates: Vec::new(),
            model: None,
            behaviour: None,
        };
        method.student.precision = sampled;
        let report = step(&mut method, &tiny_network(1).trainable(), 10_000, 1).report;
        let found = report.terms.iter().find(|(name, _)| *name == "ratio_max");
        found.unwrap().1 - 1.0
    };
    assert!(furthest(F32).abs() < 1e-4, "{}", furthest(F32));
    let off = furthest(Bf16);
    assert!(off > 1e-4 && off < 0.2, "{off}");
}

/// Teacher-mixed sampling, importance weights on both terms, length-normalised returns.
#[test]
fn minillms_gradient_equals_differences() {
    let config::Method::MiniLlm(settings) =
        configured("name = \"minillm\"\nteacher_mix = 0.3\nlm_weight = 0")
    else {
        panic!()
    };
    let of_teacher = teacher(2);
    let mut method = minillm::MiniLlmMethod {
        settings,
        teacher: of_teacher.clone(),
        student: on_policy(),
        prompts: prompts(),
        texts: Vec::new(),
    };
    let (student, mut work) = (tiny_network(1), work());
    let report = method
        .step(&student.clone().trainable(), &[0, 1, 2, 3], &mut work)
        .unwrap();
    let mixture = Mixture {
        network: of_teacher.network(),
        share: 0.3,
        vocabulary: 24,
    };
    let answers = ask(&on_policy(), &student, Some(mixture));
    let doubles = |row: &[f32]| -> Vec<f64> { row.iter().map(|&x| f64::from(x)).collect() };
    let now = scores(&student, &of_teacher, &answers.examples);
    let weights: Vec<_> = now
        .iter()
        .zip(&answers.logprobs)
        .map(|(score, behaviour)| {
            let sampled = Sampled {
                student: doubles(&score.logprobs),
                teacher: doubles(&score.teacher.as_ref().unwrap().logprobs),
                behaviour: doubles(behaviour),
            };
            step_weights(&sampled, true, true)
        })
        .collect();
    let count: usize = weights.iter().map(|row| row.single.len()).sum();
    assert!(
        weights
            .iter()
            .flat_map(|row| &row.single)
            .any(|w| (w - 1.0).abs() > 0.05),
        "the mixture is not the student"
    );
    let loss = |network: &Llama| -> f64 {
        let scores = scores(network, &of_teacher, &answers.examples);
        let mut sum = 0.0;
        for (score, weights) in scores.iter().zip(&weights) {
            let kl = &score.teacher.as_ref().unwrap().reverse_kl;
            for (t, &kl) in kl.iter().enumerate() {
                sum += weights.single[t] * f64::from(kl)
                    - weights.policy[t] * f64::from(score.logprobs[t]);
            }
        }
        sum / count as f64
    };
    assert!((loss(&student) - report.loss).abs() < 1e-5);
    equals_differences("minillm", &work.gradients, &loss);
}

/// Invariant 3: a cached teacher equals the live one, whatever the micro-batches, on text that it has
/// read; broken off and gone on with, its file is the same.
#[test]
fn a_cached_teacher_equals_the_live_one() {
    let text = "teacher.model = \"x.gguf\"\nteacher.cache = true\nstudent.prune.layers = 1\n\
                data.train = \"a.jsonl\"\nmethod.name = \"kd\"\n";
    let path = std::path::Path::new("run.toml");
    let config = config::Config::parse(text, path, &[]).unwrap();
    let home = tempfile::tempdir().unwrap();
    let many = || -> Vec<Example> { (0..33).flat_map(|_| examples()).collect() };
    let read_by = |name: &str, before: &[u8]| {
        let folder = home.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        if !before.is_empty() {
            let partial = folder.join("teacher-states.partial.f32");
            std::fs::write(partial, before).unwrap();
        }
        let interrupt = AtomicBool::new(false);
        let mut preparation = Preparation {
            config: &config,
            folder: &folder,
            interrupt: &interrupt,
            events: &mut |_| {},
        };
        let (live, device) = (teacher(2), Device::flex());
        let read = || Ok(live.clone());
        let states = KeptStates::prepare(16, &device, read, &many(), &mut preparation);
        let states = states.unwrap().unwrap();
        let again = || -> crate::Result<Teacher> { panic!("all is read already") };
        KeptStates::prepare(16, &device, again, &many(), &mut preparation).unwrap();
        // Of these texts it is asked without its network.
        let cached = Teacher::cached(states, None, live.network().head(), 24);
        let bytes = std::fs::read(folder.join("teacher-states.f32")).unwrap();
        (cached, bytes)
    };
    let (cached, bytes) = read_by("whole", &[]);
    // 33 times 14 response tokens of width 16.
    assert_eq!(bytes.len(), 33 * 14 * 16 * 4);
    // One whole chunk of 64 texts, with a mark, and a part of the next one, which is made again.
    let mut before = bytes[..16 * 14 * 16 * 4 + 100].to_vec();
    before[0] ^= 1;
    let gone_on = read_by("broken", &before).1;
    assert_eq!(gone_on[0], before[0], "the whole chunk is kept");
    assert_eq!(gone_on[1..], bytes[1..]);

    let student = tiny_network(1).trainable();
    let term = config::DivergenceTerm {
        divergence: config::Divergence::ReverseKl,
        divergence_temperature: 2.0,
        ce_share: 0.2,
    };
    let of = |teacher: Teacher, tokens: usize| {
        let mut method = kd::method(term, teacher, many());
        // The rows in another order than they were read in.
        let mut work = work();
        work.micro_batch_tokens = tokens;
        let report = method.step(&student, &[2, 0, 131, 70], &mut work).unwrap();
        (report.loss, work.gradients.values().concat())
    };
    let (loss, gradient) = of(teacher(2), 10_000);
    for tokens in [10_000, 12] {
        let (kept, of_kept) = of(cached.clone(), tokens);
        assert!((loss - kept).abs() < 1e-5, "{loss} {kept}");
        for (a, b) in gradient.iter().zip(of_kept) {
            assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{a} {b}");
        }
    }
}

/// Invariant 2, for whatever measures a distance at given states.
#[test]
fn divergences_leave_a_student_that_is_its_teacher() {
    let student = tiny_network(1).trainable();
    let mut seen = 0;
    for (name, mut method) in methods(1) {
        let distance = name.starts_with("gkd") || name == "distillm" || name == "kd";
        if !distance {
            continue;
        }
        let stepped = step(&mut *method, &student, 10_000, 1);
        assert!(stepped.report.loss.abs() < 1e-6, "{name}");
        assert!(stepped.gradients.norm() < 1e-5, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 4);
}
