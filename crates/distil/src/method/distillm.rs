//! DistiLLM (Ko et al. 2024, arXiv 2402.03898): a skewed divergence to the teacher, on the data's
//! responses or the student's own as an adaptive threshold φ decides.
//!
//! φ starts at 0 and rises by `threshold_step`, up to 1, whenever the validation loss exceeds the
//! one before by more than `threshold_tolerance`. With r uniform in [0, 1) at a share t/N of the run:
//!   r < φ·(1 − t/N): fresh responses of the student, which also go into a replay buffer;
//!   r < φ: responses from the buffer (fresh ones while it is empty);
//!   else: the data's responses.

use std::collections::VecDeque;
use std::path::Path;

use distil_model::{Llama, files};
use serde::{Deserialize, Serialize};

use super::gkd::asks;
use super::kd::{TERMS, objective};
use super::pass::{MakeObjective, Teacher, Texts, position_report, token_pass};
use super::{Method, StepReport};
use crate::config::DistiLlm;
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::objective::look::{on_given_text, on_own_samples};
use crate::rollout::on_policy::{Answers, Policy};
use crate::rollout::uniform_of;
use crate::step::Work;

/// What a checkpoint keeps of it.
const FILE: &str = "distillm.json";

/// DistiLLM with a live teacher.
pub(crate) struct DistiLlmMethod {
    settings: DistiLlm,
    objective: Box<MakeObjective>,
    teacher: Teacher,
    student: Policy,
    examples: Vec<Example>,
    state: State,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// φ.
    threshold: f64,
    /// The validation loss before.
    validation_loss: Option<f64>,
    /// The student's newest responses, the oldest first, by row.
    replay: VecDeque<(usize, Vec<u32>)>,
}

pub(crate) fn method(
    settings: DistiLlm,
    teacher: Teacher,
    student: Policy,
    examples: Vec<Example>,
) -> DistiLlmMethod {
    DistiLlmMethod {
        objective: objective(settings.term),
        settings,
        teacher,
        student,
        examples,
        state: State::default(),
    }
}

/// Where a step's responses come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Source {
    Data,
    Fresh,
    Replay,
}

impl State {
    fn source(&self, r: f64, progress: f64) -> Source {
        match (r < self.threshold * (1.0 - progress), r < self.threshold) {
            (true, _) => Source::Fresh,
            (false, true) if self.replay.is_empty() => Source::Fresh,
            (false, true) => Source::Replay,
            (false, false) => Source::Data,
        }
    }

    fn heard(&mut self, loss: f64, settings: &DistiLlm) {
        if let Some(before) = self.validation_loss
            && loss > before + settings.threshold_tolerance
        {
            self.threshold = (self.threshold + settings.threshold_step).min(1.0);
        }
        self.validation_loss = Some(loss);
    }
}

impl DistiLlmMethod {
    /// Responses of the buffer, with repetition, chosen by the step's stream.
    fn replayed(&self, count: usize, work: &Work) -> Vec<Example> {
        let pick = |i: usize| {
            let random = uniform_of(work.seed ^ ((i as u64 + 1) << 32), work.step, b"replay");
            let (row, response) =
                &self.state.replay[(random * self.state.replay.len() as f64) as usize];
            Example {
                prompt: self.examples[*row].prompt.clone(),
                response: response.clone(),
                row: self.examples[*row].row,
            }
        };
        (0..count).map(pick).collect()
    }

    fn remember(&mut self, rows: &[usize], answers: &Answers) {
        for (&row, example) in rows.iter().zip(&answers.examples) {
            self.state.replay.push_back((row, example.response.clone()));
        }
        while self.state.replay.len() > self.settings.replay_rows {
            self.state.replay.pop_front();
        }
    }
}

impl Method for DistiLlmMethod {
    fn rows(&self) -> usize {
        self.examples.len()
    }

    fn data_row(&self, row: usize) -> usize {
        self.examples[row].row
    }

    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let r = uniform_of(work.seed, work.step, b"distillm");
        let source = self.state.source(r, work.progress);
        let mut diagnostics = Vec::new();
        let own: Vec<Example> = match source {
            Source::Data => Vec::new(),
            Source::Replay => self.replayed(rows.len(), work),
            Source::Fresh => {
                let asks = asks(&self.examples, rows);
                let answers = self.student.answer(student, &asks, work)?;
                self.remember(rows, &answers);
                diagnostics = answers.diagnostics();
                answers.examples
            }
        };
        let examples: Vec<&Example> = match source {
            Source::Data => rows.iter().map(|&row| &self.examples[row]).collect(),
            _ => own.iter().collect(),
        };
        let teacher = Some(&self.teacher);
        let texts = Texts {
            examples: &examples,
            numbers: (source == Source::Data).then_some(rows),
        };
        let totals = token_pass(student, teacher, texts, 1.0, &self.objective, work)?;
        let mut report = position_report(&totals, TERMS, work);
        let is = |wanted| f64::from(u8::from(source == wanted));
        report.terms.extend([
            ("threshold", self.state.threshold),
            ("on_policy", is(Source::Fresh)),
            ("replayed", is(Source::Replay)),
        ]);
        report.terms.extend(diagnostics);
        report.terms.extend(match source {
            Source::Fresh => {
                let plain = self.student.is_plain();
                on_own_samples(&totals.looks, plain)
            }
            Source::Data | Source::Replay => on_given_text(&totals.looks),
        });
        Ok(report)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string(&self.state).unwrap_or_default();
        Ok(files::write_whole(&folder.join(FILE), text.as_bytes())?)
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let state: Option<State> = serde_json::from_str(&text).ok();
        let rows = self.examples.len();
        match state.filter(|state| state.replay.iter().all(|(row, _)| *row < rows)) {
            Some(state) => self.state = state,
            None => {
                return Err(Error::Run {
                    path,
                    what: "the checkpoint's replay buffer is damaged".into(),
                    fix: "remove this checkpoint's folder to resume from the one before".into(),
                });
            }
        }
        Ok(())
    }

    fn evaluated(&mut self, metrics: &[(String, f64)]) {
        let of = |name: &str| metrics.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        let loss = of("forward_kl").or(of("perplexity").map(f64::ln));
        if let Some(loss) = loss {
            self.state.heard(loss, &self.settings);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_rises_with_the_validation_loss_and_chooses_the_source() {
        let table: toml::Table =
            toml::from_str("name = \"distillm\"\nthreshold_step = 0.4").unwrap();
        let config = crate::config::Config::parse(
            &format!("teacher.model = \"x.gguf\"\nstudent.prune.layers = 1\ndata.train = \"a.jsonl\"\ndata.eval = \"b.jsonl\"\n[method]\n{table}"),
            Path::new("run.toml"),
            &[],
        )
        .unwrap();
        let crate::config::Method::DistiLlm(settings) = config.method else {
            panic!()
        };
        let mut state = State::default();
        assert_eq!(state.source(0.0, 0.0), Source::Data);
        for loss in [2.0, 1.5, 1.59, 1.75] {
            state.heard(loss, &settings);
        }
        assert_eq!(state.threshold, 0.4, "1.59 to 1.75 alone is more than 0.1");
        assert_eq!(state.source(0.1, 0.5), Source::Fresh);
        assert_eq!(
            state.source(0.3, 0.5),
            Source::Fresh,
            "nothing to replay yet"
        );
        state.replay.push_back((0, vec![1]));
        assert_eq!(state.source(0.3, 0.5), Source::Replay);
        assert_eq!(state.source(0.4, 0.5), Source::Data);
        for loss in [2.0, 3.0, 4.0] {
            state.heard(loss, &settings);
        }
        assert_eq!(state.threshold, 1.0);
    }
}
