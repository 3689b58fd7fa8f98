//! What each verb gives when all is well.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::home::{Home, did, keys, objects, write_padded_model};

const METHODS: [&str; 10] = [
    "sft", "kd", "seqkd", "gkd", "distillm", "minillm", "dpkd", "llmr", "pbkd", "mm_pbkd",
];

const VERBS: [&str; 14] = [
    "quickstart",
    "train",
    "plan",
    "generate",
    "chat",
    "score",
    "reward",
    "eval",
    "report",
    "prune",
    "convert",
    "methods",
    "models",
    "bench",
];

#[test]
fn help_teaches_every_verb() {
    let home = Home::new();
    let overview = home.ok(&["--help"]);
    for verb in VERBS {
        assert!(
            overview.contains(&format!("\n  {verb} ")),
            "{verb}: {overview}"
        );
        let help = home.ok(&[verb, "--help"]);
        assert!(help.contains("Usage: distil"), "{help}");
        let examples = help
            .split_once(
                "Examples:
",
            )
            .map(|(_, examples)| examples);
        assert!(
            examples.is_some_and(|e| e.contains(&format!("  distil {verb}"))),
            "{help}"
        );
    }
    assert!(home.ok(&["--version"]).starts_with("distil 0."));
}

#[test]
fn generate_prints_text_for_a_prompt_and_json_for_a_file() {
    let home = Home::new();
    let greedy = [
        "generate",
        "model",
        "--prompt",
        "Hello",
        "--temperature",
        "0",
    ];
    let text = home.ok(&[&greedy[..], &["--max-new-tokens", "5"]].concat());
    let json = home.ok(&[&greedy[..], &["--max-new-tokens", "5", "--json"]].concat());
    let object = &objects(&json)[0];
    assert_eq!(object["response"].as_str(), text.strip_suffix('\n'));
    assert_eq!(object["prompt"], "Hello");

    let sampled = |batch: &str, out: &str| {
        let arguments = [
            "generate",
            "model",
            "--data",
            "train.jsonl",
            "--max-new-tokens",
            "6",
        ];
        home.ok(&[
            &arguments[..],
            &["--seed", "3", "--batch", batch, "--out", out],
        ]
        .concat());
        String::from_utf8(home.read(out)).unwrap()
    };
    let one = sampled("1", "one.jsonl");
    assert_eq!(
        one,
        sampled("7", "seven.jsonl"),
        "a row's sample is its own"
    );
    let lines = objects(&one);
    assert_eq!(lines.len(), 20);
    for (line, n) in lines.iter().zip(0..) {
        assert_eq!(
            keys(line),
            ["prompt", "response", "finish_reason", "tokens"]
        );
        assert_eq!(
            line["prompt"],
            format!("Count from {n}."),
            "the order of the file"
        );
        assert!(["stop", "length"].contains(&line["finish_reason"].as_str().unwrap()));
        assert!((1..=6).contains(&line["tokens"].as_u64().unwrap()));
    }
    let answers = |line: &Value| line["response"].as_str().unwrap().to_owned();
    assert_ne!(answers(&lines[0]), answers(&lines[1]));
}

#[test]
fn a_reader_that_stops_reading_ends_generate_quietly() {
    let home = Home::new();
    let arguments = [
        "generate",
        "model",
        "--data",
        "train.jsonl",
        "--max-new-tokens",
        "2",
    ];
    let mut child = home.command(&arguments).spawn().unwrap();
    drop(child.stdout.take());
    let did = did(child.wait_with_output().unwrap());
    assert_eq!((did.status, did.err.as_str()), (0, ""));
}

#[test]
fn chat_answers_every_line() {
    let home = Home::new();
    let arguments = [
        "chat",
        "model",
        "--max-new-tokens",
        "3",
        "--temperature",
        "0",
        "--quiet",
    ];
    let talk = |lines: &str| {
        let mut child = home
            .command(&arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        let did = did(child.wait_with_output().unwrap());
        assert_eq!(did.status, 0, "{}", did.err);
        (did.out, did.err)
    };
    let (first, _) = talk("Hello\n");
    let (twice, _) = talk("Hello\n\n/reset\nHello\n");
    assert_eq!(twice, first.repeat(2), "a reset forgets");
    let (ended, _) = talk("/exit\nHello\n");
    assert_eq!(ended, "");
    let (_, warned) = talk("/rest\n");
    assert!(warned.contains("there are /reset and /exit"), "{warned}");
}

#[test]
fn score_gives_lists_over_the_response_tokens() {
    let home = Home::new();
    home.ok(&["prune", "model", "--keep", "0,2", "--out", "student"]);
    home.ok(&[
        "score",
        "student",
        "--data",
        "dev.jsonl",
        "--out",
        "plain.jsonl",
    ]);
    let arguments = [
        "score",
        "student",
        "--data",
        "dev.jsonl",
        "--teacher",
        "model",
    ];
    home.ok(&[&arguments[..], &["--out", "compared.jsonl"]].concat());
    let plain = objects(&String::from_utf8(home.read("plain.jsonl")).unwrap());
    let compared = objects(&String::from_utf8(home.read("compared.jsonl")).unwrap());
    assert_eq!((plain.len(), compared.len()), (4, 4));
    for (plain, compared) in plain.iter().zip(&compared) {
        assert_eq!(keys(plain), ["token_ids", "logprobs"]);
        let names = [
            "token_ids",
            "logprobs",
            "teacher_logprobs",
            "forward_kl",
            "reverse_kl",
            "jsd",
            "tvd",
        ];
        assert_eq!(keys(compared), names);
        assert_eq!(plain["token_ids"], compared["token_ids"]);
        let length = plain["token_ids"].as_array().unwrap().len();
        for name in names {
            assert_eq!(compared[name].as_array().unwrap().len(), length, "{name}");
        }
        for (logprob, kl) in numbers(&compared["logprobs"]).zip(numbers(&compared["forward_kl"])) {
            assert!(logprob < 0.0 && kl > 0.0);
        }
    }
}

/// Rounded factors change every number a little, whichever verb says it.
#[test]
fn models_are_asked_in_bf16_too() {
    let home = Home::new();
    let lines = |verb: &str, more: &[&str], out: &str| {
        let arguments = [verb, "model", "--data", "dev.jsonl", "--out", out];
        home.ok(&[&arguments[..], more].concat());
        objects(&String::from_utf8(home.read(out)).unwrap())
    };
    let bf16 = ["--precision", "bf16"];
    for (verb, name) in [("score", "logprobs"), ("reward", "q")] {
        let exact = lines(verb, &[], &format!("{verb}.jsonl"));
        let same = lines(verb, &["--precision", "f32"], &format!("{verb}-f32.jsonl"));
        let rounded = lines(verb, &bf16, &format!("{verb}-bf16.jsonl"));
        assert_eq!(exact, same, "f32 is the default");
        let of = |lines: &[Value]| -> Vec<f64> {
            lines.iter().flat_map(|line| numbers(&line[name])).collect()
        };
        let (exact, rounded) = (of(&exact), of(&rounded));
        assert_eq!(exact.len(), rounded.len());
        let furthest = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs());
        let furthest = furthest.fold(0.0, f64::max);
        assert!(furthest > 1e-6 && furthest < 0.1, "{verb}: {furthest}");
    }
    let answer = ["--max-new-tokens", "3", "--temperature", "0"];
    let generate = ["generate", "model", "--prompt", "a"];
    assert!(
        !home
            .ok(&[&generate[..], &answer, &bf16].concat())
            .is_empty()
    );
    home.ok(&[&["chat", "model"][..], &answer, &bf16].concat());
    let eval = ["eval", "model", "--teacher", "model", "--data", "dev.jsonl"];
    let eval = [&eval[..], &["--max-new-tokens", "3", "--json"]].concat();
    for precision in ["f32", "bf16"] {
        let printed = home.ok(&[&eval[..], &["--precision", precision]].concat());
        let report = &objects(&printed)[0];
        assert_eq!(report["precision"], precision);
        assert_eq!(
            report["metrics"]["forward_kl"]["value"], 0.0,
            "both are the same"
        );
    }
    let wrong = ["--precision", "f16"];
    home.refused(&[&generate[..], &wrong].concat(), &["f32, bf16"]);
}

#[test]
fn reward_gives_lists_that_add_up_and_correlates_with_references() {
    let home = Home::new();
    let arguments = ["reward", "model", "--data", "dev.jsonl"];
    let lines = |more: &[&str], out: &str| {
        home.ok(&[&arguments[..], more, &["--out", out]].concat());
        objects(&String::from_utf8(home.read(out)).unwrap())
    };
    let largest = lines(&[], "max.jsonl");
    assert_eq!(largest.len(), 4);
    for line in &largest {
        assert_eq!(keys(line), ["token_ids", "q", "reward", "return"]);
        let [q, reward, returns] =
            ["q", "reward", "return"].map(|name| numbers(&line[name]).collect::<Vec<_>>());
        assert_eq!(line["token_ids"].as_array().unwrap().len(), q.len());
        assert_eq!((reward.len(), returns.len()), (q.len(), q.len()));
        assert!((returns[0] - reward.iter().sum::<f64>()).abs() < 1e-9);
        assert_eq!(reward.last(), q.last(), "nothing comes after the end");
    }
    for value in ["expected", "soft"] {
        let other = lines(&["--value", value], &format!("{value}.jsonl"));
        assert_eq!(other[0]["q"], largest[0]["q"]);
        assert_ne!(other[0]["reward"], largest[0]["reward"]);
    }
    let other = ["--template", "Say: {{ prompt }}\n"];
    let alone = lines(&other, "other.jsonl");
    let both = lines(
        &[&["--template", "chat"][..], &other[..]].concat(),
        "both.jsonl",
    );
    // A response's last reward is its q, whatever the template's tokens: the mean of both.
    let last = |line: &Value| numbers(&line["q"]).last().unwrap();
    for ((both, chat), alone) in both.iter().zip(&largest).zip(&alone) {
        assert!((last(both) - (last(chat) + last(alone)) / 2.0).abs() < 1e-5);
    }

    let row = |response: &str| {
        format!("{{\"prompt\":\"a\",\"response\":\"{response}\",\"reference\":\"one two\"}}\n")
    };
    let without = "{\"prompt\":\"a\",\"response\":\"b\"}\n".to_owned();
    let text = [row("one two"), row("one more"), row("none"), without];
    home.write("answers.jsonl", &text.concat());
    let arguments = ["reward", "model", "--data", "answers.jsonl", "--out"];
    let did = home.run(&[&arguments[..], &["r.jsonl"]].concat());
    assert_eq!(did.status, 0, "{}", did.err);
    assert!(did.err.contains("Spearman"), "{}", did.err);
    assert!(did.err.contains("over 3 rows"), "{}", did.err);
    home.refused(
        &[&arguments[..], &["r.jsonl"]].concat(),
        &["exists already"],
    );
    home.write("text.jsonl", "{\"text\":\"a b\"}\n");
    let text = [
        "reward",
        "model",
        "--data",
        "text.jsonl",
        "--out",
        "t.jsonl",
    ];
    home.refused(&text, &["text.jsonl:1", "without a prompt"]);
    let bad = "{\"prompt\":\"a\",\"response\":\"b\",\"reference\":3}\n";
    home.write("bad.jsonl", bad);
    let bad = ["reward", "model", "--data", "bad.jsonl", "--out", "t.jsonl"];
    home.refused(&bad, &["bad.jsonl:1", "`reference`"]);
}

fn numbers(list: &Value) -> impl Iterator<Item = f64> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
}

#[test]
fn rows_over_the_context_are_named_and_the_others_scored() {
    let home = Home::new();
    let long = "word ".repeat(300);
    home.write(
        "rows.jsonl",
        &format!("{{\"prompt\":\"a\",\"response\":\"b\"}}\n{{\"prompt\":\"{long}\",\"response\":\"b\"}}\n"),
    );
    for verb in ["score", "generate"] {
        let out = format!("{verb}.jsonl");
        let did = home.run(&[
            verb,
            "model",
            "--data",
            "rows.jsonl",
            "--out",
            &out,
            "--quiet",
        ]);
        assert_eq!(did.status, 0, "{}", did.err);
        assert!(did.err.contains("1 of 2 rows left out"), "{}", did.err);
        assert!(did.err.contains("rows.jsonl:2"), "{}", did.err);
        assert_eq!(
            objects(&String::from_utf8(home.read(&out)).unwrap()).len(),
            1
        );
    }
}

#[test]
fn a_pruned_model_is_smaller_and_a_converted_one_the_same() {
    let home = Home::new();
    let said = home.ok(&["prune", "model", "--layers", "2", "--out", "two"]);
    assert!(said.contains("layers 0,2 of 3"), "{said}");
    let config: Value = serde_json::from_slice(&home.read("two/config.json")).unwrap();
    assert_eq!(config["num_hidden_layers"], 2);
    home.ok(&["convert", "model", "--out", "copy"]);
    let greedy = |model| home.ok(&["generate", model, "--prompt", "a", "--temperature", "0"]);
    assert_eq!(greedy("copy"), greedy("model"));
    assert_ne!(greedy("two"), greedy("model"));
}

#[test]
fn methods_and_models_are_listed() {
    let home = Home::new();
    let all = home.ok(&["methods"]);
    // A method's line begins with its name; what is said of it is indented.
    let listed: Vec<(&str, &str)> = all
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(|line| line.split_once("  ").unwrap_or_else(|| panic!("{line}")))
        .collect();
    let names: Vec<&str> = listed.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, METHODS);
    let column = "distillm".len() + 2;
    for (name, title) in listed {
        let title = title.trim_start();
        assert!(all.contains(&format!("{name:<column$}{title}\n")), "{all}");
        let one = home.ok(&["methods", name]);
        assert!(one.starts_with(&format!("{name}: {title}\n\n  ")), "{one}");
        let hyperparameters = match name {
            "sft" => "\nIt has no hyperparameters of its own.\n",
            _ => "\nHyperparameters\n  method.",
        };
        for part in ["\nWhen\n  ", "\nCost\n  ", "\nPaper\n  ", hyperparameters] {
            assert!(one.contains(part), "`{part}` is not in: {one}");
        }
        for line in one.lines().skip(1) {
            let heading = ["When", "Cost", "Paper", "Hyperparameters"].contains(&line);
            let text = line.is_empty() || line.starts_with("  ") || line.starts_with("It has no");
            assert!(heading || text, "`{line}` stands out in: {one}");
        }
    }
    let indented = |line: &&str| line.starts_with(' ');
    assert!(
        all.lines()
            .filter(indented)
            .all(|line| line.len() - line.trim_start().len() == column),
        "{all}"
    );
    let kd = home.ok(&["methods", "kd"]);
    assert!(
        kd.contains("method.ce_share\n    number ≥ 0 and ≤ 1; default 0.0"),
        "{kd}"
    );
    assert!(home.ok(&["models"]).contains("smollm2-135m-instruct"));
    let catalogue = objects(&home.ok(&["models", "--json"]));
    assert_eq!(catalogue[0]["name"], "smollm2-135m-instruct");
}

#[test]
fn train_writes_a_student_that_every_verb_takes() {
    let home = Home::new();
    for (method, more) in [
        ("sft", ""),
        ("kd", "ce_share = 0.5"),
        ("seqkd", ""),
        ("dpkd", "max_new_tokens = 4"),
        ("dpkd", "form = \"token\""),
    ] {
        home.configure(&format!("name = \"{method}\"\n{more}"), "steps = 2");
        let out = format!("run{}{}", method, more.len());
        let student = home.ok(&["train", "run.toml", "--out", &out]);
        assert_eq!(student.trim(), format!("{out}/student"));
        let metrics = String::from_utf8(home.read(&format!("{out}/metrics.jsonl"))).unwrap();
        let steps = objects(&metrics)
            .iter()
            .filter(|line| line["loss"].is_number())
            .count();
        assert_eq!(steps, 2, "{metrics}");
        home.ok(&[
            "generate",
            student.trim(),
            "--prompt",
            "a",
            "--max-new-tokens",
            "2",
        ]);
    }
}

/// A teacher that answers in bf16 is pruned and hashed as it is on the disk: a step of no length leaves
/// of the student what `distil prune` makes.
#[test]
fn precision_changes_neither_the_pruned_student_nor_what_is_hashed() {
    let home = Home::new();
    let still = "steps = 1\nweight_decay = 0.0";
    home.configure("name = \"kd\"", still);
    home.ok(&["prune", "model", "--layers", "2", "--out", "pruned"]);
    let pruned = home.read("pruned/model.safetensors");
    let hashed = |run: &str| {
        let text = home.read(&format!("{run}/environment.json"));
        let environment: Value = serde_json::from_slice(&text).unwrap();
        environment["sha256"].clone()
    };
    let trained = |run: &str, keys: &[&str]| {
        let mut arguments = vec!["train", "run.toml", "--out", run];
        for &key in keys.iter().chain(&["train.learning_rate=1e-30"]) {
            arguments.extend(["--set", key]);
        }
        home.ok(&arguments);
        home.read(&format!("{run}/student/model.safetensors"))
    };
    assert!(trained("exact", &[]) == pruned);
    let both = ["teacher.precision=bf16", "student.precision=bf16"];
    assert!(trained("rounded", &both) == pruned);
    // The first loss tells what each key changes; recomputing changes nothing.
    let first_loss = |run: &str| {
        let metrics = String::from_utf8(home.read(&format!("{run}/metrics.jsonl"))).unwrap();
        let losses = objects(&metrics).into_iter();
        losses
            .filter_map(|line| line["loss"].as_f64())
            .next()
            .unwrap()
    };
    let exact = first_loss("exact");
    for key in ["teacher.precision=bf16", "student.precision=bf16"] {
        trained(key, &[key]);
        let off = (first_loss(key) - exact).abs();
        assert!(
            off > 0.0 && off < 0.05 * exact,
            "{key}: {exact}, off by {off}"
        );
    }
    trained("again", &["train.recompute=true"]);
    assert!((first_loss("again") - exact).abs() < 1e-6);
    assert_eq!(hashed("exact"), hashed("rounded"));
    let resolved = String::from_utf8(home.read("rounded/config.toml")).unwrap();
    assert!(resolved.contains("sampling_precision = \"bf16\"\n"));
}

#[test]
fn a_run_goes_where_its_configuration_is_named() {
    let home = Home::new();
    home.configure("name = \"sft\"", "steps = 1");
    assert_eq!(home.ok(&["train", "run.toml"]).trim(), "runs/run/student");
    // What is finished stays finished.
    assert_eq!(
        home.ok(&["train", "run.toml", "--resume"]).trim(),
        "runs/run/student"
    );
}

/// Arguments of a benchmark that takes a moment, each list as it is typed.
const BENCHES: [&str; 8] = [
    "step --model model --student-layers 2 --batch 2 --length 8 --steps 1",
    "step --model model --student-layers 2 --batch 2 --length 8 --steps 1 --precision bf16",
    "step --model model --student-layers 2 --batch 2 --steps 1 --on-policy --prompt-tokens 3 \
     --new-tokens 4",
    "sample --model model --sequences 2 --new-tokens 3",
    "sample --model model --sequences 2 --new-tokens 3 --precision bf16",
    "score --model model --batch 2 --length 8 --passes 1",
    "load --model model --passes 1",
    "head --tokens 4 --width 8 --vocabulary 16 --passes 1",
];

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn bench_prints_one_object() {
    let home = Home::new();
    for case in BENCHES.map(words) {
        let printed = home.ok(&[&["bench", "--json"][..], &case[..]].concat());
        let [object] = &objects(&printed)[..] else {
            panic!("not one object: {printed}")
        };
        assert_eq!(object["bench"], case[0]);
        assert!(object["case"].is_string(), "{printed}");
        let precision = match case.contains(&"bf16") {
            true => "bf16",
            false => "f32",
        };
        assert_eq!(object["precision"], precision);
        for key in ["seconds", "tokens_per_second", "gflops", "share_of_roof"] {
            assert!(object[key].as_f64().unwrap() > 0.0, "{key}");
        }
        assert!(!keys(&object["phases"]).is_empty());
        assert!(object["roof"]["instructions"].is_string());
    }
}

#[test]
fn bench_measures_every_number_of_sequences() {
    let home = Home::new();
    let sample = words("bench sample --model model --new-tokens 3 --sequences 1,3");
    let printed = home.ok(&[&sample[..], &["--json"]].concat());
    let cases: Vec<String> = objects(&printed)
        .iter()
        .map(|object| object["case"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(cases.len(), 2);
    assert!(cases[0].starts_with("1 sequences") && cases[1].starts_with("3 sequences"));
    let table = home.ok(&sample);
    assert_eq!(table.matches("tokens/s").count(), 2, "{table}");
    home.refused(&words("bench sample --sequences 1,0"), &["from 1"]);
}

#[test]
fn bench_shows_the_roofs_of_the_machine() {
    let home = Home::new();
    let printed = home.ok(&["bench", "roof", "--json"]);
    let [object] = &objects(&printed)[..] else {
        panic!("not one object: {printed}")
    };
    assert_eq!(object["bench"], "roof");
    for precision in ["f32", "bf16"] {
        assert!(object[precision]["gflops"].as_f64().unwrap() > 0.0);
    }
    let table = home.ok(&["bench", "roof"]);
    assert!(table.contains("bf16 matrix products"), "{table}");
}

/// An option without effect is refused.
#[test]
fn bench_refuses_options_of_the_other_kind_of_step() {
    let home = Home::new();
    home.refused(&words("bench step --new-tokens 3"), &["--on-policy"]);
    let both = words("bench step --on-policy --length 8");
    home.refused(&both, &["--on-policy", "--length"]);
}

/// Vocabularies of one family often differ by padding alone: they align by themselves, whichever
/// side has more.
#[test]
fn a_padded_vocabulary_aligns_by_itself() {
    let home = Home::new();
    write_padded_model(&home.path("padded"), "smollm.gguf", 2, 37);
    for (student, teacher) in [("model", "padded"), ("padded", "model")] {
        let name = format!("{student}.jsonl");
        let score = ["score", student, "--data", "dev.jsonl"];
        home.ok(&[&score[..], &["--teacher", teacher, "--out", &name]].concat());
        let scores = String::from_utf8(home.read(&name)).unwrap();
        for row in objects(&scores) {
            let divergences = row["forward_kl"].as_array().unwrap();
            assert!(divergences.iter().all(|kl| kl.as_f64().unwrap() > 0.0));
        }
        let config = format!(
            "[teacher]\nmodel = \"./{teacher}\"\n[student]\nmodel = \"./{student}\"\n\
             [data]\ntrain = \"train.jsonl\"\nmax_prompt_tokens = 64\nmax_response_tokens = 16\n\
             [method]\nname = \"dpkd\"\nmax_new_tokens = 4\n[train]\nsteps = 2\nbatch = 4\n"
        );
        home.write("padded.toml", &config);
        home.ok(&["train", "padded.toml", "--out", &format!("run-{student}")]);
    }
}

#[test]
fn a_report_is_one_file_about_one_run_or_several() {
    let home = Home::new();
    for (method, out) in [("name = \"kd\"", "kd"), ("name = \"sft\"", "sft")] {
        home.configure(method, "steps = 2");
        home.ok(&["train", "run.toml", "--out", out]);
    }
    let path = home.ok(&["report", "kd"]);
    assert_eq!(path.trim(), "kd/report.html");
    let one = String::from_utf8(home.read("kd/report.html")).unwrap();
    assert!(
        one.starts_with("<!DOCTYPE html>") && one.contains("Word-level knowledge distillation")
    );
    assert!(one.contains("<figure><h4>loss</h4><svg class=\"plot\""));
    // A run's own report is made anew; a file that was named is not.
    home.ok(&["report", "kd"]);
    home.ok(&["report", "kd", "sft"]);
    let both = String::from_utf8(home.read("report.html")).unwrap();
    assert!(both.contains("<code>method.name</code>"), "what differs");
    home.refused(
        &["report", "kd", "sft"],
        &["report.html exists already", "--force"],
    );
    home.ok(&["report", "kd", "sft", "--force"]);
    home.refused(
        &["report", "kd/student"],
        &["not a run's folder", "distil train"],
    );
    home.refused(&["report"], &["<RUN>"]);
}
