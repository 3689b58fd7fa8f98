//! The real SmolLM2-135M-Instruct, from the catalogue into the user's own cache (the one test that
//! may need a network): greedy text equal to transformers', kept by `oracles/smollm2_greedy.py`.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

#[test]
fn greedy_text_of_the_real_model_equals_transformers() {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/smollm2_greedy.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
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
