//! Student's t: how far the mean of a few runs can be from what all training seeds would give.
//!
//! ```text
//! mean of n runs     m ± t(n − 1) · s / √n
//! difference         m_a − m_b ± t(ν) · √(v_a + v_b),   v = s² / n
//!                    ν = (v_a + v_b)² / ( v_a² / (n_a − 1) + v_b² / (n_b − 1) )
//! ```
//!
//! with the standard deviation s (n − 1) and the 97.5 % point t(ν) of Student's distribution. The second
//! is Welch's: the two families need not scatter alike (B. L. Welch, "The Generalization of
//! 'Student's' Problem when Several Different Population Variances are Involved", Biometrika 34,
//! 1947). ν is rounded down, which makes the interval a little wider.

/// 97.5 % points for 1 to 20 degrees of freedom.
const POINTS: [f64; 20] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
];

fn point(freedom: f64) -> f64 {
    let whole = (freedom + 1e-9).floor().max(1.0);
    match POINTS.get(whole as usize - 1) {
        Some(&point) => point,
        // The first terms of its expansion in 1/ν.
        None => 1.96 + 2.3722 / whole + 2.8225 / (whole * whole),
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The squared standard error of the mean.
fn squared_error(values: &[f64]) -> f64 {
    let (mean, count) = (mean(values), values.len() as f64);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    squares / (count - 1.0) / count
}

/// Half of the 95 % interval of a mean; none of fewer than two runs, or of equal ones, which do not
/// say how runs scatter.
pub(super) fn half_width(values: &[f64]) -> Option<f64> {
    let freedom = values.len().checked_sub(1).filter(|&n| n > 0)?;
    let half = point(freedom as f64) * squared_error(values).sqrt();
    (half.is_finite() && half > 0.0).then_some(half)
}

/// The 95 % interval of the difference a − b of two means, by Welch; none as in [`half_width`].
pub(super) fn difference(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let (of_a, of_b) = (squared_error(a), squared_error(b));
    let both = of_a + of_b;
    let share = |error: f64, count: usize| error * error / (count as f64 - 1.0);
    let freedom = both * both / (share(of_a, a.len()) + share(of_b, b.len()));
    let half = point(freedom) * both.sqrt();
    let difference = mean(a) - mean(b);
    (half.is_finite() && half > 0.0).then_some((difference - half, difference + half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_of_three() {
        // s = 1, so 4.303 / √3.
        let half = half_width(&[1.0, 2.0, 3.0]).unwrap();
        assert!((half - 2.484).abs() < 1e-3, "{half}");
        for none in [&[][..], &[1.0], &[2.0, 2.0], &[1.0, f64::NAN]] {
            assert_eq!(half_width(none), None);
        }
    }

    #[test]
    fn a_difference_of_families_that_scatter_unlike() {
        // v = 1/3 and 4/3, so ν = (5/3)² / (1/18 + 16/18) = 2.94, rounded down to 2.
        let (low, high) = difference(&[11.0, 12.0, 13.0], &[0.0, 2.0, 4.0]).unwrap();
        let half = 4.303 * (5.0_f64 / 3.0).sqrt();
        assert!((low - (10.0 - half)).abs() < 1e-9 && (high - (10.0 + half)).abs() < 1e-9);
        // Alike: ν = 4.
        let (low, high) = difference(&[1.0, 2.0, 3.0], &[2.0, 3.0, 4.0]).unwrap();
        assert!((high - low - 2.0 * 2.776 * (2.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert_eq!(difference(&[1.0], &[1.0, 2.0]), None);
        assert_eq!(difference(&[1.0, 1.0], &[2.0, 2.0]), None, "no scatter");
    }

    #[test]
    fn beyond_the_list_the_points_go_on() {
        for (freedom, exact) in [
            (21.0, 2.0796),
            (30.0, 2.0423),
            (100.0, 1.9840),
            (1e9, 1.9600),
        ] {
            assert!((point(freedom) - exact).abs() < 1e-3, "{freedom}");
        }
        assert_eq!(point(3.999_999_999_9), 2.776);
        assert_eq!(point(0.7), 12.706);
    }
}
