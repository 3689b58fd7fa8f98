//! `distil plan`, as a user sees it.

use serde_json::{Value, json};

use crate::home::{Did, Home, objects, rows, write_model};

#[test]
fn plan_predicts_and_starts_nothing() {
    let home = Home::new();
    home.configure("name = \"kd\"", "steps = 3");
    let plan = home.ok(&["plan", "run.toml"]);
    for words in [
        "kd",
        "3 layers",
        "2 layers",
        "20 used, all there are",
        "AdamW's moments",
        "time",
    ] {
        assert!(plan.contains(words), "`{words}` is not in: {plan}");
    }
    let json = &objects(&home.ok(&["plan", "run.toml", "--json", "--set", "train.steps=7"]))[0];
    assert_eq!(json["steps"], 7);
    assert_eq!(json["ended_by_tokens"], false);
    let plan = home.ok(&["plan", "run.toml", "--set", "train.tokens=1"]);
    assert!(
        plan.contains("steps     1 or so, until train.tokens is reached,"),
        "{plan}"
    );
    assert!(!home.path("runs").exists());
    let rounded = ["--set", "teacher.precision=bf16", "--json"];
    let rounded = home.ok(&[&["plan", "run.toml"][..], &rounded].concat());
    let rounded = &objects(&rounded)[0];
    assert_eq!(rounded["teacher"]["precision"], "bf16");
    assert_eq!(rounded["student"]["precision"], "f32");
    let teacher = |plan: &Value| {
        let parts = plan["memory"].as_array().unwrap().iter();
        let mut parts = parts.filter(|part| part["what"] == "teacher's weights");
        parts.next().unwrap()["bytes"].as_u64().unwrap()
    };
    assert!(teacher(rounded) < teacher(json));
}

#[test]
fn plan_counts_the_datas_own_pairs() {
    let home = Home::new();
    let row = |n: usize| {
        format!(
            "{{\"prompt\":\"Count from {n}.\",\"chosen\":\"{}, {}\",\"rejected\":\"No.\"}}\n",
            n + 1,
            n + 2
        )
    };
    home.write("train.jsonl", &(0..6).map(row).collect::<String>());
    let planned = |method: &str| {
        home.configure(method, "epochs = 1");
        let printed = home.ok(&["plan", "run.toml", "--json"]);
        objects(&printed).remove(0)
    };
    let chosen = planned("name = \"sft\"");
    for method in [
        "name = \"dpkd\"\nloss = \"simpo\"\npairs = \"data\"",
        "name = \"pbkd\"\nmode = \"offline\"\npairs = \"data\"\nmax_new_tokens = 4",
    ] {
        let plan = planned(method);
        assert_eq!(plan["rows_used"], 6, "{method}");
        assert_eq!(plan["steps"], 2, "{method}");
        assert!(plan["longest"].as_u64().unwrap() > 0, "{method}");
        let tokens = |plan: &Value| plan["tokens_per_step"].as_f64().unwrap();
        // Two responses where fine-tuning has one.
        assert!(tokens(&plan) > tokens(&chosen), "{method}");
    }
}

/// The names of a plan's warnings.
fn warned(plan: &Value) -> Vec<&str> {
    let warnings = plan["warnings"].as_array().unwrap().iter();
    warnings.map(|w| w["name"].as_str().unwrap()).collect()
}

#[track_caller]
fn planned(home: &Home, more: &[&str]) -> Value {
    objects(&home.ok(&[&["plan", "run.toml", "--json"], more].concat())).remove(0)
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[test]
fn plan_shows_rows_as_the_model_reads_them() {
    let home = Home::new();
    home.configure("name = \"sft\"", "steps = 3");
    let text = home.ok(&["plan", "run.toml"]);
    for words in [
        "train.jsonl:1, prompt ",
        "train.jsonl:10, prompt ",
        "train.jsonl:20, prompt ",
        "  │ Count from 0.<|im_end|>\n",
        "  │ <|im_start|>assistant\n  │ ⟦1, 2<|im_end|>⟧\n",
        "EOS among them",
    ] {
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
    assert!(!text.contains('\x1b'), "no colours in a pipe: {text}");
    let plan = planned(&home, &[]);
    let row = &plan["prompts"][0];
    assert_eq!(row["response"], "1, 2<|im_end|>");
    assert_eq!(row["ends_with_eos"], true);
    assert!(
        row["prompt"]
            .as_str()
            .unwrap()
            .ends_with("<|im_start|>assistant\n")
    );
    assert!(row["place"].as_str().unwrap().ends_with("train.jsonl:1"));
    // The response is the tokens that the loss is on: five at least, EOS among them.
    assert!(row["response_tokens"].as_u64().unwrap() >= 5, "{row}");

    // Where the answer is still to be sampled, words stand in its place.
    home.configure("name = \"seqkd\"\nmax_new_tokens = 9", "steps = 3");
    let text = home.ok(&["plan", "run.toml"]);
    assert!(text.contains("⟦… the teacher's answer"), "{text}");
    let row = &planned(&home, &[])["prompts"][0];
    assert_eq!(row["response"], Value::Null);
    assert!(
        row["sampled"]
            .as_str()
            .unwrap()
            .contains("at most 9 tokens")
    );
}

#[test]
fn plan_counts_what_is_left_out_by_reason() {
    let home = Home::new();
    let long = "word ".repeat(100);
    let mut rows = vec![
        json!({"prompt": "a", "response": "b"}),
        json!({"prompt": long, "response": "b"}),
        json!({"prompt": "c", "response": long}),
        json!({"prompt": "d", "response": " "}),
        json!({"prompt": "e"}),
        json!({"question": "f"}),
    ];
    rows.extend((0..3).map(|n| json!({"prompt": format!("{n}"), "response": "b"})));
    home.write("train.jsonl", &lines(&rows));
    home.configure("name = \"sft\"", "steps = 3");
    let skip = ["--set", "data.on_bad_row=skip"];
    let plan = planned(&home, &skip);
    let left_out = plan["rows"]["left_out"].as_array().unwrap();
    let found: Vec<(&str, u64, &str)> = left_out
        .iter()
        .map(|reason| {
            let place = reason["example"].as_str().unwrap();
            let line = place.rsplit(':').next().unwrap();
            let words = reason["reason"].as_str().unwrap();
            (words, reason["rows"].as_u64().unwrap(), line)
        })
        .collect();
    assert_eq!(
        found,
        [
            ("with a prompt over data.max_prompt_tokens", 1, "2"),
            ("with a response over data.max_response_tokens", 1, "3"),
            ("without a response", 1, "5"),
            ("with an empty response", 1, "4"),
            ("malformed", 1, "6"),
        ]
    );
    assert_eq!(
        (&plan["rows"]["read"], &plan["rows"]["kept"]),
        (&json!(9), &json!(4))
    );
    assert!(warned(&plan).contains(&"rows_left_out"), "{plan}");
    let text = home.ok(&[&["plan", "run.toml"][..], &skip].concat());
    assert!(text.contains("1  left out without a response: "), "{text}");
}

#[test]
fn plan_warns_of_the_usual_mistakes() {
    let home = Home::new();
    home.configure("name = \"kd\"", "steps = 3");
    // Answers of four tokens, four held-out rows; SmolLM's padding token is its EOS; the student lost a
    // layer.
    assert_eq!(
        warned(&planned(&home, &["--set", "train.learning_rate=1e-5"])),
        ["answers_cut", "few_held_out", "pad_is_eos", "learning_rate"]
    );
    // Answers that nothing measures may be cut.
    let unmeasured = ["--set", "eval.metrics=[\"forward_kl\"]"];
    let plan = planned(&home, &unmeasured);
    assert!(!warned(&plan).contains(&"answers_cut"), "{plan}");
    let whole = planned(&home, &["--set", "student.prune.layers=3"]);
    assert!(warned(&whole).contains(&"same_model"), "{whole}");
    let mut train: Vec<Value> = (0..8)
        .map(|n| json!({"prompt": format!("{n}"), "response": "yes", "finish_reason": "length"}))
        .collect();
    train.push(json!({"prompt": "count FROM 20.", "response": "21, 22"}));
    train.push(json!({"prompt": "0", "response": "yes"}));
    train.push(json!({"prompt": "x", "response": "a<|im_end|>b"}));
    train.push(json!({"prompt": "y", "response": "<|im_start|>assistant\nb"}));
    home.write("train.jsonl", &lines(&train));
    let plan = planned(&home, &[]);
    for name in [
        "no_eos",
        "held_out_in_training",
        "repeated_rows",
        "eos_inside",
        "special_tokens_inside",
    ] {
        assert!(warned(&plan).contains(&name), "{name}: {:?}", warned(&plan));
    }
    let overlap = plan["warnings"].as_array().unwrap().iter();
    let overlap = overlap
        .clone()
        .find(|w| w["name"] == "held_out_in_training")
        .unwrap();
    assert_eq!(overlap["rows"], 1);
    let places = overlap["examples"].as_array().unwrap();
    assert!(
        places[0].as_str().unwrap().ends_with("dev.jsonl:1"),
        "{overlap}"
    );
    assert!(
        places[1].as_str().unwrap().ends_with("train.jsonl:9"),
        "{overlap}"
    );
    // A run says the worst of it at its start, `--quiet` or not.
    let Did { status, err, .. } = home.run(&["train", "run.toml", "--out", "run", "--quiet"]);
    assert_eq!(status, 0, "{err}");
    for words in [
        "warning: 8 of 12 responses (67 %) do not end with EOS",
        "warning: 1 of 4 held-out rows (25 %)",
    ] {
        assert!(err.contains(words), "`{words}` is not in: {err}");
    }
    assert!(!err.contains("padding"), "{err}");
}

#[test]
fn plan_and_train_notice_a_teacher_with_another_template() {
    let home = Home::new();
    home.configure("name = \"kd\"", "steps = 1");
    write_model(&home.path("other"), "smollm.gguf", 2);
    let path = home.path("other/tokenizer_config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["chat_template"] = json!(
        "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    );
    std::fs::write(&path, config.to_string()).unwrap();
    let other = [
        "--set",
        "teacher.model=./other",
        "--set",
        "student.model=./model",
    ];
    let text = std::fs::read_to_string(home.path("run.toml")).unwrap();
    home.write("run.toml", &text.replace("prune = { layers = 2 }", ""));
    let plan = planned(&home, &other);
    assert_eq!(warned(&plan)[0], "teacher_template", "{:?}", warned(&plan));
    let did = home.run(&[&["train", "run.toml", "--out", "run"][..], &other].concat());
    assert!(
        did.err.contains("of 20 of 20 prompts (100 %)"),
        "{}",
        did.err
    );
    let same = [
        "--set",
        "teacher.model=./model",
        "--set",
        "student.model=./model",
    ];
    let plan = planned(&home, &same);
    assert!(!warned(&plan).contains(&"teacher_template"), "{plan}");
}

#[test]
fn plan_of_a_schedule_names_its_stages() {
    let home = Home::new();
    home.configure("name = \"kd\"", "steps = 2");
    let text = String::from_utf8(home.read("run.toml")).unwrap();
    let text = text.replace("[method]\nname = \"kd\"\n", "");
    let stages = "[[stage]]\nmethod = { name = \"kd\" }\n\
                  [[stage]]\nmethod = { name = \"llmr\", max_new_tokens = 4 }\n\
                  train = { steps = 3 }\n";
    home.write("run.toml", &format!("{text}{stages}"));
    let plans = objects(&home.ok(&["plan", "run.toml", "--json"]));
    let named: Vec<(&str, u64)> = plans
        .iter()
        .map(|plan| {
            (
                plan["stage"].as_str().unwrap(),
                plan["steps"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(named, [("1-kd", 2), ("2-llmr", 3)]);
    let text = home.ok(&["plan", "run.toml"]);
    for words in [
        "stage 1 of 2: 1-kd\n",
        "stage 2 of 2: 2-llmr\n",
        "all stages about ",
    ] {
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
    home.configure("name = \"kd\"", "steps = 2");
    assert!(planned(&home, &[]).get("stage").is_none());
}

#[test]
fn plan_takes_files_of_one_row_and_refuses_empty_ones() {
    let home = Home::new();
    for method in [
        "name = \"sft\"",
        "name = \"llmr\"",
        "name = \"pbkd\"",
        "name = \"mm_pbkd\"",
    ] {
        home.configure(method, "steps = 1");
        home.write("train.jsonl", &rows(0..1));
        home.write("dev.jsonl", &rows(1..2));
        let plan = planned(&home, &[]);
        assert_eq!(plan["rows_used"], 1, "{method}");
        assert_eq!(plan["prompts"].as_array().unwrap().len(), 1, "{method}");
        assert!(plan["seconds"].as_f64().unwrap() > 0.0, "{method}");
        home.ok(&["plan", "run.toml"]);
    }
    home.write(
        "train.jsonl",
        &lines(&[json!({"text": "All of this is learnt."})]),
    );
    home.configure("name = \"sft\"", "steps = 1");
    let text = home.ok(&["plan", "run.toml"]);
    assert!(
        text.contains("⟦All of this is learnt.<|im_end|>⟧"),
        "{text}"
    );
    for (file, other) in [("train.jsonl", "dev.jsonl"), ("dev.jsonl", "train.jsonl")] {
        home.write(file, "\n");
        home.write(other, &rows(0..1));
        home.refused(&["plan", "run.toml"], &[file, "the file has no rows"]);
    }
}

/// Four rows are evaluated at once, whatever `eval.batch` allows, and no answer is longer than the context.
#[test]
fn plan_counts_the_sequences_that_are_sampled() {
    let home = Home::new();
    home.configure("name = \"kd\"", "steps = 3");
    let cache = |more: &str| {
        let plan = planned(&home, &["--set", more]);
        let parts = plan["memory"].as_array().unwrap();
        let part = parts
            .iter()
            .find(|part| part["what"] == "keys and values while sampling");
        part.unwrap()["bytes"].as_u64().unwrap()
    };
    assert_eq!(cache("eval.batch=1000"), cache("eval.batch=4"));
    assert_eq!(cache("eval.batch=4"), 2 * cache("eval.batch=2"));
    // Two layers' keys and values of 2 heads of 8 numbers, 4 bytes each.
    assert_eq!(
        cache("eval.max_new_tokens=1000000"),
        4 * 256 * (2 * 2 * 2 * 8 * 4)
    );
}

/// What `train` refuses before its first step, `plan` refuses, too.
#[test]
fn plan_refuses_a_warmup_longer_than_the_epochs() {
    let home = Home::new();
    home.configure("name = \"sft\"", "epochs = 1\nwarmup_steps = 50");
    home.refused(&["plan", "run.toml"], &["train.warmup_steps", "5 steps"]);
    home.refused(
        &["train", "run.toml", "--out", "run"],
        &["train.warmup_steps", "5 steps"],
    );
}
