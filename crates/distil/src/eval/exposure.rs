//! Exposure bias: how much more a student errs on what it has said itself than on what its teacher
//! would have said.
//!
//! A student learns on others' texts and then goes on from its own. With `s_t` the state before token
//! `t` of an answer (the prompt and `t − 1` tokens), `p` the teacher, `q` the student:
//!
//! ```text
//! regret    R(l)   = Σ_{t≤l} E_{y~q} KL( p(·|s_t) ‖ q(·|s_t) )     on the student's own prefixes
//! expected  l·ε(l) = Σ_{t≤l} E_{y~p} KL( p(·|s_t) ‖ q(·|s_t) )     on the teacher's
//! ExAccErr(l) = ( R(l) − l·ε(l) ) / ( l·ε(l) ) · 100 %
//! ```
//!
//! K. Arora et al., "Why Exposure Bias Matters: An Imitation Learning Perspective of Error Accumulation
//! in Language Generation", Findings of ACL 2022, as MiniLLM (arXiv 2306.08543) and LLMR report it. 0
//! is no exposure bias, less is better.
//!
//! - Both expectations are means over samples at temperature 1. The first prediction, `t = 1`, where
//!   both prefixes are the prompt, counts.
//! - An answer that ended before `t` has no state `s_t`: the mean at `t` is over the answers that
//!   reach it. So both sides are compared at the same lengths, and a student that stops early does
//!   not err less for that. Where no answer of one side reaches `l`, there is no number.
//! - Intervals are by the bootstrap over prompts, with all their samples of both models.

use std::collections::BTreeMap;

use serde::Serialize;

use super::interval::{bootstrap, quantiles};

/// The divergences of one answer: the row that was asked, and KL(p ‖ q) before each of its tokens.
pub type AnswerKl = (usize, Vec<f32>);

/// Exposure bias at several lengths; lists have an entry a length.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExposureBias {
    /// l, in tokens.
    pub lengths: Vec<usize>,
    /// R(l), in nats.
    pub regret: Vec<Option<f64>>,
    /// l · ε(l), in nats.
    pub expected: Vec<Option<f64>>,
    /// ExAccErr(l), in per cent; none where the expected error is 0.
    pub ex_error_percent: Vec<Option<f64>>,
    /// Its 95 % intervals.
    pub ex_error_interval: Vec<Option<[f64; 2]>>,
    /// What the sums are of.
    pub by_position: ByPosition,
}

/// Mean divergences before token t = 1, 2, …; lists have an entry a position.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ByPosition {
    /// On the student's prefixes, in nats; none where no answer has so many tokens.
    pub student_prefix: Vec<Option<f64>>,
    /// On the teacher's.
    pub teacher_prefix: Vec<Option<f64>>,
    /// Answers of the student that reach the position.
    pub rows: Vec<usize>,
    /// Answers of the teacher that do.
    pub teacher_rows: Vec<usize>,
}

/// Lengths that are looked at unless the user names some: 4, 8, 16, … up to the longest answer.
pub fn usual_lengths(max_new_tokens: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(4_usize), |l| l.checked_mul(2));
    let lengths: Vec<usize> = powers.take_while(|&l| l <= max_new_tokens).collect();
    match lengths.is_empty() {
        true => vec![max_new_tokens],
        false => lengths,
    }
}

/// Exposure bias of samples at temperature 1.
pub fn exposure_bias(
    student: &[AnswerKl],
    teacher: &[AnswerKl],
    lengths: &[usize],
) -> ExposureBias {
    let longest = student.iter().chain(teacher).map(|(_, kl)| kl.len()).max();
    let prompts = by_prompt(student, teacher, longest.unwrap_or(0));
    let total = add(prompts.iter(), longest.unwrap_or(0));
    let count = |cell: &Cell, side: usize| cell.count[side] as usize;
    let at = |l: &usize| l.checked_sub(1);
    let whole = cumulative(&total);
    let sums = |side: usize| -> Vec<Option<f64>> {
        let sum = |l: &usize| whole.get(at(l)?)?[side];
        lengths.iter().map(sum).collect()
    };
    let error = |sums: &[[Option<f64>; 2]], l: &usize| {
        let [regret, expected] = *sums.get(at(l)?)?;
        let error = (regret? - expected?) / expected? * 100.0;
        error.is_finite().then_some(error)
    };
    let resampled: Vec<Vec<Option<f64>>> = {
        let mut errors = Vec::new();
        // The bootstrap takes one number a resample; here there is one a length.
        bootstrap(prompts.len(), &mut |positions| {
            let chosen = positions.iter().filter_map(|&at| prompts.get(at));
            let sums = cumulative(&add(chosen, longest.unwrap_or(0)));
            errors.push(lengths.iter().map(|l| error(&sums, l)).collect());
            0.0
        });
        errors
    };
    let interval = |index: usize| {
        let values: Option<Vec<f64>> = resampled.iter().map(|errors| errors[index]).collect();
        values.filter(|_| prompts.len() > 1).and_then(quantiles)
    };
    ExposureBias {
        lengths: lengths.to_vec(),
        regret: sums(0),
        expected: sums(1),
        ex_error_percent: lengths.iter().map(|l| error(&whole, l)).collect(),
        ex_error_interval: (0..lengths.len()).map(interval).collect(),
        by_position: ByPosition {
            student_prefix: total.iter().map(|cell| cell.mean(0)).collect(),
            teacher_prefix: total.iter().map(|cell| cell.mean(1)).collect(),
            rows: total.iter().map(|cell| count(cell, 0)).collect(),
            teacher_rows: total.iter().map(|cell| count(cell, 1)).collect(),
        },
    }
}

/// Divergences before one token, of the student's answers and of the teacher's.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    sum: [f64; 2],
    count: [f64; 2],
}

impl Cell {
    fn mean(&self, side: usize) -> Option<f64> {
        (self.count[side] > 0.0).then(|| self.sum[side] / self.count[side])
    }
}

/// The cells of each prompt, one a position.
fn by_prompt(student: &[AnswerKl], teacher: &[AnswerKl], longest: usize) -> Vec<Vec<Cell>> {
    let mut prompts: BTreeMap<usize, Vec<Cell>> = BTreeMap::new();
    for (side, answers) in [student, teacher].into_iter().enumerate() {
        for (row, kl) in answers {
            let cells = prompts.entry(*row);
            let cells = cells.or_insert_with(|| vec![Cell::default(); longest]);
            for (cell, kl) in cells.iter_mut().zip(kl) {
                cell.sum[side] += f64::from(*kl);
                cell.count[side] += 1.0;
            }
        }
    }
    prompts.into_values().collect()
}

fn add<'a>(prompts: impl Iterator<Item = &'a Vec<Cell>>, longest: usize) -> Vec<Cell> {
    let mut total = vec![Cell::default(); longest];
    for prompt in prompts {
        for (total, cell) in total.iter_mut().zip(prompt) {
            for side in 0..2 {
                total.sum[side] += cell.sum[side];
                total.count[side] += cell.count[side];
            }
        }
    }
    total
}

/// [R(l), l · ε(l)] for l = 1, 2, …; none from where no answer reaches.
fn cumulative(cells: &[Cell]) -> Vec<[Option<f64>; 2]> {
    let mut sums = [Some(0.0), Some(0.0)];
    cells
        .iter()
        .map(|cell| {
            for (side, sum) in sums.iter_mut().enumerate() {
                *sum = sum.zip(cell.mean(side)).map(|(sum, mean)| sum + mean);
            }
            sums
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sampling;
    use crate::eval::evaluate::{GREEDY, Settings, answer};
    use crate::eval::judged::Judges;
    use crate::eval::testing::{Chain, EOS, model, probabilities, set, settings};

    #[test]
    fn by_hand() {
        let student = [(0, vec![1.0, 3.0]), (1, vec![3.0])];
        let teacher = [(0, vec![1.0, 1.0, 5.0]), (1, vec![1.0, 2.0])];
        let got = exposure_bias(&student, &teacher, &[1, 2, 3, 9]);
        // Means: student 2, 3 (of the one answer that has a second token); teacher 1, 1½, 5.
        assert_eq!(got.regret, [Some(2.0), Some(5.0), None, None]);
        assert_eq!(got.expected, [Some(1.0), Some(2.5), Some(7.5), None]);
        assert_eq!(got.ex_error_percent, [Some(100.0), Some(100.0), None, None]);
        assert_eq!(got.by_position.rows, [2, 1, 0]);
        assert_eq!(got.by_position.teacher_rows, [2, 2, 1]);
        assert_eq!(got.by_position.student_prefix, [Some(2.0), Some(3.0), None]);
        // Row 1 alone, which some resample is, has no second token.
        assert_eq!(got.ex_error_interval[1], None);
        // Row 0 alone: 0 %; row 1 alone: 200 %.
        assert_eq!(got.ex_error_interval[0], Some([0.0, 200.0]));
    }

    #[test]
    fn a_student_equal_to_its_teacher_has_no_error_to_compare_with() {
        let same = [(0, vec![0.0, 0.0]), (1, vec![0.0])];
        let got = exposure_bias(&same, &same, &[1, 2]);
        assert_eq!(got.regret, [Some(0.0), Some(0.0)]);
        assert_eq!(got.ex_error_percent, [None, None]);
        let nothing = exposure_bias(&[], &[], &[4]);
        assert_eq!(
            (nothing.regret[0], nothing.ex_error_interval[0]),
            (None, None)
        );
    }

    #[test]
    fn lengths_are_powers_of_two() {
        assert_eq!(usual_lengths(20), [4, 8, 16]);
        assert_eq!(usual_lengths(3), [3]);
    }

    /// In "sky" and "is" the student is badly off, and its own words lead there more often than the
    /// teacher's.
    const STUDENT: &Chain = &[
        ("what", &[("sky", 0.4), ("red", 0.3), ("</s>", 0.1)]),
        ("sky", &[("is", 0.5), ("</s>", 0.1)]),
        ("is", &[("sky", 0.6), ("</s>", 0.1)]),
        ("red", &[("sky", 0.3), ("red", 0.4), ("</s>", 0.1)]),
        ("blue", &[("blue", 0.7), ("</s>", 0.1)]),
    ];
    const TEACHER: &Chain = &[
        ("what", &[("sky", 0.15), ("red", 0.5), ("</s>", 0.1)]),
        ("sky", &[("blue", 0.7), ("</s>", 0.1)]),
        ("is", &[("blue", 0.5), ("</s>", 0.3)]),
        ("red", &[("sky", 0.1), ("red", 0.6), ("</s>", 0.15)]),
        ("blue", &[("blue", 0.6), ("</s>", 0.2)]),
    ];

    /// E KL(p ‖ q) before tokens 1..=`longest` of texts that `walker` says and that are so long, by
    /// carrying the distribution of the last token forward.
    fn exact(walker: &Chain, longest: usize) -> Vec<f64> {
        let kl = |token: usize| -> f64 {
            let (p, q) = (probabilities(TEACHER, token), probabilities(STUDENT, token));
            p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
        };
        let mut at = [0.0; 8];
        at[1] = 1.0;
        let mut means = Vec::new();
        for _ in 0..longest {
            let alive: f64 = at.iter().sum();
            let mean: f64 = at.iter().enumerate().map(|(token, p)| p * kl(token)).sum();
            means.push(mean / alive);
            let mut next = [0.0; 8];
            for (token, reached) in at.iter().enumerate() {
                let step = probabilities(walker, token);
                next.iter_mut()
                    .zip(step)
                    .for_each(|(n, p)| *n += reached * p);
            }
            next[EOS as usize] = 0.0;
            at = next;
        }
        means
    }

    /// 3000 samples of each model against the exact numbers. The interval of the estimate is 95 %;
    /// it is widened by half on each side, to which all four lengths together hold with some 99 %.
    #[test]
    fn sampled_exposure_bias_is_the_exact_one() {
        let (student, teacher) = (model(STUDENT), model(TEACHER));
        let asked = set(&student, &[("what", &[] as &[&str]); 600], None).unwrap();
        let judges = Judges {
            student: &student,
            teacher: Some(&teacher),
            prompts: &asked.prompts,
            max_tokens: 4096,
        };
        let sampled = |seed, model: &distil_model::Model| -> Vec<AnswerKl> {
            let settings = Settings {
                sampling: Sampling {
                    temperature: 1.0,
                    ..GREEDY
                },
                seed,
                batch: 64,
                max_new_tokens: 6,
                ..settings(&[])
            };
            let answers = answer(model, &asked, &settings, &mut |_, _| {}).unwrap();
            let texts = judges.examples(&answers).unwrap();
            let scores = judges.scores(&texts, &mut |_| {}).unwrap();
            let kl = scores.into_iter().map(|s| s.teacher.unwrap().forward_kl);
            answers.iter().map(|answer| answer.row).zip(kl).collect()
        };
        let all = |model| -> Vec<AnswerKl> { (1..=5).flat_map(|s| sampled(s, model)).collect() };
        let got = exposure_bias(&all(&student), &all(&teacher), &[1, 2, 4, 6]);
        let (own, others) = (exact(STUDENT, 6), exact(TEACHER, 6));
        for (index, &length) in got.lengths.iter().enumerate() {
            let regret: f64 = own[..length].iter().sum();
            let expected: f64 = others[..length].iter().sum();
            let error = (regret - expected) / expected * 100.0;
            if length == 1 {
                assert_eq!(error, 0.0, "both prefixes are the prompt");
                assert!(got.ex_error_percent[0].unwrap().abs() < 1e-3);
                continue;
            }
            assert!(error > 15.0, "the student goes astray: {error}");
            let [low, high] = got.ex_error_interval[index].unwrap();
            let margin = (high - low) / 4.0;
            assert!(
                low - margin < error && error < high + margin,
                "l = {length}: exact {error}, interval {low} to {high}"
            );
            assert!(high - low < 0.5 * error, "the interval says something");
            let close = |got: Option<f64>, want: f64| (got.unwrap() / want - 1.0).abs() < 0.05;
            assert!(
                close(got.regret[index], regret),
                "{:?} {regret}",
                got.regret
            );
            assert!(close(got.expected[index], expected));
        }
    }
}
