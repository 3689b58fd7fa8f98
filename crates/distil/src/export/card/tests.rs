//! Cards of runs that are written down here.

use std::fs;

use serde_json::json;
use yaml_rust2::{Yaml, YamlLoader};

use super::super::tests::run;
use super::*;

/// A name with every character that YAML, Markdown or HTML could take for its own.
const NASTY: &str = "a: \"b\" `c` |d| <e> # -- {f}.jsonl";

fn config(teacher: &str, student: &str) -> String {
    format!(
        "seed = 0\n[teacher]\nmodel = {}\n[student]\n{student}\n\
         [data]\ntrain = [{}, \"/srv/b.jsonl\"]\neval = \"/srv/dev.jsonl\"\ntemplate = \"chat\"\n\
         max_prompt_tokens = 64\nmax_response_tokens = 16\n\
         [method]\nname = \"dpkd\"\n[train]\nkeep_best = true\n",
        json!(teacher),
        json!(format!("/srv/someone/{NASTY}"))
    )
}

fn write(path: &Path, name: &str, value: &Value) {
    fs::write(path.join(name), value.to_string()).unwrap();
}

/// A finished run.
fn finished(path: &Path, config: &str) {
    run(path, config, "{\"step\":1,\"loss\":2.0}\n");
    write(
        path,
        "environment.json",
        &json!({
            "version": "1.2.3", "commit": "abcdef", "device": "cpu (flex)",
            "sha256": {"/srv/b.jsonl": "b5", "/srv/dev.jsonl": "de",
                format!("/srv/someone/{NASTY}"): "a5"},
            "rows": {"read": 1200, "used": 1100}, "held_out": {"prompts": 40, "references": 39},
            "models": {"teacher": {"layers": 30, "width": 576, "parameters": 134_515_008},
                "student": {"layers": 24, "width": 576, "parameters": 113_275_008}},
        }),
    );
    write(
        path,
        "eval.json",
        &json!({
            "start": {"rouge_l": 0.0625, "forward_kl": 7.25}, "student_step": 200, "steps": 300,
            "student": {"rouge_l": 0.1875, "forward_kl": 1.125}, "tokens": 123_456,
            "training_seconds": 61.25, "preparation_seconds": 2.5,
        }),
    );
}

/// The YAML at the head, and the rest.
fn parts(card: &str) -> (Yaml, String) {
    let rest = card.strip_prefix("---\n").unwrap();
    let (head, body) = rest.split_once("\n---\n").unwrap();
    let mut documents = YamlLoader::load_from_str(head).unwrap();
    assert_eq!(documents.len(), 1, "{head}");
    (documents.remove(0), body.to_owned())
}

fn texts(yaml: &Yaml) -> Vec<&str> {
    let values = yaml.as_vec().unwrap();
    values.iter().map(|value| value.as_str().unwrap()).collect()
}

#[cfg(unix)]
#[test]
fn a_card_says_what_the_run_says_and_names_no_folder() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("first");
    finished(
        &path,
        &config("smollm2-135m-instruct", "prune = { layers = 24 }"),
    );
    let card = at_the_end(&Record::read(&path).unwrap());
    let (head, body) = parts(&card);
    assert_eq!(head["library_name"].as_str(), Some("transformers"));
    assert_eq!(
        texts(&head["base_model"]),
        ["HuggingFaceTB/SmolLM2-135M-Instruct"]
    );
    assert_eq!(texts(&head["tags"]), ["distillation", "distil", "dpkd"]);
    assert_eq!(head["base_model_relation"].as_str(), Some("finetune"));
    for left in ["license", "datasets"] {
        assert!(head[left].is_badvalue(), "{left} is guessed");
        let asked = format!("# {left}: to be filled in");
        assert!(card.contains(&asked), "{asked} is not in: {card}");
    }
    for part in [
        "# Student of `smollm2-135m-instruct`",
        "Direct preference knowledge distillation",
        "(https://arxiv.org/abs/2406.19774)",
        "24 evenly spaced layers of the teacher",
        "| parameters | 134,515,008 | 113,275,008 |",
        "| ``a: \"b\" `c` \\|d\\| <e> # -- {f}.jsonl`` | training | `a5` |",
        "| `dev.jsonl` | measuring | `de` |",
        "1,100 of 1,200 training rows",
        "on 40 prompts and 39 references of `dev.jsonl`",
        "| `forward_kl` | 7.250 | 1.125 | lower |",
        "| `rouge_l` | 0.06250 | 0.1875 | higher |",
        "By distil 1.2.3, commit `abcdef`, on cpu (flex).",
        "| `first` | `dpkd` | 300 | 123,456 | 61.2 | 2.5 |",
        "the best checkpoint, of step 200",
        "the weights of `smollm2-135m-instruct`: Apache-2.0, as",
    ] {
        assert!(body.contains(part), "`{part}` is not in: {body}");
    }
    assert!(
        !card.contains("/srv") && !card.contains("someone"),
        "{card}"
    );
}

#[test]
fn a_teacher_that_is_not_on_the_hub_is_not_made_up() {
    let home = tempfile::tempdir().unwrap();
    finished(
        home.path(),
        &config("/srv/someone/teacher", "model = \"hf:a/b@main\""),
    );
    let (head, body) = parts(&at_the_end(&Record::read(home.path()).unwrap()));
    assert_eq!(texts(&head["base_model"]), ["a/b"]);
    assert!(
        body.contains("the weights of `teacher`: not known"),
        "{body}"
    );
    finished(
        home.path(),
        &config("/srv/someone/teacher", "prune = { keep = [0, 4] }"),
    );
    let (head, body) = parts(&at_the_end(&Record::read(home.path()).unwrap()));
    assert!(head["base_model"].is_badvalue() && head["base_model_relation"].is_badvalue());
    assert!(body.contains("the layers [0, 4] of the teacher"), "{body}");
}

/// A run of an older version, which noted less, and measured nothing.
#[test]
fn what_is_not_known_is_left_out() {
    let home = tempfile::tempdir().unwrap();
    let config = "[student]\nmodel = \"hf:a/b\"\n[data]\ntrain = [\"c.jsonl\"]\n\
                  template = \"{{ prompt }}\\n```\"\n[method]\nname = \"sft\"\n";
    run(home.path(), config, "");
    let card = at_the_end(&Record::read(home.path()).unwrap());
    for part in [
        "# A fine-tuned model",
        "Nothing was measured.",
        "began as `hf:a/b`",
        "````jinja\n{{ prompt }}\n```\n````\n",
    ] {
        assert!(card.contains(part), "`{part}` is not in: {card}");
    }
    for part in ["null", "| parameters", "its teacher"] {
        assert!(!card.contains(part), "`{part}` is in: {card}");
    }
}

#[test]
fn the_card_of_a_schedule_tells_of_all_its_stages() {
    let home = tempfile::tempdir().unwrap();
    let schedule = home.path().join("both");
    let (one, two) = (
        schedule.join("stages/1-dpkd"),
        schedule.join("stages/2-dpkd"),
    );
    finished(&one, &config("hf:a/teacher", "prune = { layers = 24 }"));
    let student = one.join("student");
    finished(
        &two,
        &config("hf:a/teacher", &format!("model = {}", json!(student))),
    );
    assert!(
        cards(&schedule)
            .unwrap_err()
            .to_string()
            .contains("no student yet")
    );
    for student in [&student, &two.join("student"), &schedule.join("student")] {
        fs::create_dir(student).unwrap();
    }
    let cards = cards(&schedule).unwrap();
    let paths: Vec<&Path> = cards
        .iter()
        .map(|(path, _)| path.parent().unwrap())
        .collect();
    assert_eq!(
        paths,
        [student, schedule.join("student"), two.join("student")]
    );
    assert_eq!(cards[1].1, cards[2].1);
    let body = &cards[1].1;
    for part in [
        "- \"a/teacher\"\n",
        "2. Direct preference",
        "The student began as 24 evenly spaced layers of the teacher.",
        "During this last stage, on",
        "model = \"stages/1-dpkd/student\"",
        "| `both/1-dpkd` |",
        "| `both/2-dpkd` |",
        "<summary>The configuration of both/1-dpkd</summary>",
    ] {
        assert!(body.contains(part), "`{part}` is not in: {body}");
    }
    assert!(!cards[0].1.contains("2-dpkd"));
}
