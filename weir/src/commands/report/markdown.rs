//! A report in Markdown. Charts of bars are a column of blocks; lines are left to HTML.

use std::fmt::Write;

use serde_json::Value;

use super::sections::{Chart, Shown};
use super::{Filled, Report, cell};

/// Blocks of a bar at most.
const BLOCKS: f64 = 20.0;

pub(super) fn page(report: &Report) -> String {
    let mut page = format!("# {}\n\n{}\n", report.title, report.period());
    for filled in &report.filled {
        write!(page, "\n## {}\n\n{}\n\n", filled.section.title, filled.section.about).expect("a string takes text");
        if filled.rows.is_empty() {
            writeln!(page, "{}", filled.section.nothing).expect("a string takes text");
        } else {
            page += &table(filled);
        }
    }
    page
}

fn table(filled: &Filled) -> String {
    let columns = filled.section.columns;
    let bar = charted(filled);
    let mut table = String::from("|");
    columns.iter().for_each(|(_, heading, _)| table += &format!(" {heading} |"));
    table += if bar.is_some() { " |\n|" } else { "\n|" };
    for (_, _, shown) in columns {
        table += if matches!(shown, Shown::Text | Shown::Moment) { " --- |" } else { " ---: |" };
    }
    table += if bar.is_some() { " --- |\n" } else { "\n" };
    for row in &filled.rows {
        table.push('|');
        for (name, _, shown) in columns {
            table += &format!(" {} |", escaped(&cell(row.get(*name), *shown)));
        }
        if let Some((value, most)) = bar {
            let share = row.get(value).and_then(Value::as_f64).unwrap_or_default() / most;
            table += &format!(" {} |", "█".repeat((BLOCKS * share).round() as usize));
        }
        table.push('\n');
    }
    table
}

/// The column that bars are drawn of, and its largest value.
fn charted(filled: &Filled) -> Option<(&'static str, f64)> {
    let value = match filled.section.chart? {
        Chart::Bars { value, .. } => value,
        Chart::Lines { series, .. } => *series.first()?,
    };
    let most = filled.rows.iter().filter_map(|row| row.get(value)?.as_f64()).fold(0.0, f64::max);
    (most > 0.0).then_some((value, most))
}

/// Names come from outside: none of them ends a cell, begins a tag or a link.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '|' | '<' | '>' | '[' | ']' | '`' | '*' | '_' | '\\' => safe.extend(['\\', letter]),
            letter if letter.is_control() => safe.push(' '),
            letter => safe.push(letter),
        }
    }
    safe
}
