//! What this process holds and asks of its allocator: a teacher that is not needed is not in memory, and
//! decoding a token asks for nothing that grows with the network.
//!
//! One test binary of its own, because it counts every allocation of the process. The tests take turns.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use distil::config::{Runs, Sampling};
use distil::event::Event;
use distil::rollout::{Generation, Prompt, generate};
use distil::train::{Outcome, Run, train, train_stages};
use distil_kernels::Precision;
use distil_model::config::Config;
use distil_model::{Llama, Stored, Tokenizer, write_tensors};
use serde_json::json;

/// The system's allocator, counting.
struct Counting;

/// Bytes held, the most of them since [`forget_peak`], and allocations made.
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static MADE: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    MADE.fetch_add(1, Relaxed);
    let held = HELD.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(held, Relaxed);
}

// SAFETY: everything is the system's allocator's; counting touches no memory of its own.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn forget_peak() {
    PEAK.store(HELD.load(Relaxed), Relaxed);
}

/// Only one test runs at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of the teacher: many layers, so that it is many times the student of two of them.
const LAYERS: usize = 60;
const WIDTH: usize = 64;
const INNER: usize = 512;

/// Bytes of a layer's matrices.
const LAYER: usize = 4 * (3 * WIDTH * WIDTH + 3 * WIDTH * INNER);

fn fixture(name: &str) -> PathBuf {
    let fixtures = "../model/tests/fixtures/tokenizers";
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(fixtures)
        .join(name)
}

/// A teacher with weights that are a fixed row of numbers, and ten prompts with responses.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("teacher");
    fs::create_dir(&folder).unwrap();
    let tokenizer = Tokenizer::open(&fixture("metaspace")).unwrap();
    tokenizer.save(&folder).unwrap();
    let vocabulary = tokenizer.vocabulary_size();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": vocabulary, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true, "torch_dtype": "float32",
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut shapes = vec![(
        "model.embed_tokens.weight".to_owned(),
        vec![vocabulary, WIDTH],
    )];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![WIDTH]),
            ("self_attn.q_proj", vec![WIDTH, WIDTH]),
            ("self_attn.k_proj", vec![WIDTH / 2, WIDTH]),
            ("self_attn.v_proj", vec![WIDTH / 2, WIDTH]),
            ("self_attn.o_proj", vec![WIDTH, WIDTH]),
            ("post_attention_layernorm", vec![WIDTH]),
            ("mlp.gate_proj", vec![INNER, WIDTH]),
            ("mlp.up_proj", vec![INNER, WIDTH]),
            ("mlp.down_proj", vec![WIDTH, INNER]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    shapes.push(("model.norm.weight".to_owned(), vec![WIDTH]));
    let mut number = 0_u32;
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let count: usize = shape.iter().product();
        let mut next = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let values: Vec<f32> = match shape.len() {
            1 => vec![1.0; count],
            _ => (0..count).map(|_| 0.2 * next()).collect(),
        };
        let data = TensorData::new(values, shape.clone());
        let tensor = match shape.len() {
            1 => Stored::Vector(Tensor::from_data(data, &Device::flex())),
            _ => Stored::Matrix(Tensor::from_data(data, &Device::flex())),
        };
        (name, tensor)
    });
    write_tensors(&folder.join("model.safetensors"), tensors).unwrap();
    let row = |n: usize| json!({"prompt": format!("say {n}"), "response": format!("{n} {n}")});
    let rows: String = (0..10).map(|n| format!("{}\n", row(n))).collect();
    fs::write(home.path().join("train.jsonl"), rows).unwrap();
    home
}

/// A configuration in `home` with these lines of its own.
fn runs(home: &Path, text: &str) -> Runs {
    let text = format!(
        "teacher.model = \"./teacher\"\nstudent.prune.layers = 2\ndata.train = \"train.jsonl\"\n\
         data.template = \"{{{{ prompt }}}}\"\ndata.max_prompt_tokens = 64\n\
         data.max_response_tokens = 64\ntrain.batch = 2\ntrain.steps = 2\ntrain.learning_rate = 1e-3\n\
         {text}\n"
    );
    Runs::parse(&text, &home.join("run.toml"), &[]).unwrap()
}

/// Bytes beside those that were held before.
#[derive(Debug)]
struct Held {
    /// After a step, at most.
    at_steps: usize,
    /// At any time.
    peak: usize,
}

/// Runs one configuration, until `stop` is set by a step where `interrupted`.
fn held(home: &Path, text: &str, out: &str, interrupted: bool) -> Held {
    let Runs::One(config) = runs(home, text) else {
        panic!("no stages")
    };
    let interrupt = AtomicBool::new(false);
    let out = home.join(out);
    let run = Run {
        config: &config,
        out: &out,
        resume: true,
        interrupt: &interrupt,
    };
    forget_peak();
    let (before, mut at_steps) = (HELD.load(Relaxed), 0);
    let outcome = train(&run, &mut |event| {
        if let Event::Step(_) = event {
            at_steps = at_steps.max(HELD.load(Relaxed).saturating_sub(before));
            interrupt.store(interrupted, Relaxed);
        }
    });
    let ended = matches!(outcome.unwrap(), Outcome::Finished { .. });
    assert_eq!(ended, !interrupted);
    Held {
        at_steps,
        peak: PEAK.load(Relaxed) - before,
    }
}

const SAMPLED: &str = "method.max_new_tokens = 4\nmethod.name = ";

#[test]
fn steps_hold_the_teacher_only_if_they_ask_it() {
    let _turn = turn();
    let home = home();
    let teacher = LAYERS * LAYER;
    let at_steps = |text: &str, out: &str| held(home.path(), text, out, false).at_steps;
    assert!(at_steps("method.name = \"kd\"", "kd") > teacher);
    for (out, text) in [
        ("sft", "method.name = \"sft\"".to_owned()),
        (
            "cached",
            "teacher.cache = true\nmethod.name = \"kd\"".to_owned(),
        ),
        ("seqkd", format!("{SAMPLED}\"seqkd\"")),
        ("cpo", format!("method.loss = \"cpo\"\n{SAMPLED}\"dpkd\"")),
    ] {
        let held = at_steps(&text, out);
        assert!(held < teacher / 2, "{out}: {held} of {teacher}");
    }
}

#[test]
fn a_teacher_whose_answers_are_kept_is_not_read_again() {
    let _turn = turn();
    let home = home();
    let teacher = LAYERS * LAYER;
    for (out, text) in [
        ("seqkd", format!("{SAMPLED}\"seqkd\"")),
        (
            "cached",
            "teacher.cache = true\nmethod.name = \"kd\"".to_owned(),
        ),
    ] {
        let first = held(home.path(), &text, out, true).peak;
        assert!(first > teacher, "{out}: {first} of {teacher}");
        let resumed = held(home.path(), &text, out, false).peak;
        assert!(resumed < teacher / 2, "{out}: {resumed} of {teacher}");
    }
}

#[test]
fn a_stage_that_takes_over_answers_does_not_read_the_teacher() {
    let _turn = turn();
    let home = home();
    let stage = format!("[[stage]]\n{SAMPLED}\"seqkd\"\n");
    let Runs::Stages(stages) = runs(home.path(), &format!("{stage}{stage}")) else {
        panic!("stages")
    };
    let out = home.path().join("schedule");
    let (interrupt, mut before) = (AtomicBool::new(false), 0);
    train_stages(&stages, &out, false, &interrupt, &mut |event| {
        if let Event::Note(text) = event
            && text.starts_with("stage 2")
        {
            before = HELD.load(Relaxed);
            forget_peak();
        }
    })
    .unwrap();
    assert!(before > 0);
    let (second, teacher) = (PEAK.load(Relaxed) - before, LAYERS * LAYER);
    assert!(second < teacher / 2, "{second} of {teacher}");
}

/// A network with weights that are a fixed row of numbers, and a small vocabulary.
fn network(layers: usize, precision: Precision) -> Llama {
    let json = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH,
        "intermediate_size": INNER, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 600, "max_position_embeddings": 128,
        "tie_word_embeddings": true,
    });
    let config = Config::from_json(json, Path::new("small")).unwrap();
    let mut read = |_: &str, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let numbers = (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32);
        Ok(numbers
            .map(|x| 0.2 * (x / (1 << 24) as f32 - 0.5))
            .collect())
    };
    let network = Llama::build(config, &mut read, &Device::flex()).unwrap();
    network.in_precision(precision).packed()
}

/// Allocations for a further token of every sequence.
fn made_for_a_token(network: &Llama, sequences: usize) -> f64 {
    let ids: Vec<[u32; 3]> = (0..sequences as u32).map(|i| [1, 2, 3 + i]).collect();
    let prompts: Vec<Prompt<'_>> = ids
        .iter()
        .zip(0..)
        .map(|(ids, stream)| Prompt { ids, stream })
        .collect();
    let made_for = |new: usize| {
        let settings = Generation {
            sampling: Sampling {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
            },
            max_new_tokens: new,
            seed: 1,
            batch: sequences,
        };
        let before = MADE.load(Relaxed);
        generate(network, &[], &prompts, &settings, &mut |_, _| {}).unwrap();
        MADE.load(Relaxed) - before
    };
    made_for(2);
    let [few, many] = [16, 48].map(made_for);
    (many as f64 - few as f64) / 32.0
}

/// The embedded tokens, the final norm and the head are tensors, and a team's work is given to each
/// thread: that is all. Nothing is for a layer, and less than one for a sequence.
#[test]
fn a_token_asks_the_allocator_for_the_same_whatever_the_layers() {
    let _turn = turn();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        for sequences in [1, 32] {
            let made_of = |layers| made_for_a_token(&network(layers, precision), sequences);
            let [few, many] = [2, 30].map(made_of);
            let what = format!("{precision:?}, {sequences} sequences: {few} and {many}");
            println!("{what} allocations a token");
            assert!((few - many).abs() < 2.0, "{what}");
            assert!(many < 80.0 + threads, "{what}");
        }
    }
}
