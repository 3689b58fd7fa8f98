//! Policy-gradient steps on sampled responses: first what teacher and student say of every token,
//! then, with the weights that a method makes of it, the gradient.

use std::sync::Arc;

use distil_kernels::{RowTerms, TeacherHead, embedding, head_rows};
use distil_model::Llama;

use super::pass::{Forward, Teacher, Tracked};
use crate::data::batch::{PackedBatch, micro_batches, pack};
use crate::data::example::Example;
use crate::error::Result;
use crate::objective::PolicyGradient;
use crate::objective::look::{Look, look};
use crate::score::tokens;
use crate::step::Work;

/// The responses of a step, seen by both models.
pub(crate) struct Seen {
    micro_batches: Vec<MicroBatch>,
    /// What was seen of each response, an entry a token.
    pub(crate) looks: Vec<Vec<Look>>,
}

struct MicroBatch {
    batch: PackedBatch,
    teacher: TeacherHead,
    /// The student's tracked hidden states, kept where all fits into one micro-batch.
    hidden: Option<Tracked>,
}

/// A method's weights, an entry a response and in it one a token; what is missing at a response's
/// end is zero.
pub(crate) struct Weights {
    /// Of −log q.
    pub(crate) policy: Vec<Vec<f64>>,
    /// Of KL(q‖p), where the method has such a term.
    pub(crate) reverse_kl: Option<Vec<Vec<f64>>>,
    /// η of the flattening term.
    pub(crate) flatten: f64,
}

/// Runs both models over the responses; every prompt has at least one token.
pub(crate) fn see(
    student: &Llama,
    teacher: &Teacher,
    responses: &[Example],
    work: &mut Work,
) -> Seen {
    let lengths: Vec<usize> = responses.iter().map(Example::len).collect();
    let ranges = micro_batches(&lengths, work.micro_batch_tokens);
    let one = ranges.len() == 1;
    let mut seen = Seen {
        micro_batches: Vec::with_capacity(ranges.len()),
        looks: Vec::with_capacity(responses.len()),
    };
    for range in ranges {
        let batch = pack(&responses[range].iter().collect::<Vec<_>>());
        let head = work.phases.time("teacher", || teacher.head(&batch));
        let (plain, hidden) = work.phases.time("student_forward", || match one {
            true => {
                let tracked = Tracked::of(student, &batch);
                (tracked.plain(), Some(tracked))
            }
            false => {
                let hidden = student.frozen().hidden(tokens(&batch));
                (embedding(hidden, &batch.predict), None)
            }
        });
        let targets = &batch.target_ids;
        let looks: Vec<Look> = work.phases.time("head", || {
            let weight = student.frozen().head();
            head_rows(
                plain,
                &weight,
                Some(&head),
                teacher.vocabulary,
                |row, s, t| look(s, t.as_deref(), targets[row] as usize),
            )
        });
        let of = |range: &std::ops::Range<usize>| looks[range.clone()].to_vec();
        seen.looks.extend(batch.response_ranges.iter().map(of));
        seen.micro_batches.push(MicroBatch {
            batch,
            teacher: head,
            hidden,
        });
    }
    seen
}

/// Adds the gradient of `scale` · Σ over tokens of the weighted terms; their sums: loss, policy
/// gradient, KL(q‖p), flattening.
pub(crate) fn descend(
    student: &Llama,
    teacher: &Teacher,
    seen: Seen,
    weights: &Weights,
    scale: f64,
    work: &mut Work,
) -> Result<[f64; 4]> {
    let (mut totals, mut first) = (RowTerms::default(), 0);
    for micro_batch in seen.micro_batches {
        let MicroBatch {
            batch,
            teacher: head,
            hidden,
        } = micro_batch;
        let responses = first..first + batch.response_ranges.len();
        first = responses.end;
        let spread = |rows: &[Vec<f64>]| -> Arc<[f32]> {
            let mut all = vec![0.0f32; batch.predict.len()];
            for (range, row) in batch.response_ranges.iter().zip(&rows[responses.clone()]) {
                for (slot, &weight) in all[range.clone()].iter_mut().zip(row) {
                    *slot = weight as f32;
                }
            }
            all.into()
        };
        let objective = PolicyGradient {
            targets: Arc::from(&batch.target_ids[..]),
            weights: spread(&weights.policy),
            reverse_kl: weights.reverse_kl.as_deref().map(spread),
            flatten: weights.flatten as f32,
        };
        let hidden = match hidden {
            Some(hidden) => hidden,
            None => {
                let phases = &mut work.phases;
                phases.time("student_forward", || Tracked::of(student, &batch))
            }
        };
        let forward = Forward {
            student,
            batch: &batch,
            hidden,
            vocabulary: teacher.vocabulary,
        };
        let head = weights.reverse_kl.is_some().then_some(&head);
        totals += forward.backward(head, &objective, scale, work)?;
    }
    let [_, policy, kl, flatness] = totals.squares;
    work.logit_gradient("policy_gradient", policy);
    if weights.reverse_kl.is_some() {
        work.logit_gradient("reverse_kl", kl);
    }
    if weights.flatten > 0.0 {
        work.logit_gradient("flatness", flatness);
    }
    Ok(totals.values)
}
