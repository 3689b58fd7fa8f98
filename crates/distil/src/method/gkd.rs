//! Generalised knowledge distillation (Agarwal et al. 2024, arXiv 2306.13649): a divergence to the
//! teacher on a mixture of the data's responses and the student's own,
//!   L = (1−λ) E_{(x,y)~data} D(p, q)(y|x) + λ E_{x~data, y~q(·|x)} D(p, q)(y|x),
//! by tossing a coin of probability λ once a batch, as Algorithm 1 does. No gradient goes through
//! sampling.

use distil_model::Llama;

use super::kd::{TERMS, objective};
use super::pass::{MakeObjective, Teacher, Texts, position_report, token_pass};
use super::{Method, StepReport};
use crate::config::Gkd;
use crate::data::example::Example;
use crate::error::Result;
use crate::objective::look::{on_given_text, on_own_samples};
use crate::rollout::on_policy::{Ask, Policy};
use crate::rollout::uniform_of;
use crate::step::Work;

/// GKD with a live teacher.
pub(crate) struct GkdMethod {
    student_share: f64,
    objective: Box<MakeObjective>,
    teacher: Teacher,
    student: Policy,
    examples: Vec<Example>,
}

pub(crate) fn method(
    settings: &Gkd,
    teacher: Teacher,
    student: Policy,
    examples: Vec<Example>,
) -> GkdMethod {
    GkdMethod {
        student_share: settings.student_share,
        objective: objective(settings.term),
        teacher,
        student,
        examples,
    }
}

/// The prompts of these rows, as they are asked.
pub(crate) fn asks<'a>(examples: &'a [Example], rows: &[usize]) -> Vec<Ask<'a>> {
    let ask = |&row: &usize| Ask {
        prompt: &examples[row].prompt,
        stream: row as u64,
        row: examples[row].row,
    };
    rows.iter().map(ask).collect()
}

impl Method for GkdMethod {
    fn rows(&self) -> usize {
        self.examples.len()
    }

    fn data_row(&self, row: usize) -> usize {
        self.examples[row].row
    }

    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let on_policy = uniform_of(work.seed, work.step, b"gkd coin") < self.student_share;
        let teacher = Some(&self.teacher);
        if !on_policy {
            let data: Vec<&Example> = rows.iter().map(|&row| &self.examples[row]).collect();
            let texts = Texts::training(&data, rows);
            let totals = token_pass(student, teacher, texts, 1.0, &self.objective, work)?;
            let mut report = position_report(&totals, TERMS, work);
            report.terms.push(("on_policy", 0.0));
            report.terms.extend(on_given_text(&totals.looks));
            return Ok(report);
        }
        let answers = self
            .student
            .answer(student, &asks(&self.examples, rows), work)?;
        let own: Vec<&Example> = answers.examples.iter().collect();
        let texts = Texts::fresh(&own);
        let totals = token_pass(student, teacher, texts, 1.0, &self.objective, work)?;
        let mut report = position_report(&totals, TERMS, work);
        report.terms.push(("on_policy", 1.0));
        report.terms.extend(answers.diagnostics());
        let plain = self.student.is_plain();
        report.terms.extend(on_own_samples(&totals.looks, plain));
        Ok(report)
    }
}
