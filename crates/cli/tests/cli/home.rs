//! A folder with a tiny model, data and a configuration, and the binary in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use burn::tensor::{Device, Tensor, TensorData};
use distil_model::{Stored, Tokenizer, write_tensors};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Layers of the tiny model.
pub(crate) const LAYERS: usize = 3;

/// A folder of its own for one test, with the model in `model/` and the rows in `train.jsonl` and
/// `dev.jsonl`.
pub(crate) struct Home(TempDir);

/// What a command did.
pub(crate) struct Did {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        write_model(&home.path("model"), "smollm.gguf", 1);
        home.write("train.jsonl", &rows(0..20));
        home.write("dev.jsonl", &rows(20..24));
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Writes `run.toml`: word-level distillation in a few steps, with these lines instead or more.
    pub(crate) fn configure(&self, method: &str, train: &str) {
        self.write(
            "run.toml",
            &format!(
                "[teacher]\nmodel = \"./model\"\n\
                 [student]\nprune = {{ layers = 2 }}\n\
                 [data]\ntrain = \"train.jsonl\"\neval = \"dev.jsonl\"\n\
                 max_prompt_tokens = 64\nmax_response_tokens = 16\n\
                 [method]\n{method}\n\
                 [train]\nbatch = 4\nlearning_rate = 1e-3\n{train}\n\
                 [eval]\nevery = 0\nmax_new_tokens = 4\n"
            ),
        );
    }

    /// The command `distil` with these arguments, in this folder, with an empty cache.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distil"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("DISTIL_CACHE", self.path("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `distil` with these arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> Did {
        did(self.command(arguments).output().unwrap())
    }

    /// Runs `distil`, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let did = self.run(arguments);
        assert_eq!(did.status, 0, "{arguments:?}: {}", did.err);
        did.out
    }

    /// Runs `distil`, which must refuse its input with all of these words on standard error.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str], words: &[&str]) {
        let did = self.run(arguments);
        assert_eq!(did.status, 2, "{arguments:?}: {}", did.err);
        assert_eq!(did.out, "", "a refusal is no result");
        for word in words {
            assert!(did.err.contains(word), "`{word}` is not in: {}", did.err);
        }
    }
}

pub(crate) fn did(output: Output) -> Did {
    Did {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The objects of a JSONL text; every line must be one.
#[track_caller]
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let object = |line: &str| -> Value {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(value.is_object(), "{line}");
        value
    };
    text.lines().map(object).collect()
}

/// The keys of an object, in their order.
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

pub(crate) fn rows(numbers: std::ops::Range<usize>) -> String {
    numbers
        .map(|n| {
            let row = json!({
                "prompt": format!("Count from {n}."),
                "response": format!("{}, {}", n + 1, n + 2),
            });
            format!("{row}\n")
        })
        .collect()
}

/// A Llama of 3 layers and width 32 with random weights and the named tokenizer of the fixtures.
pub(crate) fn write_model(dir: &Path, tokenizer: &str, seed: u64) {
    write_padded_model(dir, tokenizer, seed, 0);
}

/// As [`write_model`], with rows of the vocabulary that no token has.
pub(crate) fn write_padded_model(dir: &Path, tokenizer: &str, seed: u64, padding: usize) {
    fs::create_dir(dir).unwrap();
    let fixtures = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../model/tests/fixtures/tokenizers"
    );
    let tokenizer = Tokenizer::open(&Path::new(fixtures).join(tokenizer)).unwrap();
    tokenizer.save(dir).unwrap();
    let (vocabulary, width, inner) = (tokenizer.vocabulary_size() + padding, 32, 48);
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
        "intermediate_size": inner, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": vocabulary, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true, "torch_dtype": "float32",
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();

    let mut shapes = vec![(
        "model.embed_tokens.weight".to_owned(),
        vec![vocabulary, width],
    )];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![width]),
            ("self_attn.q_proj", vec![width, width]),
            ("self_attn.k_proj", vec![width / 2, width]),
            ("self_attn.v_proj", vec![width / 2, width]),
            ("self_attn.o_proj", vec![width, width]),
            ("post_attention_layernorm", vec![width]),
            ("mlp.gate_proj", vec![inner, width]),
            ("mlp.up_proj", vec![inner, width]),
            ("mlp.down_proj", vec![width, inner]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    shapes.push(("model.norm.weight".to_owned(), vec![width]));
    write_weights(dir, shapes, seed);
}

/// Writes `model.safetensors` with random tensors of these names and shapes.
pub(crate) fn write_weights(dir: &Path, shapes: Vec<(String, Vec<usize>)>, seed: u64) {
    let mut state = seed;
    let mut random = || {
        // Knuth's linear congruential generator; the high bits as a number in [−1, 1).
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let device = Device::flex();
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let is_norm = shape.len() == 1;
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|_| {
                if is_norm {
                    1.0 + 0.1 * random()
                } else {
                    0.3 * random()
                }
            })
            .collect();
        let tensor = match *shape {
            [_] => Stored::Vector(Tensor::from_data(TensorData::new(values, shape), &device)),
            _ => Stored::Matrix(Tensor::from_data(TensorData::new(values, shape), &device)),
        };
        (name, tensor)
    });
    write_tensors(&dir.join("model.safetensors"), tensors).unwrap();
}
