//! How far a number measured on some rows can be from what all such rows would give: the bootstrap.
//!
//! ```text
//! resample b = 1..1000: draw n of the n rows with replacement, compute the metric θ_b of them
//! interval   = [2.5 %, 97.5 %] quantile of θ_1..θ_1000
//! ```
//!
//! B. Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979); the
//! percentile interval. The draws are a function of the number of rows alone, so that the same file
//! always gives the same interval, and two models measured on the same rows are resampled together
//! (P. Koehn, "Statistical Significance Tests for Machine Translation Evaluation", EMNLP 2004).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Resamples of the rows.
pub const RESAMPLES: usize = 1000;

/// What an interval is to hold: 95 %.
const TAIL: f64 = 0.025;

/// The statistic of every resample, which is given as positions in 0..`rows`.
pub fn bootstrap(rows: usize, statistic: &mut dyn FnMut(&[usize]) -> f64) -> Vec<f64> {
    let mut key = [0; 32];
    key[..9].copy_from_slice(b"bootstrap");
    let mut random = ChaCha8Rng::from_seed(key);
    let mut positions = vec![0; rows];
    (0..RESAMPLES)
        .map(|_| {
            for position in &mut positions {
                // The high half of a product is uniform to within rows / 2⁶⁴.
                let wide = u128::from(random.next_u64()) * rows as u128;
                *position = (wide >> 64) as usize;
            }
            statistic(&positions)
        })
        .collect()
}

/// The 95 % interval of a statistic of rows. None for fewer than two rows, which do not say how rows
/// differ, and where the statistic of a resample is not a number.
pub fn interval(rows: usize, statistic: &mut dyn FnMut(&[usize]) -> f64) -> Option<[f64; 2]> {
    match rows {
        0 | 1 => None,
        _ => quantiles(bootstrap(rows, statistic)),
    }
}

/// The 2.5 % and the 97.5 % quantile, interpolated; none if a value is not finite, or there is none.
pub fn quantiles(mut values: Vec<f64>) -> Option<[f64; 2]> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (values.len() - 1) as f64;
        let (low, high) = (place.floor() as usize, place.ceil() as usize);
        values[low] + (values[high] - values[low]) * place.fract()
    };
    Some([at(TAIL), at(1.0 - TAIL)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_of(values: &[f64]) -> Option<[f64; 2]> {
        interval(values.len(), &mut |positions| {
            positions.iter().map(|&at| values[at]).sum::<f64>() / positions.len() as f64
        })
    }

    /// Uniform numbers in [0, 1).
    fn uniform(seed: u64, count: usize) -> Vec<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut next = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn of_many_rows_it_is_the_normal_interval() {
        let values = uniform(1, 400);
        let [low, high] = mean_of(&values).unwrap();
        // 2 · 1.96 · √(1/12) / √400.
        let expected = 2.0 * 1.96 * (1.0_f64 / 12.0).sqrt() / 20.0;
        assert!(((high - low) / expected - 1.0).abs() < 0.12, "{low} {high}");
        let mean = values.iter().sum::<f64>() / 400.0;
        assert!(((low + high) / 2.0 - mean).abs() < 0.1 * expected);
        assert_eq!(mean_of(&values), Some([low, high]), "the same every time");
    }

    /// Of 500 samples of 60 rows about 95 % have the true mean in their interval; the percentile
    /// bootstrap is a little too narrow for few rows.
    #[test]
    fn it_holds_the_truth_as_often_as_it_says() {
        let holds = |seed: &u64| {
            let [low, high] = mean_of(&uniform(*seed, 60)).unwrap();
            low <= 0.5 && 0.5 <= high
        };
        let share = (0..500).filter(holds).count() as f64 / 500.0;
        assert!((0.92..=0.97).contains(&share), "{share}");
    }

    #[test]
    fn where_there_is_no_interval() {
        assert_eq!(mean_of(&[]), None);
        assert_eq!(mean_of(&[1.0]), None);
        assert_eq!(mean_of(&[1.0, f64::NAN]), None);
        assert_eq!(mean_of(&[2.0, 2.0]), Some([2.0, 2.0]));
        assert_eq!(quantiles(Vec::new()), None);
    }

    #[test]
    fn quantiles_are_interpolated() {
        let [low, high] = quantiles((0..=100).rev().map(f64::from).collect()).unwrap();
        assert!((low - 2.5).abs() < 1e-9 && (high - 97.5).abs() < 1e-9);
    }
}
