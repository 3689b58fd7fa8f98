//! The tokenizer against the golden ids of `oracles/tokenizer_ids.py`, and against damaged input.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;

use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizers");

fn fixture(name: &str) -> PathBuf {
    Path::new(FIXTURES).join(name)
}

fn open(name: &str) -> Tokenizer {
    Tokenizer::open(&fixture(name)).unwrap()
}

/// A copy of the `metaspace` directory with other files in it.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture("metaspace").join(name), dir.path().join(name)).unwrap();
    }
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[derive(serde::Deserialize)]
struct Expected {
    ids: Vec<Vec<u32>>,
    prompt_ids: Vec<Vec<u32>>,
    decoded: Vec<String>,
}

/// Texts of `ids.json` and what a tokenizer makes of them, by `oracles/tokenizer_ids.py`.
fn expected(name: &str) -> (Vec<String>, Expected) {
    let bytes = std::fs::read(fixture("ids.json")).unwrap();
    let mut golden: BTreeMap<String, Value> = serde_json::from_slice(&bytes).unwrap();
    let mut take = |key: &str| golden.remove(key).unwrap();
    let expected = serde_json::from_value(take(name)).unwrap();
    (serde_json::from_value(take("texts")).unwrap(), expected)
}

fn assert_equals_the_reference(tokenizer: &Tokenizer, name: &str) {
    let (texts, expected) = expected(name);
    assert!(texts.len() > 60);
    for (index, text) in texts.iter().enumerate() {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids, expected.ids[index], "{name}: {text:?}");
        assert_eq!(
            tokenizer.encode_prompt(text).unwrap(),
            expected.prompt_ids[index],
            "{name}: {text:?}"
        );
        assert_eq!(
            tokenizer.decode(&ids, true).unwrap(),
            expected.decoded[index],
            "{name}: {text:?}"
        );
    }
}

#[test]
fn threads_share_one_tokenizer() {
    fn shared<T: Clone + Send + Sync>() {}
    shared::<Tokenizer>();
}

#[test]
fn every_kind_encodes_as_the_reference() {
    for name in ["smollm", "gpt2", "qwen2", "llama-bpe"] {
        assert_equals_the_reference(&open(&format!("{name}.gguf")), name);
    }
    assert_equals_the_reference(&open("metaspace"), "metaspace");
}

#[test]
fn what_is_saved_is_the_same_tokenizer() {
    for (file, name) in [
        ("smollm.gguf", "smollm"),
        ("gpt2.gguf", "gpt2"),
        ("qwen2.gguf", "qwen2"),
        ("llama-bpe.gguf", "llama-bpe"),
        ("metaspace", "metaspace"),
    ] {
        let tokenizer = open(file);
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(dir.path()).unwrap();
        let again = Tokenizer::open(dir.path()).unwrap();
        assert_equals_the_reference(&again, name);
        let facts = |t: &Tokenizer| {
            let template = t
                .chat_template()
                .map(|template| template.source().to_owned());
            (
                t.bos(),
                t.eos(),
                t.pad(),
                t.vocabulary_size(),
                t.fingerprint(),
                template,
            )
        };
        assert_eq!(facts(&again), facts(&tokenizer), "{name}");
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["tokenizer.json", "tokenizer_config.json"]);
    }
}

#[test]
fn the_prompt_of_a_pair_is_the_prompt_alone() {
    for name in ["smollm.gguf", "gpt2.gguf", "llama-bpe.gguf", "metaspace"] {
        let tokenizer = open(name);
        for (prompt, response) in [
            ("The quick", " brown fox"),
            ("The quick ", "brown fox"),
            ("the", "ory"),
            ("In 12", "345"),
            ("a\n", "\n\nb"),
            ("Caf", "é 😀"),
            ("", "Hello"),
            ("Hello", ""),
            ("Q: why?\nA:", "because"),
        ] {
            let (prompt_ids, response_ids) = tokenizer.encode_pair(prompt, response).unwrap();
            assert_eq!(prompt_ids, tokenizer.encode_prompt(prompt).unwrap());
            let all = [prompt_ids, response_ids].concat();
            let text = tokenizer.decode(&all, true).unwrap();
            assert_eq!(
                text,
                [prompt, response].concat(),
                "{name}: {prompt:?} {response:?}"
            );
        }
    }
}

#[test]
fn no_space_appears_between_prompt_and_response() {
    let tokenizer = open("metaspace");
    // "the" + "ory" merge across the boundary, so the joint encoding cannot be used.
    let joint = tokenizer.encode_prompt("theory").unwrap();
    let (prompt, response) = tokenizer.encode_pair("the", "ory").unwrap();
    assert!(!joint.starts_with(&prompt));
    assert_ne!(response, tokenizer.encode("ory").unwrap());
    assert_eq!(tokenizer.decode(&response, false).unwrap(), "ory");
}

#[test]
fn bos_comes_once() {
    let llama = open("llama-bpe.gguf");
    assert_eq!(llama.bos(), Some(0));
    let ids = llama.encode_prompt("a").unwrap();
    assert_eq!(
        (ids[0], &ids[1..]),
        (0, llama.encode("a").unwrap().as_slice())
    );
    assert_eq!(llama.encode_prompt("<|endoftext|>a").unwrap(), ids);
    assert_eq!(llama.encode_prompt("").unwrap(), [0]);
    let smollm = open("smollm.gguf");
    assert_eq!(smollm.bos(), Some(0));
    assert_eq!(
        smollm.encode_prompt("a").unwrap(),
        smollm.encode("a").unwrap()
    );
}

#[test]
fn special_tokens_are_named_and_skipped() {
    let tokenizer = open("smollm.gguf");
    assert_eq!((tokenizer.eos(), tokenizer.pad()), (Some(2), Some(2)));
    assert_eq!(tokenizer.id("<|im_end|>"), Some(2));
    assert_eq!(tokenizer.token(2).as_deref(), Some("<|im_end|>"));
    assert_eq!(
        (tokenizer.id("<none>"), tokenizer.token(9999)),
        (None, None)
    );
    let ids = tokenizer.encode("<think>a<|im_end|>").unwrap();
    assert_eq!(ids.len(), 3);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "<think>a");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<think>a<|im_end|>");
    let error = tokenizer.decode(&[1, 9999], false).unwrap_err().to_string();
    assert!(error.contains("9999"), "{error}");
    // Tokens that only fill up the vocabulary count, too.
    assert_eq!(
        tokenizer.vocabulary_size(),
        tokenizer.id("[PAD7]").unwrap() as usize + 1
    );
}

#[test]
fn the_fingerprint_is_of_ids_and_tokens() {
    let print = |name| open(name).fingerprint();
    assert_eq!(print("smollm.gguf").len(), 64);
    assert_eq!(print("smollm.gguf"), print("gpt2.gguf")); // the same tokens, cut otherwise
    assert_ne!(print("smollm.gguf"), print("llama-bpe.gguf"));
    let (path, tokens) = (Path::new("t"), BTreeMap::from([("a", 0), ("b", 1)]));
    let model = json!({"type": "WordLevel", "vocab": tokens, "unk_token": "a"});
    let pipeline = json!({"version": "1.0", "model": model, "added_tokens": []}).to_string();
    let pipeline = tokenizers::Tokenizer::from_bytes(pipeline).unwrap();
    let tokenizer = Tokenizer::assemble(path, pipeline, Map::new()).unwrap();
    let bytes = [0, 0, 0, 0, 1, 0, 0, 0, b'a', 1, 0, 0, 0, 1, 0, 0, 0, b'b'];
    assert_eq!(
        tokenizer.fingerprint(),
        format!("{:x}", Sha256::digest(bytes))
    );
}

#[test]
fn the_chat_template_is_found_wherever_it_is() {
    let source = |files: &[(&str, &str)]| {
        let tokenizer = Tokenizer::open(directory(files).path()).unwrap();
        tokenizer
            .chat_template()
            .map(|template| template.source().to_owned())
    };
    let config = "tokenizer_config.json";
    let string = r#"{"chat_template": "one", "eos_token": "</s>"}"#;
    let list = r#"{"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "two"}]}"#;
    let map = r#"{"chat_template": {"only": "three"}}"#;
    assert_eq!(source(&[]), None);
    assert_eq!(source(&[(config, string)]).as_deref(), Some("one"));
    assert_eq!(source(&[(config, list)]).as_deref(), Some("two"));
    assert_eq!(source(&[(config, map)]).as_deref(), Some("three"));
    let jinja = ("chat_template.jinja", "four");
    assert_eq!(source(&[(config, string), jinja]).as_deref(), Some("four"));
}

#[test]
fn tokens_named_in_the_special_tokens_map_count() {
    let dir = directory(&[
        (
            "tokenizer_config.json",
            r#"{"eos_token": null, "chat_template": "{{ eos_token }}"}"#,
        ),
        (
            "special_tokens_map.json",
            r#"{"eos_token": {"content": "</s>"}, "pad_token": "<unk>"}"#,
        ),
    ]);
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.pad()),
        (None, Some(2), Some(0))
    );
    assert_eq!(
        tokenizer
            .chat_template()
            .unwrap()
            .render(&[], false)
            .unwrap(),
        "</s>"
    );
}

#[test]
fn a_declared_bos_is_added_where_the_pipeline_is_silent() {
    let path = fixture("metaspace").join("tokenizer.json");
    let mut pipeline: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    pipeline["post_processor"] = Value::Null;
    let pipeline = pipeline.to_string();
    for (declared, first) in [("true", Some(1)), ("false", None)] {
        let config = format!(r#"{{"add_bos_token": {declared}, "bos_token": "<s>"}}"#);
        let dir = directory(&[
            ("tokenizer.json", &pipeline),
            ("tokenizer_config.json", &config),
        ]);
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        let ids = tokenizer.encode_prompt("a").unwrap();
        assert_eq!(ids.first().copied().filter(|&id| id == 1), first);
    }
}

#[test]
fn limits_of_the_run_that_made_the_file_do_not_cut() {
    let path = fixture("metaspace").join("tokenizer.json");
    let mut pipeline: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    pipeline["truncation"] =
        json!({"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"});
    let dir = directory(&[("tokenizer.json", &pipeline.to_string())]);
    let text = "The quick brown fox jumps";
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!(
        tokenizer.encode(text).unwrap(),
        open("metaspace").encode(text).unwrap()
    );
}

#[test]
fn damage_is_named() {
    let message = |files: &[(&str, &str)]| {
        let error = Tokenizer::open(directory(files).path()).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    let merges = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}}"#;
    for (file, text, expected) in [
        ("tokenizer.json", "{", "tokenizer.json: EOF"),
        ("tokenizer.json", "{\"model\": {}}", "tokenizer.json: "),
        ("tokenizer.json", merges, "merge number 0"),
        (
            "tokenizer_config.json",
            "[]",
            "tokenizer_config.json: it is no JSON object",
        ),
        (
            "tokenizer_config.json",
            "{\"eos_token\": \"<x>\"}",
            "eos_token `<x>` is not in the vocabulary",
        ),
        ("chat_template.jinja", "{% if %}", "chat template: line 1"),
        (
            "chat_template.jinja",
            "{% if %}",
            "correct it in tokenizer_config.json or chat_template.jinja",
        ),
    ] {
        let message = message(&[(file, text)]);
        assert!(message.contains(expected), "{message}");
    }
    let empty = tempfile::tempdir().unwrap();
    let error = Tokenizer::open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("without tokenizer.json") && error.contains("save_pretrained"));
    assert!(
        open("smollm.gguf")
            .save(&empty.path().join("missing"))
            .is_err()
    );
}
