//! Nothing is generated twice, and nothing is taken that is not the same.

use super::*;
use crate::eval::evaluate::EvalSet;
use crate::eval::protocol::{Protocol, measure};
use crate::eval::testing::{STUDENT, TEACHER, model, set};

const ROWS: &[(&str, &[&str])] = &[("what", &["red"]), ("who", &["is"]), ("what", &["blue"])];

fn header(runs: &[Run]) -> Header {
    Header {
        format: FORMAT,
        conditions: Conditions {
            data_sha256: "d".into(),
            weights_sha256: "w".into(),
            tokenizer_sha256: "t".into(),
            precision: Precision::F32,
            template: "{{ prompt }}".into(),
            max_new_tokens: 5,
        },
        teacher_sha256: None,
        runs: runs.to_vec(),
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
        let metrics: Vec<String> = metrics.iter().map(|&name| name.to_owned()).collect();
        Kept::open(&self.out(), header, &self.set.prompts, &metrics, replace)
    }

    /// Measures and writes; how many answers were generated.
    fn measure(&self, header: &Header, metrics: &[&str], replace: bool) -> Result<usize> {
        let mut kept = self.open(header, metrics, replace)?;
        let known = kept.count();
        let protocol = Protocol {
            metrics: metrics.iter().map(|&name| name.to_owned()).collect(),
            runs: header.runs.clone(),
            buckets: Vec::new(),
            exposure_lengths: None,
            token_rows: 0,
            max_new_tokens: 5,
            batch: 2,
            micro_batch_tokens: 64,
        };
        let hear = &mut |_: &str, _, _| {};
        let measured = measure(&self.student, None, &self.set, &protocol, &mut kept, hear)?;
        let made = kept.count() - known;
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
    let fewer = &home.set.prompts[..2];
    let names = ["rouge_l".to_owned()];
    let error = Kept::open(&home.out(), &other, fewer, &names, false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("row 2, which is not measured now"),
        "{error}"
    );
    let mut prompts = home.set.prompts.clone();
    prompts[0].text = "else".into();
    let error = Kept::open(&home.out(), &other, &prompts, &names, false).unwrap_err();
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

#[test]
fn a_models_hash_is_of_its_weights_and_its_vocabulary() {
    let (student, teacher) = (model(STUDENT), model(TEACHER));
    assert_eq!(tokenizer_sha256(&student), tokenizer_sha256(&teacher));
    let mut stops = student.clone();
    stops.stop_ids.push(5);
    assert_ne!(tokenizer_sha256(&student), tokenizer_sha256(&stops));
    assert_eq!(tokenizer_sha256(&student).len(), 64);
}

#[test]
fn files_stand_beside_the_result() {
    assert_eq!(
        beside(Path::new("a/e.json"), "answers"),
        Path::new("a/e.answers.jsonl")
    );
    assert_eq!(
        beside(Path::new("e"), "tokens"),
        Path::new("e.tokens.jsonl")
    );
}
