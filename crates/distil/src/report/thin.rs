//! A long curve as one that can be drawn: few enough points, with every extreme kept.
//!
//! The steps are cut into pieces of equal length, and of each piece the lowest and the highest value
//! stay, in their order. So a peak of one step among a million is still there. Beside it goes a mean
//! over a window, which shows where the curve tends. What is no number interrupts both.

/// Points that a drawn curve has at most.
pub(super) const MOST: usize = 600;

/// Steps of a curve that can be read without means.
pub(super) const READABLE: usize = 60;

/// Windows of means in a curve.
const WINDOWS: usize = 40;

/// A column against its steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column<'a> {
    /// Steps made before the first of `steps`, in earlier stages.
    pub(super) offset: usize,
    pub(super) steps: &'a [usize],
    pub(super) values: &'a [f64],
}

impl Column<'_> {
    fn len(&self) -> usize {
        self.steps.len().min(self.values.len())
    }

    fn x(&self, index: usize) -> f64 {
        (self.offset + self.steps[index]) as f64
    }

    /// How many values are numbers.
    pub(super) fn finite(&self) -> usize {
        self.values.iter().filter(|value| value.is_finite()).count()
    }
}

/// At most `most` points and a few at the borders, the extremes of each piece among them.
pub(super) fn extremes(column: Column<'_>, most: usize) -> Vec<(f64, f64)> {
    let count = column.len();
    let point = |index: usize| (column.x(index), column.values[index]);
    if count <= most {
        return (0..count).map(point).collect();
    }
    let pieces = (most / 2).max(1);
    let mut points = Vec::with_capacity(most + 2);
    points.push(point(0));
    for piece in 0..pieces {
        let within = piece * count / pieces..(piece + 1) * count / pieces;
        let finite = within.clone().filter(|&i| column.values[i].is_finite());
        let (mut low, mut high) = (None::<usize>, None::<usize>);
        for index in finite {
            let value = column.values[index];
            if low.is_none_or(|low| value < column.values[low]) {
                low = Some(index);
            }
            if high.is_none_or(|high| value > column.values[high]) {
                high = Some(index);
            }
        }
        match (low, high) {
            (Some(low), Some(high)) => {
                points.push(point(low.min(high)));
                if low != high {
                    points.push(point(low.max(high)));
                }
            }
            _ => points.push((column.x(within.start), f64::NAN)),
        }
    }
    points.push(point(count - 1));
    points.dedup_by(|a, b| a.0 == b.0);
    points
}

/// A moving mean at `most` places and how many steps it is over; none for a curve that is short enough
/// to be read.
pub(super) fn means(column: Column<'_>, most: usize) -> Option<(usize, Vec<(f64, f64)>)> {
    let count = column.len();
    if count < READABLE || column.finite() < READABLE {
        return None;
    }
    let window = (count / WINDOWS).max(3);
    let centers = most.clamp(1, count);
    let mean = |center: usize| {
        let middle = (2 * center + 1) * count / (2 * centers);
        let from = middle.saturating_sub(window / 2);
        let to = (from + window).min(count);
        let values = &column.values[from..to];
        let finite = values.iter().filter(|value| value.is_finite());
        let (sum, number) = finite.fold((0.0, 0_usize), |(sum, n), x| (sum + x, n + 1));
        // 0 / 0 is the gap.
        (column.x(middle), sum / number as f64)
    };
    Some((window, (0..centers).map(mean).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column<'a>(steps: &'a [usize], values: &'a [f64]) -> Column<'a> {
        Column {
            offset: 0,
            steps,
            values,
        }
    }

    #[test]
    fn a_million_steps_keep_their_extremes_and_their_gap() {
        let count = 1_000_000;
        let steps: Vec<usize> = (1..=count).collect();
        let mut values: Vec<f64> = (0..count).map(|i| (i as f64 * 1e-5).sin()).collect();
        values[123_456] = 50.0;
        values[765_432] = -50.0;
        values[400_000..450_000].fill(f64::NAN);
        let drawn = extremes(column(&steps, &values), MOST);
        assert!(drawn.len() <= MOST + 2, "{}", drawn.len());
        assert!(drawn.contains(&(123_457.0, 50.0)));
        assert!(drawn.contains(&(765_433.0, -50.0)));
        assert_eq!(drawn.first(), Some(&(1.0, values[0])));
        assert_eq!(drawn.last(), Some(&(1e6, values[count - 1])));
        assert!(
            drawn
                .iter()
                .any(|(x, y)| (400_000.0..450_000.0).contains(x) && y.is_nan())
        );
        assert!(drawn.is_sorted_by(|a, b| a.0 < b.0));
        let (window, means) = means(column(&steps, &values), 200).unwrap();
        assert_eq!((window, means.len()), (25_000, 200));
        let there = means.iter().filter(|(_, y)| y.is_finite()).count();
        assert!((180..200).contains(&there), "the gap stays: {there}");
    }

    #[test]
    fn a_short_curve_is_drawn_as_it_is() {
        let column = column(&[1, 2, 5], &[1.0, f64::NAN, 3.0]);
        let drawn = extremes(column, MOST);
        assert_eq!((drawn[0], drawn[2]), ((1.0, 1.0), (5.0, 3.0)));
        assert!(drawn[1].1.is_nan());
        assert!(means(column, 200).is_none());
    }

    #[test]
    fn means_are_of_the_window() {
        let steps: Vec<usize> = (0..400).collect();
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let (window, means) = means(column(&steps, &values), 200).unwrap();
        assert_eq!(window, 10);
        assert!(means.iter().all(|(_, mean)| (mean - 0.5).abs() < 0.1));
    }
}
