//! One pass of a packed micro-batch through teacher, student, head and backward: what the methods
//! that work position by position share.
//!
//! Loss = Σ over response tokens ÷ response tokens of the whole optimiser step, so that how the
//! step is split into micro-batches changes the gradient by rounding only.

use std::sync::Arc;

use burn::tensor::Tensor;
use distil_kernels::{
    RowObjective, RowTerms, TeacherHead, Weight, attach_gradient, embedding, head_pass,
};
use distil_model::{Llama, Tokens, Trail};

use super::kept_states::KeptStates;
use super::watched::Watched;
use super::{Method, StepReport};
use crate::data::batch::{PackedBatch, micro_batches, pack};
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::objective::look::{Look, on_given_text};
use crate::score::tokens;
use crate::step::Gradients;
use crate::step::Work;

/// A teacher and the leading ids it shares with the student.
#[derive(Clone, Debug)]
pub(crate) struct Teacher {
    /// Its network; none where it is asked only about texts whose states are kept.
    network: Option<Llama>,
    head: Weight,
    pub(crate) vocabulary: usize,
    /// What it said of the training texts before, where that is kept.
    states: Option<Arc<KeptStates>>,
}

impl Teacher {
    /// A teacher that can be asked about anything.
    pub(crate) fn live(network: Llama, vocabulary: usize) -> Self {
        Self {
            head: network.head(),
            network: Some(network),
            vocabulary,
            states: None,
        }
    }

    /// A teacher with states that are kept; without `network` it can be asked about nothing else.
    pub(crate) fn cached(
        states: KeptStates,
        network: Option<Llama>,
        head: Weight,
        vocabulary: usize,
    ) -> Self {
        Self {
            network,
            head,
            vocabulary,
            states: Some(Arc::new(states)),
        }
    }

    /// # Panics
    /// If there is none: the method said that it asks about kept texts alone.
    pub(crate) fn network(&self) -> &Llama {
        let network = self.network.as_ref();
        network.expect("a method that reads other texts keeps the whole teacher")
    }

    /// As [`Teacher::head`], from what is kept if the batch is made of these training texts.
    fn head_of(&self, batch: &PackedBatch, numbers: Option<&[usize]>) -> Result<TeacherHead> {
        match (&self.states, numbers) {
            (Some(states), Some(numbers)) => Ok(TeacherHead {
                hidden: states.hidden(numbers)?,
                weight: self.head.clone(),
            }),
            _ => Ok(self.head(batch)),
        }
    }

    /// The teacher's side of the head for a batch's predicting positions.
    pub(crate) fn head(&self, batch: &PackedBatch) -> TeacherHead {
        TeacherHead {
            hidden: embedding(self.network().hidden(tokens(batch)), &batch.predict),
            weight: self.head.clone(),
        }
    }
}

/// Texts of a step.
#[derive(Clone, Copy)]
pub(crate) struct Texts<'a> {
    pub(crate) examples: &'a [&'a Example],
    /// Their numbers among the training texts, if that is what they are: a cached teacher has
    /// read those.
    pub(crate) numbers: Option<&'a [usize]>,
}

impl<'a> Texts<'a> {
    /// Texts that were sampled.
    pub(crate) fn fresh(examples: &'a [&'a Example]) -> Self {
        Self {
            examples,
            numbers: None,
        }
    }

    /// Training texts.
    pub(crate) fn training(examples: &'a [&'a Example], numbers: &'a [usize]) -> Self {
        Self {
            examples,
            numbers: Some(numbers),
        }
    }
}

/// Sums of an objective's terms over a step, and the tokens they are sums of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    /// The squares are those of the step's loss.
    pub(crate) terms: RowTerms,
    pub(crate) tokens: usize,
    /// What was seen in passing, see [`Watched`].
    pub(crate) looks: Vec<Look>,
}

impl Totals {
    /// Term `index`, a token.
    pub(crate) fn mean(&self, index: usize) -> f64 {
        self.terms.values[index] / self.tokens.max(1) as f64
    }
}

/// The gradient of `weight` · mean over response tokens of a position-wise objective.
pub(crate) fn token_pass(
    student: &Llama,
    teacher: Option<&Teacher>,
    texts: Texts<'_>,
    weight: f64,
    objective: &dyn Fn(&PackedBatch) -> Box<dyn RowObjective>,
    work: &mut Work,
) -> Result<Totals> {
    let examples = texts.examples;
    let lengths: Vec<usize> = examples.iter().map(|e| e.len()).collect();
    let mut totals = Totals {
        tokens: examples.iter().map(|e| predicted(e)).sum(),
        ..Totals::default()
    };
    let scale = weight / totals.tokens.max(1) as f64;
    for range in micro_batches(&lengths, work.micro_batch_tokens) {
        let batch = pack(&examples[range.clone()]);
        if batch.predict.is_empty() {
            continue;
        }
        let numbers = texts.numbers.map(|numbers| &numbers[range]);
        let teacher_head = work.phases.time("teacher", || {
            teacher.map(|t| t.head_of(&batch, numbers)).transpose()
        })?;
        let hidden = work
            .phases
            .time("student_forward", || Tracked::of(student, &batch));
        let forward = Forward {
            student,
            batch: &batch,
            hidden,
            vocabulary: teacher.map_or(student.config().vocabulary, |t| t.vocabulary),
        };
        let objective = objective(&batch);
        let watched = Watched::new(&*objective, &batch.target_ids);
        totals.terms += forward.backward(teacher_head.as_ref(), &watched, scale, work)?;
        totals.looks.extend(watched.looks());
    }
    Ok(totals)
}

/// Makes the objective of a micro-batch.
pub(crate) type MakeObjective = dyn Fn(&PackedBatch) -> Box<dyn RowObjective>;

/// A method that works position by position on given responses: SFT, KD and whatever else is one
/// objective a position.
pub(crate) struct PositionWise {
    pub(crate) teacher: Option<Teacher>,
    pub(crate) examples: Vec<Example>,
    pub(crate) objective: Box<MakeObjective>,
    /// Names of the objective's terms behind the loss.
    pub(crate) terms: &'static [&'static str],
}

impl Method for PositionWise {
    fn rows(&self) -> usize {
        self.examples.len()
    }

    fn data_row(&self, row: usize) -> usize {
        self.examples[row].row
    }

    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let examples: Vec<&Example> = rows.iter().map(|&row| &self.examples[row]).collect();
        let teacher = self.teacher.as_ref();
        let texts = Texts::training(&examples, rows);
        let totals = token_pass(student, teacher, texts, 1.0, &self.objective, work)?;
        let mut report = position_report(&totals, self.terms, work);
        report.terms.extend(on_given_text(&totals.looks));
        Ok(report)
    }
}

/// The report of a step that was one objective a position; `terms` names what stands behind the
/// loss.
pub(crate) fn position_report(
    totals: &Totals,
    terms: &[&'static str],
    work: &mut Work,
) -> StepReport {
    let terms = terms.iter().zip(1..);
    for (name, index) in terms.clone() {
        work.logit_gradient(name, totals.terms.squares[index]);
    }
    StepReport {
        loss: totals.mean(0),
        terms: terms.map(|(&name, i)| (name, totals.mean(i))).collect(),
        tokens: totals.tokens,
    }
}

/// Response tokens of an example that some hidden state predicts.
pub(crate) fn predicted(example: &Example) -> usize {
    match example.prompt.is_empty() {
        true => example.response.len().saturating_sub(1),
        false => example.response.len(),
    }
}

/// Hidden states of a batch's predicting positions, with what their gradient needs.
#[derive(Debug)]
pub(crate) struct Tracked {
    /// [targets, width].
    pub(crate) hidden: Tensor<2>,
    trail: Trail,
}

impl Tracked {
    pub(crate) fn of(student: &Llama, batch: &PackedBatch) -> Self {
        Self::at(student, tokens(batch), &batch.predict)
    }

    /// Those of the tokens at `positions`.
    pub(crate) fn at(student: &Llama, tokens: Tokens<'_>, positions: &[u32]) -> Self {
        let (hidden, trail) = student.tracked(tokens);
        Self {
            hidden: embedding(hidden, positions),
            trail,
        }
    }

    /// The hidden states as numbers.
    pub(crate) fn plain(&self) -> Tensor<2> {
        self.hidden.clone().inner()
    }

    /// Adds the gradient of a loss whose derivatives in the hidden states and in the head's weights
    /// are given.
    pub(crate) fn backward(
        self,
        student: &Llama,
        loss: f32,
        d_hidden: Tensor<2>,
        d_weight: Option<Tensor<2>>,
        gradients: &mut Gradients,
    ) {
        if let Some(d_weight) = d_weight {
            gradients.add_head(student, d_weight);
        }
        let loss = attach_gradient(self.hidden, loss, d_hidden);
        gradients.add(student, loss, self.trail);
    }
}

/// A micro-batch that has been through the student's trunk.
pub(crate) struct Forward<'a> {
    pub(crate) student: &'a Llama,
    pub(crate) batch: &'a PackedBatch,
    pub(crate) hidden: Tracked,
    /// Leading ids that take part.
    pub(crate) vocabulary: usize,
}

impl Forward<'_> {
    /// Head and backward; returns the objective's terms, summed over the positions, the squares
    /// multiplied by `scale`².
    pub(crate) fn backward(
        self,
        teacher: Option<&TeacherHead>,
        objective: &dyn RowObjective,
        scale: f64,
        work: &mut Work,
    ) -> Result<RowTerms> {
        let Self {
            student,
            batch,
            hidden,
            vocabulary,
        } = self;
        let pass = work.phases.time("head", || {
            let (plain, head) = (hidden.plain(), student.head().inner());
            head_pass(
                plain,
                &head,
                teacher,
                vocabulary,
                objective,
                scale as f32,
                true,
            )
        });
        let mut terms = pass.terms;
        let loss = terms.values[0] * scale;
        for square in &mut terms.squares {
            *square *= scale * scale;
        }
        let (Some(d_hidden), Some(d_weight)) = (pass.d_hidden, pass.d_weight) else {
            return Ok(terms);
        };
        if !terms.values.iter().all(|term| term.is_finite()) {
            return Err(Error::NotFinite {
                step: work.step,
                term: "the loss".into(),
                rows: batch.rows.clone(),
            });
        }
        let gradients = &mut work.gradients;
        work.phases.time("backward", || {
            hidden.backward(student, loss as f32, d_hidden, Some(d_weight), gradients);
        });
        Ok(terms)
    }
}
