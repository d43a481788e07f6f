//! Charts as SVG: lines over steps of equal width, and bars.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::html::escaped;
use super::sections::{Chart, Shown};
use super::{Filled, cell};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 70.0;
/// The last mark's label is centred under it.
const RIGHT: f64 = 55.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 20.0;
const BAR: f64 = 20.0;
/// Where the bars begin, behind their labels.
const LABELS: f64 = 220.0;
/// Marks on the x axis at most.
const MARKS: usize = 8;

/// The chart of a section that has one and whose figures allow it.
pub(super) fn svg(filled: &Filled) -> Option<String> {
    match filled.section.chart? {
        Chart::Lines { x, series } => lines(filled, x, series),
        Chart::Bars { label, value } => Some(bars(filled, label, value)),
    }
}

fn column(filled: &Filled, name: &str) -> (&'static str, Shown) {
    let found = filled.section.columns.iter().find(|(column, _, _)| *column == name);
    found.map_or(("", Shown::Text), |(_, heading, shown)| (*heading, *shown))
}

fn number(row: &Map<String, Value>, name: &str) -> Option<f64> {
    row.get(name)?.as_f64()
}

fn lines(filled: &Filled, x: &str, series: &[&str]) -> Option<String> {
    let rows = &filled.rows;
    if rows.len() < 2 {
        return None;
    }
    let all = || series.iter().flat_map(|name| rows.iter().filter_map(|row| number(row, name)));
    let (_, shown) = column(filled, series.first()?);
    // Shares have their whole scale.
    let most = if shown == Shown::Percent { 1.0 } else { all().fold(0.0, f64::max) };
    if most <= 0.0 {
        return None;
    }
    let x_of = |row: usize| LEFT + (WIDTH - LEFT - RIGHT) * row as f64 / (rows.len() - 1) as f64;
    let y_of = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / most);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
    for part in [0.0, 0.5, 1.0] {
        let (y, label) = (y_of(part * most), cell(Some(&Value::from(part * most)), shown));
        writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            y + 4.0
        )
        .ok()?;
    }
    let (_, x_shown) = column(filled, x);
    for (at, row) in rows.iter().enumerate().step_by(rows.len().div_ceil(MARKS)) {
        let label = escaped(&cell(row.get(x), x_shown));
        let y = HEIGHT - 6.0;
        writeln!(svg, "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>", x_of(at)).ok()?;
    }
    for ((name, class), place) in series.iter().zip(["first", "second"]).zip(0..) {
        let points: Vec<String> = (0..)
            .zip(rows)
            .filter_map(|(at, row)| Some(format!("{:.1},{:.1}", x_of(at), y_of(number(row, name)?))))
            .collect();
        let (heading, _) = column(filled, name);
        writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" ")).ok()?;
        let x = LEFT + 140.0 * f64::from(place);
        writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"8\" y2=\"8\"/><text x=\"{:.1}\" y=\"12\">{heading}</text>",
            x + 16.0,
            x + 21.0
        )
        .ok()?;
    }
    svg += "</svg>\n";
    Some(svg)
}

fn bars(filled: &Filled, label: &[&str], value: &str) -> String {
    let most = filled.rows.iter().filter_map(|row| number(row, value)).fold(0.0, f64::max);
    let (_, shown) = column(filled, value);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\">\n", BAR * filled.rows.len() as f64 + 4.0);
    for (row, place) in filled.rows.iter().zip(0..) {
        let names: Vec<String> = label.iter().map(|name| cell(row.get(*name), Shown::Text)).collect();
        let (text, figure) = (escaped(&names.join(" ")), cell(row.get(value), shown));
        let width =
            if most > 0.0 { number(row, value).unwrap_or_default() / most * (WIDTH - LABELS - 70.0) } else { 0.0 };
        let y = BAR * f64::from(place);
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\
             <rect class=\"bar\" x=\"{LABELS}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"12\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{figure}</text>\n",
            LABELS - 8.0,
            y + 14.0,
            y + 4.0,
            LABELS + width + 6.0,
            y + 14.0
        );
    }
    svg + "</svg>\n"
}
