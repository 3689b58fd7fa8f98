//! Nothing is generated twice, and nothing is taken that is not the same.

use std::fs;

use distil_model::Model;

use super::*;
use crate::config::Precision;
use crate::eval::conditions::Conditions;
use crate::eval::outcome::FORMAT;
use crate::eval::protocol::measure;
use crate::eval::testing::{STUDENT, TEACHER, model, set};

const ROWS: &[(&str, &[&str])] = &[("what", &["red"]), ("who", &["is"]), ("what", &["blue"])];

fn header(runs: &[Run]) -> Header {
    Header {
        format: FORMAT,
        conditions: Conditions {
            data_sha256: "d".into(),
            weights_sha256: "w".into(),
            tokenizer_sha256: "t".into(),
            config_sha256: Some("c".into()),
            precision: Precision::F32,
            template: "{{ prompt }}".into(),
            max_new_tokens: 5,
        },
        teacher_sha256: None,
        runs: runs.to_vec(),
    }
}

fn protocol(header: &Header, metrics: &[&str]) -> Protocol {
    Protocol {
        metrics: metrics.iter().map(|&name| name.to_owned()).collect(),
        runs: header.runs.clone(),
        buckets: Vec::new(),
        exposure_lengths: None,
        token_rows: 0,
        max_new_tokens: 5,
        batch: 2,
        micro_batch_tokens: 64,
    }
}

struct Home {
    folder: tempfile::TempDir,
    student: Model,
    set: EvalSet,
}

impl Home {
    fn new() -> Self {
        let student = model(STUDENT);
        Self {
            folder: tempfile::tempdir().unwrap(),
            set: set(&student, ROWS, None).unwrap(),
            student,
        }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("e.json")
    }

    fn open(&self, header: &Header, metrics: &[&str], replace: bool) -> Result<Kept> {
        let protocol = protocol(header, metrics);
        Kept::open(&self.out(), header, &self.set, &protocol, replace)
    }

    /// Measures and writes; how many answers were generated.
    fn measure(&self, header: &Header, metrics: &[&str], replace: bool) -> Result<usize> {
        self.measure_by(header, None, &protocol(header, metrics), replace)
    }

    /// The same, with a teacher or by another protocol.
    fn measure_by(
        &self,
        header: &Header,
        teacher: Option<&Model>,
        protocol: &Protocol,
        replace: bool,
    ) -> Result<usize> {
        let mut kept = Kept::open(&self.out(), header, &self.set, protocol, replace)?;
        let known = kept.answers.len();
        let hear = &mut |_: &str, _, _| {};
        let measured = measure(&self.student, teacher, &self.set, protocol, &mut kept, hear)?;
        let made = kept.answers.len() - known;
        let subject = Subject {
            name: "e".into(),
            model: "m".into(),
            teacher: None,
            data: "d.jsonl".into(),
            references: None,
        };
        kept.finish(&subject, header, &measured)?;
        Ok(made)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

#[test]
fn another_metric_and_another_seed_cost_only_what_is_new() {
    let home = Home::new();
    let both = header(&[Run::GREEDY, Run::sampled(2)]);
    assert_eq!(home.measure(&both, &["rouge_l"], false).unwrap(), 6);
    assert_eq!(home.names(), ["e.answers.jsonl", "e.json"]);
    let before = home.read("e.answers.jsonl");
    assert_eq!(
        home.measure(&both, &["rouge_l", "exact_match"], false)
            .unwrap(),
        0
    );
    let more = header(&[Run::GREEDY, Run::sampled(1), Run::sampled(2)]);
    let metrics = ["rouge_l", "exact_match"];
    assert_eq!(home.measure(&more, &metrics, false).unwrap(), 3);
    // The second run is the third now, and its answers are what they were.
    let texts = |text: &str, run: usize| -> Vec<String> {
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Line>(line).unwrap());
        lines
            .filter(|line| line.run == run)
            .map(|line| line.answer.response)
            .collect()
    };
    assert_eq!(texts(&before, 1), texts(&home.read("e.answers.jsonl"), 2));
    let value: Value = serde_json::from_str(&home.read("e.json")).unwrap();
    assert_eq!(value["runs"][1]["seed"], 1);
    assert_eq!(
        value["metrics"]["rouge_l"]["by_seed"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_killed_evaluation_goes_on_and_ends_as_an_unbroken_one() {
    let home = Home::new();
    let header = header(&[Run::GREEDY, Run::sampled(2)]);
    home.measure(&header, &["rouge_l"], false).unwrap();
    let (result, answers) = (home.read("e.json"), home.read("e.answers.jsonl"));
    let lines: Vec<&str> = answers.lines().collect();
    for cut in 0..=answers.len() {
        // The partial file of a process that was killed after so many bytes.
        if cut % 97 != 0 && cut != answers.len() {
            continue;
        }
        fs::remove_file(home.out()).unwrap();
        fs::remove_file(beside(&home.out(), "answers")).unwrap();
        let partial = format!(
            "{}\n{}",
            json(&header),
            &answers[..answers.floor_char_boundary(cut)]
        );
        fs::write(beside(&home.out(), "partial"), partial).unwrap();
        let whole = lines.iter().scan(0, |end, line| {
            *end += line.len();
            let end_of_line = *end;
            *end += 1;
            Some(end_of_line)
        });
        let whole = whole.filter(|&end| end <= cut).count();
        let made = home.measure(&header, &["rouge_l"], false).unwrap();
        assert_eq!(made, 6 - whole, "cut at {cut}");
        assert_eq!(home.read("e.json"), result);
        assert_eq!(home.read("e.answers.jsonl"), answers);
        assert_eq!(home.names(), ["e.answers.jsonl", "e.json"]);
    }
}

#[test]
fn what_is_not_the_same_is_not_taken_and_not_replaced_unasked() {
    let home = Home::new();
    let header = header(&[Run::GREEDY, Run::sampled(2)]);
    home.measure(&header, &["rouge_l", "exact_match"], false)
        .unwrap();
    let before = (home.read("e.json"), home.read("e.answers.jsonl"));
    let changed = |change: &dyn Fn(&mut Conditions)| {
        let mut header = header.clone();
        change(&mut header.conditions);
        header
    };
    let metrics = &["rouge_l", "exact_match"][..];
    for (other, metrics, expected) in [
        (
            changed(&|c| c.weights_sha256 = "v".into()),
            metrics,
            "weights' sha256 was w and is v",
        ),
        (
            changed(&|c| c.config_sha256 = Some("b".into())),
            metrics,
            "configuration files was c and is b",
        ),
        (
            changed(&|c| c.template = "alpaca".into()),
            metrics,
            "the template was {{ prompt }} and is alpaca",
        ),
        (
            changed(&|c| c.precision = Precision::Bf16),
            metrics,
            "the precision was f32 and is bf16",
        ),
        (
            changed(&|c| c.max_new_tokens = 6),
            metrics,
            "in tokens, was 5 and is 6",
        ),
        (header.clone(), &["rouge_l"], "has the metric exact_match"),
        (
            Header {
                runs: vec![Run::GREEDY],
                ..header.clone()
            },
            metrics,
            "has the answers of seed 2",
        ),
    ] {
        let error = home.measure(&other, metrics, false).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(expected) && text.contains("--force"),
            "{text}"
        );
        assert!(error.is_input());
        assert_eq!((home.read("e.json"), home.read("e.answers.jsonl")), before);
        assert_eq!(home.names().len(), 2, "nothing is left behind");
    }
    let other = changed(&|c| c.weights_sha256 = "v".into());
    assert_eq!(home.measure(&other, metrics, true).unwrap(), 6, "all anew");
    assert_eq!(
        home.measure(&other, &["rouge_l"], true).unwrap(),
        0,
        "the same answers"
    );

    // Fewer rows, another prompt for a row.
    let asked = protocol(&other, &["rouge_l"]);
    let mut set = home.set.clone();
    set.prompts.pop();
    let error = Kept::open(&home.out(), &other, &set, &asked, false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("row 2, which is not measured now"),
        "{error}"
    );
    let mut set = home.set.clone();
    set.prompts[0].text = "else".into();
    let error = Kept::open(&home.out(), &other, &set, &asked, false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("row 0 was asked with another prompt"),
        "{error}"
    );

    fs::write(home.out(), "precious").unwrap();
    let error = home.measure(&header, &["rouge_l"], false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("exists already and is not an evaluation"),
        "{error}"
    );
    assert_eq!(home.read("e.json"), "precious");
}

#[test]
fn two_processes_do_not_write_one_file() {
    let home = Home::new();
    let header = header(&[Run::GREEDY]);
    let first = home.open(&header, &["rouge_l"], false).unwrap();
    let error = home.open(&header, &["rouge_l"], true).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
    assert!(home.open(&header, &["rouge_l"], false).is_ok());
}

/// A kill or a full disk at the moment when an evaluation goes on must not cost what was kept.
#[test]
fn what_was_generated_is_only_added_to() {
    let home = Home::new();
    let first = header(&[Run::GREEDY, Run::sampled(2)]);
    home.measure(&first, &["rouge_l"], false).unwrap();
    let answers = home.read("e.answers.jsonl");
    // In the order in which they were finished, and the last one cut off.
    let mut lines: Vec<&str> = answers.lines().rev().collect();
    let last = lines.pop().unwrap();
    let lines = lines.join("\n");
    let before = format!("{}\n{lines}\n{}", json(&first), &last[..last.len() / 2]);
    for name in ["e.json", "e.answers.jsonl"] {
        fs::remove_file(home.folder.path().join(name)).unwrap();
    }
    let path = beside(&home.out(), "partial");
    fs::write(&path, &before).unwrap();
    // Opened and killed at once, twice, the second time with a seed more.
    let more = header(&[Run::sampled(1), Run::GREEDY, Run::sampled(2)]);
    for header in [&first, &more] {
        let kept = home.open(header, &["rouge_l"], false).unwrap();
        assert_eq!(kept.count(), 5);
        assert_eq!(home.read("e.partial.jsonl"), before);
    }
    let mut kept = home.open(&more, &["rouge_l"], false).unwrap();
    let known = kept.known(Whose::Student, Run::GREEDY);
    kept.add(Whose::Student, Run::sampled(1), &known[0])
        .unwrap();
    drop(kept);
    let after = home.read("e.partial.jsonl");
    assert!(after.starts_with(&before));
    assert_eq!(after.lines().count(), before.lines().count() + 2);
    assert_eq!(home.open(&more, &["rouge_l"], false).unwrap().count(), 6);
    assert_eq!(home.measure(&more, &["rouge_l"], false).unwrap(), 3);
    assert_eq!(home.read("e.answers.jsonl").lines().count(), 9);
}

#[test]
fn what_another_teacher_said_is_not_replaced_unasked() {
    let home = Home::new();
    let teacher = model(TEACHER);
    let taught = |sha256: Option<&str>| Header {
        teacher_sha256: sha256.map(str::to_owned),
        ..header(&[Run::sampled(2)])
    };
    let asked = protocol(&taught(None), &["rouge_l"]);
    let exposed = Protocol {
        exposure_lengths: Some(vec![1, 2]),
        ..asked.clone()
    };
    let measure = |header: &Header, protocol: &Protocol, replace: bool| {
        let teacher = header.teacher_sha256.as_ref().map(|_| &teacher);
        home.measure_by(header, teacher, protocol, replace)
    };
    assert_eq!(measure(&taught(None), &asked, false).unwrap(), 3);
    let first = taught(Some("a"));
    let made = measure(&first, &exposed, false).unwrap();
    assert_eq!(made, 3, "a teacher may come: its own answers are new");
    let before = (home.read("e.json"), home.read("e.teacher-answers.jsonl"));
    for (header, protocol, expected) in [
        (taught(Some("a")), &asked, "has the exposure bias"),
        (taught(Some("b")), &exposed, "the sha256 a, which now is b"),
        (taught(None), &exposed, "and none is named now"),
    ] {
        let error = measure(&header, protocol, false).unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains("--force"),
            "{error}"
        );
        let after = (home.read("e.json"), home.read("e.teacher-answers.jsonl"));
        assert_eq!(after, before);
    }
    assert_eq!(measure(&first, &exposed, false).unwrap(), 0);
    let made = measure(&taught(Some("b")), &exposed, true).unwrap();
    assert_eq!(made, 3, "the student's answers are what they were");
}

#[test]
fn files_that_are_no_evaluations_stay() {
    let home = Home::new();
    let header = header(&[Run::GREEDY]);
    for (name, text) in [
        ("e.answers.jsonl", "{\"mine\": 1}\n"),
        ("e.teacher-answers.jsonl", "{\"mine\": 1}\n"),
        ("e.tokens.jsonl", "mine"),
        ("e.partial.jsonl", "{\"mine\": 1}\n{\"mine\": 2}"),
        ("e.partial.jsonl", "mine"),
    ] {
        let path = home.folder.path().join(name);
        fs::write(&path, text).unwrap();
        let error = home.measure(&header, &["rouge_l"], false).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
        assert_eq!(
            (home.read(name).as_str(), home.names()),
            (text, vec![name.to_owned()])
        );
        assert_eq!(home.measure(&header, &["rouge_l"], true).unwrap(), 3);
        assert_eq!(home.names(), ["e.answers.jsonl", "e.json"]);
        for name in home.names() {
            fs::remove_file(home.folder.path().join(name)).unwrap();
        }
    }
    // Conditions that a kill cut off are nobody's.
    for cut in [3, 60] {
        let text = &json(&header)[..cut];
        fs::write(beside(&home.out(), "partial"), text).unwrap();
        drop(home.open(&header, &["rouge_l"], false).unwrap());
    }
    let newer = Header {
        format: FORMAT + 1,
        ..header.clone()
    };
    fs::write(beside(&home.out(), "partial"), json(&newer) + "\n").unwrap();
    let error = home.open(&header, &["rouge_l"], false).unwrap_err();
    assert!(error.to_string().contains("of this format"), "{error}");
}
