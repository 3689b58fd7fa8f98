//! Which layers a student keeps of its teacher.

use crate::error::{ModelError, Result};

/// `keep` layers of `total`, evenly spaced, the first and the last always among them.
///
/// # Errors
/// `keep` is not between 2 and `total` (1 is possible only for a model of one layer).
pub fn evenly_spaced(total: usize, keep: usize) -> Result<Vec<usize>> {
    if keep == total && total > 0 {
        return Ok((0..total).collect());
    }
    if keep < 2 || keep > total {
        return Err(ModelError::Request {
            what: format!("cannot keep {keep} layers of {total}"),
            fix: format!("keep between 2 and {total}: the first and the last layer always stay"),
        });
    }
    let (steps, span) = (keep - 1, total - 1);
    // Rounded to the nearest layer in integers, so that every platform keeps the same ones.
    Ok((0..keep)
        .map(|i| (2 * i * span + steps) / (2 * steps))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_and_last_stay_and_gaps_differ_by_one_at_most() {
        assert_eq!(evenly_spaced(30, 4).unwrap(), [0, 10, 19, 29]);
        for total in 2..40 {
            for keep in 2..=total {
                let layers = evenly_spaced(total, keep).unwrap();
                assert_eq!((layers[0], layers[keep - 1]), (0, total - 1));
                let gaps: Vec<_> = layers.windows(2).map(|w| w[1] - w[0]).collect();
                let (low, high) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
                assert!(*low >= 1 && high - low <= 1, "{total} {keep} {layers:?}");
            }
        }
    }

    #[test]
    fn impossible_counts_are_refused() {
        for (total, keep) in [(30, 0), (30, 1), (30, 31), (0, 0)] {
            assert!(evenly_spaced(total, keep).is_err());
        }
        assert_eq!(evenly_spaced(1, 1).unwrap(), [0]);
    }
}
