//! How long training still takes: the median time of the newest steps, for each step to come.
//!
//! The median, since a step that waited for something else must not count fifty times. Evaluations
//! and checkpoints are not in a step's time, so the end may be later.

use std::collections::VecDeque;

/// Steps that the median is of.
const NEWEST: usize = 50;

/// The median of the newest finite numbers; none if there is none.
pub(crate) fn pace(seconds: &[f64]) -> Option<f64> {
    let newest = &seconds[seconds.len().saturating_sub(NEWEST)..];
    let mut newest: Vec<f64> = newest.iter().copied().filter(|s| s.is_finite()).collect();
    newest.sort_by(f64::total_cmp);
    let (below, above) = (newest.len().checked_sub(1)? / 2, newest.len() / 2);
    Some(f64::midpoint(newest[below], newest[above]))
}

/// The newest numbers of a run, one a step.
#[derive(Debug, Default)]
pub(crate) struct Newest(VecDeque<f64>);

impl Newest {
    pub(crate) fn push(&mut self, number: f64) {
        if self.0.len() == NEWEST {
            self.0.pop_front();
        }
        self.0.push_back(number);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Their [`pace`].
    pub(crate) fn pace(&mut self) -> Option<f64> {
        pace(self.0.make_contiguous())
    }
}

/// A time in words of at most two units, for people: `1 h 05 min`.
pub(crate) fn words(seconds: f64) -> String {
    if !(0.0..=1e9).contains(&seconds) {
        return "unknown".into();
    }
    let seconds = seconds.round() as u64;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest:02} s"),
        (0, _, _) => format!("{hours} h {minutes:02} min"),
        _ => format!("{days} d {hours:02} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_the_median_of_the_newest_steps() {
        assert_eq!(pace(&[]), None);
        assert_eq!(pace(&[f64::NAN]), None);
        assert_eq!(pace(&[3.0, 1.0, 100.0]), Some(3.0));
        assert_eq!(pace(&[f64::NAN, 1.0, 2.0]), Some(1.5));
        let mut long = vec![100.0; 1000];
        long.extend([2.0; NEWEST]);
        assert_eq!(pace(&long), Some(2.0));
        let mut newest = Newest::default();
        long.iter().for_each(|&second| newest.push(second));
        assert_eq!((newest.pace(), newest.0.len()), (Some(2.0), NEWEST));
    }

    #[test]
    fn times_have_two_units() {
        assert_eq!(words(0.4), "0 s");
        assert_eq!(words(59.6), "1 min 00 s");
        assert_eq!(words(3905.0), "1 h 05 min");
        assert_eq!(words(90_000.0), "1 d 01 h");
        assert_eq!(words(f64::NAN), "unknown");
        assert_eq!(words(f64::INFINITY), "unknown");
        assert_eq!(words(-1.0), "unknown");
    }
}
