//! Intervals of several students one below the other on one scale, small enough for a table's cell.

use std::fmt::Write as _;

use super::format::{number, range};
use super::html::escape;
use super::plot::classes;

const WIDTH: f64 = 170.0;
const LINE: f64 = 13.0;

/// A number and where it may be.
#[derive(Debug)]
pub(super) struct Interval {
    pub(super) style: usize,
    /// Whose it is.
    pub(super) label: String,
    pub(super) center: f64,
    pub(super) around: Option<(f64, f64)>,
}

/// The picture; a dash if there is nothing to see.
pub(super) fn forest(intervals: &[Interval]) -> String {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for Interval { center, around, .. } in intervals {
        let (from, to) = around.unwrap_or((*center, *center));
        low = low.min(from).min(*center);
        high = high.max(to).max(*center);
    }
    if intervals.is_empty() || low >= high {
        return "–".to_owned();
    }
    let at = |value: f64| 6.0 + (WIDTH - 12.0) * (value - low) / (high - low);
    let height = intervals.len() as f64 * LINE + 16.0;
    let mut svg = format!(
        "<svg class=\"forest\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"intervals\">"
    );
    for (line, interval) in intervals.iter().enumerate() {
        let y = line as f64 * LINE + 7.0;
        let _ = write!(svg, "<g class=\"{}\">", classes(interval.style));
        let mut said = format!("{}: {}", interval.label, number(interval.center));
        if let Some((from, to)) = interval.around {
            let (left, right, above) = (at(from), at(to), y - 3.0);
            let _ = write!(
                svg,
                "<path class=\"interval\" d=\"M{left:.1},{y:.1}H{right:.1}M{left:.1},{above:.1}v6\
                 M{right:.1},{above:.1}v6\"/>"
            );
            let _ = write!(said, " ({})", range((from, to)));
        }
        let _ = write!(
            svg,
            "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3.2\"><title>{}</title></circle></g>",
            at(interval.center),
            escape(&said)
        );
    }
    let y = height - 3.0;
    let _ = write!(
        svg,
        "<text class=\"mark\" x=\"0\" y=\"{y}\">{}</text>\
         <text class=\"mark\" x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{}</text></svg>",
        number(low),
        number(high)
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(center: f64, around: Option<(f64, f64)>) -> Interval {
        Interval {
            style: 0,
            label: "a<b".into(),
            center,
            around,
        }
    }

    #[test]
    fn the_ends_of_all_intervals_are_the_ends_of_the_scale() {
        let svg = forest(&[interval(2.0, Some((1.0, 3.0))), interval(5.0, None)]);
        assert!(
            svg.contains("M6.0,7.0H85.0"),
            "from 1 to 3 of 1 to 5: {svg}"
        );
        assert!(
            svg.contains("cx=\"164.0\"") && svg.contains("a&lt;b: 2 (1.000 to 3.000)"),
            "{svg}"
        );
    }

    #[test]
    fn nothing_to_see_is_a_dash() {
        assert_eq!(forest(&[]), "–");
        assert_eq!(forest(&[interval(1.0, None)]), "–");
    }
}
