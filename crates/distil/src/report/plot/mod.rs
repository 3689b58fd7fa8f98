//! Plots as SVG: curves, points and intervals over one horizontal and one or two vertical axes.
//!
//! A plot says what is to be seen; where it lies is computed here. Colours are classes (`c0`…) that
//! the page's style defines for light, dark and paper, and every colour has a pattern of dashes
//! (`d0`…) of its own. The scales stand in `data-` attributes, so that the page's script can read
//! values off the curves instead of being given every number twice.

mod scale;
mod ticks;

use std::fmt::Write as _;

use super::html::escape;
pub(super) use scale::Axis;
use scale::{Scale, marks, scale};

/// Colours of the style.
pub(super) const COLOURS: usize = 7;
/// Patterns of dashes of the style. Seven colours and five patterns go together in 35 ways.
const DASHES: usize = 5;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 190.0;
const BOTTOM: f64 = 38.0;
const LINE: f64 = 17.0;
/// Mean width of a character at the style's size of type.
const CHARACTER: f64 = 6.4;

/// A plot.
#[derive(Debug, Default)]
pub(super) struct Plot {
    /// What it shows, for those who cannot see it.
    pub(super) label: String,
    pub(super) x: Axis,
    pub(super) left: Axis,
    /// The axis of curves on [`Side::Right`].
    pub(super) right: Option<Axis>,
    pub(super) curves: Vec<Curve>,
    /// Vertical rules with their names.
    pub(super) rules: Vec<(f64, String)>,
    /// Whether a list of the curves stands above; only if there are several.
    pub(super) legend: bool,
}

/// Which vertical axis a curve belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    #[default]
    Left,
    Right,
}

/// What is drawn in one colour.
#[derive(Debug, Default)]
pub(super) struct Curve {
    pub(super) name: String,
    /// Which colour and dashes.
    pub(super) style: usize,
    pub(super) side: Side,
    /// The line to look at.
    pub(super) line: Vec<(f64, f64)>,
    /// A faint one behind it.
    pub(super) faint: Vec<(f64, f64)>,
    pub(super) dots: Vec<Dot>,
    /// Small dots, for many of them.
    pub(super) cloud: bool,
}

/// A point that says what it is when one points at it.
#[derive(Debug, Default, Clone)]
pub(super) struct Dot {
    pub(super) x: f64,
    pub(super) y: f64,
    /// From where to where it may be.
    pub(super) interval: Option<(f64, f64)>,
    pub(super) title: String,
}

/// The classes of a style.
pub(super) fn classes(style: usize) -> String {
    format!("c{} d{}", style % COLOURS, style % DASHES)
}

impl Plot {
    /// Whether anything would be seen.
    pub(super) fn is_empty(&self) -> bool {
        !self.curves.iter().any(|curve| {
            let mut points = curve.points();
            points.any(|(x, y)| x.is_finite() && y.is_finite())
        })
    }

    /// The picture.
    pub(super) fn svg(&self) -> String {
        let legend = self.legend_rows();
        let top = legend.len() as f64 * LINE + LINE + 8.0;
        let bottom = top + HEIGHT;
        let vertical = |axis: &Axis, side: Side| {
            let values = self.curves.iter().filter(|curve| curve.side == side);
            let values = values.flat_map(Curve::heights);
            scale(axis, values, (bottom, top), 0.06)
        };
        let left = vertical(&self.left, Side::Left);
        let right = self
            .right
            .as_ref()
            .map(|axis| (axis, vertical(axis, Side::Right)));
        let left_marks = marks(&self.left, &left, 4);
        let right_marks = right.as_ref().map(|(axis, scale)| marks(axis, scale, 4));
        let width = |marks: &[(f64, String)]| {
            let longest = marks.iter().map(|(_, text)| text.chars().count()).max();
            longest.unwrap_or(0) as f64 * CHARACTER + 12.0
        };
        let from = width(&left_marks).max(30.0);
        let to = WIDTH - right_marks.as_deref().map_or(16.0, width);
        let points = self.curves.iter().flat_map(Curve::points);
        let x = scale(&self.x, points.map(|(x, _)| x), (from, to), 0.0);

        let mut svg = format!(
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\" \
             data-x=\"{}\" data-left=\"{}\"",
            bottom + BOTTOM,
            escape(&self.label),
            x.attribute(),
            left.attribute(),
        );
        if let Some((_, right)) = &right {
            let _ = write!(svg, " data-right=\"{}\"", right.attribute());
        }
        svg.push('>');
        for (row, entries) in legend.iter().enumerate() {
            let y = row as f64 * LINE + 12.0;
            for &(x, index) in entries {
                let curve = &self.curves[index];
                let sample = match curve.cloud {
                    false => format!("<path class=\"line\" d=\"M{x:.1},{:.1}h22\"/>", y - 4.0),
                    true => format!(
                        "<circle class=\"dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>",
                        x + 18.0,
                        y - 4.0
                    ),
                };
                let _ = write!(
                    svg,
                    "<g class=\"{}\">{sample}<text x=\"{:.1}\" y=\"{y:.1}\">{}</text></g>",
                    classes(curve.style),
                    x + 27.0,
                    escape(&self.legend_text(curve)),
                );
            }
        }
        let y = top - 10.0;
        let mut label = |side: Side, x: f64, anchor: &str, text: &str| {
            // Of two axes, each has the colour of its curve.
            let curve = self.curves.iter().find(|curve| curve.side == side);
            let class = match (&self.right, curve) {
                (Some(_), Some(curve)) => format!("axis own {}", classes(curve.style)),
                _ => "axis".to_owned(),
            };
            let _ = write!(
                svg,
                "<text class=\"{class}\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                escape(text)
            );
        };
        label(Side::Left, 0.0, "start", &self.left.label);
        if let Some((axis, _)) = &right {
            label(Side::Right, WIDTH, "end", &axis.label);
        }
        svg.push_str("<g class=\"grid\">");
        for (value, _) in &left_marks {
            let _ = write!(
                svg,
                "<path d=\"M{from:.1},{:.1}H{to:.1}\"/>",
                left.at(*value)
            );
        }
        svg.push_str("</g>");
        // The line of zero is worth seeing where values go below.
        if !left.logarithmic && left.low < 0.0 && left.high > 0.0 {
            let _ = write!(
                svg,
                "<path class=\"zero\" d=\"M{from:.1},{:.1}H{to:.1}\"/>",
                left.at(0.0)
            );
        }
        let mut text = |x: f64, y: f64, anchor: &str, text: &str| {
            let _ = write!(
                svg,
                "<text class=\"mark\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                escape(text)
            );
        };
        for (value, label) in &left_marks {
            text(from - 6.0, left.at(*value) + 4.0, "end", label);
        }
        if let (Some((_, scale)), Some(marks)) = (&right, &right_marks) {
            for (value, label) in marks {
                text(to + 6.0, scale.at(*value) + 4.0, "start", label);
            }
        }
        let x_marks = marks(&self.x, &x, 5);
        for (value, label) in &x_marks {
            let place = x.at(*value);
            let half = label.chars().count() as f64 * CHARACTER / 2.0;
            text(place.min(WIDTH - half), bottom + 16.0, "middle", label);
        }
        text(to, bottom + 33.0, "end", &self.x.label);
        let _ = write!(
            svg,
            "<path class=\"base\" d=\"M{from:.1},{bottom:.1}H{to:.1}\"/>"
        );
        for (value, _) in &x_marks {
            let _ = write!(
                svg,
                "<path class=\"base\" d=\"M{:.1},{bottom:.1}v4\"/>",
                x.at(*value)
            );
        }
        for (value, name) in &self.rules {
            let place = x.at(*value);
            let _ = write!(
                svg,
                "<path class=\"rule\" d=\"M{place:.1},{top:.1}V{bottom:.1}\"/>\
                 <text class=\"mark\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                place + 4.0,
                top + 10.0,
                escape(name)
            );
        }
        let y_of = |curve: &Curve| match (&right, curve.side) {
            (Some((_, right)), Side::Right) => *right,
            _ => left,
        };
        // No curve's noise hides another's line.
        for curve in self.curves.iter().filter(|curve| !curve.line.is_empty()) {
            curve.draw_faint(&mut svg, &x, &y_of(curve));
        }
        for curve in &self.curves {
            curve.draw(&mut svg, &x, &y_of(curve));
        }
        svg.push_str("</svg>");
        svg
    }

    fn legend_text(&self, curve: &Curve) -> String {
        match (&self.right, curve.side) {
            (None, _) => curve.name.clone(),
            (Some(_), Side::Left) => format!("{} (left axis)", curve.name),
            (Some(_), Side::Right) => format!("{} (right axis)", curve.name),
        }
    }

    /// The curves by line of the legend, with their places.
    fn legend_rows(&self) -> Vec<Vec<(f64, usize)>> {
        let mut rows: Vec<Vec<(f64, usize)>> = Vec::new();
        if !self.legend || self.curves.len() < 2 {
            return rows;
        }
        let mut x = f64::INFINITY;
        // Curves of one name and style, such as the runs of one student, are one entry.
        let alike =
            |a: &Curve, b: &Curve| a.name == b.name && a.style == b.style && a.side == b.side;
        for (index, curve) in self.curves.iter().enumerate() {
            if self.curves[..index].iter().any(|other| alike(other, curve)) {
                continue;
            }
            let text = self.legend_text(curve).chars().count() as f64;
            let width = 27.0 + text * CHARACTER;
            if x + width > WIDTH {
                rows.push(Vec::new());
                x = 0.0;
            }
            if let Some(row) = rows.last_mut() {
                row.push((x, index));
            }
            x += width + 22.0;
        }
        rows
    }
}

impl Curve {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let dots = self.dots.iter().map(|dot| (dot.x, dot.y));
        let lines = self.line.iter().chain(&self.faint).copied();
        lines.chain(dots)
    }

    /// Every value on the vertical axis.
    fn heights(&self) -> impl Iterator<Item = f64> {
        let intervals = self.dots.iter().filter_map(|dot| dot.interval);
        let intervals = intervals.flat_map(|(low, high)| [low, high]);
        self.points().map(|(_, y)| y).chain(intervals)
    }

    fn draw_faint(&self, svg: &mut String, x: &Scale, y: &Scale) {
        if !self.faint.is_empty() {
            let _ = write!(svg, "<g class=\"{}\">", classes(self.style));
            self.path(svg, &self.faint, "faint", x, y);
            svg.push_str("</g>");
        }
    }

    /// All but what is faint; that too, as the line, if there is no other.
    fn draw(&self, svg: &mut String, x: &Scale, y: &Scale) {
        let _ = write!(svg, "<g class=\"{}\">", classes(self.style));
        let line = match self.line.is_empty() {
            true => &self.faint,
            false => &self.line,
        };
        if !line.is_empty() {
            self.path(svg, line, "line", x, y);
        }
        for dot in &self.dots {
            let (at_x, at_y) = (x.at(dot.x), y.at(dot.y));
            if !(at_x.is_finite() && at_y.is_finite()) {
                continue;
            }
            if let Some((low, high)) = dot.interval {
                let (low, high) = (y.at(low), y.at(high));
                if low.is_finite() && high.is_finite() {
                    let _ = write!(
                        svg,
                        "<path class=\"interval\" d=\"M{at_x:.1},{low:.1}V{high:.1}\
                         M{:.1},{low:.1}h8M{:.1},{high:.1}h8\"/>",
                        at_x - 4.0,
                        at_x - 4.0
                    );
                }
            }
            let (class, radius) = if self.cloud {
                ("cloud", 2.2)
            } else {
                ("dot", 3.4)
            };
            let _ = write!(
                svg,
                "<circle class=\"{class}\" cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"{radius}\">\
                 <title>{}</title></circle>",
                escape(&dot.title)
            );
        }
        svg.push_str("</g>");
    }

    fn path(&self, svg: &mut String, points: &[(f64, f64)], class: &str, x: &Scale, y: &Scale) {
        let side = match self.side {
            Side::Left => "left",
            Side::Right => "right",
        };
        let mut path = String::with_capacity(points.len() * 12);
        let mut pen_up = true;
        for &(px, py) in points {
            let (px, py) = (x.at(px), y.at(py));
            if !(px.is_finite() && py.is_finite()) {
                pen_up = true;
                continue;
            }
            let _ = write!(path, "{}{px:.1},{py:.1}", if pen_up { 'M' } else { 'L' });
            pen_up = false;
        }
        // A single point has no line; round caps show it as a dot.
        let _ = write!(
            svg,
            "<path class=\"{class}\" data-name=\"{}\" data-side=\"{side}\" d=\"{path}\"/>",
            escape(&self.name)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64)]) -> Plot {
        Plot {
            label: "a < b".into(),
            x: Axis::of("step"),
            left: Axis::of("nats"),
            curves: vec![Curve {
                name: "<run>".into(),
                line: points.to_vec(),
                ..Curve::default()
            }],
            ..Plot::default()
        }
    }

    #[test]
    fn what_is_no_number_interrupts_the_line() {
        let svg = plot(&[
            (0.0, 1.0),
            (1.0, f64::NAN),
            (2.0, 3.0),
            (3.0, f64::INFINITY),
        ])
        .svg();
        let path = svg.split("class=\"line\"").nth(1).unwrap();
        let path = path
            .split(" d=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(path.matches('L').count(), 0, "{path}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("&lt;run&gt;"));
    }

    #[test]
    fn nothing_or_one_value_is_still_a_plot() {
        for points in [
            &[][..],
            &[(0.0, 0.0)],
            &[(5.0, -3.0)],
            &[(1.0, f64::NAN)],
            &[(0.0, 1e300), (1.0, -1e300)],
        ] {
            let svg = plot(points).svg();
            assert!(
                !svg.contains("NaN") && !svg.contains("inf"),
                "{points:?}: {svg}"
            );
        }
        assert!(plot(&[(1.0, f64::NAN)]).is_empty());
        assert!(!plot(&[(1.0, 1.0)]).is_empty());
    }

    #[test]
    fn a_wide_range_is_logarithmic() {
        let wide = plot(&[(0.0, 0.01), (1.0, 1000.0)]);
        assert!(wide.svg().contains(",1\""), "logarithmic");
        let narrow = plot(&[(0.0, 10.0), (1.0, 90.0)]);
        assert!(!narrow.svg().contains(",1\""));
    }

    #[test]
    fn two_axes_keep_their_curves_apart() {
        let mut both = plot(&[(0.0, 1.0), (1.0, 2.0)]);
        both.right = Some(Axis::of("KL"));
        both.legend = true;
        both.curves.push(Curve {
            name: "kl".into(),
            style: 1,
            side: Side::Right,
            line: vec![(0.0, 100.0), (1.0, 200.0)],
            ..Curve::default()
        });
        let svg = both.svg();
        assert!(svg.contains("data-right="));
        assert!(svg.contains("kl (right axis)") && svg.contains("&lt;run&gt; (left axis)"));
        // Both rise from the bottom to the top of their own axis.
        let path = |name: &str| {
            let start = svg.find(&format!("data-name=\"{name}\"")).unwrap();
            let rest = &svg[start..];
            let d = rest.split(" d=\"").nth(1).unwrap();
            d.split('"').next().unwrap().to_owned()
        };
        assert_eq!(path("kl"), path("&lt;run&gt;"));
    }

    #[test]
    fn curves_of_one_name_are_one_entry_of_the_legend() {
        let mut several = plot(&[(0.0, 1.0), (1.0, 2.0)]);
        several.legend = true;
        let runs = ["a", "a", "b"].map(|name| Curve {
            name: name.into(),
            line: vec![(0.0, 1.0)],
            ..Curve::default()
        });
        several.curves = runs.into();
        let svg = several.svg();
        let entries = |name: &str| svg.matches(&format!(">{name}</text>")).count();
        assert_eq!((entries("a"), entries("b")), (1, 1), "{svg}");
    }

    #[test]
    fn thirty_styles_differ() {
        let mut seen: Vec<String> = (0..35).map(classes).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 35);
    }
}
