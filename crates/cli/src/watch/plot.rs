//! One curve in a frame of its own, in dots of a quarter of a cell's height and half its width.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, GraphType, Widget};

use super::curve::Curve;
use super::text::number;

/// What a plot says besides its curve.
pub(crate) struct Labels<'a> {
    /// At the left of the frame.
    pub(crate) name: &'a str,
    /// Behind its newest number.
    pub(crate) unit: &'a str,
    /// At its right; empty for nothing.
    pub(crate) range: String,
    /// Draw the mean of the steps that share a column, not their extremes.
    pub(crate) means: bool,
    /// Draw logarithms, where all numbers have one.
    pub(crate) logarithms: bool,
    pub(crate) colour: Option<Color>,
}

/// Draws the curve.
pub(crate) fn plot(area: Rect, buffer: &mut Buffer, curve: &Curve<'_>, labels: &Labels<'_>) {
    let newest = curve.newest().map_or("no number yet".into(), number);
    let title = match labels.unit {
        "" => format!(" {} {newest} ", labels.name),
        unit => format!(" {} {newest} {unit} ", labels.name),
    };
    // A cell has two dots side by side.
    let parts = curve.parts(2 * usize::from(area.width));
    let mut points: Vec<(f64, f64)> = match labels.means {
        true => parts.iter().map(|part| (part.step, part.mean)).collect(),
        false => parts
            .iter()
            .flat_map(|part| [(part.step, part.low), (part.step, part.high)])
            .collect(),
    };
    let logarithms = labels.logarithms && points.iter().all(|point| point.1 > 0.0);
    if logarithms {
        points
            .iter_mut()
            .for_each(|point| point.1 = point.1.log10());
    }
    let scale = match (labels.logarithms, logarithms) {
        (false, _) => "",
        (true, true) => ", log scale",
        (true, false) => ", no log scale: not all above 0",
    };
    let range = match labels.range.as_str() {
        "" => String::new(),
        range => format!(" {range}{scale} "),
    };
    let block = Block::new()
        .borders(Borders::TOP)
        .title(title)
        .title(Line::from(range).right_aligned());
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        block.render(area, buffer);
        return;
    };
    let x = room(first.0, last.0);
    let low = points
        .iter()
        .map(|point| point.1)
        .fold(f64::INFINITY, f64::min);
    let high = points
        .iter()
        .map(|point| point.1)
        .fold(f64::NEG_INFINITY, f64::max);
    let y = room(low, high);
    let place = |(step, value)| (share(step, x), share(value, y));
    let points: Vec<(f64, f64)> = points.iter().copied().map(place).collect();
    let ends = [curve.steps.first(), curve.steps.last()];
    let ends = ends.map(|step| step.map_or(String::new(), ToString::to_string));
    let style = labels
        .colour
        .map_or(Style::new(), |colour| Style::new().fg(colour));
    let dots = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(style)
        .data(&points);
    let heights = [y[0], f64::midpoint(y[0], y[1]), y[1]];
    let heights = heights.map(|height| match logarithms {
        true => number(10_f64.powf(height)),
        false => number(height),
    });
    Chart::new(vec![dots])
        .block(block)
        .x_axis(Axis::default().bounds([0.0, 1.0]).labels(ends))
        .y_axis(Axis::default().bounds([0.0, 1.0]).labels(heights))
        .render(area, buffer);
}

/// Ends of an axis, apart even if all points are in one place.
fn room(low: f64, high: f64) -> [f64; 2] {
    if high > low {
        return [low, high];
    }
    let around = (low.abs() * 0.1).max(1e-3);
    [(low - around).max(f64::MIN), (low + around).min(f64::MAX)]
}

/// Where a value is on an axis, from 0 to 1: the chart cannot draw what is so far apart that its
/// difference is no number.
fn share(value: f64, [low, high]: [f64; 2]) -> f64 {
    let share = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
    if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(values: &[f64], width: u16, height: u16) -> Vec<String> {
        drawn_as(values, width, height, false)
    }

    fn drawn_as(values: &[f64], width: u16, height: u16, logarithms: bool) -> Vec<String> {
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        let curve = Curve {
            steps: (1..=values.len()).collect(),
            values: values.into(),
        };
        let labels = Labels {
            name: "loss",
            unit: "nats",
            range: "all".into(),
            means: false,
            logarithms,
            colour: None,
        };
        plot(area, &mut buffer, &curve, &labels);
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        (0..height).map(row).collect()
    }

    #[test]
    fn a_falling_curve_falls() {
        let lines = drawn(&[4.0, 3.0, 2.0, 1.0], 24, 8);
        assert!(
            lines[0].contains(" loss 1.000 nats ") && lines[0].contains("all"),
            "{lines:#?}"
        );
        assert!(
            lines[1].starts_with("4.000│") && lines[5].starts_with("1.000│"),
            "{lines:#?}"
        );
        let first = |line: &str| {
            line.chars()
                .position(|c| ('\u{2801}'..='\u{28ff}').contains(&c))
        };
        let (top, bottom) = (first(&lines[1]), first(&lines[5]));
        assert!(top.is_some() && top < bottom, "{lines:#?}");
        assert!(lines[7].trim_start().starts_with('1') && lines[7].trim_end().ends_with('4'));
    }

    #[test]
    fn a_spike_leaves_room_for_the_rest_on_a_log_scale() {
        let lines = drawn_as(&[100.0, 10.0, 1.0], 40, 8, true);
        assert!(lines[0].contains(" all, log scale "), "{lines:#?}");
        for (row, height) in [(1, "100.0│"), (3, "10.00│"), (5, "1.000│")] {
            assert!(lines[row].trim_start().starts_with(height), "{lines:#?}");
        }
        let lines = drawn_as(&[100.0, 0.0], 60, 8, true);
        assert!(lines[0].contains("not all above 0"), "{lines:#?}");
        assert!(lines[3].trim_start().starts_with("50.00│"), "{lines:#?}");
        drawn_as(&[5e-324, f64::MAX], 40, 8, true);
    }

    #[test]
    fn no_curve_and_no_room_are_no_trouble() {
        assert!(drawn(&[], 30, 5)[0].contains("no number yet"));
        assert!(drawn(&[f64::NAN], 30, 5)[0].contains("no number yet"));
        for values in [
            vec![0.0],
            vec![5.0; 3],
            vec![-1e308, 1e308],
            vec![f64::MAX; 2],
        ] {
            for (width, height) in [(1, 1), (2, 9), (9, 2), (30, 3), (30, 9)] {
                drawn(&values, width, height);
            }
        }
        assert_eq!(room(5.0, 5.0), [4.5, 5.5]);
        assert_eq!(room(0.0, 0.0), [-1e-3, 1e-3]);
        assert_eq!(share(0.0, [f64::MIN, f64::MAX]), 0.5);
        assert_eq!(share(1.0, [5e-324, 5e-324]), 0.5);
    }
}
