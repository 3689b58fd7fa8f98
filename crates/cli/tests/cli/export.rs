//! What `distil export` writes, and the card that every student has. That the tools themselves read it
//! is checked by `cargo xtask ci`.

use serde_json::Value;

use crate::home::{Home, keys, objects};

fn home() -> Home {
    let home = Home::new();
    home.configure("name = \"kd\"", "steps = 3");
    let text = String::from_utf8(home.read("run.toml")).unwrap();
    home.write("run.toml", &text.replace("every = 0", "every = 2"));
    home.ok(&["train", "run.toml", "--out", "run"]);
    home
}

#[test]
fn a_run_is_exported_in_every_format_at_once() {
    let home = home();
    let arguments = [
        "export",
        "run",
        "--tensorboard",
        "logs",
        "--csv",
        "new/run.csv",
        "--wandb",
        "run.jsonl",
    ];
    let events = "logs/run/events.out.tfevents.distil";
    let written = home.ok(&arguments);
    let written: Vec<String> = written
        .lines()
        .map(|line| line.replace('\\', "/"))
        .collect();
    assert_eq!(written, [events, "new/run.csv", "run.jsonl"]);

    let lines = objects(&String::from_utf8(home.read("run/metrics.jsonl")).unwrap());
    let of = |step: u64, key: &str| -> Value {
        let found = |line: &&Value| line["step"] == step && line.get(key).is_some();
        lines.iter().find(found).unwrap()[key].clone()
    };
    let table = String::from_utf8(home.read("new/run.csv")).unwrap();
    let mut rows = table
        .split("\r\n")
        .map(|row| row.split(',').collect::<Vec<_>>());
    let names = rows.next().unwrap();
    let cell = |row: &[&str], name: &str| -> Option<f64> {
        row[names.iter().position(|column| *column == name).unwrap()]
            .parse()
            .ok()
    };
    let rows: Vec<Vec<&str>> = rows.filter(|row| row.len() > 1).collect();
    assert_eq!(rows.len(), 4, "{table}");
    for (step, row) in rows.iter().enumerate() {
        assert_eq!((row[0], cell(row, "step")), ("run", Some(step as f64)));
        let loss = (step > 0).then(|| of(step as u64, "loss").as_f64().unwrap());
        assert_eq!(cell(row, "loss"), loss);
        let measured = (step != 1).then(|| of(step as u64, "eval")["rouge_l"].as_f64().unwrap());
        assert_eq!(cell(row, "eval.rouge_l"), measured);
    }

    let logged = objects(&String::from_utf8(home.read("run.jsonl")).unwrap());
    assert_eq!(keys(&logged[0]), ["name", "config"]);
    assert_eq!(logged[0]["config"]["method"]["name"], "kd");
    assert!(logged[0]["config"]["environment"].get("sha256").is_none());
    assert_eq!(logged.len(), 5);
    assert_eq!(logged[2]["train/loss"], of(1, "loss"));
    assert_eq!(logged[2]["phases/teacher"], of(1, "phases")["teacher"]);
    assert_eq!(logged[3]["eval/rouge_l"], of(2, "eval")["rouge_l"]);

    let bytes = home.read(events);
    home.refused(
        &arguments,
        &["tfevents.distil", "exists already", "--force"],
    );
    home.ok(&[&arguments[..], &["--force"]].concat());
    assert!(
        home.read(events) == bytes,
        "an export depends on nothing but the run"
    );
}

#[test]
fn every_student_has_its_card_and_it_is_renewed_by_wish() {
    let home = home();
    let card = String::from_utf8(home.read("run/student/README.md")).unwrap();
    let eval: Value = serde_json::from_slice(&home.read("run/eval.json")).unwrap();
    for part in [
        "| layers | 3 | 2 |",
        "20 of 20 training rows",
        "on 4 prompts and 4 references of `dev.jsonl`",
    ] {
        assert!(card.contains(part), "`{part}` is not in: {card}");
    }
    // Every metric of start and student, to four digits.
    for (name, student) in eval["student"].as_object().unwrap() {
        let row = card
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")));
        let cells: Vec<&str> = row.unwrap().split('|').map(str::trim).collect();
        for (cell, exact) in [(cells[2], &eval["start"][name]), (cells[3], student)] {
            let (shown, exact): (f64, f64) = (cell.parse().unwrap(), exact.as_f64().unwrap());
            assert!(
                (shown - exact).abs() <= 1e-3 * exact.abs(),
                "{name}: {cell} for {exact}"
            );
        }
    }
    let folder = home.path("").display().to_string();
    assert!(!card.contains(folder.trim_end_matches('/')), "{card}");
    // It is a model's folder as before.
    home.ok(&[
        "score",
        "run/student",
        "--data",
        "dev.jsonl",
        "--out",
        "s.jsonl",
    ]);
    assert!(!home.path("run/checkpoints/step-2/README.md").exists());

    home.refused(&["export", "run", "--card"], &["README.md exists already"]);
    home.ok(&["export", "run", "--card", "--force"]);
    let again = home.read("run/student/README.md");
    assert_eq!(String::from_utf8(again).unwrap(), card);
}

#[test]
fn bad_input_is_refused() {
    let home = Home::new();
    home.refused(&["export", "run"], &["--tensorboard", "--card"]);
    home.refused(
        &["export", "model", "--csv", "a.csv"],
        &["not a run's folder"],
    );
    home.refused(&["export", "nothing", "--card"], &["no such folder"]);
    home.configure("name = \"kd\"", "steps = 3");
    std::fs::create_dir(home.path("run")).unwrap();
    std::fs::copy(home.path("run.toml"), home.path("run/config.toml")).unwrap();
    home.refused(
        &["export", "run", "--csv", "a.csv"],
        &["no step", "first step"],
    );
    home.refused(&["export", "run", "--card"], &["no student yet"]);
    home.write("run/metrics.jsonl", "{\"step\":1,\"loss\":2.0}\n");
    home.refused(&["export", "run", "--csv", "model"], &["is a folder"]);
    home.refused(
        &["export", "run", "--csv", "a.csv", "--wandb", "a.csv"],
        &["two of the exports would be a.csv"],
    );
    assert!(!home.path("a.csv").exists());
}
