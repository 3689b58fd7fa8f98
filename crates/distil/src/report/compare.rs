//! Which of two students is better, and how sure that is.
//!
//! If both answered the same rows, the differences are looked at row by row: d_i = a_i − b_i, each
//! the mean over the seeds. Their mean is the difference; its 95 % interval goes from the 2.5th to
//! the 97.5th percentile of the means of rows drawn with replacement (paired bootstrap). Otherwise
//! the two intervals are taken as those of independent normal errors, of which each has the
//! standard error (high − low) / (2 · 1.96); that ignores what the same rows have in common, so it
//! is the wider one. With one number a run there is no evidence, and none is made up.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::run::Run;
use super::words;
use crate::record::{EvaluationFile, Measured};

/// How often rows are drawn.
const DRAWS: usize = 4000;

/// Half the width of a normal 95 % interval in standard errors.
const NORMAL: f64 = 1.96;

/// What is known of two students by one metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Comparison {
    /// The first student's number.
    pub(super) a: f64,
    /// The second student's number.
    pub(super) b: f64,
    pub(super) evidence: Evidence,
}

/// On what a comparison rests.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Evidence {
    /// Differences row by row.
    Paired {
        /// Rows that both answered.
        rows: usize,
        /// The mean difference a − b.
        difference: f64,
        /// Its 95 % interval.
        interval: (f64, f64),
    },
    /// Two intervals.
    Unpaired {
        /// The difference a − b.
        difference: f64,
        /// Its 95 % interval.
        interval: (f64, f64),
    },
    /// One number each.
    Numbers,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The first is better, and the interval says so.
    First,
    /// The second is better, and the interval says so.
    Second,
    /// The interval contains 0, or the metric does not rank.
    Undecided,
    /// There is no interval.
    NoEvidence,
}

impl Comparison {
    /// By a metric of two evaluations.
    pub(super) fn of(metric: &str, a: &EvaluationFile, b: &EvaluationFile) -> Option<Self> {
        let (ours, theirs) = (a.metrics.get(metric)?, b.metrics.get(metric)?);
        let (center_a, center_b) = (ours.center()?, theirs.center()?);
        let evidence = match same_rows(a, b) && alike(ours, theirs) {
            true => paired(metric, a, b),
            false => None,
        };
        Some(Self {
            a: center_a,
            b: center_b,
            evidence: evidence
                .or_else(|| unpaired(ours, theirs))
                .unwrap_or(Evidence::Numbers),
        })
    }

    /// By a metric that each run measured once, at its end.
    pub(super) fn of_ends(metric: &str, a: &Run, b: &Run) -> Option<Self> {
        Some(Self {
            a: a.outcome(metric).1?,
            b: b.outcome(metric).1?,
            evidence: Evidence::Numbers,
        })
    }

    /// The difference a − b and its interval.
    pub(super) fn difference(&self) -> Option<(f64, (f64, f64))> {
        match self.evidence {
            Evidence::Paired {
                difference,
                interval,
                ..
            }
            | Evidence::Unpaired {
                difference,
                interval,
            } => Some((difference, interval)),
            Evidence::Numbers => None,
        }
    }

    pub(super) fn verdict(&self, metric: &str) -> Verdict {
        let Some((difference, (low, high))) = self.difference() else {
            return Verdict::NoEvidence;
        };
        if low <= 0.0 && high >= 0.0 {
            return Verdict::Undecided;
        }
        match (words::beats(metric, difference, 0.0), words::better(metric)) {
            (_, None) => Verdict::Undecided,
            (true, _) => Verdict::First,
            (false, _) => Verdict::Second,
        }
    }
}

/// Whether two evaluations asked the same rows.
pub(super) fn same_rows(a: &EvaluationFile, b: &EvaluationFile) -> bool {
    match (&a.data_sha256, &b.data_sha256) {
        (Some(a), Some(b)) => a == b,
        _ => a.data.is_some() && a.data == b.data,
    }
}

/// Both over seeds, or neither.
fn alike(a: &Measured, b: &Measured) -> bool {
    a.mean.is_some() == b.mean.is_some()
}

fn paired(metric: &str, a: &EvaluationFile, b: &EvaluationFile) -> Option<Evidence> {
    let (a, b) = (a.by_row(metric), b.by_row(metric));
    let both = a.iter().filter_map(|(row, a)| Some(a - b.get(row)?));
    let differences: Vec<f64> = both.collect();
    if differences.len() < 2 {
        return None;
    }
    let difference = differences.iter().sum::<f64>() / differences.len() as f64;
    Some(Evidence::Paired {
        rows: differences.len(),
        difference,
        interval: bootstrap(&differences),
    })
}

fn unpaired(a: &Measured, b: &Measured) -> Option<Evidence> {
    let (a, b, around_a, around_b) = (a.center()?, b.center()?, a.around()?, b.around()?);
    let error = |(low, high): (f64, f64)| (high - low) / (2.0 * NORMAL);
    let half = NORMAL * error(around_a).hypot(error(around_b));
    let difference = a - b;
    Some(Evidence::Unpaired {
        difference,
        interval: (difference - half, difference + half),
    })
}

/// 95 % interval of the mean.
fn bootstrap(values: &[f64]) -> (f64, f64) {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let count = values.len() as u64;
    // The high half of a product: a number below `count`, without a division.
    let mut draw = || ((u128::from(random.next_u64()) * u128::from(count)) >> 64) as usize;
    let mut means: Vec<f64> = (0..DRAWS)
        .map(|_| (0..count).map(|_| values[draw()]).sum::<f64>() / count as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((DRAWS - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Asked;

    /// An evaluation by two seeds of rows with these values, the same for both.
    fn evaluation(values: &[f64], interval: Option<(f64, f64)>) -> EvaluationFile {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let mut file = EvaluationFile {
            data_sha256: Some("x".into()),
            runs: [10, 20]
                .map(|seed| Asked {
                    seed: Some(seed),
                    temperature: None,
                })
                .to_vec(),
            ..EvaluationFile::default()
        };
        let measured = Measured {
            mean: Some(mean),
            interval,
            ..Measured::default()
        };
        file.metrics.insert("rouge_l".into(), measured);
        for run in 0..2 {
            for (row, &value) in values.iter().enumerate() {
                file.answers.places.push((run, row));
                let column = file.answers.metrics.entry("rouge_l".into()).or_default();
                column.push(value);
            }
        }
        file
    }

    /// Rows differ much, the students differ little but on every row: only pairs show it.
    #[test]
    fn pairs_see_what_two_intervals_do_not() {
        let rows: Vec<f64> = (0..200).map(|row| f64::from(row) / 200.0).collect();
        let better: Vec<f64> = rows
            .iter()
            .enumerate()
            .map(|(i, x)| x + 0.01 + 0.001 * (i % 3) as f64)
            .collect();
        let wide = Some((0.46, 0.54));
        let (a, mut b) = (evaluation(&better, wide), evaluation(&rows, wide));
        let paired = Comparison::of("rouge_l", &a, &b).unwrap();
        assert_eq!(paired.verdict("rouge_l"), Verdict::First);
        let (difference, (low, high)) = paired.difference().unwrap();
        assert!(low < difference && difference < high && low > 0.0105 && high < 0.0115);
        assert!(matches!(
            paired.evidence,
            Evidence::Paired { rows: 200, .. }
        ));
        let turned = Comparison::of("rouge_l", &b, &a).unwrap();
        assert_eq!(turned.verdict("rouge_l"), Verdict::Second);
        // Other rows: no pairs.
        b.data_sha256 = Some("y".into());
        let unpaired = Comparison::of("rouge_l", &a, &b).unwrap();
        assert!(matches!(unpaired.evidence, Evidence::Unpaired { .. }));
        assert_eq!(unpaired.verdict("rouge_l"), Verdict::Undecided);
    }

    #[test]
    fn noise_is_not_a_difference_and_one_number_is_no_evidence() {
        let rows = |shift: i32| -> Vec<f64> {
            (0..50)
                .map(|row| f64::from((row * 7 + shift) % 10) / 10.0)
                .collect()
        };
        let (a, b) = (evaluation(&rows(0), None), evaluation(&rows(3), None));
        let comparison = Comparison::of("rouge_l", &a, &b).unwrap();
        assert_eq!(comparison.verdict("rouge_l"), Verdict::Undecided);
        let (mut a, b) = (evaluation(&[0.5], None), evaluation(&[0.1], None));
        let comparison = Comparison::of("rouge_l", &a, &b).unwrap();
        assert_eq!(comparison.verdict("rouge_l"), Verdict::NoEvidence);
        a.metrics.clear();
        assert_eq!(Comparison::of("rouge_l", &a, &b), None);
    }

    /// The interval of a mean of n values with deviation s is about ± 1.96 s / √n.
    #[test]
    fn the_bootstrap_has_the_width_that_it_should() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let (low, high) = bootstrap(&values);
        let half = NORMAL * 0.5 / 20.0;
        assert!((low - (0.5 - half)).abs() < 0.005, "{low}");
        assert!((high - (0.5 + half)).abs() < 0.005, "{high}");
        assert_eq!(bootstrap(&values), (low, high), "the same every time");
    }
}
