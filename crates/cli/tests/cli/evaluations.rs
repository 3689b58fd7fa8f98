//! `distil eval` as a user runs it: seeds, files, killed and gone on with, compared, in suites.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::home::{Home, did, keys, objects, rows};

const EVAL: [&str; 6] = [
    "eval",
    "model",
    "--data",
    "dev.jsonl",
    "--max-new-tokens",
    "4",
];

fn json(home: &Home, name: &str) -> Value {
    serde_json::from_slice(&home.read(name)).unwrap()
}

fn lines(home: &Home, name: &str) -> Vec<Value> {
    objects(&String::from_utf8(home.read(name)).unwrap())
}

#[test]
fn a_table_on_screen_and_everything_in_files() {
    let home = Home::new();
    let table = home.ok(&[&EVAL[..], &["--out", "eval.json"]].concat());
    assert!(
        table.contains("rouge_l") && table.contains("measured on 4 rows"),
        "{table}"
    );
    assert!(
        !table.contains("forward_kl"),
        "there is no teacher: {table}"
    );
    assert!(!table.contains("words of the reference"), "{table}");
    let report = json(&home, "eval.json");
    let expected = [
        "format",
        "name",
        "model",
        "teacher",
        "data",
        "data_sha256",
        "weights_sha256",
        "tokenizer_sha256",
        "config_sha256",
        "teacher_sha256",
        "precision",
        "rows",
        "template",
        "max_new_tokens",
        "runs",
        "metrics",
        "signatures",
        "buckets",
        "exposure_bias",
        "by_row",
    ];
    assert_eq!(keys(&report), expected);
    assert_eq!(
        (&report["name"], &report["rows"]),
        (&"dev".into(), &4.into())
    );
    let rouge = &report["metrics"]["rouge_l"];
    assert_eq!(keys(rouge), ["rows", "greedy", "greedy_interval"]);
    assert_eq!(
        keys(&report["metrics"]["perplexity"]),
        ["rows", "value", "interval"]
    );
    assert_eq!(report["buckets"][0]["rows"], 4, "references of two words");
    let answers = lines(&home, "eval.answers.jsonl");
    assert_eq!(answers.len(), 4);
    let expected = [
        "run",
        "row",
        "prompt",
        "response",
        "finish_reason",
        "tokens",
        "references",
        "metrics",
        "token_ids",
    ];
    assert_eq!(keys(&answers[3]), expected);
    assert_eq!(answers[3]["row"], 3);
    assert!(!home.path("eval.partial.jsonl").exists());
}

#[test]
fn seeds_greedy_and_the_teacher() {
    let home = Home::new();
    let more = ["--teacher", "model", "--seeds", "1,2"];
    let arguments = [&EVAL[..], &more[..]].concat();
    let named = ["--metrics", "forward_kl,rouge_l", "--json"];
    let report = &objects(&home.ok(&[&arguments[..], &named[..]].concat()))[0];
    assert_eq!(
        report["metrics"]["forward_kl"]["value"], 0.0,
        "a model is its own best student"
    );
    let rouge = &report["metrics"]["rouge_l"];
    assert_eq!(rouge["by_seed"].as_array().unwrap().len(), 2);
    assert!(rouge["greedy"].is_number() && rouge["standard_deviation"].is_number());
    let sampled = home.ok(&[&arguments[..], &named[..], &["--no-greedy"]].concat());
    let sampled = &objects(&sampled)[0]["metrics"]["rouge_l"];
    assert_eq!(sampled["by_seed"], rouge["by_seed"]);
    assert!(sampled.get("greedy").is_none());

    let all = ["--metrics", "all", "--exposure-bias=1,2", "--token-rows"];
    let all = [&all[..], &["2", "--out", "all.json", "--buckets", "1,2"]].concat();
    let table = home.ok(&[&arguments[..], &all[..]].concat());
    for word in [
        "implicit_reward",
        "exposure bias",
        "(1, 2]",
        "temperature 1",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let report = json(&home, "all.json");
    assert_eq!(report["metrics"]["implicit_reward"]["mean"], 0.0);
    assert_eq!(report["exposure_bias"]["regret"][1], 0.0);
    let signature = report["signatures"]["sacrebleu"].as_str().unwrap();
    assert!(signature.starts_with("nrefs:1|"), "{signature}");
    let views = lines(&home, "all.tokens.jsonl");
    let of = |view: &Value| (view["row"].as_u64().unwrap(), view["source"].clone());
    let sources = ["student", "teacher", "reference"].map(Value::from);
    let expected: Vec<(u64, Value)> = (0..2)
        .flat_map(|row| sources.clone().map(|source| (row, source)))
        .collect();
    assert_eq!(views.iter().map(of).collect::<Vec<_>>(), expected);
    let names = [
        "row",
        "source",
        "tokens",
        "logprobs",
        "teacher_logprobs",
        "reward",
    ];
    assert_eq!(keys(&views[0]), names);
    assert_eq!(lines(&home, "all.teacher-answers.jsonl").len(), 8);
}

#[test]
fn a_killed_evaluation_goes_on_and_another_metric_costs_no_sampling() {
    let home = Home::new();
    home.write("many.jsonl", &rows(0..60));
    let arguments = [
        "eval",
        "model",
        "--data",
        "many.jsonl",
        "--max-new-tokens",
        "24",
        "--batch",
        "2",
        "--seeds",
        "1,2",
        "--metrics",
        "rouge_l",
    ];
    home.ok(&[&arguments[..], &["--out", "unbroken.json"]].concat());
    let broken = [&arguments[..], &["--out", "broken.json"]].concat();
    let mut child = home.command(&broken).spawn().unwrap();
    let partial = home.path("broken.partial.jsonl");
    let start = Instant::now();
    // The conditions and at least ten answers.
    let grown = || std::fs::read_to_string(&partial).is_ok_and(|text| text.lines().count() > 10);
    while !grown() {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing comes");
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!home.path("broken.json").exists());
    let went_on = home.run(&broken);
    assert_eq!(went_on.status, 0, "{}", went_on.err);
    assert!(went_on.err.contains("of 180 answers are there already"));
    for kind in ["json", "answers.jsonl"] {
        let read = |name: &str| home.read(&format!("{name}.{kind}"));
        assert!(read("broken") == read("unbroken"), "{kind} differs");
    }

    let more = [&arguments[..11], &["rouge_l,chrf", "--out", "broken.json"]].concat();
    let did = home.run(&more);
    assert_eq!(did.status, 0, "{}", did.err);
    assert!(
        did.err.contains("180 of 180 answers are there"),
        "{}",
        did.err
    );
    assert!(home.read("broken.answers.jsonl") == home.read("unbroken.answers.jsonl"));
    // The model's weights, the metric and the runs are looked at before anything is replaced.
    home.ok(&["prune", "model", "--layers", "2", "--out", "two"]);
    let mut other = more.clone();
    other[1] = "two";
    home.refused(&other, &["broken.json", "weights' sha256", "--force"]);
    home.refused(
        &[&EVAL[..4], &["--out", "broken.json"]].concat(),
        &["the data's sha256"],
    );
    home.refused(&broken, &["has the metric chrf", "--force"]);
    home.ok(&[&other[..], &["--force"]].concat());
    assert!(home.read("broken.answers.jsonl") != home.read("unbroken.answers.jsonl"));
}

#[test]
fn two_models_are_compared_on_the_same_rows() {
    let home = Home::new();
    home.ok(&["prune", "model", "--layers", "2", "--out", "two"]);
    let measure = |model: &str, out: &str, more: &[&str]| {
        let arguments = [
            &["eval", model, "--max-new-tokens", "4", "--out", out],
            more,
        ];
        home.ok(&arguments.concat());
    };
    let seeds = ["--data", "dev.jsonl", "--seeds", "1,2"];
    measure("model", "a.json", &seeds);
    measure("two", "b.json", &seeds);
    let table = home.ok(&["eval", "--compare", "a.json", "b.json"]);
    assert!(table.starts_with("A: model\nB: two\nmetric"), "{table}");
    assert!(table.contains("compared on 4 rows"), "{table}");
    let printed = home.ok(&["eval", "--compare", "a.json", "b.json", "--json"]);
    let comparison = &objects(&printed)[0];
    let perplexity = comparison["differences"]
        .as_array()
        .unwrap()
        .iter()
        .find(|difference| difference["metric"] == "perplexity")
        .unwrap();
    let expected = [
        "metric",
        "rows",
        "of",
        "a",
        "b",
        "difference",
        "interval",
        "probability_b_better",
        "p_value",
    ];
    assert_eq!(keys(perplexity), expected);
    let own = json(&home, "b.json");
    assert_eq!(perplexity["b"], own["metrics"]["perplexity"]["value"]);
    let tokens: Vec<&Value> = comparison["differences"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|difference| difference["metric"] == "response_tokens")
        .collect();
    assert_eq!(
        (&tokens[0]["of"], &tokens[1]["of"]),
        (&"greedy".into(), &"sampled".into())
    );
    assert_eq!(
        tokens[1]["a"],
        json(&home, "a.json")["metrics"]["response_tokens"]["mean"]
    );

    measure("model", "other.json", &["--data", "train.jsonl"]);
    measure("model", "few.json", &["--data", "dev.jsonl", "--rows", "3"]);
    let compare = |b: &'static str| ["eval", "--compare", "a.json", b];
    home.refused(&compare("other.json"), &["different data"]);
    home.refused(&compare("few.json"), &["row 3", "a.json only"]);
    home.refused(&compare("dev.jsonl"), &["dev.jsonl", "not an evaluation"]);
    home.refused(&compare("none.json"), &["none.json"]);
    assert_eq!(home.run(&["eval", "--compare", "a.json"]).status, 2);
    let ignored = [&compare("b.json")[..], &["--rows", "3"]].concat();
    home.refused(&ignored, &["--compare", "--rows"]);
}

#[test]
fn a_suite_is_one_table_and_a_file_a_set() {
    let home = Home::new();
    std::fs::create_dir(home.path("sets")).unwrap();
    home.write("sets/prompts.jsonl", "{\"prompt\": \"Say a.\"}\n");
    home.write(
        "sets/suite.toml",
        "[[set]]\nname = \"dev\"\ndata = \"../dev.jsonl\"\nrows = 3\n\
         [[set]]\nname = \"asked\"\ndata = \"prompts.jsonl\"\nmax_new_tokens = 2\n",
    );
    let arguments = ["eval", "model", "--max-new-tokens", "4"];
    let suite = ["--suite", "sets/suite.toml", "--out", "evaluations"];
    let table = home.ok(&[&arguments[..], &suite[..]].concat());
    let head = table.lines().next().unwrap();
    let columns: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(columns, ["metric", "dev", "asked", "unit", "better"]);
    let (dev, asked) = (
        json(&home, "evaluations/dev.json"),
        json(&home, "evaluations/asked.json"),
    );
    assert_eq!((&dev["name"], &dev["rows"]), (&"dev".into(), &3.into()));
    assert_eq!(asked["max_new_tokens"], 2);
    assert_eq!(
        keys(&asked["metrics"]),
        ["response_tokens", "eos_rate"],
        "there are no references"
    );
    assert_eq!(
        asked["metrics"]["response_tokens"]["greedy_interval"],
        Value::Null
    );
    assert_eq!(lines(&home, "evaluations/dev.answers.jsonl").len(), 3);
    let printed = home.ok(&[&arguments[..], &suite[..2], &["--json"]].concat());
    assert_eq!(objects(&printed).len(), 2);
}

/// What cannot be measured on the last set, or must not be replaced, is said before the first is measured.
#[test]
fn a_suite_is_refused_before_anything_is_measured() {
    let home = Home::new();
    home.write("prompts.jsonl", "{\"prompt\": \"Say a.\"}\n");
    home.write(
        "suite.toml",
        "[[set]]\nname = \"dev\"\ndata = \"dev.jsonl\"\n\
         [[set]]\nname = \"asked\"\ndata = \"prompts.jsonl\"\n",
    );
    let arguments = ["eval", "model", "--max-new-tokens", "4"];
    let suite = ["--suite", "suite.toml", "--out", "evaluations"];
    let arguments = [&arguments[..], &suite].concat();
    let nothing = || std::fs::read_dir(home.path("evaluations")).map_or(0, |files| files.count());
    home.refused(
        &[&arguments[..], &["--metrics", "rouge_l"]].concat(),
        &["set asked", "rouge_l", "no row has one"],
    );
    assert_eq!(nothing(), 0);
    std::fs::create_dir_all(home.path("evaluations")).unwrap();
    home.write("evaluations/asked.json", "precious");
    home.refused(
        &arguments,
        &["set asked", "asked.json", "not an evaluation"],
    );
    assert_eq!(
        (nothing(), home.read("evaluations/asked.json")),
        (1, b"precious".to_vec())
    );
}

/// FastChat's two files, as they are.
#[test]
fn questions_and_answers_may_be_two_files() {
    let home = Home::new();
    let question = |n: usize, text: &str| {
        format!("{{\"question_id\": {n}, \"category\": \"x\", \"turns\": [\"{text}\"]}}\n")
    };
    let answer = |n: usize, text: &str| {
        format!(
            "{{\"answer_id\": \"a\", \"question_id\": {n}, \"model_id\": \"m\", \"text\": \"{text}\"}}\n"
        )
    };
    home.write(
        "question.jsonl",
        &(question(1, "Say a.") + &question(2, "Say b.")),
    );
    home.write("answer.jsonl", &(answer(2, "b b b") + &answer(1, "a a a")));
    home.write(
        "suite.toml",
        "[[set]]\nname = \"alone\"\ndata = \"question.jsonl\"\n\
         [[set]]\nname = \"both\"\ndata = \"question.jsonl\"\nreferences = \"answer.jsonl\"\n",
    );
    let arguments = ["eval", "model", "--max-new-tokens", "2"];
    home.ok(&[&arguments[..], &["--suite", "suite.toml", "--out", "e"]].concat());
    let (alone, both) = (json(&home, "e/alone.json"), json(&home, "e/both.json"));
    assert!(alone["metrics"].get("rouge_l").is_none(), "{alone}");
    assert!(alone.get("references").is_none());
    assert!(both["metrics"]["perplexity"]["value"].is_number(), "{both}");
    assert!(
        both["references"]
            .as_str()
            .unwrap()
            .ends_with("answer.jsonl")
    );
    assert_ne!(alone["data_sha256"], both["data_sha256"]);
    let answers = lines(&home, "e/both.answers.jsonl");
    assert_eq!(answers[0]["references"], serde_json::json!(["a a a"]));
    assert_eq!(answers[1]["references"], serde_json::json!(["b b b"]));

    let one = [
        "--data",
        "question.jsonl",
        "--references",
        "answer.jsonl",
        "--out",
        "one.json",
    ];
    home.ok(&[&arguments[..], &one].concat());
    assert_eq!(json(&home, "one.json")["data_sha256"], both["data_sha256"]);
    let over = [
        "--data",
        "question.jsonl",
        "--references",
        "answer.jsonl",
        "--out",
        "answer.jsonl",
        "--force",
    ];
    home.refused(
        &[&arguments[..], &over].concat(),
        &["is the file that is read"],
    );
    // Other answers are other data.
    home.write("answer.jsonl", &(answer(2, "c") + &answer(1, "a")));
    home.refused(&[&arguments[..], &one].concat(), &["the data's sha256"]);
    home.write("answer.jsonl", &answer(1, "a"));
    let refused = ["question.jsonl:2", "no answer to question 2"];
    home.refused(&[&arguments[..], &one].concat(), &refused);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = Home::new();
    let refused = |more: &[&str], words: &[&str]| home.refused(&[&EVAL[..], more].concat(), words);
    refused(&["--seeds", "1,2,1"], &["--seeds", "1 is there twice"]);
    refused(&["--no-greedy"], &["--seeds"]);
    refused(
        &["--buckets", "70,30"],
        &["--buckets", "larger than the one before"],
    );
    refused(&["--exposure-bias"], &["add --teacher", "--seeds"]);
    refused(&["--exposure-bias=0"], &["whole number from 1"]);
    refused(&["--metrics", "forward_kl"], &["name a teacher"]);
    refused(&["--metrics", "rougel"], &["no metric `rougel`", "or all"]);
    refused(&["--suite", "suite.toml"], &["--suite"]);
    home.write("prompts.jsonl", "{\"prompt\": \"a\"}\n");
    home.write("empty.jsonl", "");
    home.write("empty.toml", "");
    let model = |more: &[&'static str]| [&["eval", "model"], more].concat();
    home.refused(
        &model(&["--data", "prompts.jsonl", "--metrics", "rouge_l"]),
        &["rouge_l", "no row has one"],
    );
    home.refused(&model(&["--data", "empty.jsonl"]), &["empty.jsonl"]);
    home.refused(&model(&["--suite", "empty.toml"]), &["empty.toml"]);
    home.refused(&model(&["--suite", "none.toml"]), &["none.toml"]);
    home.refused(&["eval"], &["MODEL"]);
    home.refused(&["eval", "model"], &["--data"]);
    refused(&["--rows", "0"], &["--rows", "whole number from 1"]);
    // A reader that went away is no reason to write half of a result, or none.
    let arguments = [&EVAL[..], &["--json", "--out", "read.json"]].concat();
    let mut child = home.command(&arguments).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(did(child.wait_with_output().unwrap()).status, 0);
    assert!(home.path("read.json").exists() && !home.path("read.partial.jsonl").exists());
}

/// The numbers of a model whose configuration was changed are not those of its answers from before.
#[test]
fn a_changed_configuration_is_another_model() {
    let home = Home::new();
    let arguments = [&EVAL[..], &["--out", "eval.json"]].concat();
    home.ok(&arguments);
    let config = String::from_utf8(home.read("model/config.json")).unwrap();
    let changed = config.replace("10000.0", "50.0");
    assert_ne!(changed, config);
    home.write("model/config.json", &changed);
    home.refused(&arguments, &["eval.json", "configuration files", "--force"]);
    home.write("model/config.json", &config);
    assert!(
        home.run(&arguments)
            .err
            .contains("4 of 4 answers are there already")
    );
}

#[test]
fn rows_without_a_reference_are_told_apart() {
    let home = Home::new();
    let long = "{\"prompt\": \"Say a.\", \"response\": \"".to_owned() + &"a ".repeat(300) + "\"}\n";
    home.write(
        "mixed.jsonl",
        &(rows(0..2) + "{\"prompt\": \"Say a.\"}\n" + &long),
    );
    let arguments = [
        "eval",
        "model",
        "--data",
        "mixed.jsonl",
        "--max-new-tokens",
        "4",
    ];
    let did = home.run(&arguments);
    assert_eq!(did.status, 0, "{}", did.err);
    let warned = "1 of 3 rows with their reference left out";
    assert!(did.err.contains(warned), "{}", did.err);
    assert!(did.out.contains("measured on 4 rows"), "{}", did.out);
    assert!(
        did.out.contains("of 3 rows only: rouge_l, exact_match"),
        "{}",
        did.out
    );
    assert!(
        did.out.contains("of 2 rows only: perplexity"),
        "{}",
        did.out
    );
}
