//! Where an axis has its marks: at 1, 2 or 5 times a power of ten; on a logarithmic axis at powers of
//! ten, or at 1, 2 and 5 times them where these are few.

use crate::report::format::{minus, number, scientific};

/// Marks of a linear axis from `low` to `high`, about `count` of them, with their texts.
pub(super) fn linear(low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let marks = |step: f64| (high / step + 1e-9).floor() - (low / step - 1e-9).ceil() + 1.0;
    let mut step = nice((high - low) / count.max(1) as f64);
    // Two marks alone say little.
    if marks(step) < 3.0 {
        step = nice(step / 2.5);
    }
    if !(step.is_finite() && step > 0.0) {
        return vec![(low, number(low))];
    }
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    let marks = (first..=last).take(50).map(|mark| mark as f64 * step);
    marks.map(|mark| (mark, label(mark, step))).collect()
}

/// Marks of a logarithmic axis; both ends are above 0.
pub(super) fn logarithmic(low: f64, high: f64) -> Vec<(f64, String)> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let decades = (last - first).max(1);
    let every = (decades as usize).div_ceil(6);
    let factors: &[f64] = match decades {
        1 => &[1.0, 2.0, 3.0, 5.0, 7.0],
        2 => &[1.0, 2.0, 5.0],
        3 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let within = |mark: &f64| *mark >= low * 0.999_999 && *mark <= high * 1.000_001;
    (first..=last)
        .step_by(every)
        .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
        .filter(within)
        .map(|mark| (mark, plain(mark)))
        .collect()
}

/// The next of 1, 2, 5, 10, … times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let nice = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|n| n * power >= step * 0.999);
    nice.unwrap_or(10.0) * power
}

fn label(mark: f64, step: f64) -> String {
    if mark == 0.0 {
        return "0".to_owned();
    }
    let size = mark.abs();
    if !(1e-3..1e10).contains(&size) {
        return scientific(mark);
    }
    // As few decimals as the step needs.
    let thousands = [(1e9, "B"), (1e6, "M"), (1e3, "k")];
    let unit = thousands
        .into_iter()
        .find(|(unit, _)| size >= 10_000.0 && size >= *unit);
    let (unit, name) = unit.unwrap_or((1.0, ""));
    let decimals = (-(step / unit * 1.000_001).log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{:.decimals$}", mark / unit);
    let text = match name.is_empty() || decimals == 0 {
        true => &text,
        false => text.trim_end_matches('0').trim_end_matches('.'),
    };
    minus(format!("{text}{name}"))
}

fn plain(mark: f64) -> String {
    match mark {
        _ if !(1e-2..1e4).contains(&mark) => scientific(mark),
        _ if mark >= 1.0 => format!("{mark:.0}"),
        _ => format!("{mark:.2}").trim_end_matches('0').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(marks: Vec<(f64, String)>) -> Vec<String> {
        marks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn marks_are_round_numbers() {
        assert_eq!(
            labels(linear(0.0, 1.03, 5)),
            ["0.0", "0.5", "1.0"].map(|l| if l == "0.0" { "0" } else { l })
        );
        assert_eq!(labels(linear(-2.2, 4.1, 4)), ["−2", "0", "2", "4"]);
        assert_eq!(labels(linear(0.0, 1e6, 4)), ["0", "500k", "1M"]);
        assert_eq!(
            labels(linear(0.0, 2e-4, 4)),
            ["0", "5·10⁻⁵", "10⁻⁴", "1.5·10⁻⁴", "2·10⁻⁴"]
        );
        assert_eq!(labels(linear(20.0, 61.0, 4)), ["20", "40", "60"]);
        assert_eq!(
            labels(linear(3.0, 3.0, 4)),
            ["3"],
            "no range, no endless loop"
        );
    }

    #[test]
    fn powers_of_ten_where_there_are_many() {
        assert_eq!(
            labels(logarithmic(1.0, 1e5)),
            ["1", "10", "100", "1000", "10⁴", "10⁵"]
        );
        assert_eq!(
            labels(logarithmic(0.02, 0.7)),
            ["0.02", "0.05", "0.1", "0.2", "0.5"]
        );
        assert!(logarithmic(1e-30, 1e30).len() <= 12);
    }
}
