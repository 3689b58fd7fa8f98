//! Log–log panels side by side, as an SVG on a ground of its own: readable on light and dark pages.

use std::fmt::Write;

const COLOURS: [&str; 2] = ["#1f6feb", "#b35900"];
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 330.0;

/// One pair of axes.
pub(crate) struct Panel<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) sizes: &'a [usize],
    /// A name and a positive value for each size.
    pub(crate) series: Vec<(&'a str, Vec<f64>)>,
    /// Powers of the size, drawn dashed from beneath the first series' first point.
    pub(crate) guides: &'a [(&'a str, f64)],
}

pub(crate) fn picture(panels: [Panel<'_>; 2]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"#333\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        2.0 * WIDTH
    );
    for (i, panel) in panels.iter().enumerate() {
        draw(&mut svg, panel, i as f64 * WIDTH);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: &Panel<'_>, left: f64) {
    let values = || panel.series.iter().flat_map(|(_, values)| values).copied();
    let decade_below = values().fold(f64::MAX, f64::min).log10().floor();
    let decade_above = values().fold(f64::MIN, f64::max).log10().ceil();
    let first = panel.sizes.first().map_or(1.0, |&n| n as f64);
    let last = panel.sizes.last().map_or(1.0, |&n| n as f64);
    let (x0, x1, y0, y1) = (left + 60.0, left + WIDTH - 20.0, HEIGHT - 55.0, 40.0);
    let place_x = |x: f64| x0 + (x1 - x0) * (x / first).ln() / (last / first).ln();
    let place_y =
        |y: f64| y0 + (y1 - y0) * (y.log10() - decade_below) / (decade_above - decade_below);
    let line = |svg: &mut String, points: &[(f64, f64)], style: &str| {
        let points: Vec<String> = points
            .iter()
            .map(|&(x, y)| format!("{:.1},{:.1}", place_x(x), place_y(y)))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" {style}/>",
            points.join(" ")
        );
    };
    let text = |svg: &mut String, x: f64, y: f64, anchor: &str, more: &str, words: &str| {
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>"
        );
    };
    for decade in decade_below as i32..=decade_above as i32 {
        let value = 10f64.powi(decade);
        line(svg, &[(first, value), (last, value)], "stroke=\"#ccc\"");
        text(
            svg,
            x0 - 6.0,
            place_y(value) + 4.0,
            "end",
            "",
            &format!("{value}"),
        );
    }
    for (i, &size) in panel.sizes.iter().enumerate() {
        let x = place_x(size as f64);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y0}\" y2=\"{}\" stroke=\"#333\"/>",
            y0 + 4.0
        );
        if i % 2 == 0 {
            text(svg, x, y0 + 17.0, "middle", "", &size.to_string());
        }
    }
    text(
        svg,
        0.5 * (x0 + x1),
        y0 + 34.0,
        "middle",
        "",
        &format!("{} (log scale)", panel.x),
    );
    text(svg, x0, 20.0, "start", "font-weight=\"bold\"", panel.title);
    text(
        svg,
        x0 - 50.0,
        33.0,
        "start",
        "",
        &format!("{} (log scale)", panel.y),
    );
    let start = panel.series.first().and_then(|(_, values)| values.first());
    for (name, power) in panel.guides {
        let start = 0.7 * start.copied().unwrap_or(1.0);
        // A guide ends where the picture does.
        let (top, bottom) = (10f64.powf(decade_above), 10f64.powf(decade_below));
        let end = start * (last / first).powf(*power);
        let stop = match end.clamp(bottom, top) == end {
            true => last,
            false => first * (end.clamp(bottom, top) / start).powf(1.0 / power),
        };
        let end = start * (stop / first).powf(*power);
        let below = if *power < 1.0 { 18.0 } else { -3.0 };
        let style = "stroke=\"#777\" stroke-dasharray=\"5 4\"";
        line(svg, &[(first, start), (stop, end)], style);
        text(
            svg,
            place_x(stop) - 10.0,
            place_y(end) + below,
            "end",
            "fill=\"#555\"",
            name,
        );
    }
    for (i, (name, values)) in panel.series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points: Vec<(f64, f64)> = panel
            .sizes
            .iter()
            .map(|&n| n as f64)
            .zip(values.iter().copied())
            .collect();
        line(
            svg,
            &points,
            &format!("stroke=\"{colour}\" stroke-width=\"1.8\""),
        );
        for &(n, value) in &points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.8\" fill=\"{colour}\"><title>{n}: {value:.4}</title></circle>",
                place_x(n),
                place_y(value)
            );
        }
        let row = y0 - 10.0 - 15.0 * (panel.series.len() - 1 - i) as f64;
        let at = match panel.guides.iter().any(|(_, power)| *power > 0.0) {
            true => (x1, "end"),
            false => (x0 + 8.0, "start"),
        };
        text(svg, at.0, row, at.1, &format!("fill=\"{colour}\""), name);
    }
}
