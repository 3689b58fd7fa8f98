//! Runs that end before they are done: killed, interrupted, out of disk. Nothing is lost.

#![cfg(unix)]

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::home::{Did, Home, did, objects};

/// DPKD with fresh student samples in every step: everything that a run has to remember.
const METHOD: &str = "name = \"dpkd\"\nmax_new_tokens = 4";

const STEPS: usize = 40;

fn home() -> Home {
    let home = Home::new();
    home.configure(METHOD, &format!("steps = {STEPS}\ncheckpoint_every = 5"));
    home.ok(&["train", "run.toml", "--out", "unbroken"]);
    home
}

fn resume(home: &Home) -> Did {
    home.run(&["train", "run.toml", "--out", "broken", "--resume"])
}

/// The broken run ended as the unbroken one.
#[track_caller]
fn same(home: &Home) {
    let student = |run: &str| home.read(&format!("{run}/student/model.safetensors"));
    assert!(
        student("broken") == student("unbroken"),
        "the students differ"
    );
    let metrics = String::from_utf8(home.read("broken/metrics.jsonl")).unwrap();
    let steps: Vec<u64> = objects(&metrics)
        .iter()
        .filter(|line| line["loss"].is_number())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(
        steps,
        (1..=STEPS as u64).collect::<Vec<_>>(),
        "each step once"
    );
}

/// Starts the run and waits for a file or folder of it.
fn until(home: &Home, name: &str) -> Child {
    let mut child = home
        .command(&["train", "run.toml", "--out", "broken"])
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !home.path(name).exists() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{name} does not come"
        );
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended before {name} came"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn a_killed_run_ends_with_the_same_bits() {
    let home = home();
    for name in [
        "broken/teacher-samples.partial.jsonl",
        "broken/metrics.jsonl",
        "broken/checkpoints/step-5",
    ] {
        let _ = std::fs::remove_dir_all(home.path("broken"));
        let mut child = until(&home, name);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !home.path("broken/student").exists(),
            "it was killed too late"
        );
        let did = resume(&home);
        assert_eq!(did.status, 0, "{}", did.err);
        same(&home);
    }
}

/// Methods that remember more than weights and moments: replayed responses, a lagged policy, a
/// reward model and its pairs, a Q-function.
#[test]
fn methods_with_a_state_of_their_own_resume_with_the_same_bits() {
    for method in [
        "name = \"distillm\"\nmax_new_tokens = 4\nthreshold_step = 0.9\nthreshold_tolerance = 0",
        "name = \"minillm\"\nmax_new_tokens = 4",
        "name = \"llmr\"\nmax_new_tokens = 4\nsync_every = 3",
        "name = \"pbkd\"\nmax_new_tokens = 4\niteration_steps = 3\nfit_steps = 2\nreward_layers = 1",
        "name = \"pbkd\"\nmode = \"offline\"\nmax_new_tokens = 4\nfit_steps = 2\nreward_layers = 1",
        "name = \"mm_pbkd\"\nmax_new_tokens = 4\nq_layers = 1",
    ] {
        let home = Home::new();
        home.configure(method, &format!("steps = {STEPS}\ncheckpoint_every = 4"));
        if method.contains("distillm") {
            // A validation loss to hear, and steps large enough for it to rise.
            let text = String::from_utf8(home.read("run.toml")).unwrap();
            let text = text.replace("every = 0", "every = 2\nmetrics = [\"forward_kl\"]");
            home.write("run.toml", &text.replace("1e-3", "0.3"));
        }
        home.ok(&["train", "run.toml", "--out", "unbroken"]);
        if method.contains("distillm") {
            let lines = String::from_utf8(home.read("unbroken/metrics.jsonl")).unwrap();
            let replayed = lines
                .lines()
                .skip(21)
                .any(|line| line.contains("\"replayed\":1.0"));
            assert!(replayed, "nothing was replayed after the kill");
        }
        for name in ["broken/checkpoints/step-4", "broken/checkpoints/step-20"] {
            let _ = std::fs::remove_dir_all(home.path("broken"));
            let mut child = until(&home, name);
            child.kill().unwrap();
            child.wait().unwrap();
            let did = resume(&home);
            assert_eq!(did.status, 0, "{method}: {}", did.err);
            same(&home);
        }
    }
}

/// What a cached teacher said is kept whole or made again.
#[test]
fn a_run_with_a_cached_teacher_ends_with_the_same_bits() {
    let home = Home::new();
    home.configure(
        "name = \"kd\"",
        &format!("steps = {STEPS}\ncheckpoint_every = 4"),
    );
    let text = String::from_utf8(home.read("run.toml")).unwrap();
    let teacher = "model = \"./model\"\n";
    home.write(
        "run.toml",
        &text.replacen(teacher, &format!("{teacher}cache = true\n"), 1),
    );
    home.ok(&["train", "run.toml", "--out", "unbroken"]);
    killed_and_resumed(
        &home,
        &["broken/teacher-states.f32", "broken/checkpoints/step-20"],
    );
}

/// Kills the run as soon as each of the files is there, and resumes it to the bits of the unbroken one.
fn killed_and_resumed(home: &Home, names: &[&str]) {
    for name in names {
        let _ = std::fs::remove_dir_all(home.path("broken"));
        let mut child = until(home, name);
        child.kill().unwrap();
        child.wait().unwrap();
        let did = resume(home);
        assert_eq!(did.status, 0, "{name}: {}", did.err);
        same(home);
    }
}

/// A student that is read again is computed as it was, and so is the policy that samples.
#[test]
fn a_run_in_bf16_ends_with_the_same_bits() {
    let home = Home::new();
    home.configure(
        "name = \"llmr\"\nmax_new_tokens = 4\nsync_every = 3",
        &format!("steps = {STEPS}\ncheckpoint_every = 4"),
    );
    let text = String::from_utf8(home.read("run.toml")).unwrap();
    let rounded = "precision = \"bf16\"\n";
    let teacher = format!("[teacher]\n{rounded}");
    let student = format!("[student]\n{rounded}sampling_precision = \"f32\"\n");
    let text = text.replace("[teacher]\n", &teacher);
    home.write("run.toml", &text.replace("[student]\n", &student));
    home.ok(&["train", "run.toml", "--out", "unbroken"]);
    killed_and_resumed(
        &home,
        &["broken/checkpoints/step-4", "broken/checkpoints/step-20"],
    );
}

/// The teacher answers once for a whole schedule.
#[test]
fn stages_share_the_teachers_samples() {
    let home = Home::new();
    home.configure("name = \"sft\"", "");
    let text = String::from_utf8(home.read("run.toml")).unwrap();
    let (before, after) = text.split_once("[method]\nname = \"sft\"\n").unwrap();
    let stages = "[[stage]]\nmethod = { name = \"seqkd\", max_new_tokens = 4 }\ntrain.steps = 1\n\
                  [[stage]]\nmethod = { name = \"dpkd\", max_new_tokens = 4 }\ntrain.steps = 1\n\
                  [[stage]]\nmethod = { name = \"dpkd\", max_new_tokens = 5 }\ntrain.steps = 1\n\
                  [[stage]]\nmethod = { name = \"dpkd\", max_new_tokens = 4 }\ntrain.steps = 1\n\
                  teacher.precision = \"bf16\"\n";
    home.write("run.toml", &format!("{before}{after}{stages}"));
    let did = home.run(&["train", "run.toml", "--out", "run"]);
    assert_eq!(did.status, 0, "{}", did.err);
    let of = |stage: &str| home.read(&format!("run/stages/{stage}/teacher-samples.jsonl"));
    assert_eq!(of("1-seqkd"), of("2-dpkd"));
    let key = |stage: &str| home.read(&format!("run/stages/{stage}/teacher-samples.key"));
    assert_eq!(key("1-seqkd"), key("2-dpkd"));
    assert_ne!(key("2-dpkd"), key("3-dpkd"), "longer answers are others");
    assert_ne!(key("2-dpkd"), key("4-dpkd"), "a rounded teacher is another");
}

#[test]
fn a_schedule_killed_in_any_stage_ends_with_the_same_bits() {
    let home = Home::new();
    home.configure("name = \"sft\"", "checkpoint_every = 2");
    let text = String::from_utf8(home.read("run.toml")).unwrap();
    let (before, after) = text.split_once("[method]\nname = \"sft\"\n").unwrap();
    let stages = "[[stage]]\nmethod = { name = \"kd\" }\ntrain.steps = 6\n\
                  [[stage]]\nmethod = { name = \"gkd\", max_new_tokens = 4 }\ntrain.steps = 8\n";
    home.write("run.toml", &format!("{before}{after}{stages}"));
    home.ok(&["plan", "run.toml"]);
    home.ok(&["train", "run.toml", "--out", "unbroken"]);
    for name in [
        "broken/stages/1-kd/checkpoints/step-2",
        "broken/stages/1-kd/student",
        "broken/stages/2-gkd/checkpoints/step-4",
    ] {
        let _ = std::fs::remove_dir_all(home.path("broken"));
        let mut child = until(&home, name);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!home.path("broken/student").exists());
        let did = resume(&home);
        assert_eq!(did.status, 0, "{}", did.err);
        let student = |run: &str| home.read(&format!("{run}/student/model.safetensors"));
        assert!(student("broken") == student("unbroken"), "{name}");
        let first = home.read("broken/stages/1-kd/student/model.safetensors");
        assert!(student("broken") != first, "the second stage did nothing");
    }
    home.refused(
        &["train", "run.toml", "--out", "broken"],
        &["exists already", "--resume"],
    );
}

#[test]
fn ctrl_c_writes_a_checkpoint_and_says_how_to_go_on() {
    let home = home();
    let child = until(&home, "broken/checkpoints/step-5");
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let did = did(child.wait_with_output().unwrap());
    assert_eq!(did.status, 1, "{}", did.err);
    for words in [
        "interrupted after step",
        "to go on: distil train run.toml --out broken --resume",
    ] {
        assert!(did.err.contains(words), "`{words}` is not in: {}", did.err);
    }
    let (_, rest) = did.err.split_once("interrupted after step ").unwrap();
    let step = rest.split(';').next().unwrap();
    assert!(
        home.path(&format!("broken/checkpoints/step-{step}/state.json"))
            .exists()
    );
    assert_eq!(resume(&home).status, 0);
    same(&home);
}

/// `2>&1 | tee log` and Ctrl-C: tee is gone, and the run must still write its checkpoint.
#[test]
fn nobody_reading_the_messages_does_not_end_a_run() {
    let home = home();
    let mut child = until(&home, "broken/checkpoints/step-5");
    drop(child.stderr.take());
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(resume(&home).status, 0);
    same(&home);
}

/// Samples of the teacher belong to the rows they were drawn for.
#[test]
fn data_that_changed_before_the_first_checkpoint_is_noticed() {
    let home = home();
    let mut child = until(&home, "broken/metrics.jsonl");
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = std::fs::remove_dir_all(home.path("broken/checkpoints"));
    let mut rows = home.read("train.jsonl");
    rows.extend(home.read("dev.jsonl"));
    std::fs::write(home.path("train.jsonl"), rows).unwrap();
    let did = resume(&home);
    assert_eq!(did.status, 2, "{}", did.err);
    assert!(did.err.contains("train.jsonl has changed"), "{}", did.err);
}

/// A limit on the size of files stands for a disk that fills up while a checkpoint is written.
#[test]
fn a_full_disk_is_said_and_costs_nothing_but_the_checkpoint() {
    let home = home();
    // Room for everything but the optimiser's moments. The shell's unit is 512 or 1024 bytes.
    let weights = home.read("unbroken/student/model.safetensors").len();
    let limit = weights / 512 + 8;
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
    let run = |extra: &[&str]| {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(&script)
            .arg(env!("CARGO_BIN_EXE_distil"));
        shell
            .args(["train", "run.toml", "--out", "broken"])
            .args(extra);
        did(shell.current_dir(home.path("")).output().unwrap())
    };
    let full = run(&[]);
    assert_eq!(full.status, 1, "{}", full.err);
    for words in ["cannot write", "optimizer.safetensors", "File too large"] {
        assert!(
            full.err.contains(words),
            "`{words}` is not in: {}",
            full.err
        );
    }
    let left: Vec<_> = std::fs::read_dir(home.path("broken/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "half a checkpoint is left: {left:?}");
    assert_eq!(resume(&home).status, 0);
    same(&home);
}
