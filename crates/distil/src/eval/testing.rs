//! What the tests of evaluations share: models that are Markov chains whose every probability is
//! written down.

use std::path::Path;

use burn::tensor::Device;
use distil_model::config::Config;
use distil_model::{Llama, Model, write_tensors};
use serde_json::{Map, Value, json};

use super::evaluate::{EvalSet, GREEDY, Settings};
use crate::data::example::{Encoding, Limits};
use crate::data::read::{DataSet, OnBadRow};
use crate::data::row::{Content, Prompt as Asked, Row, RowSource};
use crate::data::template::Template;
use crate::error::Result;

pub(crate) const TOKENS: [&str; 8] = ["<unk>", "what", "</s>", "red", "blue", "sky", "is", "who"];
pub(crate) const EOS: u32 = 2;

/// Token after token: `chain` lists, for a token, the likely next ones; what is left to 1 is
/// shared by all others.
pub(crate) type Chain = [(&'static str, &'static [(&'static str, f64)])];

/// what → red (½) or blue (¼); red → end (½) or blue (¼); everything else → end (½).
pub(crate) const STUDENT: &Chain = &[
    ("what", &[("red", 0.5), ("blue", 0.25)]),
    ("who", &[("is", 0.9)]),
    ("is", &[("is", 0.9)]),
    ("red", &[("</s>", 0.5), ("blue", 0.25)]),
];

/// what → blue (½) or red (¼); everything else as the student.
pub(crate) const TEACHER: &Chain = &[
    ("what", &[("blue", 0.5), ("red", 0.25)]),
    ("who", &[("is", 0.9)]),
    ("is", &[("is", 0.9)]),
    ("red", &[("</s>", 0.5), ("blue", 0.25)]),
];

pub(crate) fn id(token: &str) -> usize {
    TOKENS.iter().position(|other| *other == token).unwrap()
}

/// P(next | token) of a chain.
pub(crate) fn probabilities(chain: &Chain, token: usize) -> Vec<f64> {
    let likely = chain.iter().find(|(from, _)| *from == TOKENS[token]);
    let likely = likely.map_or(&[("</s>", 0.5)][..], |(_, likely)| likely);
    let rest = 1.0 - likely.iter().map(|(_, p)| p).sum::<f64>();
    let mut all = vec![rest / (TOKENS.len() - likely.len()) as f64; TOKENS.len()];
    for (next, p) in likely {
        all[id(next)] = *p;
    }
    all
}

/// A network whose next token depends on the last one alone: the embedding of a token is its unit
/// vector, the layer adds nothing, and the head holds log-probabilities.
pub(crate) fn model(chain: &Chain) -> Model {
    let width = TOKENS.len();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
        "vocab_size": width, "max_position_embeddings": 16, "rms_norm_eps": 1e-9,
        "tie_word_embeddings": false, "eos_token_id": EOS,
    });
    let parsed = Config::from_json(config.clone(), Path::new("chain")).unwrap();
    let mut read = |name: &str, shape: &[usize]| {
        Ok(match name {
            "model.embed_tokens.weight" => (0..width * width)
                .map(|at| f32::from(at / width == at % width))
                .collect(),
            // The root mean square of a unit vector is 1/√width.
            "model.norm.weight" => vec![1.0 / (width as f32).sqrt(); width],
            "lm_head.weight" => (0..width * width)
                .map(|at| probabilities(chain, at % width)[at / width].ln() as f32)
                .collect(),
            _ => vec![0.0; shape.iter().product()],
        })
    };
    let mut network = Llama::build(parsed, &mut read, &Device::flex()).unwrap();
    let vocabulary: Map<String, Value> = TOKENS
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), json!(id)))
        .collect();
    let special = |id: u32| {
        json!({"id": id, "content": TOKENS[id as usize], "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
    };
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [special(EOS)],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    });
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("config.json", config.to_string().as_bytes());
    write("tokenizer.json", tokenizer.to_string().as_bytes());
    write("tokenizer_config.json", br#"{"eos_token": "</s>"}"#);
    let tensors = network.parameters().into_iter();
    let tensors = tensors.map(|(name, parameter)| (name, parameter.stored()));
    write_tensors(&folder.path().join("model.safetensors"), tensors).unwrap();
    Model::open(folder.path(), &Device::flex()).unwrap()
}

pub(crate) fn data(rows: &[(&str, &[&str])]) -> DataSet {
    let row = |(index, (prompt, references)): (usize, &(&str, &[&str]))| {
        let prompt = Asked::Raw((*prompt).to_owned());
        Row {
            source: RowSource {
                file: 0,
                line: index + 1,
            },
            cut: false,
            content: match references {
                [] => Content::Prompt(prompt),
                _ => Content::Completion {
                    prompt,
                    references: references.iter().map(|&text| text.to_owned()).collect(),
                },
            },
        }
    };
    DataSet {
        files: vec!["dev.jsonl".into()],
        rows: rows.iter().enumerate().map(row).collect(),
        ..DataSet::default()
    }
}

pub(crate) fn set(
    model: &Model,
    rows: &[(&str, &[&str])],
    limit: Option<usize>,
) -> Result<EvalSet> {
    let template = Template::new("{{ prompt }}", None).unwrap();
    let encoding = Encoding {
        template: &template,
        encode_pair: &|prompt, response| model.tokenizer.encode_pair(prompt, response),
        eos: EOS,
        limits: Limits {
            max_prompt_tokens: 4,
            max_response_tokens: 4,
        },
        on_bad_row: OnBadRow::Fail,
    };
    EvalSet::new(&data(rows), &encoding, limit)
}

pub(crate) fn settings(metrics: &[&str]) -> Settings {
    Settings {
        metrics: metrics.iter().map(|&name| name.to_owned()).collect(),
        sampling: GREEDY,
        sampling_precision: None,
        max_new_tokens: 5,
        batch: 2,
        seed: 0,
        micro_batch_tokens: 8,
    }
}

pub(crate) fn close(got: Option<f64>, want: f64) {
    let got = got.unwrap();
    assert!((got - want).abs() < 1e-5, "{got} is not {want}");
}
