//! The network against `transformers`: log-probabilities, greedy continuations and gradients of
//! tiny random models of every supported architecture, written by `oracles/tiny_models.py`.

#![allow(clippy::single_range_in_vec_init)] // one segment is a range in a slice

use std::ops::Range;
use std::path::PathBuf;

use std::collections::BTreeMap;

use burn::tensor::{Device, activation::log_softmax};
use distil_kernels::math::argmax;
use distil_kernels::{
    CrossEntropy, Weight, add_embedding_gradient, attach_gradient, head_pass, to_host,
};
use serde_json::Value;

use crate::config::Config;
use crate::llama::{Llama, Parameter, Tokens};
use crate::weights::Weights;

const MODELS: [&str; 7] = [
    "llama-tied",
    "llama-bias-llama3-rope",
    "llama-linear-rope",
    "llama-sharded-f16",
    "mistral-bf16",
    "qwen2",
    "qwen3",
];

fn folder(name: &str) -> PathBuf {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models");
    PathBuf::from(fixtures).join(name)
}

fn load(name: &str) -> (Llama, Value) {
    let weights = Weights::open(&folder(name)).unwrap();
    let network = Llama::load(&weights, &Device::flex()).unwrap();
    let golden = std::fs::read_to_string(folder(name).join("golden.json")).unwrap();
    (network, serde_json::from_str(&golden).unwrap())
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Positions and segments of sequences packed end to end.
fn packed(lengths: &[usize]) -> (Vec<u32>, Vec<Range<usize>>) {
    let mut start = 0;
    let segments: Vec<_> = lengths
        .iter()
        .map(|n| {
            start += n;
            start - n..start
        })
        .collect();
    let positions = lengths.iter().flat_map(|&n| 0..n as u32).collect();
    (positions, segments)
}

fn head_of(network: &Llama) -> burn::tensor::Tensor<2> {
    network.head().tensor().expect("not packed").clone()
}

/// All golden sequences in one packed batch: packing must not change any of them.
fn log_probabilities(network: &Llama, sequences: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
    let (positions, segments) = packed(&lengths);
    let hidden = network.hidden(Tokens {
        ids: &sequences.concat(),
        positions: &positions,
        segments: &segments,
    });
    let logits = hidden.matmul(head_of(network).transpose());
    let rows = to_host(log_softmax(logits, 1));
    let vocabulary = network.config().vocabulary;
    rows.chunks(vocabulary).map(<[f32]>::to_vec).collect()
}

#[test]
fn log_probabilities_equal_transformers() {
    for name in MODELS {
        let (network, golden) = load(name);
        let sequences = golden["sequences"].as_array().unwrap();
        let tokens: Vec<Vec<u32>> = sequences.iter().map(|s| ids(&s["token_ids"])).collect();
        let mut rows = log_probabilities(&network, &tokens).into_iter();
        let mut worst = 0.0f32;
        for (sequence, tokens) in sequences.iter().zip(&tokens) {
            let rows: Vec<_> = rows.by_ref().take(tokens.len()).collect();
            if let Some(all) = sequence["logprobs"].as_array() {
                for (row, want) in rows.iter().zip(all) {
                    for (a, b) in row.iter().zip(floats(want)) {
                        worst = worst.max((a - b).abs());
                    }
                }
            } else {
                let targets = floats(&sequence["target_logprobs"]);
                for ((row, &next), want) in rows.iter().zip(&tokens[1..]).zip(targets) {
                    worst = worst.max((row[next as usize] - want).abs());
                }
                for (row, want) in rows.iter().zip(ids(&sequence["argmax"])) {
                    assert_eq!(argmax(row), want as usize, "{name}");
                }
            }
        }
        assert!(worst < 1e-4, "{name}: off by {worst:e}");
    }
}

/// Invariant 3 for whole networks: what a GPU would run gives what the CPU's kernels give.
/// (Other tests of this process may run portable meanwhile, which must not matter to them.)
#[test]
fn portable_compositions_equal_the_kernels() {
    for name in ["llama-bias-llama3-rope", "qwen3"] {
        let (network, golden) = load(name);
        let sequences = golden["sequences"].as_array().unwrap();
        let tokens: Vec<Vec<u32>> = sequences.iter().map(|s| ids(&s["token_ids"])).collect();
        let kernels = log_probabilities(&network, &tokens);
        distil_kernels::force_portable(true);
        let portable = log_probabilities(&network, &tokens);
        distil_kernels::force_portable(false);
        for (a, b) in kernels.iter().flatten().zip(portable.iter().flatten()) {
            assert!((a - b).abs() < 1e-4, "{name}: {a} against {b}");
        }
    }
}

#[test]
fn a_shape_knows_its_parameters_and_the_head_can_be_read_alone() {
    for name in MODELS {
        let (network, _) = load(name);
        assert_eq!(network.config().parameters(), network.size(), "{name}");
        let weights = Weights::open(&folder(name)).unwrap();
        let head = Llama::load_head(&weights, &network.device()).unwrap();
        let values = |head: Weight| to_host(head.tensor().unwrap().clone());
        assert_eq!(values(head), values(network.head()), "{name}");
    }
}

#[test]
fn greedy_continuations_with_the_cache_equal_transformers() {
    for name in MODELS {
        let (network, golden) = load(name);
        let prompt = ids(&golden["greedy"]["prompt_ids"]);
        let want = ids(&golden["greedy"]["continuation_ids"]);
        let mut cache = network.cache(1, prompt.len() + want.len());
        let (mut input, mut got) = (prompt, Vec::new());
        while got.len() < want.len() {
            let past = cache.length(0) as u32;
            let positions: Vec<u32> = (past..past + input.len() as u32).collect();
            let tokens = Tokens {
                ids: &input,
                positions: &positions,
                segments: &[0..input.len()],
            };
            let hidden = network.hidden_cached(tokens, &[0], &mut cache);
            let last = hidden.narrow(0, input.len() - 1, 1);
            let logits = to_host(last.matmul(head_of(&network).transpose()));
            got.push(argmax(&logits) as u32);
            input = vec![got[got.len() - 1]];
        }
        assert_eq!(got, want, "{name}");
    }
}

/// By the way that training takes: autodiff between embedding and head, with layers kept and computed
/// again.
#[test]
fn gradients_equal_torch_and_reach_every_parameter() {
    let both = |name| [(name, false), (name, true)];
    for (name, recompute) in MODELS.into_iter().flat_map(both) {
        let (network, golden) = load(name);
        let golden = &golden["gradients"];
        let (mut tokens, mut lengths, mut predict, mut targets) = (vec![], vec![], vec![], vec![]);
        for pair in golden["pairs"].as_array().unwrap() {
            let (prompt, response) = (ids(&pair["prompt_ids"]), ids(&pair["response_ids"]));
            let start = tokens.len() + prompt.len() - 1;
            predict.extend(start..start + response.len());
            lengths.push(prompt.len() + response.len());
            tokens.extend([prompt, response.clone()].concat());
            targets.extend(response);
        }
        let (positions, segments) = packed(&lengths);
        let mut network = network.trainable().with_recompute(recompute);
        let (hidden, trail) = network.tracked(Tokens {
            ids: &tokens,
            positions: &positions,
            segments: &segments,
        });
        let rows: Vec<_> = predict
            .iter()
            .map(|&i| hidden.clone().narrow(0, i, 1))
            .collect();
        let hidden = burn::tensor::Tensor::cat(rows, 0);
        let (plain, head) = (hidden.clone().inner(), network.head().inner());
        let scale = 1.0 / targets.len() as f32;
        let objective = CrossEntropy {
            targets: targets.into(),
            weights: None,
        };
        let vocabulary = network.config().vocabulary;
        let pass = head_pass(plain, &head, None, vocabulary, &objective, scale, true);
        let loss = pass.terms.values[0] as f32 * scale;
        assert!(
            (loss - golden["loss"].as_f64().unwrap() as f32).abs() < 1e-4,
            "{name}: {loss}"
        );
        let (dh, dw) = (pass.d_hidden.unwrap(), pass.d_weight.unwrap());
        let mut found = BTreeMap::new();
        let mut names = network.clone();
        let embedded = network.backward(attach_gradient(hidden, loss, dh), trail, &mut |part| {
            for (parameter, tensor) in names.parameters() {
                let gradient = match tensor {
                    Parameter::Vector(t) => t.grad_remove(part).map(to_host),
                    Parameter::Matrix(t) => t.grad_remove(part).map(to_host),
                };
                if let Some(gradient) = gradient {
                    let before = found.insert(parameter, gradient);
                    assert!(before.is_none(), "{name}: a gradient in two parts");
                }
            }
        });
        let rows = match network.config().tied {
            true => dw,
            false => {
                let zeros = dw.zeros_like();
                found.insert("lm_head.weight".into(), to_host(dw));
                zeros
            }
        };
        let rows = add_embedding_gradient(rows, embedded.unwrap(), &tokens);
        found.insert("model.embed_tokens.weight".into(), to_host(rows));
        let expected = golden["parameters"].as_object().unwrap();
        let parameters = network.parameters();
        assert_eq!(parameters.len(), expected.len(), "{name}");
        for (parameter, _) in parameters {
            let gradient = found.remove(&parameter);
            let gradient =
                gradient.unwrap_or_else(|| panic!("{name}: {parameter} got no gradient"));
            let want = &expected[&parameter];
            let norm = gradient
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum::<f64>()
                .sqrt();
            let expected_norm = want["norm"].as_f64().unwrap();
            assert!(
                (norm / expected_norm - 1.0).abs() < 1e-3,
                "{name}: {parameter} norm {norm} against {expected_norm}"
            );
            for entry in want["entries"].as_array().unwrap() {
                let (index, value) = (
                    entry[0].as_u64().unwrap() as usize,
                    entry[1].as_f64().unwrap(),
                );
                let error = (f64::from(gradient[index]) - value).abs();
                assert!(error < 1e-3 * expected_norm, "{name}: {parameter}[{index}]");
            }
        }
    }
}

#[test]
fn both_spellings_of_rotary_settings_are_the_same_model() {
    let folder = folder("llama-bias-llama3-rope");
    let frequencies = |file: &str| {
        let json = std::fs::read_to_string(folder.join(file)).unwrap();
        let config = Config::from_json(serde_json::from_str(&json).unwrap(), &folder).unwrap();
        config.rope_frequencies()
    };
    assert_eq!(
        frequencies("config.json"),
        frequencies("config.transformers4.json")
    );
}

#[test]
fn weights_of_another_shape_or_name_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |config: &dyn Fn(&mut Value)| {
        let source = folder("llama-tied");
        let text = std::fs::read_to_string(source.join("config.json")).unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        config(&mut json);
        std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
        std::fs::copy(
            source.join("model.safetensors"),
            dir.path().join("model.safetensors"),
        )
        .unwrap();
        let weights = Weights::open(dir.path()).unwrap();
        Llama::load(&weights, &Device::flex())
            .unwrap_err()
            .to_string()
    };
    let shape = write(&|c| c["intermediate_size"] = 40.into());
    assert!(
        shape.contains("mlp.gate_proj.weight") && shape.contains("[40, 32]"),
        "{shape}"
    );
    let missing = write(&|c| c["num_hidden_layers"] = 3.into());
    assert!(
        missing.contains("model.layers.2") && missing.contains("missing"),
        "{missing}"
    );
    let extra = write(&|c| c["num_hidden_layers"] = 1.into());
    assert!(
        extra.contains("model.layers.1") && extra.contains("not part"),
        "{extra}"
    );
}
