//! A metric's numbers row by row: what the rows add to it, and what any choice of rows makes of that.
//!
//! A row that the metric says nothing of (an answer without references for ROUGE) is not among the
//! rows. A row of a data file that became several examples (a text cut into windows) is one row here.

use super::evaluate::Answer;
use super::metric::{Measure, MetricInfo, mean, sum_and_count};
use crate::data::example::Example;
use crate::score::TokenScores;

/// A metric's numbers, rows in ascending order.
#[derive(Debug, Clone)]
pub(crate) enum Numbers {
    /// What each row adds to the sums, and the metric of the sums.
    Sums {
        rows: Vec<(usize, Vec<f64>)>,
        of: fn(&[f64]) -> f64,
    },
    /// What was said to each row, and the metric of all of it.
    Whole {
        rows: Vec<(usize, String)>,
        of: fn(&[&str]) -> f64,
    },
}

impl Numbers {
    /// Numbers of the rows that there are.
    pub(crate) fn rows(&self) -> Vec<usize> {
        match self {
            Self::Sums { rows, .. } => rows.iter().map(|(row, _)| *row).collect(),
            Self::Whole { rows, .. } => rows.iter().map(|(row, _)| *row).collect(),
        }
    }

    /// Of some rows only.
    pub(crate) fn only(&self, keep: &dyn Fn(usize) -> bool) -> Self {
        match self {
            Self::Sums { rows, of } => Self::Sums {
                rows: rows.iter().filter(|(row, _)| keep(*row)).cloned().collect(),
                of: *of,
            },
            Self::Whole { rows, of } => Self::Whole {
                rows: rows.iter().filter(|(row, _)| keep(*row)).cloned().collect(),
                of: *of,
            },
        }
    }

    /// The metric; NaN of no rows.
    pub(crate) fn value(&self) -> f64 {
        match self {
            Self::Sums { rows, of } => of_sums(rows.iter().map(|(_, sums)| sums), *of),
            Self::Whole { rows, .. } if rows.is_empty() => f64::NAN,
            Self::Whole { rows, of } => of(&rows
                .iter()
                .map(|(_, text)| text.as_str())
                .collect::<Vec<_>>()),
        }
    }

    /// The metric of the rows at these positions, each as often as it is named. None where rows that
    /// are named twice would not be two rows: a text said twice is less distinct.
    pub(crate) fn value_at(&self, positions: &[usize]) -> Option<f64> {
        match self {
            Self::Sums { rows, of } => {
                let chosen = positions.iter().filter_map(|&at| rows.get(at));
                Some(of_sums(chosen.map(|(_, sums)| sums), *of))
            }
            Self::Whole { .. } => None,
        }
    }
}

fn of_sums<'a>(rows: impl Iterator<Item = &'a Vec<f64>>, of: fn(&[f64]) -> f64) -> f64 {
    let mut total: Vec<f64> = Vec::new();
    for sums in rows {
        if total.is_empty() {
            total = vec![0.0; sums.len()];
        }
        for (total, part) in total.iter_mut().zip(sums) {
            *total += part;
        }
    }
    match total.is_empty() {
        true => f64::NAN,
        false => of(&total),
    }
}

/// Of answers, whose own numbers are in their `metrics`; see
/// [`Judges::note`](super::judged::Judges::note).
pub(crate) fn of_answers(metric: &MetricInfo, answers: &[Answer]) -> Numbers {
    let with_references = || answers.iter().filter(|a| !a.references.is_empty());
    match metric.measure {
        Measure::Sums { row, of } => Numbers::Sums {
            rows: with_references()
                .map(|answer| (answer.row, row(&answer.references, &answer.response)))
                .collect(),
            of,
        },
        Measure::Whole(of) => Numbers::Whole {
            rows: answers
                .iter()
                .map(|a| (a.row, a.response.clone()))
                .collect(),
            of,
        },
        _ => Numbers::Sums {
            rows: answers
                .iter()
                .filter_map(|answer| {
                    let value = answer.metrics.get(metric.name)?;
                    // null is a number that is none.
                    Some((answer.row, vec![value.as_f64().unwrap_or(f64::NAN), 1.0]))
                })
                .collect(),
            of: mean,
        },
    }
}

/// Of the models' scores of references.
pub(crate) fn of_references(
    metric: &MetricInfo,
    examples: &[Example],
    scores: &[TokenScores],
) -> Numbers {
    let summands = |scores: &TokenScores| match metric.measure {
        Measure::References { row, .. } => Some(row(scores)),
        Measure::AgainstTeacher(tokens) => {
            scores.teacher.as_ref().map(|s| sum_and_count(tokens(s)))
        }
        _ => None,
    };
    let mut rows: Vec<(usize, Vec<f64>)> = Vec::new();
    for (example, scores) in examples.iter().zip(scores) {
        let Some(sums) = summands(scores) else {
            continue;
        };
        match rows.last_mut() {
            Some((row, total)) if *row == example.row => {
                total.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
            }
            _ => rows.push((example.row, sums)),
        }
    }
    let of = match metric.measure {
        Measure::References { of, .. } => of,
        _ => mean,
    };
    Numbers::Sums { rows, of }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metric::metric;

    fn scores(logprobs: &[f32]) -> TokenScores {
        TokenScores {
            logprobs: logprobs.to_vec(),
            teacher: None,
        }
    }

    fn example(row: usize) -> Example {
        Example {
            prompt: Vec::new(),
            response: Vec::new(),
            row,
        }
    }

    #[test]
    fn perplexity_weighs_tokens_alike_not_rows() {
        let (half, eighth) = (0.5_f32.ln(), 0.125_f32.ln());
        // Three tokens at 1/2 and one at 1/8: (8 · 8)^(1/4). The first row has two windows.
        let examples = [example(0), example(0), example(4)];
        let scores = [scores(&[half]), scores(&[half, half]), scores(&[eighth])];
        let numbers = of_references(metric("perplexity").unwrap(), &examples, &scores);
        assert_eq!(numbers.rows(), [0, 4]);
        assert!((numbers.value() - 64_f64.powf(0.25)).abs() < 1e-6);
        assert!((numbers.value_at(&[1, 1]).unwrap() - 8.0).abs() < 1e-6);
        assert!((numbers.only(&|row| row == 0).value() - 2.0).abs() < 1e-6);
        assert!(numbers.only(&|_| false).value().is_nan());
    }
}
