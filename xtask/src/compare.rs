//! The methods side by side: one task, one start, one number of student tokens, several seeds.
//!
//! Runs that are there already are not made again, broken ones are resumed, so the command can be
//! repeated until the table is whole. The table says what came out, whatever it says. The students
//! of the first seed are then evaluated on rows of a test set, and one report shows all runs.

mod evaluate;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A method as it takes part: its title, its table, its learning rate, and what else it needs.
struct Entrant {
    title: &'static str,
    method: &'static str,
    learning_rate: &'static str,
    sets: &'static [&'static str],
}

const fn entrant(
    title: &'static str,
    method: &'static str,
    learning_rate: &'static str,
) -> Entrant {
    Entrant {
        title,
        method,
        learning_rate,
        sets: &[],
    }
}

/// Settings are the defaults but for what stands here; no search was made for any of them.
/// Policy gradients get a smaller step than losses that see the whole distribution.
const ENTRANTS: &[Entrant] = &[
    entrant("SFT", r#"{name="sft"}"#, "1e-4"),
    entrant("KD", r#"{name="kd"}"#, "1e-4"),
    entrant("SeqKD", r#"{name="seqkd"}"#, "1e-4"),
    entrant("GKD", r#"{name="gkd"}"#, "1e-4"),
    // In a short run its threshold has to rise in a few large steps, if it rises at all.
    Entrant {
        sets: &["eval.every=8"],
        ..entrant(
            "DistiLLM",
            r#"{name="distillm", threshold_step=0.5, threshold_tolerance=0.0}"#,
            "1e-4",
        )
    },
    entrant("MiniLLM", r#"{name="minillm"}"#, "5e-5"),
    entrant("DPKD", r#"{name="dpkd"}"#, "1e-4"),
    entrant("LLMR", r#"{name="llmr"}"#, "5e-5"),
    entrant(
        "PbKD (online)",
        r#"{name="pbkd", iteration_steps=1, fit_steps=10}"#,
        "5e-5",
    ),
    entrant("MM-PbKD", r#"{name="mm_pbkd"}"#, "5e-5"),
];

const METRICS: [(&str, &str, usize); 5] = [
    ("rouge_l", "ROUGE-L", 3),
    ("forward_kl", "forward KL", 3),
    ("reverse_kl", "reverse KL", 3),
    ("response_tokens", "tokens", 1),
    ("eos_rate", "ended", 2),
];

/// What the command was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    out: PathBuf,
    seeds: u64,
    tokens: u64,
    methods: Option<Vec<String>>,
    /// Rows of the test set; of none there is no evaluation.
    test_rows: u64,
    set: Vec<String>,
}

impl Options {
    /// From the words behind `compare`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            out: PathBuf::from("runs/compare"),
            seeds: 3,
            tokens: 4_000,
            methods: None,
            test_rows: 100,
            set: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            let number = |text: &str| {
                let parsed = text.parse::<u64>().ok().filter(|&number| number > 0);
                parsed.ok_or(format!("{text} is not a positive number"))
            };
            match *word {
                "--out" => options.out = PathBuf::from(value()?),
                "--seeds" => options.seeds = number(value()?)?,
                "--tokens" => options.tokens = number(value()?)?,
                "--test-rows" => {
                    let text = value()?;
                    let rows = text.parse().map_err(|_| format!("{text} is not a number"));
                    options.test_rows = rows?;
                }
                "--methods" => {
                    let names = value()?.split(',').map(str::to_owned);
                    options.methods = Some(names.collect());
                }
                "--set" => options.set.push((*value()?).to_owned()),
                other => return Err(format!("unknown option {other}")),
            }
        }
        if let Some(name) = options.methods.iter().flatten().find(|name| {
            let mut all = ENTRANTS.iter();
            !all.any(|entrant| is_called(entrant, name))
        }) {
            let titles: Vec<String> = ENTRANTS.iter().map(folder).collect();
            return Err(format!(
                "there is no method {name}; choose from {}",
                titles.join(", ")
            ));
        }
        Ok(options)
    }
}

/// Makes all runs and writes `table.md`, `results.json` and, of the test rows, `report.html` into the
/// output folder.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let built = Command::new("cargo").args(["build", "--release"]).status();
    if !built.is_ok_and(|status| status.success()) {
        return Err("the program does not build".into());
    }
    let start = options.out.join("start");
    train(&start, options, &[])?;
    let student = std::path::absolute(start.join("student")).map_err(|e| e.to_string())?;
    let student = student
        .to_str()
        .ok_or("the output folder's name is not valid Unicode")?;
    let mut results: Vec<(&Entrant, Vec<Value>)> = Vec::new();
    let mut runs = vec![start.clone()];
    let takes_part = |entrant: &&Entrant| {
        let chosen = options.methods.as_ref();
        chosen.is_none_or(|names| names.iter().any(|name| is_called(entrant, name)))
    };
    // Seed by seed: a comparison that is broken off has every method equally often.
    for seed in 0..options.seeds {
        for entrant in ENTRANTS.iter().filter(takes_part) {
            let out = options.out.join(format!("{}-{seed}", folder(entrant)));
            let mut sets = vec![
                format!("seed={seed}"),
                format!("student.model={student}"),
                format!("method={}", entrant.method),
                format!("train.learning_rate={}", entrant.learning_rate),
                format!("train.tokens={}", options.tokens),
                "train.steps=100000".to_owned(),
            ];
            sets.extend(entrant.sets.iter().map(|&set| set.to_owned()));
            let result = train(&out, options, &sets)?;
            runs.push(out);
            match results.iter_mut().find(|(e, _)| e.title == entrant.title) {
                Some((_, values)) => values.push(result),
                None => results.push((entrant, vec![result])),
            }
            let write = |name: &str, text: String| {
                fs::write(options.out.join(name), text).map_err(|e| e.to_string())
            };
            write("table.md", table(&results))?;
            write("results.json", json(&results))?;
        }
    }
    println!("{}", table(&results));
    if options.test_rows > 0 {
        // Of other seeds there is what the run itself measured.
        let first_seed = runs.iter().take(1 + results.len());
        for run in first_seed {
            evaluate::evaluate(run, options.test_rows)?;
        }
        evaluate::report(&runs, &options.out)?;
    }
    Ok(())
}

/// Whether `name` is the entrant's, however it is written: mm_pbkd, MM-PbKD, pbkd.
fn is_called(entrant: &Entrant, name: &str) -> bool {
    folder(entrant).starts_with(&name.to_lowercase().replace('_', "-"))
}

/// A name for files: small letters, digits and hyphens.
fn folder(entrant: &Entrant) -> String {
    let words = entrant.title.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.join("-")
}

/// One run; its `eval.json`.
fn train(out: &Path, options: &Options, sets: &[String]) -> Result<Value, String> {
    let folder = out.to_string_lossy().into_owned();
    let mut words = ["train", "benchmarks/methods/base.toml", "--out"]
        .map(str::to_owned)
        .to_vec();
    words.push(folder);
    for set in sets.iter().chain(&options.set) {
        words.extend(["--set".to_owned(), set.clone()]);
    }
    if out.exists() {
        words.push("--resume".to_owned());
    }
    distil(&words)?;
    // What has ended needs its checkpoint no more: thirty would be 40 GB.
    let checkpoints = out.join("checkpoints");
    if checkpoints.exists() {
        fs::remove_dir_all(&checkpoints).map_err(|e| format!("{}: {e}", checkpoints.display()))?;
    }
    let path = out.join("eval.json");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Runs the program.
fn distil(words: &[String]) -> Result<(), String> {
    let ended = Command::new("target/release/distil").args(words).status();
    match ended.map_err(|e| e.to_string())?.success() {
        true => Ok(()),
        false => Err(format!("distil {} failed", words.join(" "))),
    }
}

/// Mean and half of the 95 % interval of Student's t for the mean.
fn interval(values: &[f64]) -> (f64, f64) {
    /// 97.5 % points for 1 to 20 degrees of freedom; beyond, the last one is a little too wide.
    const T: [f64; 20] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    ];
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let Some(freedom) = values.len().checked_sub(2) else {
        return (mean, f64::NAN);
    };
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let factor = T[freedom.min(T.len() - 1)];
    (mean, factor * (variance / n).sqrt())
}

fn table(results: &[(&Entrant, Vec<Value>)]) -> String {
    let mut text = String::from("| method | learning rate |");
    for (_, title, _) in METRICS {
        let _ = write!(text, " {title} |");
    }
    text.push_str(" student tokens | seconds before | seconds |\n|---|---|");
    text.push_str(&"---|".repeat(METRICS.len() + 3));
    text.push('\n');
    let cell = |values: Vec<f64>, digits: usize| match interval(&values) {
        (mean, half) if half.is_nan() => format!("{mean:.digits$}"),
        (mean, half) => format!("{mean:.digits$} ± {half:.digits$}"),
    };
    let of = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_f64);
    if let Some(first) = results.first().and_then(|(_, values)| values.first()) {
        text.push_str("| the common start | |");
        for (name, _, digits) in METRICS {
            let value = of(first, &format!("/start/{name}")).unwrap_or(f64::NAN);
            let _ = write!(text, " {value:.digits$} |");
        }
        text.push_str(" | | |\n");
    }
    for (entrant, values) in results {
        let _ = write!(text, "| {} | {} |", entrant.title, entrant.learning_rate);
        let column = |path: &str| values.iter().filter_map(|v| of(v, path)).collect();
        for (name, _, digits) in METRICS {
            let _ = write!(
                text,
                " {} |",
                cell(column(&format!("/student/{name}")), digits)
            );
        }
        let _ = writeln!(
            text,
            " {} | {} | {} |",
            cell(column("/tokens"), 0),
            cell(column("/preparation_seconds"), 0),
            cell(column("/training_seconds"), 0)
        );
    }
    text
}

fn json(results: &[(&Entrant, Vec<Value>)]) -> String {
    let rows: Vec<Value> = results
        .iter()
        .map(|(entrant, values)| {
            serde_json::json!({
                "method": entrant.title,
                "settings": entrant.method,
                "learning_rate": entrant.learning_rate,
                "set": entrant.sets,
                "runs": values,
            })
        })
        .collect();
    format!("{:#}\n", Value::Array(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_students_t() {
        let (mean, half) = interval(&[1.0, 2.0, 3.0]);
        assert_eq!(mean, 2.0);
        // s = 1, t(0.975, 2) = 4.303.
        assert!((half - 4.303 / 3.0_f64.sqrt()).abs() < 1e-12);
        assert!(interval(&[5.0]).1.is_nan());
    }

    #[test]
    fn the_table_has_a_row_a_method_and_the_start() {
        let run = |rouge: f64| {
            serde_json::json!({
                "start": {"rouge_l": 0.1}, "student": {"rouge_l": rouge},
                "tokens": 100, "preparation_seconds": 3.0, "training_seconds": 9.0,
            })
        };
        let text = table(&[(&ENTRANTS[0], vec![run(0.2), run(0.4)])]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(
            lines[2].starts_with("| the common start | | 0.100 |"),
            "{text}"
        );
        assert!(
            lines[3].starts_with("| SFT | 1e-4 | 0.300 ± 1.271 |"),
            "{text}"
        );
        assert!(lines[3].ends_with("| 100 ± 0 | 3 ± 0 | 9 ± 0 |"), "{text}");
    }

    #[test]
    fn options_and_what_is_wrong_with_them() {
        let options = Options::parse(&["--seeds", "5", "--methods", "kd,llmr"]).unwrap();
        assert_eq!((options.seeds, options.tokens), (5, 4_000));
        assert_eq!(options.methods.unwrap(), ["kd", "llmr"]);
        assert!(Options::parse(&["--methods", "mm_pbkd,PbKD"]).is_ok());
        for words in [
            &["--methods", "dpo"][..],
            &["--seeds"],
            &["--seeds", "0"],
            &["--what"],
        ] {
            assert!(Options::parse(words).is_err(), "{words:?}");
        }
    }
}
