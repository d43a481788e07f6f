//! What became of requests, put down before their rows go.
//!
//! Outcomes are read from rows, so that a verdict that comes a week late still counts. Rows are kept for so many days, and what a
//! model is worth is worth knowing for longer. Before the rows of a day go, the day's counts are put down: by hour, tenant,
//! model, domain and kind of traffic, without a caller or a session. They add up over any days.
//!
//! A day is put down once: its number is a position in the same commit as its rows. While the rows of a day are there, the view
//! `outcome_pieces` reads those. A request that comes after its day was put down, and whose row is then removed for its age, is in
//! no count, like any row that is older than what is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::{col, lit};
use weir_schemas::{Feedback, Request};
use weir_store::{Advance, Store, TableSpec, UtcDay};

use crate::partials::conformed;
use crate::raw::RawTable;
use crate::session::session;
use crate::{FeaturesError, raw};

const DAY_MS: i64 = 86_400_000;

/// Name of the table.
pub(crate) const TABLE: &str = "outcome_memory";

/// The last day that was put down, as days since 1970.
const POSITION: &str = "features/outcome_memory/day";

/// Days that are put down at once. The days before and after them are read too, for sessions that lie across midnight.
const DAYS_AT_ONCE: i64 = 7;

/// Classes of failure, as `request_outcomes` names them.
const CLASSES: [&str; 13] = [
    "hallucination",
    "wrong_tool",
    "bad_arguments",
    "tool_error",
    "retry_loop",
    "refusal",
    "time_out",
    "truncation",
    "schema_violation",
    "dissatisfaction",
    "safety",
    "fallback",
    "other_error",
];

/// What a call of [`remember`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Days put down.
    pub days: u64,
    /// Rows that they took.
    pub rows: u64,
}

/// The table of remembered outcomes: the columns of the view `live_outcome_pieces`.
pub(crate) fn spec() -> TableSpec {
    let count = |name: String| Field::new(name, DataType::Int64, true);
    let mut fields = vec![
        count("window_start_ms".to_owned()),
        Field::new("tenant", DataType::Utf8, true),
        Field::new("model", DataType::Utf8, true),
        Field::new("domain", DataType::Utf8, true),
        Field::new("is_fact_seeking", DataType::Boolean, true),
    ];
    fields.extend(["requests", "judged", "successes"].map(|name| count(name.to_owned())));
    let of_class = |class| [count(format!("{class}_observed")), count(format!("{class}_failures"))];
    fields.extend(CLASSES.into_iter().flat_map(of_class));
    TableSpec { name: TABLE.to_owned(), schema: Arc::new(Schema::new(fields)), partition_by: None }
}

/// Puts down the outcomes of the days before `first_kept` that have rows and were not put down yet. To be called before rows of
/// requests or of feedback of those days are removed; a second call puts down nothing.
///
/// Reads the rows of those days, and of one day on either side.
///
/// # Errors
/// [`FeaturesError::Store`] when a table cannot be read or written, or another process puts the same days down: nothing is counted
/// twice, and the next call goes on.
pub async fn remember(store: &Store, first_kept: UtcDay) -> Result<Remembered, FeaturesError> {
    let mut done = Remembered::default();
    let Some(requests) = store.existing(Request::contract().name).await? else { return Ok(done) };
    let day_of = |day: UtcDay| day.start_ms().div_euclid(DAY_MS);
    let files = requests.live_files().await?;
    let stored: BTreeSet<i64> = files
        .iter()
        .filter_map(|file| UtcDay::parse(file.partition_value("event_date")?))
        .filter(|day| *day < first_kept)
        .map(day_of)
        .collect();
    if stored.is_empty() {
        return Ok(done);
    }
    let mut table = store.table(&spec()).await?;
    table.refresh().await?;
    let mut position = table.position(POSITION).await?;
    let days: Vec<i64> = stored.into_iter().filter(|day| Some(*day) > position).collect();
    for days in days.chunk_by(|first, next| next.div_euclid(DAYS_AT_ONCE) == first.div_euclid(DAYS_AT_ONCE)) {
        let (Some(&first), Some(&last)) = (days.first(), days.last()) else { continue };
        let rows = pieces(store, first, last).await?;
        let advance = Advance { app_id: POSITION.to_owned(), expected: position, next: last };
        let committed = table.commit(rows, vec![advance]).await?;
        position = Some(last);
        done.days += days.len() as u64;
        done.rows += committed.rows;
    }
    events::remembered(&done);
    Ok(done)
}

/// The outcomes of the days from `first` to `last`, as the table has them.
async fn pieces(store: &Store, first: i64, last: i64) -> Result<Vec<RecordBatch>, FeaturesError> {
    let ctx = session(store).await?;
    let date = |day: i64| lit(UtcDay::of_ms(day * DAY_MS).to_string());
    for RawTable { name, sql_name, .. } in raw::raw_tables() {
        let in_reach = match name {
            name if name == Request::contract().name => {
                col("event_date").gt_eq(date(first - 1)).and(col("event_date").lt_eq(date(last + 1)))
            }
            // What is said of a request may be said much later.
            name if name == Feedback::contract().name => col("event_date").gt_eq(date(first - 1)),
            _ => continue,
        };
        let rows = ctx.table(&sql_name).await?.filter(in_reach)?;
        ctx.deregister_table(&sql_name)?;
        ctx.register_table(&sql_name, rows.into_view())?;
    }
    let of_days =
        col("window_start_ms").gt_eq(lit(first * DAY_MS)).and(col("window_start_ms").lt(lit((last + 1) * DAY_MS)));
    let rows = ctx.table("live_outcome_pieces").await?.filter(of_days)?.collect().await?;
    let schema = spec().schema;
    rows.iter().filter(|rows| rows.num_rows() > 0).map(|rows| conformed(rows, &schema, TABLE)).collect()
}

/// Log line and counter, together.
mod events {
    use super::Remembered;

    pub(super) fn remembered(done: &Remembered) {
        if done.days > 0 {
            metrics::counter!("weir_features_remembered_days_total").increment(done.days);
            tracing::info!(days = done.days, rows = done.rows, "outcomes put down before their rows go");
        }
    }
}
