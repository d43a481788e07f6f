//! A report as one HTML page that needs nothing beside it: no script, no font, no request.

use std::fmt::Write;

use super::sections::Shown;
use super::{Filled, Report, cell, charts};

const STYLE: &str = include_str!("report.css");

pub(super) fn page(report: &Report) -> String {
    let (title, period) = (report.title, report.period());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}, {period}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<h1>{title}</h1>\n<p>{period}</p>\n"
    );
    for filled in &report.filled {
        let (title, about) = (filled.section.title, escaped(filled.section.about));
        write!(page, "<section>\n<h2>{title}</h2>\n<p>{about}</p>\n").expect("a string takes text");
        if filled.rows.is_empty() {
            writeln!(page, "<p class=\"nothing\">{}</p>", filled.section.nothing).expect("a string takes text");
        } else {
            page += &charts::svg(filled).unwrap_or_default();
            page += &table(filled);
        }
        page += "</section>\n";
    }
    page + "</body>\n</html>\n"
}

fn table(filled: &Filled) -> String {
    let mut table = String::from("<table>\n<thead><tr>");
    let class = |shown: Shown| if matches!(shown, Shown::Text | Shown::Moment) { "" } else { " class=\"number\"" };
    for (_, heading, shown) in filled.section.columns {
        table += &format!("<th{}>{heading}</th>", class(*shown));
    }
    table += "</tr></thead>\n<tbody>\n";
    for row in &filled.rows {
        table += "<tr>";
        for (name, _, shown) in filled.section.columns {
            table += &format!("<td{}>{}</td>", class(*shown), escaped(&cell(row.get(*name), *shown)));
        }
        table += "</tr>\n";
    }
    table + "</tbody>\n</table>\n"
}

/// Names come from outside: none of them is markup.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            letter => safe.push(letter),
        }
    }
    safe
}
