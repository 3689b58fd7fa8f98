//! The protocol on models whose every probability is written down.

use super::*;
use crate::eval::evaluate::evaluate;
use crate::eval::testing::{STUDENT, TEACHER, close, model, probabilities, set, settings};

fn protocol(metrics: &[&str], runs: &[Run]) -> Protocol {
    Protocol {
        metrics: metrics.iter().map(|&name| name.to_owned()).collect(),
        runs: runs.to_vec(),
        buckets: vec![1, 2],
        exposure_lengths: None,
        token_rows: 0,
        max_new_tokens: 5,
        batch: 4,
        micro_batch_tokens: 64,
    }
}

fn measured(teacher: bool, rows: &[(&str, &[&str])], protocol: &Protocol) -> Result<Measured> {
    let (student, other) = (model(STUDENT), model(TEACHER));
    let rows = set(&student, rows, None).unwrap();
    let mut kept = Kept::nothing(&protocol.runs);
    let teacher = teacher.then_some(&other);
    measure(
        &student,
        teacher,
        &rows,
        protocol,
        &mut kept,
        &mut |_, _, _| {},
    )
}

const ROWS: &[(&str, &[&str])] = &[
    ("what", &["blue", "red"]),
    ("who", &["is red"]),
    ("what", &[]),
    ("what", &["red is blue"]),
];

#[test]
fn runs_are_summarised_by_seed_and_greedy_beside_them() {
    let runs = [Run::GREEDY, Run::sampled(3), Run::sampled(4)];
    let metrics = [
        "rouge_l",
        "perplexity",
        "sacrebleu",
        "distinct_1",
        "response_tokens",
    ];
    let got = measured(false, ROWS, &protocol(&metrics, &runs)).unwrap();
    assert_eq!((got.rows, got.answers.len()), (4, 3));
    let of = |name: &str| {
        &got.metrics
            .iter()
            .find(|(other, _)| other == name)
            .unwrap()
            .1
    };
    // As one evaluation for each run gives it.
    let student = model(STUDENT);
    let rows = set(&student, ROWS, None).unwrap();
    for name in metrics {
        let summary = of(name);
        let alone = |run: Run| {
            let settings = Settings {
                sampling: Sampling {
                    temperature: run.temperature,
                    ..GREEDY
                },
                seed: run.seed.unwrap_or(0),
                ..settings(&[name])
            };
            evaluate(&student, None, &rows, &settings, &mut |_, _| {})
                .unwrap()
                .get(name)
        };
        if name == "perplexity" {
            let value = summary.value.unwrap();
            assert_eq!(
                (Some(value.value), &summary.greedy),
                (alone(Run::GREEDY), &None)
            );
            assert!(value.interval.is_some() && summary.sampled.is_none());
            continue;
        }
        assert_eq!(
            summary.greedy.map(|e| e.value),
            alone(Run::GREEDY),
            "{name}"
        );
        let sampled = summary.sampled.as_ref().unwrap();
        let values: Vec<f64> = runs[1..].iter().filter_map(|run| alone(*run)).collect();
        assert_eq!(sampled.by_seed, values, "{name}");
        close(Some(sampled.mean), (values[0] + values[1]) / 2.0);
        let deviation = (values[0] - values[1]).abs() / 2.0_f64.sqrt();
        close(sampled.standard_deviation, deviation);
        // A text said twice is less distinct: no rows are drawn twice.
        assert_eq!(sampled.interval.is_some(), name != "distinct_1", "{name}");
    }
    let of_rows = of("rouge_l").sampled.as_ref().unwrap();
    let [low, high] = of_rows.interval.unwrap();
    assert!(low <= of_rows.mean && of_rows.mean <= high && low < high);
    assert_eq!(
        got.signatures["sacrebleu"]
            .as_str()
            .unwrap()
            .split('|')
            .next(),
        Some("nrefs:var")
    );
    // Numbers of one answer stand beside it.
    let first = &got.answers[0][0].metrics;
    assert_eq!(
        (first["rouge_l"].as_f64(), first["response_tokens"].as_f64()),
        (Some(1.0), Some(2.0))
    );
    assert!(first.get("sacrebleu").is_none());
}

#[test]
fn buckets_are_by_words_of_the_first_reference() {
    let got = measured(
        false,
        ROWS,
        &protocol(&["exact_match", "perplexity"], &[Run::GREEDY]),
    )
    .unwrap();
    let shape: Vec<(usize, Option<usize>, usize)> = got
        .buckets
        .iter()
        .map(|bucket| (bucket.from, bucket.to, bucket.rows))
        .collect();
    // The row without a reference is in none.
    assert_eq!(shape, [(0, Some(1), 1), (1, Some(2), 1), (2, None, 1)]);
    let value = |index: usize| got.buckets[index].metrics[0].1.greedy.unwrap();
    assert_eq!(
        (value(0).value, value(1).value, value(2).value),
        (1.0, 0.0, 0.0)
    );
    assert_eq!(
        value(0).interval,
        None,
        "one row does not say how rows differ"
    );
    // what → blue (¼), blue → end (½).
    close(
        got.buckets[0].metrics[1].1.value.map(|e| e.value),
        8_f64.sqrt(),
    );
    let none = protocol(&["exact_match"], &[Run::GREEDY]);
    let none = Protocol {
        buckets: Vec::new(),
        ..none
    };
    assert!(measured(false, ROWS, &none).unwrap().buckets.is_empty());
}

#[test]
fn what_the_models_say_of_answers_by_hand() {
    let asked = protocol(&["reward", "implicit_reward", "tvd"], &[Run::GREEDY]);
    let got = measured(true, &[("what", &["red"]), ("who", &["is"])], &asked).unwrap();
    let (p, q) = (probabilities(TEACHER, 1), probabilities(STUDENT, 1));
    // what → red (student ½, teacher ¼), red → end (both ½); the other row is the same for both.
    let implicit = &got.answers[0];
    close(implicit[0].metrics["implicit_reward"].as_f64(), 2_f64.ln());
    close(implicit[1].metrics["implicit_reward"].as_f64(), 0.0);
    close(got.metrics[1].1.greedy.map(|e| e.value), 2_f64.ln() / 2.0);
    // r_1 = z(what, red) − max z(red, ·), r_2 = z(red, end); z are centred log-probabilities.
    let centred = |p: &[f64]| -> Vec<f64> {
        let mean = p.iter().map(|p| p.ln()).sum::<f64>() / p.len() as f64;
        p.iter().map(|p| p.ln() - mean).collect()
    };
    let (what, red) = (centred(&p), centred(&probabilities(TEACHER, 3)));
    let largest = red.iter().copied().fold(f64::MIN, f64::max);
    close(
        implicit[0].metrics["reward"].as_f64(),
        what[3] - largest + red[2],
    );
    // Two of four tokens have a distance: those after "what"; "who" and "is" are alike.
    let tvd = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0;
    close(got.metrics[2].1.value.map(|e| e.value), tvd / 4.0);
    assert!(tvd > 0.2);
}

#[test]
fn texts_are_shown_token_by_token() {
    let asked = Protocol {
        token_rows: 1,
        exposure_lengths: Some(vec![1, 2]),
        ..protocol(&["rouge_l"], &[Run::GREEDY, Run::sampled(1)])
    };
    let got = measured(true, &[("what", &["red red"]), ("who", &["is"])], &asked).unwrap();
    let shown: Vec<(usize, Vec<&str>)> = got
        .tokens
        .iter()
        .map(|view| {
            (
                view.row,
                view.tokens.iter().map(|token| token.trim()).collect(),
            )
        })
        .collect();
    let expected = [
        (0, vec!["red", "</s>"]),
        (0, vec!["blue", "</s>"]),
        (0, vec!["red", "red", "</s>"]),
    ];
    assert_eq!(shown, expected);
    for view in &got.tokens {
        let lengths = [
            view.logprobs.len(),
            view.teacher_logprobs.len(),
            view.reward.len(),
        ];
        assert_eq!(lengths, [view.tokens.len(); 3]);
    }
    close(Some(f64::from(got.tokens[0].logprobs[0])), 0.5_f64.ln());
    close(
        Some(f64::from(got.tokens[0].teacher_logprobs[0])),
        0.25_f64.ln(),
    );
    let bias = got.exposure_bias.unwrap();
    // Before the first token both stand at the prompt: "what" differs, "who" does not.
    let (p, q) = (probabilities(TEACHER, 1), probabilities(STUDENT, 1));
    let kl: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
    close(bias.regret[0], kl / 2.0);
    close(bias.expected[0], kl / 2.0);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let exposed = |runs: &[Run]| Protocol {
        exposure_lengths: Some(vec![1]),
        ..protocol(&["perplexity"], runs)
    };
    for (teacher, protocol, expected) in [
        (
            false,
            protocol(&["reward"], &[Run::GREEDY]),
            "there is none; name a teacher",
        ),
        (true, protocol(&["rouge_l"], &[]), "none are generated"),
        (false, exposed(&[Run::sampled(1)]), "relative to a teacher"),
        (true, exposed(&[Run::GREEDY]), "temperature 1"),
    ] {
        let error = measured(teacher, ROWS, &protocol).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let alone = measured(false, ROWS, &protocol(&["perplexity"], &[Run::GREEDY])).unwrap();
    assert!(
        alone.answers.is_empty() && alone.runs.is_empty(),
        "nobody asked for answers"
    );
}

#[test]
fn one_row_has_values_and_no_intervals() {
    let runs = [Run::GREEDY, Run::sampled(1)];
    let got = measured(
        false,
        &ROWS[..1],
        &protocol(&["rouge_l", "perplexity"], &runs),
    )
    .unwrap();
    let summary = &got.metrics[0].1;
    assert_eq!(summary.greedy.unwrap().interval, None);
    let sampled = summary.sampled.as_ref().unwrap();
    assert_eq!((sampled.interval, sampled.standard_deviation), (None, None));
    assert_eq!(got.metrics[1].1.value.unwrap().interval, None);
}

/// What other rows and other seeds would give: rows that differ by ±½ about the truth, and as much
/// chance again in each sample. About 95 % of the intervals hold the truth; without the chance in the
/// samples they would be too narrow by √(1 + ½) and hold it in less than 90 %.
#[test]
fn the_interval_has_the_chance_of_sampling_in_it() {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut centred = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
    let mut holds = 0;
    for _ in 0..400 {
        let rows: Vec<f64> = (0..60).map(|_| centred()).collect();
        let mut run = || {
            let sampled = rows.iter().map(|row| vec![row + centred(), 1.0]);
            Numbers::Sums {
                rows: sampled.enumerate().collect(),
                of: crate::eval::metric::mean,
            }
        };
        let (one, other) = (run(), run());
        let [low, high] = interval_of(&[&one, &other]).unwrap();
        holds += usize::from(low <= 0.0 && 0.0 <= high);
    }
    assert!((368..=392).contains(&holds), "{holds} of 400");
}

#[test]
fn how_many_rows_a_metric_is_of() {
    let got = measured(
        false,
        ROWS,
        &protocol(&["rouge_l", "perplexity", "eos_rate"], &[Run::GREEDY]),
    )
    .unwrap();
    let rows: Vec<usize> = got.metrics.iter().map(|(_, s)| s.rows).collect();
    assert_eq!((got.rows, rows), (4, vec![3, 3, 4]), "one has no reference");
}
