//! Folders of runs for the report's test: written by formulas, with everything that a report can show
//! and with what a careless writer of HTML would stumble over.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// A run to write.
pub(super) struct Run {
    /// The method; its own keys are those of `llmr`.
    pub(super) method: &'static str,
    /// Optimiser steps.
    pub(super) steps: usize,
    /// How good the student becomes, from 0 to 1.
    pub(super) quality: f64,
}

/// Rows of the evaluation.
const ROWS: usize = 120;

const WORDS: [&str; 12] = [
    "The",
    " tide",
    " rises",
    " & falls",
    " <b>twice</b>",
    " a",
    " day",
    ",",
    " drawn",
    " by",
    " the",
    " moon",
];

/// Writes a run's folder.
pub(super) fn write(path: &Path, run: &Run) -> Result<(), String> {
    let evaluations = path.join("evaluations");
    fs::create_dir_all(&evaluations).map_err(|error| format!("{}: {error}", path.display()))?;
    let student = path.join("student");
    fs::create_dir_all(&student).map_err(|error| format!("{}: {error}", path.display()))?;
    put(
        &student.join("config.json"),
        &json!({"num_hidden_layers": 12, "hidden_size": 576}).to_string(),
    )?;
    put(&path.join("config.toml"), &configuration(run))?;
    put(
        &path.join("environment.json"),
        &json!({"version": "0", "cpu": "synthetic", "cores": 2, "seed": 1, "sha256": {"data.jsonl": "00ff"}})
            .to_string(),
    )?;
    put(&path.join("metrics.jsonl"), &metrics(run))?;
    put(&path.join("samples.jsonl"), &samples(run))?;
    let end = |at: f64| json!({"rouge_l": rouge(run, at), "forward_kl": kl(run, at), "eos_rate": 0.5 + 0.4 * at});
    let eval = json!({
        "start": end(0.0), "student": end(1.0), "student_step": run.steps, "steps": run.steps,
        "tokens": run.steps * 400, "training_seconds": run.steps as f64 * 0.8, "preparation_seconds": 12.5
    });
    put(&path.join("eval.json"), &eval.to_string())?;
    evaluation(&evaluations, run)
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn configuration(run: &Run) -> String {
    format!(
        "seed = 1\n[teacher]\nmodel = \"teacher <large> & \\\"old\\\"\"\n[student]\nprune = {{ layers = 12 }}\n\
         [data]\ntrain = [\"/data/dolly.jsonl\"]\n[method]\nname = \"{}\"\n[train]\nsteps = {}\nlearning_rate = {}\n\
         [eval]\nrows = 64\n",
        run.method,
        run.steps,
        1e-4 * run.quality
    )
}

/// Noise between −1 and 1 that is the same every time.
fn noise(of: usize) -> f64 {
    let x = (of as f64 * 12.9898).sin() * 43758.5453;
    2.0 * (x - x.floor()) - 1.0
}

fn rouge(run: &Run, at: f64) -> f64 {
    0.05 + 0.25 * run.quality * (1.0 - (-3.0 * at).exp())
}

fn kl(run: &Run, at: f64) -> f64 {
    0.4 / run.quality + 2.5 * (-4.0 * at).exp()
}

fn metrics(run: &Run) -> String {
    let mut text = String::new();
    let mut line = |value: Value| {
        text.push_str(&value.to_string());
        text.push('\n');
    };
    for step in 0..=run.steps {
        let at = step as f64 / run.steps as f64;
        let wave = |seed: usize| noise(step * 31 + seed);
        if step % (run.steps / 6).max(1) == 0 {
            line(
                json!({"step": step, "eval": {"rouge_l": rouge(run, at), "forward_kl": kl(run, at)}}),
            );
        }
        if step == 0 {
            continue;
        }
        let loss = kl(run, at) * (1.0 + 0.15 * wave(1));
        let ratio = if step % 50 == 7 {
            Value::Null
        } else {
            json!(1.0 + 0.2 * wave(2))
        };
        line(json!({
            "step": step, "steps": run.steps, "epoch": at, "tokens": step * 400,
            "loss": loss, "policy_gradient": 0.1 * wave(3), "flatness": 0.2 + 0.02 * wave(4),
            "language_modelling": loss * 0.8, "reward": -2.0 + 3.0 * run.quality * at + 0.3 * wave(5),
            "return": -20.0 + 15.0 * at + 2.0 * wave(6), "ratio": ratio, "kl_k3": 0.1 + 0.5 * at + 0.05 * wave(7),
            "student_entropy": 3.0 - 1.5 * at + 0.1 * wave(8), "response_tokens": 60.0 + 20.0 * at + 5.0 * wave(9),
            "eos_rate": 0.5 + 0.4 * at + 0.05 * wave(10), "distinct_2": 0.8 - 0.1 * at + 0.02 * wave(11),
            "gradient_norm": 10f64.powf(2.0 - 2.5 * at + 0.2 * wave(12)),
            "logit_gradients": {"policy_gradient": 0.10 + 0.02 * wave(13), "language_modelling": 0.2 - 0.1 * at},
            "learning_rate": 1e-4 * (1.0 - at), "tokens_per_second": 500.0 + 40.0 * wave(14), "seconds": 0.8,
            "phases": {"rollout": 0.4, "teacher": 0.15, "backward": 0.2, "optimiser": 0.02}
        }));
    }
    line(json!({"step": run.steps / 2, "warning": "the responses became short: <20 tokens"}));
    // A run that was cut while it wrote.
    text.push_str("{\"step\":");
    text
}

fn samples(run: &Run) -> String {
    let mut text = String::new();
    for step in [0, run.steps] {
        for prompt in [
            "<|im_start|>user\nWhat is a tide?<|im_end|>\n",
            "<|im_start|>user\nName a fruit.<|im_end|>\n",
        ] {
            let response = if step == 0 {
                "\u{1b}</div>\n\n\n"
            } else {
                "The sea, drawn by the moon.\nTwice a day."
            };
            let line = json!({"step": step, "prompt": prompt, "response": response, "finish_reason": "stop"});
            text.push_str(&(line.to_string() + "\n"));
        }
    }
    text
}

fn evaluation(folder: &Path, run: &Run) -> Result<(), String> {
    let seeds = [10, 20, 30];
    let value = |row: usize, seed: usize| -> f64 {
        // Rows are hard or easy for both students; the rest is each one's own.
        let easy = 0.2 * noise(row + 1);
        let own = 0.1 * noise(row * 7 + seed + run.steps);
        (rouge(run, 1.0) + easy + own).clamp(0.0, 1.0)
    };
    let mut answers = String::new();
    for (index, seed) in std::iter::once(0).chain(seeds).enumerate() {
        for row in 0..ROWS {
            let length = 20 + (row * 13 + seed) % 200;
            let line = json!({
                "run": index, "row": row, "prompt": if row == 0 { "What is a tide?".into() } else { format!("Question {row} <i>?") },
                "response": "The tide rises & <b>falls</b> twice a day.", "finish_reason": "stop", "tokens": length,
                "references": ["The rise and fall of the sea.", "Water that comes and goes."],
                "metrics": {"rouge_l": value(row, seed), "reward": 0.05 * length as f64 + 8.0 * value(row, seed) + 2.0 * noise(row + seed)}
            });
            answers.push_str(&(line.to_string() + "\n"));
        }
    }
    put(&folder.join("dolly.answers.jsonl"), &answers)?;
    let mean = |seed: usize| (0..ROWS).map(|row| value(row, seed)).sum::<f64>() / ROWS as f64;
    let center = seeds.iter().map(|&seed| mean(seed)).sum::<f64>() / 3.0;
    let measured = |center: f64, half: f64| {
        json!({"greedy": center + 0.01, "greedy_interval": [center - half, center + half], "by_seed": [center, center, center],
               "mean": center, "standard_deviation": half / 4.0, "interval": [center - half, center + half]})
    };
    let bucket = |from: usize, to: Option<usize>, factor: f64| json!({"from": from, "to": to, "rows": 40, "metrics": {"rouge_l": measured(center * factor, 0.02)}});
    let positions: Vec<usize> = (1..=128).collect();
    let by = |slope: f64| -> Vec<f64> {
        let kl = |t: &usize| 0.4 + slope * (*t as f64).sqrt() / run.quality + 0.03 * noise(*t);
        positions.iter().map(kl).collect()
    };
    let file = json!({
        "format": 1, "name": "dolly", "model": "run/student", "teacher": "teacher", "data": "test.jsonl", "data_sha256": "abc",
        "precision": "f32", "rows": ROWS, "template": "chat", "max_new_tokens": 256,
        "runs": [{"seed": null, "temperature": 0.0}, {"seed": 10, "temperature": 1.0}, {"seed": 20, "temperature": 1.0}, {"seed": 30, "temperature": 1.0}],
        "metrics": {
            "rouge_l": measured(center, 0.017),
            "forward_kl": {"value": kl(run, 1.0), "interval": [kl(run, 1.0) - 0.03, kl(run, 1.0) + 0.03]},
            "response_tokens": measured(118.0, 9.0)
        },
        "buckets": [bucket(0, Some(30), 1.2), bucket(30, Some(70), 1.0), bucket(70, None, 0.7)],
        "exposure_bias": {
            "lengths": [4, 8, 16, 32, 64, 128], "regret": [], "expected": [],
            "ex_error_percent": [1.0 / run.quality, 3.0 / run.quality, 5.0 / run.quality, 9.0 / run.quality, 14.0 / run.quality, 20.0 / run.quality],
            "by_position": {"student_prefix": by(0.06), "teacher_prefix": by(0.04), "rows": [120, 60, 8]}
        }
    });
    put(&folder.join("dolly.json"), &file.to_string())?;
    let mut tokens = String::new();
    for (row, source) in [(0, "student"), (0, "teacher"), (3, "student")] {
        let texts: Vec<&str> = (0..40)
            .map(|t| WORDS[t % WORDS.len()])
            .chain(["\n", "<|im_end|>"])
            .collect();
        let list = |seed: usize, scale: f64| -> Vec<f64> {
            (0..texts.len())
                .map(|t| scale * noise(t * 3 + seed + row))
                .collect()
        };
        let below = |seed: usize| -> Vec<f64> { list(seed, 2.0).iter().map(|x| x - 2.0).collect() };
        let line = json!({"row": row, "source": source, "tokens": texts, "logprobs": below(1),
                          "teacher_logprobs": below(2), "reward": list(3, 4.0)});
        tokens.push_str(&(line.to_string() + "\n"));
    }
    put(&folder.join("dolly.tokens.jsonl"), &tokens)
}
