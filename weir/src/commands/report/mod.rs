//! `weir report`: pages for people, of figures that the views give.

mod charts;
mod html;
mod markdown;
mod sections;

use std::path::Path;

use serde_json::{Map, Value, json};
use weir_sql::Context;

use self::sections::{ROUTING, Section, Shown, WORKLOAD};
use super::{configuration, print_json, store_to_read};
use crate::cli::{Common, PageArgs, ReportCommand, ReportFormat, RoutingReportArgs, WorkloadReportArgs};
use crate::error::{Failure, Result};
use crate::knobs::{outcomes, period as period_stored, rows};
use crate::progress::Progress;

/// Rows of the traffic's table at most; the period is cut into so many steps of a round length.
const STEPS_MAX: i64 = 48;
/// Lengths of a step: 10 minutes, an hour, 6 hours, a day, a week.
const STEPS_MS: [i64; 5] = [600_000, 3_600_000, 21_600_000, 86_400_000, 604_800_000];

/// A section with the rows that its query gave.
struct Filled {
    section: &'static Section,
    rows: Vec<Map<String, Value>>,
}

/// A report before it is written.
struct Report {
    title: &'static str,
    /// Begin and end, ms since the Unix epoch; everything that is stored where there is none.
    period: Option<(i64, i64)>,
    filled: Vec<Filled>,
}

/// Runs the command.
pub async fn run(common: &Common, command: ReportCommand) -> Result<()> {
    match command {
        ReportCommand::Workload(args) => workload(common, args).await,
        ReportCommand::Routing(args) => routing(common, args).await,
    }
}

async fn workload(common: &Common, args: WorkloadReportArgs) -> Result<()> {
    if [args.ttft_ms, args.tpot_ms].into_iter().any(|objective| !objective.is_finite() || objective <= 0.0) {
        return Err(Failure::user("--ttft-ms and --tpot-ms must be above 0"));
    }
    let config = configuration(common)?;
    let store = store_to_read(&config)?;
    let context = weir_sql::open(&store).await?;
    let (from_ms, to_ms) = period(&context, args.from, args.to).await?;
    let step_ms = STEPS_MS.into_iter().find(|step| (to_ms - from_ms) / step <= STEPS_MAX).unwrap_or(STEPS_MS[4]);
    let settings = [
        ("{from_ms}", from_ms.to_string()),
        ("{to_ms}", to_ms.to_string()),
        ("{step_ms}", step_ms.to_string()),
        ("{ttft_ms}", args.ttft_ms.to_string()),
        ("{tpot_ms}", args.tpot_ms.to_string()),
    ];
    let filled = fill(&context, &WORKLOAD, &settings).await?;
    shown(common, &Report { title: "Workload", period: Some((from_ms, to_ms)), filled }, args.page)
}

async fn routing(common: &Common, args: RoutingReportArgs) -> Result<()> {
    let config = configuration(common)?;
    let store = store_to_read(&config)?;
    let context = weir_sql::open(&store).await?;
    if period_stored(&context).await?.is_none() {
        return Err(Failure::user("there is nothing to report: no request is stored yet; `weir run` does it"));
    }
    let progress = Progress::wait("looking at what became of every request", common.json);
    let shared = outcomes(context).await?;
    let context = &shared.context;
    let classes: Vec<String> = names(context, include_str!("sql/routing/classes.sql")).await?;
    if let Some((class, _)) = args.weights.iter().find(|(class, _)| !classes.contains(class)) {
        return Err(Failure::user(format!("{class} is no class of failure: there are {}", classes.join(", "))));
    }
    // The names were checked: none of them is more than a name.
    let arms =
        args.weights.iter().map(|(class, weight)| format!("WHEN class = '{class}' THEN CAST({weight} AS DOUBLE) "));
    let weight = format!("CASE {}ELSE 1.0 END", arms.chain(["WHEN FALSE THEN 1.0 ".to_owned()]).collect::<String>());
    let filled = fill(context, &ROUTING, &[("{weight}", weight)]).await?;
    drop(progress);
    shown(common, &Report { title: "Routing", period: None, filled }, args.page)
}

async fn fill(context: &Context, sections: &'static [Section], settings: &[(&str, String)]) -> Result<Vec<Filled>> {
    let mut filled = Vec::with_capacity(sections.len());
    for section in sections {
        let sql = settings.iter().fold(section.sql.to_owned(), |sql, (name, value)| sql.replace(name, value));
        filled.push(Filled { section, rows: rows(context, &sql).await? });
    }
    Ok(filled)
}

/// The texts of a query's column `name`.
async fn names(context: &Context, sql: &str) -> Result<Vec<String>> {
    let rows = rows(context, sql).await?;
    Ok(rows.iter().filter_map(|row| row.get("name")?.as_str().map(str::to_owned)).collect())
}

fn shown(common: &Common, report: &Report, page: PageArgs) -> Result<()> {
    if common.json {
        return print_json(&report.json());
    }
    let text = match page.format {
        ReportFormat::Markdown => markdown::page(report),
        ReportFormat::Html => html::page(report),
    };
    match page.output {
        Some(path) => written(&path, &text),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

fn written(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)
        .map_err(|error| Failure::user(format!("cannot write the report to {}: {error}", path.display())))
}

/// What was asked for, else all that was summarised.
async fn period(context: &Context, from_ms: Option<i64>, to_ms: Option<i64>) -> Result<(i64, i64)> {
    let all = rows(context, include_str!("sql/workload/range.sql")).await?;
    let known = |name: &str| all.first().and_then(|row| row.get(name)).and_then(Value::as_i64);
    let (Some(first_ms), Some(last_ms)) = (known("from_ms"), known("to_ms")) else {
        return Err(Failure::user("there is nothing to report: no request was summarised yet; `weir run` does it"));
    };
    if from_ms.is_some_and(|from_ms| from_ms >= last_ms) || to_ms.is_some_and(|to_ms| to_ms <= first_ms) {
        let (first, last) = (moment(first_ms), moment(last_ms));
        return Err(Failure::user(format!(
            "nothing was summarised in that period: what there is is of {first} to {last}"
        )));
    }
    let (from_ms, to_ms) = (from_ms.unwrap_or(first_ms), to_ms.unwrap_or(last_ms));
    if from_ms >= to_ms {
        return Err(Failure::user("the period is empty: --from must be before --to"));
    }
    Ok((from_ms, to_ms))
}

impl Report {
    fn json(&self) -> Value {
        let sections = self.filled.iter().map(|filled| (name(filled.section.title), json!(filled.rows)));
        let mut report = json!({ "sections": sections.collect::<Map<String, Value>>() });
        if let Some((from_ms, to_ms)) = self.period {
            report["from_ms"] = from_ms.into();
            report["to_ms"] = to_ms.into();
        }
        report
    }

    fn period(&self) -> String {
        match self.period {
            Some((from_ms, to_ms)) => format!("{} to {} UTC", moment(from_ms), moment(to_ms)),
            None => "Everything that is stored.".to_owned(),
        }
    }
}

/// A title as a key.
fn name(title: &str) -> String {
    title.to_lowercase().replace(' ', "_")
}

/// A moment in UTC, to the minute.
fn moment(ms: i64) -> String {
    let day = weir_store::UtcDay::of_ms(ms);
    let minute = (ms - day.start_ms()) / 60_000;
    format!("{day} {:02}:{:02}", minute / 60, minute % 60)
}

/// A cell as people read it.
fn cell(value: Option<&Value>, shown: Shown) -> String {
    let Some(value) = value.filter(|value| !value.is_null()) else { return "-".to_owned() };
    match (shown, value, value.as_f64()) {
        (Shown::Count, _, Some(number)) => thousands(number),
        (Shown::Number(digits), _, Some(number)) => format!("{number:.digits$}"),
        (Shown::Percent, _, Some(share)) => format!("{:.1} %", 100.0 * share),
        // 2023-11-14T22:13:20 and more.
        (Shown::Moment, Value::String(text), _) => text.replace('T', " ").chars().take(16).collect(),
        (_, Value::String(text), _) => text.clone(),
        (_, other, _) => other.to_string(),
    }
}

/// A whole number with a comma between thousands.
fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::from(if number <= -0.5 { "-" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_written_as_their_columns_say() {
        let shown = |value: Value, shown| cell(Some(&value), shown);
        assert_eq!(shown(json!(1_234_567), Shown::Count), "1,234,567");
        assert_eq!(shown(json!(999.6), Shown::Count), "1,000");
        assert_eq!(shown(json!(-1000), Shown::Count), "-1,000");
        assert_eq!(shown(json!(0.1234), Shown::Percent), "12.3 %");
        assert_eq!(shown(json!(2.0 / 3.0), Shown::Number(2)), "0.67");
        assert_eq!(shown(json!("2023-11-14T22:13:20"), Shown::Moment), "2023-11-14 22:13");
        assert_eq!(shown(Value::Null, Shown::Text), "-");
        assert_eq!(cell(None, Shown::Count), "-");
        assert_eq!(moment(1_700_000_000_000), "2023-11-14 22:13");
    }
}
