//! Axes and scales: from values to places, linear or logarithmic.

use super::ticks;
use crate::report::format::number;

/// An axis.
#[derive(Debug, Default, Clone)]
pub(in crate::report) struct Axis {
    /// Quantity and unit.
    pub(in crate::report) label: String,
    /// Marks with their texts instead of numbers.
    pub(in crate::report) marks: Vec<(f64, String)>,
    /// Values that must be on it.
    pub(in crate::report) holds: Vec<f64>,
    /// Never logarithmic.
    pub(in crate::report) linear: bool,
}

impl Axis {
    pub(in crate::report) fn of(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            ..Self::default()
        }
    }

    /// With these values on it.
    pub(in crate::report) fn holding(mut self, values: &[f64]) -> Self {
        self.holds.extend_from_slice(values);
        self
    }
}

/// What is larger has no place: a range must be finite, too.
const LARGEST: f64 = 1e300;

/// From values to places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    from: f64,
    to: f64,
    pub(super) logarithmic: bool,
}

impl Scale {
    /// NaN for what has no place on the page.
    pub(super) fn at(&self, value: f64) -> f64 {
        if value.abs() >= LARGEST {
            return f64::NAN;
        }
        let place = |value: f64| match self.logarithmic {
            true => value.log10(),
            false => value,
        };
        let (low, high) = (place(self.low), place(self.high));
        self.from + (self.to - self.from) * (place(value) - low) / (high - low)
    }

    pub(super) fn attribute(&self) -> String {
        let kind = u8::from(self.logarithmic);
        let Self {
            low,
            high,
            from,
            to,
            ..
        } = self;
        format!("{low:e},{high:e},{from:.1},{to:.1},{kind}")
    }
}

/// A scale that holds all values, with some `room` (a share of the range) around them. It is
/// logarithmic where the values are all positive and the largest is hundreds of times the smallest.
pub(super) fn scale(
    axis: &Axis,
    values: impl Iterator<Item = f64>,
    (from, to): (f64, f64),
    room: f64,
) -> Scale {
    const DECADES: f64 = 2.3;
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.chain(axis.holds.iter().copied()) {
        if value.abs() < LARGEST {
            (low, high) = (low.min(value), high.max(value));
        }
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    let logarithmic = !axis.linear && low > 0.0 && (high / low).log10() > DECADES && room > 0.0;
    if logarithmic {
        let factor = (high / low).powf(room);
        (low, high) = (low / factor, high * factor);
    } else {
        if high - low <= high.abs().max(low.abs()) * 1e-9 {
            let half = (high.abs() * 0.1).max(1e-12);
            (low, high) = match room > 0.0 && low == 0.0 {
                true => (-0.1, 1.0),
                false => (low - half, high + half),
            };
        }
        let room = (high - low) * room;
        // Not below zero for what never is.
        low = if low >= 0.0 && low < 2.0 * room {
            0.0
        } else {
            low - room
        };
        high += room;
    }
    Scale {
        low,
        high,
        from,
        to,
        logarithmic,
    }
}

/// The marks of an axis on its scale, with their texts.
pub(super) fn marks(axis: &Axis, scale: &Scale, count: usize) -> Vec<(f64, String)> {
    if !axis.marks.is_empty() {
        return axis.marks.clone();
    }
    let marks = match scale.logarithmic {
        true => ticks::logarithmic(scale.low, scale.high),
        false => ticks::linear(scale.low, scale.high, count),
    };
    match marks.is_empty() {
        true => vec![(scale.low, number(scale.low))],
        false => marks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_lies_where_it_should() {
        let values = [0.01, 1000.0].into_iter();
        let wide = scale(&Axis::of("x"), values.clone(), (0.0, 10.0), 1e-9);
        assert!(wide.logarithmic);
        assert!((wide.at(10f64.powf(0.5)) - 5.0).abs() < 1e-6);
        assert!(!wide.at(-1.0).is_finite(), "it has no place");
        assert!(wide.at(1e301).is_nan(), "nor has this");
        let axis = Axis {
            linear: true,
            ..Axis::of("x")
        };
        let linear = scale(&axis, values, (0.0, 10.0), 0.0);
        assert!((linear.at(500.0) - 5.0).abs() < 1e-3);
    }

    #[test]
    fn what_is_never_negative_starts_at_zero_and_others_do_not() {
        let of = |low: f64, high: f64| {
            scale(&Axis::default(), [low, high].into_iter(), (0.0, 1.0), 0.06)
        };
        assert_eq!(of(0.01, 1.0).low, 0.0);
        assert!(of(10.0, 11.0).low > 9.0);
        assert!(of(-1.0, 1.0).low < -1.0);
        assert_eq!(
            (
                of(f64::NAN, f64::INFINITY).low,
                of(f64::NAN, 0.5).high > 0.5
            ),
            (0.0, true)
        );
    }
}
