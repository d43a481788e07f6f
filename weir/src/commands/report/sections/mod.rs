//! What a report holds: for each section a question, a query, its columns, and a chart.

mod routing;
mod workload;

pub(super) use routing::SECTIONS as ROUTING;
pub(super) use workload::SECTIONS as WORKLOAD;

/// How a column is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Text,
    /// Whole, with thousands apart.
    Count,
    /// With so many digits behind the point.
    Number(usize),
    Percent,
    /// A moment in UTC, to the minute.
    Moment,
}

/// A column of a query: its name there, its heading, and how its cells are written.
pub(super) type Column = (&'static str, &'static str, Shown);

/// A chart of some of the columns.
#[derive(Debug, Clone, Copy)]
pub(super) enum Chart {
    /// A line for each of `series` over `x`, whose steps are drawn equally wide.
    Lines { x: &'static str, series: &'static [&'static str] },
    /// A bar for each row.
    Bars { label: &'static [&'static str], value: &'static str },
}

pub(super) struct Section {
    pub(super) title: &'static str,
    /// What it says and how to read it.
    pub(super) about: &'static str,
    pub(super) sql: &'static str,
    pub(super) columns: &'static [Column],
    pub(super) chart: Option<Chart>,
    /// Said in place of the table where there is no row.
    pub(super) nothing: &'static str,
}
