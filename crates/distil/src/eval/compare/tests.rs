//! Comparisons by hand, by simulation, and of files.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::json;

use super::*;

fn numbers(values: &[f64]) -> Numbers {
    Numbers::Sums {
        rows: values
            .iter()
            .map(|&value| vec![value, 1.0])
            .enumerate()
            .collect(),
        of: mean,
    }
}

fn between(name: &str, a: &[f64], b: &[f64]) -> Difference {
    difference(
        metric(name).unwrap(),
        Of::Greedy,
        &[numbers(a)],
        &[numbers(b)],
    )
}

/// Uniform numbers in [0, 1).
fn uniform(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[test]
fn a_difference_that_every_row_shows_is_certain() {
    let a = [0.1, 0.9, 0.4, 0.2];
    let b = a.map(|value| value + 0.05);
    let got = between("rouge_l", &a, &b);
    assert!((got.difference - 0.05).abs() < 1e-12);
    let [low, high] = got.interval.unwrap();
    assert!(
        (low - 0.05).abs() < 1e-9 && (high - 0.05).abs() < 1e-9,
        "rows are paired"
    );
    assert_eq!(got.probability_b_better, Some(1.0));
    assert!(got.p_value.unwrap() < 0.002);
    let worse = between("perplexity", &a, &b);
    assert_eq!(worse.probability_b_better, Some(0.0), "lower is better");
    assert_eq!(
        between("response_tokens", &a, &b).probability_b_better,
        None
    );
}

#[test]
fn a_model_is_no_better_than_itself() {
    let values = [0.1, 0.9, 0.4];
    let got = between("rouge_l", &values, &values);
    assert_eq!((got.difference, got.interval), (0.0, Some([0.0, 0.0])));
    assert_eq!(
        (got.probability_b_better, got.p_value),
        (Some(0.5), Some(1.0))
    );
    let one = between("rouge_l", &[0.1], &[0.2]);
    assert_eq!(
        (one.interval, one.probability_b_better, one.p_value),
        (None, None, None)
    );
}

/// Where there is no difference, p is below 0.05 in about 5 % of cases (the bootstrap over 60 rows is a
/// little bold); where there is one, it is found.
#[test]
fn p_values_are_as_likely_as_they_say() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut found = |shift: f64| {
        let significant = (0..400).filter(|_| {
            let a: Vec<f64> = (0..60).map(|_| uniform(&mut random)).collect();
            let b: Vec<f64> = a
                .iter()
                .map(|a| 0.5 * a + 0.5 * uniform(&mut random) + shift)
                .collect();
            between("rouge_l", &a, &b).p_value.unwrap() < 0.05
        });
        significant.count() as f64 / 400.0
    };
    let by_chance = found(0.0);
    assert!((0.03..0.09).contains(&by_chance), "{by_chance}");
    let real = found(0.15);
    assert!(real > 0.95, "{real}");
}

#[test]
fn seeds_are_averaged_row_by_row() {
    let runs = [numbers(&[0.0, 1.0]), numbers(&[1.0, 0.0])];
    let flat = [numbers(&[0.5, 0.5])];
    let got = difference(metric("rouge_l").unwrap(), Of::Sampled, &runs, &flat);
    assert_eq!((got.a, got.b, got.interval), (0.5, 0.5, Some([0.0, 0.0])));
}

/// Writes an evaluation of `values` rows with this in its file.
fn write(
    folder: &Path,
    name: &str,
    values: &[f64],
    change: &dyn Fn(&mut Value),
) -> std::path::PathBuf {
    let mut file = json!({
        "format": 1, "model": name, "data_sha256": "d", "weights_sha256": name,
        "tokenizer_sha256": "t", "teacher_sha256": null, "precision": "f32", "template": "chat",
        "max_new_tokens": 5, "rows": values.len(), "runs": [{"seed": null, "temperature": 0.0}],
        "metrics": {"rouge_l": {}, "sacrebleu": {}, "perplexity": {}, "distinct_1": {}},
        "by_row": {"perplexity": {"rows": [0, 1], "sums": [[-2.0, 2.0], [-values[0], 1.0]]}},
    });
    change(&mut file);
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, file.to_string()).unwrap();
    let lines = values.iter().enumerate().map(|(row, value)| {
        let line = json!({
            "run": 0, "row": row, "prompt": "p", "response": format!("one two three four {value}"),
            "finish_reason": "stop", "tokens": 2, "references": ["one two three four five"],
            "metrics": {"rouge_l": value}, "token_ids": [1, 2],
        });
        format!("{line}\n")
    });
    fs::write(beside(&path, "answers"), lines.collect::<String>()).unwrap();
    path
}

#[test]
fn files_are_compared_metric_by_metric() {
    let folder = tempfile::tempdir().unwrap();
    let same = |_: &mut Value| {};
    let a = write(folder.path(), "a", &[0.25, 0.5, 0.75], &same);
    let b = write(folder.path(), "b", &[0.5, 0.5, 1.0], &|file| {
        file["template"] = json!("alpaca");
        file["tokenizer_sha256"] = json!("u");
    });
    let got = compare(&a, &b).unwrap();
    let shape: Vec<(&str, Of)> = got
        .differences
        .iter()
        .map(|d| (d.metric.as_str(), d.of))
        .collect();
    let expected = [
        ("rouge_l", Of::Greedy),
        ("sacrebleu", Of::Greedy),
        ("perplexity", Of::References),
        ("distinct_1", Of::Greedy),
    ];
    assert_eq!(shape, expected);
    assert!((got.differences[0].difference - 1.0 / 6.0).abs() < 1e-12);
    let perplexity = &got.differences[2];
    assert!((perplexity.a - (2.25_f64 / 3.0).exp()).abs() < 1e-12);
    assert!((perplexity.b - (2.5_f64 / 3.0).exp()).abs() < 1e-12);
    assert!(got.differences[1].interval.is_some(), "from the texts");
    assert_eq!(
        got.differences[3].interval, None,
        "a text said twice is less distinct"
    );
    assert_eq!(got.notes[0], "template: chat in A, alpaca in B");
    assert!(got.notes[1].contains("perplexity"), "{:?}", got.notes);
    assert_eq!(got.notes.len(), 2);
    assert_eq!((got.differences[0].rows, got.differences[2].rows), (3, 2));
    assert_eq!((got.a.as_str(), got.b.as_str(), got.rows), ("a", "b", 3));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, rows: &[f64], change: &dyn Fn(&mut Value)| {
        write(folder.path(), name, rows, change)
    };
    let a = path("a", &[0.25, 0.5, 0.75], &|_| {});
    let other = path("other", &[0.25, 0.5, 0.75], &|file| {
        file["data_sha256"] = json!("e")
    });
    let short = path("short", &[0.25, 0.5], &|_| {});
    let none = path("none", &[0.25, 0.5, 0.75], &|file| {
        file["metrics"] = json!({"chrf": {}})
    });
    let newer = path("newer", &[0.25, 0.5, 0.75], &|file| {
        file["format"] = json!(2)
    });
    let old = folder.path().join("old.json");
    fs::write(&old, "{\"metrics\": {\"rouge_l\": 0.5}}").unwrap();
    let gone = path("gone", &[0.25, 0.5, 0.75], &|_| {});
    fs::remove_file(beside(&gone, "answers")).unwrap();
    let cut = path("cut", &[0.25, 0.5, 0.75], &|_| {});
    fs::write(beside(&cut, "answers"), "{\"run\": 0,").unwrap();
    let uneven = path("uneven", &[0.25, 0.5, 0.75], &|file| {
        file["runs"] = json!([{"seed": 1, "temperature": 1.0}, {"seed": 2, "temperature": 1.0}]);
    });
    // The second run without its last row.
    let lines = fs::read_to_string(beside(&uneven, "answers")).unwrap();
    let second = lines.replace("\"run\":0", "\"run\":1");
    let second: String = second
        .lines()
        .take(2)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(beside(&uneven, "answers"), lines + &second).unwrap();
    let sampled = path("sampled", &[0.25, 0.5, 0.75], &|file| {
        file["runs"] = json!([{"seed": 1, "temperature": 1.0}]);
    });
    for (a, b) in [(&sampled, &uneven), (&uneven, &sampled)] {
        let error = compare(a, b).unwrap_err().to_string();
        let expected = "uneven.answers.jsonl: not every run has rouge_l once for each row";
        assert!(error.contains(expected), "{error}");
    }
    for (b, expected) in [
        (&other, "different data"),
        (&short, "rouge_l has row 2"),
        (&none, "no metric in common"),
        (&newer, "its format is 2, not 1"),
        (&old, "not an evaluation"),
        (&gone, "gone.answers.jsonl"),
        (&cut, "line 1"),
    ] {
        for (a, b) in [(&a, b), (b, &a)] {
            let error = compare(a, b).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.is_input());
        }
    }
}
