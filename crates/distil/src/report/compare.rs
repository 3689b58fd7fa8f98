//! Which of two students is better, and how sure that is.
//!
//! If both were measured on the same rows, they are compared on the same draws of rows: what
//! [`eval::compare`](crate::eval::compare) does, whose code this is. Otherwise the two intervals are taken
//! as those of independent normal errors, of which each has the standard error
//! (high − low) / (2 · 1.96); that ignores what the same rows have in common, so it is the wider one.
//! With one number a run there is no evidence, and none is made up.
//!
//! Rows say nothing of what another training seed would give. Where both students were trained with
//! several seeds, the difference of their means has a second interval, over training seeds
//! ([`student_t`]), and a student is better only if every interval there is says so.

use std::collections::BTreeSet;

use super::family::Family;
use super::run::Run;
use super::student_t;
use super::words;
use crate::eval::compare::resampled;
use crate::eval::interval::quantiles;
use crate::eval::rows::Numbers;
use crate::record::{EvaluationFile, Measured};

/// Half the width of a normal 95 % interval in standard errors.
const NORMAL: f64 = 1.96;

/// What is known of two students by one metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Comparison {
    /// The first student's number, the mean over its runs.
    pub(super) a: f64,
    /// The second student's.
    pub(super) b: f64,
    pub(super) evidence: Evidence,
    /// The difference a − b over training seeds, if both have several.
    pub(super) seeds: Option<OverSeeds>,
}

/// On what a comparison of these very students rests.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Evidence {
    /// The same rows.
    Paired {
        /// Rows that both were measured on.
        rows: usize,
        /// The difference a − b.
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

/// A difference of means over training seeds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OverSeeds {
    /// Runs of either.
    pub(super) runs: (usize, usize),
    /// The 95 % interval; none if no run differs from its siblings.
    pub(super) interval: Option<(f64, f64)>,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The first is better, and every interval says so.
    First,
    /// The second is better, and every interval says so.
    Second,
    /// An interval contains 0, or the metric does not rank.
    Undecided,
    /// There is no interval.
    NoEvidence,
}

impl Comparison {
    /// By a metric of two families' evaluations of this name; without a name, of what each run measured
    /// at its end.
    pub(super) fn of(
        metric: &str,
        a: &Family<'_>,
        b: &Family<'_>,
        evaluation: Option<&str>,
    ) -> Option<Self> {
        let Some(name) = evaluation else {
            let (ours, theirs) = (a.outcomes(metric).1, b.outcomes(metric).1);
            let alike = measured_on(a.first()) == measured_on(b.first());
            return Self::of_numbers(&ours, &theirs, Evidence::Numbers, alike);
        };
        Self::of_files(metric, &a.evaluations(name), &b.evaluations(name))
    }

    /// By a metric of evaluations of two families, one file a run.
    pub(super) fn of_files(
        metric: &str,
        a: &[&EvaluationFile],
        b: &[&EvaluationFile],
    ) -> Option<Self> {
        let measured = |files: &[&EvaluationFile]| -> Option<(Vec<Measured>, Vec<f64>)> {
            let all = files.iter().filter_map(|file| file.metrics.get(metric));
            let all: Vec<Measured> = all.filter(|m| m.center().is_some()).cloned().collect();
            let centers = all.iter().filter_map(Measured::center).collect();
            (!all.is_empty()).then_some((all, centers))
        };
        let ((ours, centers), (theirs, their_centers)) = (measured(a)?, measured(b)?);
        let first = a.first()?;
        let same = a.iter().chain(b).all(|file| same_rows(first, file));
        let over_seeds = |m: &Measured| m.mean.is_some();
        let alike = ours
            .iter()
            .chain(&theirs)
            .all(|m| over_seeds(m) == over_seeds(&ours[0]));
        let evidence = match same && alike {
            true => paired(metric, a, b),
            false => None,
        };
        let unpaired = || match (&ours[..], &theirs[..]) {
            ([ours], [theirs]) => unpaired(ours, theirs),
            _ => None,
        };
        let evidence = evidence.or_else(unpaired).unwrap_or(Evidence::Numbers);
        Self::of_numbers(&centers, &their_centers, evidence, same && alike)
    }

    /// `alike` says whether the numbers were measured on the same data in the same way: if not, runs
    /// say nothing of how numbers of these data scatter.
    fn of_numbers(a: &[f64], b: &[f64], evidence: Evidence, alike: bool) -> Option<Self> {
        if a.is_empty() || b.is_empty() {
            return None;
        }
        let seeds = OverSeeds {
            runs: (a.len(), b.len()),
            interval: student_t::difference(a, b),
        };
        Some(Self {
            a: student_t::mean(a),
            b: student_t::mean(b),
            evidence,
            seeds: (alike && a.len() > 1 && b.len() > 1).then_some(seeds),
        })
    }

    /// The same with the two students in the other order.
    pub(super) fn swapped(&self) -> Self {
        let turned = |(low, high): (f64, f64)| (-high, -low);
        let evidence = match self.evidence {
            Evidence::Paired {
                rows,
                difference,
                interval,
            } => Evidence::Paired {
                rows,
                difference: -difference,
                interval: turned(interval),
            },
            Evidence::Unpaired {
                difference,
                interval,
            } => Evidence::Unpaired {
                difference: -difference,
                interval: turned(interval),
            },
            Evidence::Numbers => Evidence::Numbers,
        };
        let seeds = self.seeds.as_ref().map(|seeds| OverSeeds {
            runs: (seeds.runs.1, seeds.runs.0),
            interval: seeds.interval.map(turned),
        });
        Self {
            a: self.b,
            b: self.a,
            evidence,
            seeds,
        }
    }

    /// The difference a − b.
    pub(super) fn difference(&self) -> f64 {
        match self.evidence {
            Evidence::Paired { difference, .. } | Evidence::Unpaired { difference, .. } => {
                difference
            }
            Evidence::Numbers => self.a - self.b,
        }
    }

    /// The 95 % interval of the difference over rows.
    pub(super) fn over_rows(&self) -> Option<(f64, f64)> {
        match self.evidence {
            Evidence::Paired { interval, .. } | Evidence::Unpaired { interval, .. } => {
                Some(interval)
            }
            Evidence::Numbers => None,
        }
    }

    /// The 95 % interval of the difference over training seeds.
    pub(super) fn over_seeds(&self) -> Option<(f64, f64)> {
        self.seeds.as_ref()?.interval
    }

    pub(super) fn verdict(&self, metric: &str) -> Verdict {
        let intervals = [self.over_rows(), self.over_seeds()];
        let mut intervals = intervals.into_iter().flatten().peekable();
        if intervals.peek().is_none() {
            return Verdict::NoEvidence;
        }
        let wins = |(low, high): (f64, f64)| {
            let ends = [low, high];
            (
                ends.iter().all(|&end| words::beats(metric, end, 0.0)),
                ends.iter().all(|&end| words::beats(metric, 0.0, end)),
            )
        };
        let all = intervals
            .map(wins)
            .reduce(|(a, b), (c, d)| (a && c, b && d));
        match all {
            Some((true, _)) => Verdict::First,
            Some((_, true)) => Verdict::Second,
            _ => Verdict::Undecided,
        }
    }
}

/// Whether an interval does not contain 0.
pub(super) fn leaves_out_zero((low, high): (f64, f64)) -> bool {
    low > 0.0 || high < 0.0
}

/// What a run measures its own student on.
fn measured_on(run: &Run) -> [Option<&toml::Value>; 2] {
    let of = |table: &str, key: &str| run.last()?.config.get(table)?.get(key);
    [of("data", "eval"), of("eval", "rows")]
}

/// Whether two evaluations asked the same rows.
pub(super) fn same_rows(a: &EvaluationFile, b: &EvaluationFile) -> bool {
    match (&a.data_sha256, &b.data_sha256) {
        (Some(a), Some(b)) => a == b,
        _ => a.data.is_some() && a.data == b.data,
    }
}

/// The difference on draws of the rows that all of these have.
fn paired(metric: &str, a: &[&EvaluationFile], b: &[&EvaluationFile]) -> Option<Evidence> {
    let numbers = |files: &[&EvaluationFile]| -> Option<Vec<Numbers>> {
        let of_file = |file: &&EvaluationFile| {
            let numbers = file.numbers(metric);
            (!numbers.is_empty()).then_some(numbers)
        };
        let numbers: Option<Vec<Vec<Numbers>>> = files.iter().map(of_file).collect();
        Some(numbers?.into_iter().flatten().collect())
    };
    let (a, b) = (numbers(a)?, numbers(b)?);
    let mut rows: Option<BTreeSet<usize>> = None;
    for numbers in a.iter().chain(&b) {
        let these: BTreeSet<usize> = numbers.rows().into_iter().collect();
        rows = Some(match rows {
            Some(rows) => rows.intersection(&these).copied().collect(),
            None => these,
        });
    }
    let rows = rows.filter(|rows| rows.len() > 1)?;
    let chosen = |all: &[Numbers]| -> Vec<Numbers> {
        let keep = |row: usize| rows.contains(&row);
        all.iter().map(|numbers| numbers.only(&keep)).collect()
    };
    let (a, b) = (chosen(&a), chosen(&b));
    let value = |all: &[Numbers]| all.iter().map(Numbers::value).sum::<f64>() / all.len() as f64;
    let (of_a, of_b): (Vec<&Numbers>, Vec<&Numbers>) = (a.iter().collect(), b.iter().collect());
    let [low, high] = quantiles(resampled(&of_b, &of_a))?;
    Some(Evidence::Paired {
        rows: rows.len(),
        difference: value(&a) - value(&b),
        interval: (low, high),
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

/// Which of several students is the best by a metric for sure: better than each of the others.
/// `compare` compares two of them by their places.
pub(super) fn surely_best(
    metric: &str,
    values: &[Option<f64>],
    compare: impl Fn(usize, usize) -> Option<Comparison>,
) -> Option<usize> {
    let known = values.iter().enumerate();
    let known = known.filter_map(|(place, value)| Some((place, (*value)?)));
    let known: Vec<(usize, f64)> = known.filter(|(_, value)| value.is_finite()).collect();
    let best =
        known
            .iter()
            .copied()
            .reduce(|best, other| match words::beats(metric, other.1, best.1) {
                true => other,
                false => best,
            });
    let (best, _) = best.filter(|_| known.len() > 1)?;
    let beaten = |&(place, _): &(usize, f64)| {
        place == best || compare(best, place).is_some_and(|c| c.verdict(metric) == Verdict::First)
    };
    known.iter().all(beaten).then_some(best)
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

    fn compared(a: &EvaluationFile, b: &EvaluationFile) -> Comparison {
        Comparison::of_files("rouge_l", &[a], &[b]).unwrap()
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
        let paired = compared(&a, &b);
        assert_eq!(paired.verdict("rouge_l"), Verdict::First);
        let (low, high) = paired.over_rows().unwrap();
        let difference = paired.difference();
        assert!(low < difference && difference < high && low > 0.0105 && high < 0.0115);
        assert!(matches!(
            paired.evidence,
            Evidence::Paired { rows: 200, .. }
        ));
        assert_eq!(compared(&b, &a).verdict("rouge_l"), Verdict::Second);
        // Other rows: no pairs.
        b.data_sha256 = Some("y".into());
        let unpaired = compared(&a, &b);
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
        assert_eq!(compared(&a, &b).verdict("rouge_l"), Verdict::Undecided);
        let (mut a, b) = (evaluation(&[0.5], None), evaluation(&[0.1], None));
        assert_eq!(compared(&a, &b).verdict("rouge_l"), Verdict::NoEvidence);
        a.metrics.clear();
        assert_eq!(Comparison::of_files("rouge_l", &[&a], &[&b]), None);
    }

    /// Metrics of references have sums over tokens of each row, of which the ratio is drawn, not a mean
    /// over rows.
    #[test]
    fn metrics_of_references_are_compared_on_the_same_rows() {
        // Rows of 1 to 9 tokens with a KL of 1 to 2, of the second student 0.05 more.
        let file = |more: f64| {
            let rows: Vec<usize> = (0..60).collect();
            let sums: Vec<[f64; 2]> = rows
                .iter()
                .map(|&row| {
                    let tokens = (1 + row % 9) as f64;
                    [tokens * (1.0 + (row % 7) as f64 / 6.0 + more), tokens]
                })
                .collect();
            let (sum, tokens) = sums
                .iter()
                .fold((0.0, 0.0), |(s, t), x| (s + x[0], t + x[1]));
            let perplexity: Vec<[f64; 2]> = sums.iter().map(|s| [-s[0], s[1]]).collect();
            let of = |value: f64| Measured {
                value: Some(value),
                interval: Some((value - 0.5, value + 0.5)),
                ..Measured::default()
            };
            let mut file = EvaluationFile {
                data_sha256: Some("x".into()),
                by_row: serde_json::json!({
                    "forward_kl": {"rows": rows, "sums": sums},
                    "perplexity": {"rows": rows, "sums": perplexity},
                }),
                ..EvaluationFile::default()
            };
            let mean = sum / tokens;
            file.metrics.insert("forward_kl".into(), of(mean));
            file.metrics.insert("perplexity".into(), of(mean.exp()));
            file
        };
        let (a, b) = (file(0.0), file(0.05));
        for metric in ["forward_kl", "perplexity"] {
            let c = Comparison::of_files(metric, &[&a], &[&b]).unwrap();
            assert!(
                matches!(c.evidence, Evidence::Paired { rows: 60, .. }),
                "{c:?}"
            );
            assert_eq!(c.verdict(metric), Verdict::First, "{c:?}");
            assert!((c.difference() - (c.a - c.b)).abs() < 1e-9, "{c:?}");
        }
        // Each row's mean differs by 0.05, so every draw's does.
        let c = Comparison::of_files("forward_kl", &[&a], &[&b]).unwrap();
        let (low, high) = c.over_rows().unwrap();
        assert!((low + 0.05).abs() < 1e-9 && (high + 0.05).abs() < 1e-9);
    }

    /// On rows it is sure, over training seeds it is not.
    #[test]
    fn another_training_seed_may_undo_what_rows_say() {
        let of = |shift: f64| {
            let rows: Vec<f64> = (0..40)
                .map(|row| 0.3 + shift + 0.001 * f64::from(row % 3))
                .collect();
            evaluation(&rows, None)
        };
        let (good, poor) = ([of(0.00), of(0.06)], [of(-0.05), of(0.04)]);
        let all = |files: &'_ [EvaluationFile; 2]| -> Vec<EvaluationFile> { files.to_vec() };
        let (good, poor) = (all(&good), all(&poor));
        let of = |a: &[EvaluationFile], b: &[EvaluationFile]| {
            let (a, b): (Vec<_>, Vec<_>) = (a.iter().collect(), b.iter().collect());
            Comparison::of_files("rouge_l", &a, &b).unwrap()
        };
        let undecided = of(&good, &poor);
        assert!(
            leaves_out_zero(undecided.over_rows().unwrap()),
            "{undecided:?}"
        );
        assert!(!leaves_out_zero(undecided.over_seeds().unwrap()));
        assert_eq!(undecided.seeds.as_ref().unwrap().runs, (2, 2));
        assert_eq!(undecided.verdict("rouge_l"), Verdict::Undecided);
        assert!((undecided.difference() - 0.035).abs() < 1e-9);
        assert_eq!(undecided.swapped().swapped(), undecided);
        assert!((undecided.swapped().difference() + 0.035).abs() < 1e-9);
        // One run of either: nothing is known of seeds.
        let alone = of(&good[..1], &poor[..1]);
        assert_eq!(
            (alone.seeds.is_none(), alone.verdict("rouge_l")),
            (true, Verdict::First)
        );
    }

    #[test]
    fn the_best_is_better_than_every_other() {
        let to = |verdicts: &'static [bool]| {
            move |_: usize, other: usize| {
                let low = if verdicts[other] { 0.1 } else { -0.1 };
                Some(Comparison {
                    a: 1.0,
                    b: 0.5,
                    evidence: Evidence::Paired {
                        rows: 9,
                        difference: 0.5,
                        interval: (low, 1.0),
                    },
                    seeds: None,
                })
            }
        };
        let values = [Some(0.1), Some(0.3), None, Some(0.2), Some(f64::NAN)];
        let all = &[true; 5];
        assert_eq!(surely_best("rouge_l", &values, to(all)), Some(1));
        assert_eq!(
            surely_best("rouge_l", &values, to(&[true, true, true, false, true])),
            None
        );
        assert_eq!(
            surely_best("rouge_l", &[Some(0.1), None], to(all)),
            None,
            "alone"
        );
        assert_eq!(
            surely_best("eos_rate", &values, to(all)),
            None,
            "it does not rank"
        );
        assert_eq!(
            surely_best("rouge_l", &values, |_, _| None),
            None,
            "no evidence"
        );
    }
}
