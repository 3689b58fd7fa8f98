//! Families: runs that differ only in their training seed are one student, trained several times.
//!
//! Every section speaks of families; a run without siblings is a family of one. What the seed alone
//! changes is looked for in the resolved configurations, in which the run's own folder does not count
//! (a stage of a schedule names the student of the stage before by its path).

use std::fs;

use toml::Value;

use super::html::{escape, named};
use super::run::Run;
use super::thin::Column;
use super::words;
use crate::record::EvaluationFile;

/// Runs of one configuration with different seeds.
#[derive(Debug, Clone)]
pub(super) struct Family<'a> {
    /// What it is called; unique in the report. A run alone gives its own name.
    pub(super) label: &'a str,
    /// Its colour and dashes.
    pub(super) style: usize,
    /// At least one.
    pub(super) runs: Vec<&'a Run>,
}

/// The families of the runs, in the order of their first runs.
pub(super) fn families(runs: &[Run]) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for run in runs {
        match families.iter_mut().find(|f| f.style == run.style) {
            Some(family) => family.runs.push(run),
            None => families.push(Family {
                label: &run.family,
                style: run.style,
                runs: vec![run],
            }),
        }
    }
    families
}

/// The metrics of an evaluation, or without a name of the runs' own, in the order in which they are shown.
pub(super) fn metrics(families: &[Family<'_>], evaluation: Option<&str>) -> Vec<String> {
    let runs = families.iter().flat_map(|family| &family.runs);
    let names = runs.flat_map(|run| match evaluation {
        Some(name) => run
            .evaluation(name)
            .map(|file| file.metrics.keys().cloned().collect())
            .unwrap_or_default(),
        None => run.measured(),
    });
    words::in_order(names.collect())
}

/// Finds the families and gives each run its family's name and style. Labels must differ already.
pub(super) fn assign(runs: &mut [Run]) {
    let configurations: Vec<_> = runs.iter().map(without_seed).collect();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in 0..runs.len() {
        let sibling = |group: &&mut Vec<usize>| {
            let alike = configurations[group[0]] == configurations[index];
            // The same seed again is the same run again, and says nothing new.
            let new = group.iter().all(|&i| seed(&runs[i]) != seed(&runs[index]));
            alike && new && seed(&runs[index]).is_some()
        };
        match groups.iter_mut().find(sibling) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    let mut names: Vec<String> = Vec::new();
    for group in &groups {
        let labels: Vec<&str> = group.iter().map(|&i| runs[i].label.as_str()).collect();
        let alone = runs.iter().map(|run| &run.label);
        let common = common(&labels);
        let taken = alone.chain(&names).any(|name| *name == common);
        names.push(match labels[..] {
            [one] => one.to_owned(),
            [first, ..] if common.is_empty() || taken => {
                format!("{first} and {} more", labels.len() - 1)
            }
            _ => common,
        });
    }
    for (style, (group, name)) in groups.iter().zip(names).enumerate() {
        for &index in group {
            runs[index].style = style;
            runs[index].family.clone_from(&name);
        }
    }
}

/// How names begin, without what separates a number or the number's first digits.
fn common(labels: &[&str]) -> String {
    let Some((first, others)) = labels.split_first() else {
        return String::new();
    };
    let same = |length: &usize| {
        others
            .iter()
            .all(|o| o.get(..*length) == first.get(..*length))
    };
    let lengths = (0..=first.len())
        .rev()
        .filter(|&n| first.is_char_boundary(n));
    let length = lengths.into_iter().find(same).unwrap_or(0);
    let name = first[..length].trim_end_matches(|c: char| c.is_ascii_digit());
    name.trim_end_matches(|c: char| !c.is_alphanumeric())
        .to_owned()
}

/// The seeds of a run, stage by stage; none if a stage does not say it.
pub(super) fn seed(run: &Run) -> Option<Vec<i64>> {
    let of = |stage: &crate::record::Record| stage.config.get("seed")?.as_integer();
    run.stages.iter().map(of).collect()
}

/// What the run was told, without its seed and its own folder.
fn without_seed(run: &Run) -> Vec<toml::Table> {
    let own = fs::canonicalize(&run.path).unwrap_or_else(|_| run.path.clone());
    let own = format!("{}/", own.display());
    let stages = run.stages.iter().map(|stage| {
        let mut config = stage.config.clone();
        config.remove("seed");
        config
            .iter_mut()
            .for_each(|(_, value)| relative(value, &own));
        config
    });
    stages.collect()
}

fn relative(value: &mut Value, own: &str) {
    match value {
        Value::String(text) => {
            if let Some(rest) = text.strip_prefix(own) {
                *text = format!("./{rest}");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| relative(value, own)),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| relative(value, own)),
        _ => {}
    }
}

impl<'a> Family<'a> {
    /// The run that stands for all of them where one is enough.
    pub(super) fn first(&self) -> &'a Run {
        self.runs[0]
    }

    /// Its name in its colour, with the number of its runs.
    pub(super) fn named(&self) -> String {
        match self.runs.len() {
            1 => named(self.style, self.label),
            count => format!(
                "{} <span class=\"seeds\">({count} training seeds)</span>",
                named(self.style, self.label)
            ),
        }
    }

    /// Its runs by name, and their seeds.
    pub(super) fn members(&self) -> String {
        let member = |run: &&Run| match seed(run).as_deref() {
            Some([seed, ..]) => format!("{} (seed {seed})", escape(&run.label)),
            _ => escape(&run.label),
        };
        let members: Vec<String> = self.runs.iter().map(member).collect();
        members.join(", ")
    }

    /// The evaluations of this name.
    pub(super) fn evaluations(&self, name: &str) -> Vec<&'a EvaluationFile> {
        self.runs
            .iter()
            .filter_map(|run| run.evaluation(name))
            .collect()
    }

    /// What each run measured of a metric before training, and at its end. Among several runs, those that
    /// have not ended do not count: their students are half trained.
    pub(super) fn outcomes(&self, metric: &str) -> (Vec<f64>, Vec<f64>) {
        let ended = |run: &&&Run| run.last().is_some_and(|stage| !stage.eval.is_null());
        let all = self.runs.len() == 1;
        let runs = self.runs.iter().filter(|run| all || ended(run));
        let outcomes = runs.map(|run| run.outcome(metric));
        let (starts, ends): (Vec<_>, Vec<_>) = outcomes.unzip();
        let known = |values: Vec<Option<f64>>| values.into_iter().flatten().collect();
        (known(starts), known(ends))
    }

    /// Each run's number of an evaluation; without a name, of what the runs measured at their ends.
    pub(super) fn values(&self, metric: &str, evaluation: Option<&str>) -> Vec<f64> {
        match evaluation {
            Some(name) => self
                .evaluations(name)
                .iter()
                .filter_map(|file| file.metrics.get(metric)?.center())
                .collect(),
            None => self.outcomes(metric).1,
        }
    }

    /// A column of `metrics.jsonl`, stage by stage: of several runs, the mean of the numbers that there
    /// are at each step which all of them made. Not every run has every number at every step: where each
    /// step is on the student's samples or not by chance, seeds differ in which.
    pub(super) fn means(&self, key: &str) -> Vec<Means> {
        let columns = self.runs.iter().map(|run| run.columns(key));
        let columns: Vec<Vec<Column<'_>>> = columns.filter(|c| !c.is_empty()).collect();
        let stages = columns.iter().map(Vec::len).min().unwrap_or(0);
        (0..stages)
            .map(|stage| Means::of(columns.iter().map(|of_run| of_run[stage]).collect()))
            .collect()
    }
}

/// A column that is the mean of several.
#[derive(Debug)]
pub(super) struct Means {
    offset: usize,
    steps: Vec<usize>,
    values: Vec<f64>,
}

impl Means {
    fn of(columns: Vec<Column<'_>>) -> Self {
        let first = columns[0];
        let (mut steps, mut values) = (Vec::new(), Vec::new());
        let mut places = vec![0; columns.len()];
        for &step in first.steps {
            let (mut sum, mut count) = (0.0, 0_usize);
            let mut all = true;
            for (column, place) in columns.iter().zip(&mut places) {
                while column.steps.get(*place).is_some_and(|&other| other < step) {
                    *place += 1;
                }
                match (column.steps.get(*place), column.values.get(*place)) {
                    (Some(&other), Some(&value)) if other == step => {
                        if value.is_finite() {
                            (sum, count) = (sum + value, count + 1);
                        }
                    }
                    _ => all = false,
                }
            }
            if all {
                steps.push(step);
                // 0 / 0 is the gap.
                values.push(sum / count as f64);
            }
        }
        Self {
            offset: first.offset,
            steps,
            values,
        }
    }

    pub(super) fn column(&self) -> Column<'_> {
        Column {
            offset: self.offset,
            steps: &self.steps,
            values: &self.values,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::report::run::distinguish;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Families as `label: runs`.
    fn of(home: &Path, configurations: &[(&str, &str)]) -> Vec<String> {
        let mut runs = Vec::new();
        for (name, config) in configurations {
            write(&home.join(name).join("config.toml"), config);
            runs.push(Run::read(&home.join(name)).unwrap());
        }
        distinguish(&mut runs);
        assign(&mut runs);
        let shown = |family: &Family<'_>| {
            let runs: Vec<&str> = family.runs.iter().map(|run| run.label.as_str()).collect();
            format!("{}: {}", family.label, runs.join(" "))
        };
        families(&runs).iter().map(shown).collect()
    }

    #[test]
    fn runs_that_differ_in_their_seed_alone_are_a_family() {
        let home = tempfile::tempdir().unwrap();
        let found = of(
            home.path(),
            &[
                ("kd-10", "seed = 10\n[method]\nname = \"kd\"\n"),
                ("sft-0", "seed = 0\n[method]\nname = \"sft\"\n"),
                ("kd-11", "seed = 11\n[method]\nname = \"kd\"\n"),
                ("kd-11-again", "seed = 11\n[method]\nname = \"kd\"\n"),
                ("no-seed-a", "[method]\nname = \"kd\"\n"),
                ("no-seed-b", "[method]\nname = \"kd\"\n"),
                ("x", "seed = 1\n[method]\nname = \"gkd\"\n"),
                ("y", "seed = 2\n[method]\nname = \"gkd\"\n"),
            ],
        );
        assert_eq!(
            found,
            [
                "kd: kd-10 kd-11",
                "sft-0: sft-0",
                "kd-11-again: kd-11-again",
                "no-seed-a: no-seed-a",
                "no-seed-b: no-seed-b",
                "x and 1 more: x y",
            ]
        );
    }

    #[test]
    fn a_run_that_has_not_ended_is_not_in_the_means() {
        let home = tempfile::tempdir().unwrap();
        let mut runs = Vec::new();
        for (seed, end) in [(0, Some(0.2)), (1, Some(0.3)), (2, None)] {
            let path = home.path().join(format!("kd-{seed}"));
            write(&path.join("config.toml"), &format!("seed = {seed}\n"));
            let line = "{\"step\":1}\n{\"step\":1,\"eval\":{\"rouge_l\":0.9}}\n";
            write(&path.join("metrics.jsonl"), line);
            if let Some(end) = end {
                let text = format!("{{\"student\":{{\"rouge_l\":{end}}}}}");
                write(&path.join("eval.json"), &text);
            }
            runs.push(Run::read(&path).unwrap());
        }
        assign(&mut runs);
        let ends = |runs: &[Run]| families(runs)[0].outcomes("rouge_l").1;
        assert_eq!(ends(&runs), [0.2, 0.3]);
        assert_eq!(ends(&runs[2..]), [0.9], "alone, it shows what there is");
    }

    #[test]
    fn the_paths_of_stages_are_no_difference() {
        let home = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(home.path()).unwrap();
        let mut runs = Vec::new();
        for seed in 0..2 {
            let path = root.join(format!("both-{seed}"));
            write(
                &path.join("stages/1-kd/config.toml"),
                &format!("seed = {seed}\n[student]\nmodel = \"start\"\n"),
            );
            let student = path.join("stages/1-kd/student");
            write(
                &path.join("stages/2-llmr/config.toml"),
                &format!(
                    "seed = {seed}\n[student]\nmodel = \"{}\"\n",
                    student.display()
                ),
            );
            runs.push(Run::read(&path).unwrap());
        }
        assign(&mut runs);
        assert_eq!(families(&runs).len(), 1);
        assert_eq!(runs[1].family, "both");
    }

    #[test]
    fn a_mean_is_of_the_steps_that_all_have() {
        let column = |steps: &'static [usize], values: &'static [f64]| Column {
            offset: 5,
            steps,
            values,
        };
        let means = Means::of(vec![
            column(&[1, 2, 3, 4], &[1.0, 2.0, 3.0, f64::NAN]),
            column(&[2, 3, 4, 5], &[4.0, f64::NAN, f64::NAN, 9.0]),
        ]);
        assert_eq!((means.offset, &means.steps[..]), (5, &[2, 3, 4][..]));
        assert_eq!(means.values[..2], [3.0, 3.0]);
        assert!(means.values[2].is_nan(), "nobody has a number");
    }
}
