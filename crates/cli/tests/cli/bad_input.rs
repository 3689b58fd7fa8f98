//! Bad input gets a clear answer: exit status 2 with what is wrong, where, and what to do.

use std::fs;

use crate::home::{Home, did, write_model, write_weights};

/// `distil generate` with a model that is not right.
#[track_caller]
fn refuses_model(home: &Home, words: &[&str]) {
    home.refused(&["generate", "model", "--prompt", "a"], words);
}

#[test]
fn commands_that_do_not_exist() {
    let home = Home::new();
    home.refused(
        &["trian", "run.toml"],
        &["unrecognized subcommand 'trian'", "train"],
    );
    home.refused(&["generate", "model"], &["--prompt"]);
    home.refused(
        &["generate", "model", "--prompt", "a", "--temperatur", "1"],
        &["--temperature"],
    );
    home.refused(
        &["generate", "model", "--prompt", "a", "--temperature", "-1"],
        &["--temperature", "from 0 to 100"],
    );
    home.refused(
        &["generate", "model", "--prompt", "a", "--batch", "0"],
        &["--batch", "whole number from 1"],
    );
    home.refused(
        &["methods", "dkpd"],
        &["no method `dkpd`", "sft, kd, seqkd, gkd"],
    );
    home.refused(
        &[
            "eval",
            "model",
            "--data",
            "dev.jsonl",
            "--metrics",
            "rougel",
        ],
        &["no metric `rougel`", "rouge_l"],
    );
    assert_eq!(home.run(&[]).status, 2);
}

/// As many threads as a typing error asks for take minutes to start.
#[test]
fn numbers_say_what_they_may_be() {
    let home = Home::new();
    let generate = ["generate", "model", "--prompt", "a"];
    for (more, words) in [
        (["--threads", "0"], "from 1 to 1024"),
        (["--threads", "1000000"], "from 1 to 1024"),
        (["--seed", "x"], "whole number from 0"),
    ] {
        home.refused(&[&generate[..], &more].concat(), &[more[0], words]);
    }
    let keep = ["prune", "model", "--out", "x", "--keep", "a"];
    home.refused(&keep, &["--keep", "whole number from 0"]);
    home.refused(
        &["chat", "model", "--max-new-tokens", "0"],
        &["whole number from 1"],
    );
}

#[test]
fn what_is_read_is_not_replaced() {
    let home = Home::new();
    let before = home.read("dev.jsonl");
    for verb in ["generate", "score", "reward", "eval"] {
        let arguments = [
            verb,
            "model",
            "--data",
            "dev.jsonl",
            "--out",
            "./dev.jsonl",
            "--force",
        ];
        home.refused(
            &arguments,
            &["dev.jsonl is the file that is read", "another --out"],
        );
        assert!(home.read("dev.jsonl") == before, "{verb}");
    }
}

#[test]
fn a_line_that_is_no_text_does_not_end_a_conversation() {
    let home = Home::new();
    fs::write(home.path("lines"), b"gr\xfc\xdfe\nhello\n").unwrap();
    let mut command = home.command(&["chat", "model", "--max-new-tokens", "2"]);
    command.stdin(fs::File::open(home.path("lines")).unwrap());
    let did = did(command.output().unwrap());
    assert_eq!(did.status, 0, "{}", did.err);
    assert!(did.err.contains("not UTF-8"), "{}", did.err);
    assert!(!did.out.is_empty(), "the next line is answered");
}

#[test]
fn models_that_are_nowhere() {
    let home = Home::new();
    home.refused(
        &["generate", "./mode", "--prompt", "a"],
        &["./mode", "no such file or folder", "check the path"],
    );
    home.refused(
        &["generate", "smollm2-135m-instrct", "--prompt", "a"],
        &["did you mean smollm2-135m-instruct"],
    );
    home.refused(
        &["prune", "model", "--layers", "9", "--out", "x"],
        &["9 layers of 3"],
    );
    home.refused(
        &["prune", "model", "--keep", "0,7", "--out", "x"],
        &["[0, 7]", "between 0 and 2"],
    );
}

#[test]
fn weights_that_are_missing_truncated_or_corrupted() {
    let home = Home::new();
    let weights = home.path("model/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    refuses_model(&home, &["model.safetensors", "fetch"]);
    let mut corrupted = whole.clone();
    corrupted[10..20].fill(b'?');
    fs::write(&weights, corrupted).unwrap();
    refuses_model(&home, &["model.safetensors"]);
    fs::remove_file(&weights).unwrap();
    refuses_model(&home, &["model", "safetensors"]);
    fs::write(home.path("broken.gguf"), b"GGUF\x03\0\0\0\xff\xff").unwrap();
    home.refused(
        &["generate", "broken.gguf", "--prompt", "a"],
        &["broken.gguf"],
    );
    fs::write(&weights, whole).unwrap();
    fs::write(
        home.path("model/config.json"),
        "{\"model_type\": \"mamba\"}",
    )
    .unwrap();
    refuses_model(&home, &["mamba", "is not supported"]);
}

#[test]
fn tensors_of_a_wrong_name_or_shape() {
    let home = Home::new();
    let named = |name: &str, shape: &[usize]| {
        let shapes = vec![
            ("model.embed_tokens.weight".to_owned(), vec![487, 32]),
            (name.to_owned(), shape.to_vec()),
        ];
        write_weights(&home.path("model"), shapes, 1);
    };
    named("model.layers.0.input_layernorm.weight", &[31]);
    refuses_model(
        &home,
        &[
            "model.layers.0.input_layernorm.weight",
            "shape [31]",
            "[32]",
        ],
    );
    named("model.layers.0.input_layernorm.wieght", &[32]);
    refuses_model(
        &home,
        &["model.layers.0.input_layernorm.weight", "is missing"],
    );
}

#[test]
fn configurations_that_are_wrong() {
    let home = Home::new();
    home.configure("name = \"kd\"", "lerning_rate = 1e-5");
    for verb in ["train", "plan"] {
        home.refused(
            &[verb, "run.toml"],
            &[
                "run.toml:15: train.lerning_rate",
                "did you mean `learning_rate`?",
            ],
        );
    }
    home.configure("name = \"dpkd\"\nbeta = -1.0", "steps = 1");
    home.refused(
        &["train", "run.toml"],
        &[
            "run.toml:12: method.beta",
            "out of range",
            "allowed: number > 0",
        ],
    );
    home.configure("name = \"kd\"", "steps = 1");
    home.refused(
        &["train", "run.toml", "--set", "train.batch=0"],
        &["train.batch", "0 is out of range"],
    );
    home.refused(&["train", "rum.toml"], &["rum.toml"]);
    assert!(!home.path("runs").exists(), "nothing was started");
}

#[test]
fn models_with_different_vocabularies() {
    let home = Home::new();
    write_model(&home.path("other"), "metaspace", 2);
    let words = [
        "teacher and student have different vocabularies",
        "id ",
        "one tokenizer",
    ];
    home.refused(
        &[
            "score",
            "model",
            "--data",
            "dev.jsonl",
            "--teacher",
            "other",
            "--out",
            "x.jsonl",
        ],
        &words,
    );
    home.configure("name = \"kd\"", "steps = 1");
    let text = fs::read_to_string(home.path("run.toml")).unwrap();
    home.write(
        "run.toml",
        &text.replace("prune = { layers = 2 }", "model = \"./other\""),
    );
    for verb in ["train", "plan"] {
        home.refused(&[verb, "run.toml"], &words);
    }
}

#[test]
fn data_that_cannot_be_used() {
    let home = Home::new();
    home.configure("name = \"kd\"", "steps = 1");
    let refused = |words: &[&str]| home.refused(&["train", "run.toml"], words);
    home.write("train.jsonl", "");
    refused(&["train.jsonl", "no rows"]);
    home.write(
        "train.jsonl",
        "{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": \"a\"\n",
    );
    refused(&["train.jsonl:2", "not JSON", "one object on each line"]);
    home.write("train.jsonl", "{\"question\": \"a\"}\n");
    refused(&["train.jsonl:1", "`question`"]);
    let long = "word ".repeat(100);
    home.write(
        "train.jsonl",
        &format!("{{\"prompt\": \"{long}\", \"response\": \"b\"}}\n"),
    );
    refused(&[
        "train.jsonl",
        "no row can be used",
        "raise data.max_prompt_tokens",
    ]);
    // A text asks nothing that the student could answer.
    home.configure("name = \"gkd\"", "steps = 1");
    home.write("train.jsonl", "{\"text\": \"a\"}\n");
    refused(&[
        "train.jsonl",
        "no row can be used",
        "1 left out without a prompt",
        "give rows with a prompt and an answer",
    ]);
    fs::remove_file(home.path("train.jsonl")).unwrap();
    refused(&["cannot read", "train.jsonl", "check the path"]);
    assert!(
        !home.path("runs/run").exists(),
        "the folder is free for the next try"
    );

    home.write(
        "none.jsonl",
        &format!("{{\"prompt\": \"{}\"}}\n", "word ".repeat(300)),
    );
    home.refused(
        &["generate", "model", "--data", "none.jsonl"],
        &["none.jsonl", "no row fits into the model's context"],
    );
    home.refused(&["generate", "model", "--data", "rows.csv"], &["rows.csv"]);
}

#[test]
fn output_that_exists_is_not_replaced() {
    let home = Home::new();
    fs::create_dir(home.path("there")).unwrap();
    home.write("there/file", "precious");
    for verb in ["prune", "convert"] {
        let more: &[&str] = if verb == "prune" {
            &["--layers", "2"]
        } else {
            &[]
        };
        home.refused(
            &[&[verb, "model", "--out", "there"], more].concat(),
            &["there exists already", "another --out"],
        );
    }
    home.configure("name = \"kd\"", "steps = 1");
    home.refused(
        &["train", "run.toml", "--out", "there"],
        &["there", "exists already", "--resume", "another --out"],
    );
    home.refused(
        &["train", "run.toml", "--out", "there", "--resume"],
        &["not a run's folder", "another --out"],
    );
    for arguments in [
        &["generate", "model", "--data", "dev.jsonl"][..],
        &["score", "model", "--data", "dev.jsonl"],
        &["eval", "model", "--data", "dev.jsonl"],
    ] {
        home.refused(
            &[arguments, &["--out", "there/file"]].concat(),
            &["there/file", "exists already", "--force"],
        );
        home.refused(&[arguments, &["--out", "there"]].concat(), &["is a folder"]);
    }
    assert_eq!(home.read("there/file"), b"precious");
    home.ok(&[
        "score",
        "model",
        "--data",
        "dev.jsonl",
        "--out",
        "there/file",
        "--force",
    ]);
    assert_ne!(home.read("there/file"), b"precious");
}

#[test]
fn a_run_is_resumed_with_its_own_configuration() {
    let home = Home::new();
    home.configure("name = \"sft\"", "steps = 1");
    home.ok(&["train", "run.toml", "--out", "run"]);
    home.refused(
        &[
            "train",
            "run.toml",
            "--out",
            "run",
            "--resume",
            "--set",
            "train.steps=2",
        ],
        &["run/config.toml", "steps = 1", "steps = 2"],
    );
}

/// What a checkpoint is made of was written here: it cannot be fetched again.
#[test]
fn a_damaged_checkpoint_says_how_to_go_on() {
    let home = Home::new();
    home.configure("name = \"sft\"", "steps = 2\ncheckpoint_every = 1");
    home.ok(&["train", "run.toml", "--out", "run"]);
    fs::remove_dir_all(home.path("run/student")).unwrap();
    fs::remove_file(home.path("run/eval.json")).unwrap();
    let resume = ["train", "run.toml", "--out", "run", "--resume"];
    let words = ["step-2", "remove this checkpoint's folder"];
    home.write("run/checkpoints/step-2/model.safetensors", "{}");
    home.refused(&resume, &words);
    fs::remove_file(home.path("run/checkpoints/step-2/config.json")).unwrap();
    home.refused(&resume, &words);
    fs::remove_dir_all(home.path("run/checkpoints/step-2")).unwrap();
    home.ok(&resume);
}

/// A file of /dev that can be written: nothing is replaced there, so nothing is lost.
#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_the_works_failure() {
    let home = Home::new();
    let did = home.run(&["convert", "model", "--out", "/dev/null/model"]);
    assert_eq!(did.status, 1, "{}", did.err);
    assert!(
        did.err.contains("cannot write /dev/null/model"),
        "{}",
        did.err
    );
    home.configure("name = \"sft\"", "steps = 1");
    let did = home.run(&["train", "run.toml", "--out", "dev.jsonl"]);
    assert_eq!(did.status, 1, "{}", did.err);
    for words in ["cannot write dev.jsonl", "a file has that name"] {
        assert!(did.err.contains(words), "{}", did.err);
    }
}
