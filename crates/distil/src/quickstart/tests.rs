//! The whole quickstart with a tiny random teacher.

use burn::tensor::Device;
use distil_model::config::Config as Shape;
use distil_model::{Llama, Tokenizer, write_tensors};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;

/// Writes a random Llama of 3 layers, with a tokenizer of single characters, as a Hugging Face
/// directory.
fn teacher(folder: &Path) {
    let mut vocabulary = serde_json::Map::new();
    vocabulary.insert("</s>".into(), json!(0));
    for character in ' '..='~' {
        vocabulary.insert(character.to_string(), json!(vocabulary.len()));
    }
    let special = json!([{"id": 0, "content": "</s>", "special": true, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false}]);
    let tokenizer = json!({
        "version": "1.0", "added_tokens": special, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    });
    let named = json!({
        "eos_token": "</s>",
        "chat_template": "{{ messages[0]['content'] }} ->",
    });
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
        "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
        "vocab_size": vocabulary.len(), "max_position_embeddings": 128, "eos_token_id": 0,
        "tie_word_embeddings": true,
    });
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut read = |name: &str, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let mut number = || random.next_u32() as f32 / u32::MAX as f32 - 0.5;
        let values = (0..count).map(|_| match name.contains("norm") {
            true => 1.0,
            false => number(),
        });
        Ok(values.collect())
    };
    let shape = Shape::from_json(config.clone(), folder).unwrap();
    let mut network = Llama::build(shape, &mut read, &Device::flex()).unwrap();
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(folder.join("tokenizer_config.json"), named.to_string()).unwrap();
    let tensors = network.parameters().into_iter();
    let tensors = tensors.map(|(name, parameter)| (name, parameter.stored()));
    write_tensors(&folder.join("model.safetensors"), tensors).unwrap();
}

fn plan(teacher: &str) -> Plan<'_> {
    Plan {
        teacher,
        layers: 2,
        train_prompts: 6,
        held_out_prompts: 4,
        shown: 2,
        max_new_tokens: 6,
        steps: 3,
        batch: 2,
        warmup_steps: 1,
        checkpoint_every: 1,
        speed_tokens: 4,
        ..PLAN
    }
}

#[test]
fn from_nothing_to_a_summary_and_on_after_a_break() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("teacher"), folder.path().join("out"));
    teacher(&path);
    let plan = plan(path.to_str().unwrap());

    // Broken off in the first step.
    let interrupt = AtomicBool::new(false);
    let result = run_plan(&plan, &out, 1, &interrupt, &mut |event| {
        if matches!(event, Event::Step(_)) {
            interrupt.store(true, Ordering::Relaxed);
        }
    });
    let error = result.unwrap_err().to_string();
    assert!(error.contains("after 1 of 3 steps"), "{error}");
    assert!(error.contains("same command"), "{error}");
    let references = fs::read(out.join("data/eval.jsonl")).unwrap();

    let interrupt = AtomicBool::new(false);
    let mut steps = Vec::new();
    let summary = run_plan(&plan, &out, 1, &interrupt, &mut |event| {
        if let Event::Step(line) = event {
            steps.push(line.step);
        }
    })
    .unwrap();
    assert_eq!(steps, [2, 3], "it went on where it stopped");
    assert_eq!(fs::read(out.join("data/eval.jsonl")).unwrap(), references);
    assert!(summary.continued);
    assert!(summary.before.forward_kl > 0.0 && summary.after.forward_kl > 0.0);
    assert_eq!(
        (summary.teacher_size.layers, summary.student_size.layers),
        (3, 2)
    );
    assert!(summary.teacher_size.parameters > summary.student_size.parameters);
    assert_eq!((summary.steps, summary.held_out_prompts), (3, 4));
    assert_eq!(summary.exchanges.len(), 2);
    assert!(summary.student.join("model.safetensors").exists());
    let tokenizer = Tokenizer::open(&summary.student).unwrap();
    assert!(tokenizer.chat_template().is_some());

    // Once more: nothing is done, the summary is the same.
    let again = run_plan(&plan, &out, 1, &interrupt, &mut |event| {
        assert!(matches!(event, Event::Note(_)), "{event:?}");
    });
    assert_eq!(again.unwrap(), summary);
}

#[test]
fn folders_of_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let plan = plan("absent/teacher/model");
    let go = |seed| {
        let interrupt = AtomicBool::new(false);
        run_plan(&plan, &out, seed, &interrupt, &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.txt"), "mine").unwrap();
    assert!(
        go(0).contains("something other than a quickstart"),
        "{}",
        go(0)
    );
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);

    fs::remove_file(out.join("thesis.txt")).unwrap();
    // Claimed, but there is no such teacher.
    assert!(go(0).contains("absent/teacher/model"), "{}", go(0));
    assert!(go(1).contains("another seed"), "{}", go(1));
}
