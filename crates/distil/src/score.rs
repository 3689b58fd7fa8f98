//! Log-probabilities of given responses, token by token, and how far a teacher is from them.

use distil_kernels::math::log_sum_exp;
use distil_kernels::{TeacherHead, embedding, head_rows};
use distil_model::{Llama, Tokens};

use crate::data::batch::{PackedBatch, micro_batches, pack};
use crate::data::example::Example;
use crate::error::Result;
use crate::objective::{Divergences, divergences};

/// One response's scores, an entry a token, EOS included, in nats.
#[derive(Clone, Debug, Default)]
pub struct TokenScores {
    /// log q(token).
    pub logprobs: Vec<f32>,
    /// What the teacher says, if there is one.
    pub teacher: Option<TeacherScores>,
}

/// The teacher's side of [`TokenScores`].
#[derive(Clone, Debug, Default)]
pub struct TeacherScores {
    /// log p(token).
    pub logprobs: Vec<f32>,
    /// KL(p‖q) at each token's position.
    pub forward_kl: Vec<f32>,
    /// KL(q‖p).
    pub reverse_kl: Vec<f32>,
    /// Jensen–Shannon divergence, β = ½.
    pub jsd: Vec<f32>,
    /// Total variation distance.
    pub tvd: Vec<f32>,
}

/// The tokens of a packed batch as a network takes them.
pub(crate) fn tokens(batch: &PackedBatch) -> Tokens<'_> {
    Tokens {
        ids: &batch.token_ids,
        positions: &batch.positions,
        segments: &batch.segments,
    }
}

/// Scores the response tokens of `examples`, in their order.
///
/// With a teacher the distributions are compared on the common vocabulary (see
/// [`crate::teacher::align`]). `max_tokens` bounds a pass; `on_rows` hears how many rows are done.
///
/// # Errors
/// None today; a device may fail in later versions.
pub fn score(
    student: &Llama,
    teacher: Option<(&Llama, usize)>,
    examples: &[Example],
    max_tokens: usize,
    on_rows: &mut dyn FnMut(usize),
) -> Result<Vec<TokenScores>> {
    let lengths: Vec<usize> = examples.iter().map(Example::len).collect();
    let vocabulary = teacher.map_or(student.config().vocabulary, |(_, common)| common);
    // Once for all passes.
    let student = student.packed();
    let mut scores = Vec::with_capacity(examples.len());
    for range in micro_batches(&lengths, max_tokens) {
        let batch = pack(&examples[range.clone()].iter().collect::<Vec<_>>());
        let rows = score_batch(&student, teacher, vocabulary, &batch);
        for range in &batch.response_ranges {
            let rows = &rows[range.clone()];
            scores.push(TokenScores {
                logprobs: rows.iter().map(|r| r.student).collect(),
                teacher: teacher.map(|_| TeacherScores {
                    logprobs: rows.iter().map(|r| r.teacher).collect(),
                    forward_kl: rows.iter().map(|r| r.divergences.forward_kl).collect(),
                    reverse_kl: rows.iter().map(|r| r.divergences.reverse_kl).collect(),
                    jsd: rows.iter().map(|r| r.divergences.jsd).collect(),
                    tvd: rows.iter().map(|r| r.divergences.tvd).collect(),
                }),
            });
        }
        on_rows(range.end);
    }
    Ok(scores)
}

/// One position's numbers.
#[derive(Clone, Copy, Default)]
struct RowScore {
    student: f32,
    teacher: f32,
    divergences: Divergences,
}

fn score_batch(
    student: &Llama,
    teacher: Option<(&Llama, usize)>,
    vocabulary: usize,
    batch: &PackedBatch,
) -> Vec<RowScore> {
    if batch.predict.is_empty() {
        return Vec::new();
    }
    let hidden = |network: &Llama| embedding(network.hidden(tokens(batch)), &batch.predict);
    let teacher_head = teacher.map(|(network, _)| TeacherHead {
        hidden: hidden(network),
        weight: network.head(),
    });
    let head = student.head();
    head_rows(
        hidden(student),
        &head,
        teacher_head.as_ref(),
        vocabulary,
        |row, s, t| {
            let target = batch.target_ids[row] as usize;
            let mut score = RowScore {
                student: s[target] - log_sum_exp(s),
                ..RowScore::default()
            };
            if let Some(t) = t {
                score.teacher = t[target] - log_sum_exp(t);
                score.divergences = divergences(s, t);
            }
            score
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_network;

    fn examples() -> Vec<Example> {
        let example = |prompt: &[u32], response: &[u32]| Example {
            prompt: prompt.into(),
            response: response.into(),
            row: 0,
        };
        vec![
            example(&[3, 4, 5], &[6, 7, 0]),
            example(&[9], &[2]),
            example(&[1, 2], &[8, 8, 8, 8, 0]),
        ]
    }

    #[test]
    fn scores_do_not_depend_on_packing() {
        let (student, teacher) = (tiny_network(1), tiny_network(2));
        let run = |max_tokens| {
            score(
                &student,
                Some((&teacher, 24)),
                &examples(),
                max_tokens,
                &mut |_| {},
            )
            .unwrap()
        };
        for (a, b) in run(1).iter().zip(run(1000)) {
            let (a, b) = (a.teacher.as_ref().unwrap(), b.teacher.as_ref().unwrap());
            for (x, y) in a.forward_kl.iter().zip(&b.forward_kl) {
                assert!((x - y).abs() < 1e-5);
                assert!(*x > 0.01, "different networks differ");
            }
        }
        let lengths: Vec<usize> = run(1000).iter().map(|s| s.logprobs.len()).collect();
        assert_eq!(lengths, [3, 1, 5]);
    }

    /// Invariant 2.
    #[test]
    fn a_student_equal_to_its_teacher_is_at_no_distance() {
        let network = tiny_network(1);
        let scores = score(
            &network,
            Some((&network, 24)),
            &examples(),
            100,
            &mut |_| {},
        )
        .unwrap();
        for score in scores {
            let teacher = score.teacher.unwrap();
            assert_eq!(teacher.logprobs, score.logprobs);
            for all in [
                teacher.forward_kl,
                teacher.reverse_kl,
                teacher.jsd,
                teacher.tvd,
            ] {
                assert!(all.iter().all(|&x| x == 0.0));
            }
        }
    }
}
