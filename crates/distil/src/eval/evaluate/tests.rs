//! Evaluations by hand: the models here are Markov chains whose every probability is written down.

use std::path::Path;

use burn::tensor::Device;
use distil_model::config::Config;
use distil_model::{Llama, Model, write_tensors};
use serde_json::json;

use super::*;
use crate::data::example::Limits;
use crate::data::read::OnBadRow;
use crate::data::row::{Prompt as Asked, Row, RowSource};
use crate::data::template::Template;

const TOKENS: [&str; 8] = ["<unk>", "what", "</s>", "red", "blue", "sky", "is", "who"];
const EOS: u32 = 2;

/// Token after token: `chain` lists, for a token, the likely next ones; what is left to 1 is
/// shared by all others.
type Chain = [(&'static str, &'static [(&'static str, f64)])];

/// what → red (½) or blue (¼); red → end (½) or blue (¼); everything else → end (½).
const STUDENT: &Chain = &[
    ("what", &[("red", 0.5), ("blue", 0.25)]),
    ("who", &[("is", 0.9)]),
    ("is", &[("is", 0.9)]),
    ("red", &[("</s>", 0.5), ("blue", 0.25)]),
];

/// what → blue (½) or red (¼); everything else as the student.
const TEACHER: &Chain = &[
    ("what", &[("blue", 0.5), ("red", 0.25)]),
    ("who", &[("is", 0.9)]),
    ("is", &[("is", 0.9)]),
    ("red", &[("</s>", 0.5), ("blue", 0.25)]),
];

fn id(token: &str) -> usize {
    TOKENS.iter().position(|other| *other == token).unwrap()
}

/// P(next | token) of a chain.
fn probabilities(chain: &Chain, token: usize) -> Vec<f64> {
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
fn model(chain: &Chain) -> Model {
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

fn data(rows: &[(&str, &[&str])]) -> DataSet {
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

fn set(model: &Model, rows: &[(&str, &[&str])], limit: Option<usize>) -> Result<EvalSet> {
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

fn settings(metrics: &[&str]) -> Settings {
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

fn close(got: Option<f64>, want: f64) {
    let got = got.unwrap();
    assert!((got - want).abs() < 1e-5, "{got} is not {want}");
}

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

#[test]
fn an_evaluation_as_table_and_as_json() {
    let answer = Answer {
        prompt: "what".into(),
        response: "red".into(),
        finish: Finish::Stop,
        tokens: 2,
        references: vec!["blue".into()],
    };
    let result = Evaluation {
        metrics: vec![("forward_kl".into(), 0.51234), ("eos_rate".into(), 1.0)],
        answers: vec![answer],
        rows: 1,
    };
    let table = "\
metric                  value  unit          better
forward_kl             0.5123  nats a token  lower
eos_rate               1.0000  0 to 1        –
measured on 1 row";
    assert_eq!(result.to_string(), table);
    let expected = json!({
        "rows": 1,
        "metrics": {"forward_kl": 0.51234, "eos_rate": 1.0},
        "answers": [{"prompt": "what", "response": "red", "finish_reason": "stop", "tokens": 2,
            "references": ["blue"]}],
    });
    assert_eq!(result.to_json(), expected);
}
