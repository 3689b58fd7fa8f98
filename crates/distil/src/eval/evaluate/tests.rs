//! Evaluations by hand, on models whose every probability is written down.

use super::*;
use crate::eval::testing::{STUDENT, TEACHER, close, model, probabilities, set, settings};

#[test]
fn answers_by_hand() {
    let student = model(STUDENT);
    // The student says "red" and stops, or "is is is is is" until the limit.
    let rows: &[(&str, &[&str])] = &[
        ("what", &["blue", "red"]),
        ("who", &["is red"]),
        ("what", &[]),
        ("what", &["Red!"]),
    ];
    let set = set(&student, rows, None).unwrap();
    let asked = settings(&["response_tokens", "rouge_l", "eos_rate", "exact_match"]);
    let mut heard = Vec::new();
    let result = evaluate(&student, None, &set, &asked, &mut |done, total| {
        heard.push((done, total));
    })
    .unwrap();
    let answers: Vec<(&str, usize, bool)> = result
        .answers
        .iter()
        .map(|answer| (answer.response.as_str(), answer.tokens, answer.ended()))
        .collect();
    let expected = [
        ("red", 2, true),
        ("is is is is is", 5, false),
        ("red", 2, true),
        ("red", 2, true),
    ];
    assert_eq!(answers, expected);
    close(result.get("response_tokens"), 11.0 / 4.0);
    close(result.get("eos_rate"), 0.75);
    // Of the three rows with references; of the second, P = 1/5 and R = 1/2.
    close(result.get("rouge_l"), (1.0 + 2.0 / 7.0 + 1.0) / 3.0);
    close(result.get("exact_match"), 2.0 / 3.0);
    assert_eq!(result.rows, 4);
    assert_eq!(heard, [(1, 4), (2, 4), (3, 4), (4, 4)]);
}

#[test]
fn scores_by_hand() {
    let (student, teacher) = (model(STUDENT), model(TEACHER));
    let set = set(
        &student,
        &[("what", &["blue", "red"]), ("what", &["red"])],
        None,
    )
    .unwrap();
    let asked = settings(&["perplexity", "reverse_kl", "forward_kl"]);
    let mut last = None;
    let result = evaluate(
        &student,
        Some(&teacher),
        &set,
        &asked,
        &mut |done, total| {
            last = Some((done, total));
        },
    )
    .unwrap();
    // what → blue (¼), blue → end (½), what → red (½), red → end (½).
    close(result.get("perplexity"), 32_f64.powf(0.25));
    // The models differ only after "what": two of four tokens.
    let (p, q) = (probabilities(TEACHER, 1), probabilities(STUDENT, 1));
    let kl = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
    close(result.get("forward_kl"), kl(&p, &q) / 2.0);
    close(result.get("reverse_kl"), kl(&q, &p) / 2.0);
    assert!(kl(&p, &q) > 0.1);
    let names: Vec<&str> = result
        .metrics
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["perplexity", "reverse_kl", "forward_kl"]);
    assert_eq!((result.rows, last), (2, Some((2, 2))));
    assert!(result.answers.is_empty(), "no metric asked for answers");
}

#[test]
fn answers_may_have_another_precision_than_scores() {
    let student = model(STUDENT);
    let set = set(&student, &[("what", &["blue", "red"])], None).unwrap();
    let of = |student: &Model, sampling_precision| {
        let settings = Settings {
            sampling_precision,
            ..settings(&["perplexity", "rouge_l"])
        };
        evaluate(student, None, &set, &settings, &mut |_, _| {}).unwrap()
    };
    let exact = of(&student, None);
    assert_eq!(of(&student, Some(Precision::F32)), exact);
    let answers = of(&student, Some(Precision::Bf16));
    assert_eq!(answers.get("perplexity"), exact.get("perplexity"));
    // One token stands far above the others: rounding does not change which.
    assert_eq!(answers.answers, exact.answers);
    let network = student.network.clone();
    let network = network.in_precision(Precision::Bf16.into());
    let rounded = of(&student.with_network(network), Some(Precision::F32));
    assert_eq!(rounded.answers, exact.answers);
    assert_ne!(rounded.get("perplexity"), exact.get("perplexity"));
}

#[test]
fn samples_depend_on_the_row_not_on_the_batch() {
    let student = model(STUDENT);
    let set = set(&student, &[("what", &[] as &[&str]); 6], None).unwrap();
    let drawn = |batch| {
        let sampling = Sampling {
            temperature: 1.0,
            ..GREEDY
        };
        let settings = Settings {
            sampling,
            batch,
            ..settings(&["eos_rate"])
        };
        evaluate(&student, None, &set, &settings, &mut |_, _| {})
            .unwrap()
            .answers
    };
    assert_eq!(drawn(1), drawn(4));
    let first = &drawn(6)[0].response;
    assert!(drawn(6).iter().any(|answer| answer.response != *first));
}

#[test]
fn rows_over_a_limit_are_not_measured() {
    let student = model(STUDENT);
    let long = "red red red red red";
    let rows: &[(&str, &[&str])] = &[("what", &[long]), (long, &["red"]), ("who", &["red"])];
    let whole = set(&student, rows, None).unwrap();
    assert_eq!((whole.prompts.len(), whole.examples.len()), (2, 1));
    let first = set(&student, rows, Some(1)).unwrap();
    assert_eq!((first.prompts.len(), first.examples.len()), (1, 0));
    assert!(set(&student, rows, Some(0)).is_err());
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let student = model(STUDENT);
    let answered = set(&student, &[("what", &["red"])], None).unwrap();
    let asked_only = set(&student, &[("what", &[])], None).unwrap();
    let texts = EvalSet {
        prompts: Vec::new(),
        ..answered.clone()
    };
    for (set, name, expected) in [
        (&answered, "rouge", "there is no metric \"rouge\""),
        (&answered, "forward_kl", "there is none; name a teacher"),
        (&asked_only, "rouge_l", "no row has one"),
        (&asked_only, "perplexity", "no row has one"),
        (&texts, "eos_rate", "no row has a prompt"),
        (&EvalSet::default(), "perplexity", "no row has one"),
    ] {
        let error = evaluate(&student, None, set, &settings(&[name]), &mut |_, _| {
            panic!("nothing is computed")
        });
        let error = error.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.is_input());
    }
}
