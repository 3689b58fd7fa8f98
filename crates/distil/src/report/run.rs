//! A run as the report sees it: one curve and one result, be it of one stage or of several.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::thin::Column;
use crate::error::Result;
use crate::record::{EvaluationFile, Record};

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    /// What it is called; unique in the report.
    pub(super) label: String,
    /// What it and its siblings are called together; see [`family`](super::family).
    pub(super) family: String,
    /// The family's colour and dashes.
    pub(super) style: usize,
    /// The folder as it was given.
    pub(super) path: PathBuf,
    /// Its stages, at least one.
    pub(super) stages: Vec<Record>,
    /// What `distil eval` wrote into it.
    pub(super) evaluations: Vec<EvaluationFile>,
    /// What could not be read.
    pub(super) unreadable: Vec<String>,
    /// The result's size.
    pub(super) student: Option<Student>,
}

/// How large the student is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Student {
    pub(super) layers: u64,
    pub(super) width: u64,
    /// None if the weights are not there or in another format.
    pub(super) parameters: Option<u64>,
}

impl Run {
    /// Reads the run in `path`.
    ///
    /// # Errors
    /// It is no run's folder, or a file of it cannot be read.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut stages = Vec::new();
        let mut unreadable = Vec::new();
        let mut first_error = None;
        for folder in Record::folders(path) {
            match Record::read(&folder) {
                Ok(record) => stages.push(record),
                Err(error) => {
                    unreadable.push(error.to_string());
                    first_error = first_error.or(Some(error));
                }
            }
        }
        if let (true, Some(error)) = (stages.is_empty(), first_error) {
            return Err(error);
        }
        for record in &stages {
            if record.metrics.unreadable > 0 {
                unreadable.push(format!(
                    "{} of metrics.jsonl could not be read in {}",
                    super::format::plural(record.metrics.unreadable, "line"),
                    record.path.display()
                ));
            }
        }
        let mut evaluations = Vec::new();
        let last = stages.last().map(|stage| stage.path.clone());
        let folders = [Some(path.to_owned()), last.filter(|last| last != path)];
        for folder in folders.into_iter().flatten() {
            let (read, failed) = EvaluationFile::all(&folder.join("evaluations"));
            evaluations.extend(read);
            unreadable.extend(failed);
        }
        for evaluation in &evaluations {
            if evaluation.answers.unreadable > 0 {
                unreadable.push(format!(
                    "{} of the answers of {} could not be read",
                    super::format::plural(evaluation.answers.unreadable, "line"),
                    evaluation.path.display()
                ));
            }
        }
        let label = match stages.len() {
            1 => stages.first().map(|stage| stage.name.clone()),
            _ => stages
                .first()
                .and_then(|stage| Some(stage.name.rsplit_once('/')?.0.to_owned())),
        };
        let label = label.unwrap_or_else(|| path.display().to_string());
        Ok(Self {
            family: label.clone(),
            label,
            style: 0,
            student: student(&path.join("student")),
            path: path.to_owned(),
            stages,
            evaluations,
            unreadable,
        })
    }

    /// The first stage.
    pub(super) fn first(&self) -> Option<&Record> {
        self.stages.first()
    }

    /// The last stage.
    pub(super) fn last(&self) -> Option<&Record> {
        self.stages.last()
    }

    /// The stages with the steps made before each.
    pub(super) fn offsets(&self) -> impl Iterator<Item = (usize, &Record)> {
        let mut before = 0;
        self.stages.iter().map(move |stage| {
            let offset = before;
            before += stage.metrics.steps.last().copied().unwrap_or(0);
            (offset, stage)
        })
    }

    /// A column of `metrics.jsonl`, stage by stage.
    pub(super) fn columns(&self, name: &str) -> Vec<Column<'_>> {
        let column = |(offset, stage)| {
            let stage: &Record = stage;
            Some(Column {
                offset,
                steps: &stage.metrics.steps,
                values: stage.metrics.column(name)?,
            })
        };
        self.offsets().filter_map(column).collect()
    }

    /// The sum of a column over all steps of all stages; none if nothing has it.
    pub(super) fn total(&self, name: &str) -> Option<f64> {
        let columns = self.columns(name);
        let values = columns.iter().flat_map(|column| column.values);
        let finite = values.filter(|value| value.is_finite());
        let (sum, count) = finite.fold((0.0, 0_usize), |(sum, n), x| (sum + x, n + 1));
        (count > 0).then_some(sum)
    }

    /// Steps that are logged.
    pub(super) fn steps(&self) -> usize {
        let steps = self.stages.iter().map(|stage| stage.metrics.steps.len());
        steps.sum()
    }

    /// Response tokens trained on.
    pub(super) fn tokens(&self) -> Option<f64> {
        let of = |stage: &Record| {
            let said = stage.eval.get("tokens").and_then(Value::as_f64);
            said.or_else(|| stage.metrics.last("tokens"))
        };
        sum(self.stages.iter().map(of))
    }

    /// Seconds of training.
    pub(super) fn seconds(&self) -> Option<f64> {
        let of = |stage: &Record| {
            let said = stage.eval.get("training_seconds").and_then(Value::as_f64);
            said.or_else(|| {
                let seconds = stage.metrics.column("seconds")?.iter();
                Some(seconds.filter(|second| second.is_finite()).sum())
            })
        };
        sum(self.stages.iter().map(of))
    }

    /// Whether the last stage has its student.
    pub(super) fn finished(&self) -> bool {
        self.last().is_some_and(|stage| stage.finished)
    }

    /// A metric before training, and after it as far as it has come.
    pub(super) fn outcome(&self, metric: &str) -> (Option<f64>, Option<f64>) {
        let said = |stage: Option<&Record>, when: &str| {
            let metrics = stage?.eval.get(when)?;
            metrics.get(metric)?.as_f64()
        };
        let logged = |stage: Option<&Record>, last: bool| {
            let evaluations = &stage?.metrics.evaluations;
            let has = |e: &&crate::record::Evaluated| e.metrics.contains_key(metric);
            let found = match last {
                true => evaluations.iter().rev().find(has).filter(|e| e.step > 0),
                false => evaluations.iter().find(has).filter(|e| e.step == 0),
            };
            found?.metrics.get(metric).copied()
        };
        let start = said(self.first(), "start").or_else(|| logged(self.first(), false));
        let end = said(self.last(), "student").or_else(|| logged(self.last(), true));
        (start, end)
    }

    /// Every metric that was measured before, during or after training.
    pub(super) fn measured(&self) -> Vec<String> {
        let mut names = Vec::new();
        for stage in &self.stages {
            for when in ["start", "student"] {
                if let Some(Value::Object(metrics)) = stage.eval.get(when) {
                    names.extend(metrics.keys().cloned());
                }
            }
            for evaluated in &stage.metrics.evaluations {
                names.extend(evaluated.metrics.keys().cloned());
            }
        }
        super::words::in_order(names)
    }

    /// The evaluation of this name: of the student, if several models were evaluated under it.
    pub(super) fn evaluation(&self, name: &str) -> Option<&EvaluationFile> {
        let mut of_name = self.evaluations.iter().filter(|e| e.name == name);
        let student = of_name.clone().find(|e| {
            let model = e.model.as_deref().unwrap_or_default();
            Path::new(model).ends_with("student")
        });
        student.or_else(|| of_name.next())
    }
}

/// The evaluations of this name with their runs.
pub(super) fn evaluations_of<'a>(
    runs: &'a [Run],
    name: &str,
) -> Vec<(&'a Run, &'a EvaluationFile)> {
    let with = runs
        .iter()
        .filter_map(|run| Some((run, run.evaluation(name)?)));
    with.collect()
}

fn sum(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// Labels that differ: the folder before the name where names are the same, a number where even that
/// does not help.
pub(super) fn distinguish(runs: &mut [Run]) {
    let same = |runs: &[Run], index: usize| {
        let label = runs[index].label.clone();
        runs.iter().filter(|run| run.label == label).count() > 1
    };
    let clashing: Vec<usize> = (0..runs.len()).filter(|&i| same(runs, i)).collect();
    for &index in &clashing {
        let run = &mut runs[index];
        let whole = fs::canonicalize(&run.path).unwrap_or_else(|_| run.path.clone());
        if let Some(parent) = whole.parent().and_then(Path::file_name) {
            run.label = format!("{}/{}", parent.to_string_lossy(), run.label);
        }
    }
    let clashing: Vec<usize> = (0..runs.len()).filter(|&i| same(runs, i)).collect();
    for (number, index) in clashing.into_iter().enumerate() {
        runs[index].label = format!("{} ({})", runs[index].label, number + 1);
    }
}

/// The size of a Hugging Face directory, by its `config.json` and the heads of its weights.
fn student(folder: &Path) -> Option<Student> {
    let config = fs::read(folder.join("config.json")).ok()?;
    let config: Value = serde_json::from_slice(&config).ok()?;
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let files = fs::read_dir(folder).ok()?.flatten().map(|file| file.path());
    let weights = files.filter(|file| file.extension().is_some_and(|end| end == "safetensors"));
    let counts: Option<Vec<u64>> = weights.map(|file| parameters(&file)).collect();
    Some(Student {
        layers: number("num_hidden_layers")?,
        width: number("hidden_size")?,
        parameters: counts.map(|counts| counts.iter().sum()).filter(|&n| n > 0),
    })
}

/// Numbers in a safetensors file: its head is the length of a JSON object, 8 bytes, and the object
/// with a `shape` for every tensor.
fn parameters(path: &Path) -> Option<u64> {
    const LONGEST: u64 = 100 << 20;
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST {
        return None;
    }
    let mut head = Vec::new();
    file.take(length).read_to_end(&mut head).ok()?;
    let Value::Object(tensors) = serde_json::from_slice(&head).ok()? else {
        return None;
    };
    let shape = |tensor: &Value| -> Option<u64> {
        let shape = tensor.get("shape")?.as_array()?;
        let mut sizes = shape.iter().map(Value::as_u64);
        sizes.try_fold(1_u64, |product, size| product.checked_mul(size?))
    };
    Some(tensors.values().filter_map(shape).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn stages_are_one_run() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("both");
        for (stage, steps, eval) in [
            (
                "1-kd",
                3,
                r#"{"start":{"rouge_l":0.1},"student":{"rouge_l":0.2},"tokens":10}"#,
            ),
            (
                "2-llmr",
                2,
                r#"{"start":{"rouge_l":0.2},"student":{"rouge_l":0.3},"tokens":5}"#,
            ),
        ] {
            let name = |file: &str| format!("stages/{stage}/{file}");
            write(&path, &name("config.toml"), "[method]\nname = \"kd\"\n");
            write(&path, &name("eval.json"), eval);
            let line = |step| format!("{{\"step\":{step},\"loss\":{step}.5,\"seconds\":2.0}}\n");
            let lines: String = (1..=steps).map(line).collect();
            write(&path, &name("metrics.jsonl"), lines);
        }
        write(&path, "evaluations/dolly.json", "{}");
        write(&path, "stages/3-broken/x", "");
        let run = Run::read(&path).unwrap();
        assert_eq!(run.label, "both");
        let offsets: Vec<usize> = run.columns("loss").iter().map(|c| c.offset).collect();
        assert_eq!(offsets, [0, 3]);
        assert_eq!(
            (run.steps(), run.tokens(), run.seconds()),
            (5, Some(15.0), Some(10.0))
        );
        assert_eq!(run.outcome("rouge_l"), (Some(0.1), Some(0.3)));
        assert_eq!(run.total("loss"), Some(1.5 + 2.5 + 3.5 + 1.5 + 2.5));
        assert!(run.evaluation("dolly").is_some() && run.evaluation("x").is_none());
        assert_eq!(run.unreadable.len(), 1, "{:?}", run.unreadable);
    }

    #[test]
    fn the_size_of_a_student_stands_in_its_files() {
        let home = tempfile::tempdir().unwrap();
        let config = r#"{"num_hidden_layers":4,"hidden_size":8}"#;
        write(home.path(), "config.json", config);
        assert_eq!(student(home.path()).unwrap().parameters, None);
        let head = r#"{"a":{"shape":[2,3]},"b":{"shape":[5]},"__metadata__":{"x":"y"}}"#;
        let mut file = (head.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(head.as_bytes());
        write(home.path(), "model.safetensors", &file);
        assert_eq!(student(home.path()).unwrap().parameters, Some(11));
        write(home.path(), "model.safetensors", [255; 12]);
        assert_eq!(student(home.path()).unwrap().parameters, None);
    }

    #[test]
    fn equal_names_are_told_apart() {
        let home = tempfile::tempdir().unwrap();
        for run in ["a/out", "b/out"] {
            write(home.path(), &format!("{run}/config.toml"), "");
        }
        let read = |run: &str| Run::read(&home.path().join(run)).unwrap();
        let mut runs = vec![read("a/out"), read("b/out"), read("b/out")];
        distinguish(&mut runs);
        let labels: Vec<&str> = runs.iter().map(|run| run.label.as_str()).collect();
        assert_eq!(labels, ["a/out", "b/out (1)", "b/out (2)"]);
    }
}
