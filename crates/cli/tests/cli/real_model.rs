//! The real SmolLM2-135M-Instruct, from the catalogue into the user's own cache (the one test that
//! may need a network): greedy text equal to transformers', kept by `oracles/smollm2_greedy.py`.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

fn golden() -> Value {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/smollm2_greedy.json");
    serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap()
}

#[test]
fn greedy_text_of_the_real_model_equals_transformers() {
    let golden = golden();
    let prompts = golden["prompts"].as_array().unwrap();
    assert_eq!(prompts.len(), 20);
    let home = tempfile::tempdir().unwrap();
    let rows: String = prompts
        .iter()
        .map(|p| format!("{}\n", json!({"prompt": p["prompt"]})))
        .collect();
    std::fs::write(home.path().join("prompts.jsonl"), rows).unwrap();
    let new_tokens = golden["max_new_tokens"].to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_distil"))
        .args([
            "generate",
            "smollm2-135m-instruct",
            "--data",
            "prompts.jsonl",
        ])
        .args(["--temperature", "0", "--max-new-tokens", &new_tokens])
        .current_dir(home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<Value> = said
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(
        answers.len(),
        20,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for (answer, golden) in answers.iter().zip(prompts) {
        assert_eq!(answer["response"], golden["text"], "{}", golden["prompt"]);
    }
}

/// What rounding does to the log-probability of a token, on average: the bound that the book states.
#[test]
fn log_probabilities_in_bf16_and_int8_stay_near_those_in_f32() {
    let golden = golden();
    let home = tempfile::tempdir().unwrap();
    let rows: String = golden["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            format!(
                "{}\n",
                json!({"prompt": p["prompt"], "response": p["text"]})
            )
        })
        .collect();
    std::fs::write(home.path().join("rows.jsonl"), rows).unwrap();
    let scores = |precision: &str| -> Vec<f64> {
        let output = Command::new(env!("CARGO_BIN_EXE_distil"))
            .args(["score", "smollm2-135m-instruct", "--data", "rows.jsonl"])
            .args(["--out", precision, "--precision", precision])
            .current_dir(home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let text = std::fs::read_to_string(home.path().join(precision)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .flat_map(|line: Value| line["logprobs"].as_array().unwrap().clone())
            .map(|logprob| logprob.as_f64().unwrap())
            .collect()
    };
    let exact = scores("f32");
    for (precision, bound) in [("bf16", 0.03), ("int8", 0.1)] {
        let rounded = scores(precision);
        assert_eq!(rounded.len(), exact.len());
        let off = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs());
        let mean = off.sum::<f64>() / exact.len() as f64;
        assert!(0.0 < mean && mean < bound, "{precision}: {mean}");
    }
}
