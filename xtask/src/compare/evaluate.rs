//! What students say on rows that no run has seen, and the report of all runs.

use std::path::{Path, PathBuf};

use super::distil;

/// The file inside of a run's folder; reports look for it there.
const FILE: &str = "evaluations/test.json";

/// As the papers do it: greedily, and sampled at temperature 1 with several seeds.
const OPTIONS: &[&str] = &[
    "--data",
    "../shared/data/dolly/eval500.jsonl",
    "--teacher",
    "smollm2-135m-instruct",
    "--seeds",
    "10,20,30",
    "--max-new-tokens",
    "48",
    "--precision",
    "bf16",
    "--metrics",
    "all",
];

/// Evaluates the student of a run on the first `rows` of the test rows. Answers that are there stay.
pub(super) fn evaluate(run: &Path, rows: u64) -> Result<(), String> {
    let mut words = vec!["eval".to_owned(), text(&run.join("student"))?];
    words.extend(OPTIONS.iter().map(|&option| option.to_owned()));
    words.extend(["--rows".to_owned(), rows.to_string()]);
    words.extend(["--out".to_owned(), text(&run.join(FILE))?]);
    distil(&words)
}

/// Writes `report.html` of all runs into the folder `out`, anew.
pub(super) fn report(runs: &[PathBuf], out: &Path) -> Result<(), String> {
    let mut words = vec!["report".to_owned()];
    for run in runs {
        words.push(text(run)?);
    }
    words.extend(["--force".to_owned(), "--out".to_owned()]);
    words.push(text(&out.join("report.html"))?);
    distil(&words)
}

fn text(path: &Path) -> Result<String, String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| format!("{}: the name is not valid Unicode", path.display()))
}
