//! Public traces as tables, and the figures of their axes.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::array_value_to_string;
use serde_json::Value;
use weir_schemas::Request;
use weir_sql::Context;
use weir_store::Store;
use weir_traffic::Event;
use weir_traffic::replay::{ReplayConfig, open};

use crate::common::append;
use crate::parquet_rows::parquet_rows;

/// 2023-11-15 00:00:00 UTC: where a trace without a date begins.
const START_MS: i64 = 1_700_006_400_000;

/// Whose time it is that the requests bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// One clock for all: arrivals are a process.
    Common,
    /// One clock, but somebody ran the requests one after another.
    Staged,
    /// Each session has its own.
    PerSession,
}

pub struct Trace {
    pub name: &'static str,
    pub folder: &'static str,
    read: Read,
    clock: Clock,
}

enum Read {
    /// What `weir replay` makes of a file of the folder, from its own date or from ours.
    Replay { file: &'static str, dated: bool },
    /// A query over files of the folder, each a table of its name.
    Query { tables: &'static [&'static str], sql: &'static str },
}

const fn replayed(name: &'static str, folder: &'static str, file: &'static str, dated: bool) -> Trace {
    Trace { name, folder, read: Read::Replay { file, dated }, clock: Clock::Common }
}

pub const TRACES: [Trace; 8] = [
    replayed("Azure 2023 code", "azure_llm_2023", "code.parquet", true),
    replayed("Azure 2023 conversation", "azure_llm_2023", "conv.parquet", true),
    replayed("Mooncake conversation", "mooncake_fast25", "conversation.parquet", false),
    replayed("Mooncake synthetic", "mooncake_fast25", "synthetic.parquet", false),
    replayed("ServeGen deepseek-r1, drawn", "servegen_clients", "client_windows.parquet", false),
    Trace {
        name: "Claude Code sessions",
        folder: "agentic_coding_sessions",
        read: Read::Query { tables: &["requests"], sql: include_str!("agentic_coding_sessions.sql") },
        clock: Clock::PerSession,
    },
    Trace {
        name: "tau-bench agents",
        folder: "tau_agent_trajectories",
        read: Read::Query { tables: &["llm_calls", "simulations"], sql: include_str!("tau_agent_trajectories.sql") },
        clock: Clock::Staged,
    },
    Trace {
        name: "aider messages",
        folder: "aider_usage_events",
        read: Read::Query { tables: &["events"], sql: include_str!("aider_usage_events.sql") },
        clock: Clock::Common,
    },
];

/// What the views say of one trace.
pub struct Figures {
    pub name: &'static str,
    pub clock: Clock,
    pub requests: i64,
    pub has_prompts: bool,
    /// (axis, value, rule) to requests.
    pub placed: BTreeMap<(String, String, String), i64>,
    /// (hour, phase, side) to tokens.
    tokens: BTreeMap<(String, String, &'static str), i64>,
    /// End of each sliding hour to its archetype and its share of prompts up to 8,192 tokens.
    pub archetypes: BTreeMap<String, (String, f64)>,
    /// End of each sliding hour to its share of requests up to 8,192 tokens in all.
    totals: BTreeMap<String, f64>,
    /// Window length, s, to the index of dispersion.
    pub dispersion: BTreeMap<i64, f64>,
    /// Window length, s, to whole windows and the most arrivals in one.
    windows: BTreeMap<i64, (i64, f64)>,
}

impl Figures {
    /// Every figure under the name that the reference gives it. Times are of use only where there is one clock.
    pub fn comparable(&self) -> BTreeMap<String, f64> {
        let mut named = BTreeMap::from([("requests".to_owned(), self.requests as f64)]);
        for ((axis, value, rule), requests) in &self.placed {
            named.insert(format!("{axis} {value} {rule}"), *requests as f64);
        }
        if self.clock != Clock::Common {
            return named;
        }
        for ((hour, phase, side), tokens) in &self.tokens {
            named.insert(format!("{side} {phase} {hour}"), *tokens as f64);
        }
        for (end, (_, share)) in &self.archetypes {
            named.insert(format!("share_to_8k {end}"), *share);
        }
        for (end, share) in &self.totals {
            named.insert(format!("total_share_to_8k {end}"), *share);
        }
        for (window_s, dispersion) in &self.dispersion {
            named.insert(format!("dispersion {window_s}"), *dispersion);
        }
        for (window_s, (windows, most)) in self.windows.iter().filter(|(_, (windows, _))| *windows > 0) {
            named.insert(format!("windows {window_s}"), *windows as f64);
            named.insert(format!("most {window_s}"), *most);
        }
        named
    }
}

pub async fn figures(trace: &Trace, folder: &Path) -> Figures {
    let data = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(data.path().to_str().expect("a plain path")).await.expect("opens");
    for (version, rows) in rows(trace, folder).await.chunks(5_000).enumerate() {
        append(&store, Request::contract(), version as i64 * 5_000, rows).await;
    }
    weir_features::catch_up(&store).await.expect("catches up");
    let ctx = weir_sql::open(&store).await.expect("opens");
    let whole = async |sql: &str| table(&ctx, sql).await[0][0].parse().expect("a whole number");
    Figures {
        name: trace.name,
        clock: trace.clock,
        requests: whole("SELECT count(*) FROM request_axes").await,
        has_prompts: whole("SELECT count(prompt_tokens) FROM request_axes").await > 0,
        placed: placed(&ctx).await,
        tokens: tokens(&ctx).await,
        archetypes: archetypes(&ctx).await,
        totals: totals(&ctx).await,
        dispersion: dispersion(&ctx).await,
        windows: windows(&ctx).await,
    }
}

async fn rows(trace: &Trace, folder: &Path) -> Vec<Value> {
    match &trace.read {
        Read::Replay { file, dated } => {
            let config = ReplayConfig { start_ms: (!dated).then_some(START_MS), ..ReplayConfig::default() };
            let row = |timed: Result<weir_traffic::Timed, _>| {
                let Event::Request(request) = timed.expect("the trace reads").event else { panic!("only requests") };
                serde_json::to_value(request).expect("requests serialise")
            };
            open(&folder.join(file), config).expect("the trace opens").map(row).collect()
        }
        Read::Query { tables, sql } => parquet_rows(folder, tables, sql).await,
    }
}

/// The result of a query as text, a vector a row.
async fn table(ctx: &Context, sql: &str) -> Vec<Vec<String>> {
    let batches = weir_sql::query(ctx, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let cells = |batch: &RecordBatch, row| {
        batch.columns().iter().map(|column| array_value_to_string(column, row).expect("prints")).collect()
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| cells(batch, row))).collect()
}

/// The same of columns that are numbers.
async fn numbers(ctx: &Context, sql: &str) -> Vec<Vec<f64>> {
    let batches = weir_sql::query(ctx, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let cells = |batch: &RecordBatch, row: usize| {
        let number = |column: &ArrayRef| {
            cast(column, &DataType::Float64).expect("a number").as_primitive::<Float64Type>().value(row)
        };
        batch.columns().iter().map(number).collect()
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| cells(batch, row))).collect()
}

async fn placed(ctx: &Context) -> BTreeMap<(String, String, String), i64> {
    let mut placed = BTreeMap::new();
    for axis in crate::AXES {
        let sql =
            format!("SELECT {axis}, {axis}_rule, count(*) FROM request_axes WHERE {axis} IS NOT NULL GROUP BY 1, 2");
        for row in table(ctx, &sql).await {
            let place = (axis.to_owned(), row[0].clone(), row[1].clone());
            placed.insert(place, row[2].parse().expect("a count"));
        }
    }
    placed
}

async fn tokens(ctx: &Context) -> BTreeMap<(String, String, &'static str), i64> {
    let sql = "SELECT hour, value, prompt_tokens, completion_tokens FROM axis_mix \
        WHERE axis = 'phase' AND value IS NOT NULL";
    let sums = |row: Vec<String>| {
        let side = |name, column: usize| ((row[0].clone(), row[1].clone(), name), row[column].parse().expect("a sum"));
        [side("prompt_tokens", 2), side("completion_tokens", 3)]
    };
    table(ctx, sql).await.into_iter().flat_map(sums).collect()
}

async fn archetypes(ctx: &Context) -> BTreeMap<String, (String, f64)> {
    let sql = "SELECT window_end, archetype, share_to_8k FROM workload_cdf";
    let window = |row: Vec<String>| (row[0].clone(), (row[1].clone(), row[2].parse().expect("a share")));
    table(ctx, sql).await.into_iter().map(window).collect()
}

async fn totals(ctx: &Context) -> BTreeMap<String, f64> {
    let sql = "SELECT window_end, total_share_to_8k FROM workload_cdf WHERE total_share_to_8k IS NOT NULL";
    table(ctx, sql).await.into_iter().map(|row| (row[0].clone(), row[1].parse().expect("a share"))).collect()
}

async fn dispersion(ctx: &Context) -> BTreeMap<i64, f64> {
    let sql = "SELECT window_s, dispersion FROM arrival_process WHERE dispersion IS NOT NULL";
    numbers(ctx, sql).await.into_iter().map(|row| (row[0] as i64, row[1])).collect()
}

async fn windows(ctx: &Context) -> BTreeMap<i64, (i64, f64)> {
    let sql = "SELECT window_s, windows, round(rate_max_per_s * window_s) FROM arrival_process WHERE windows > 0";
    numbers(ctx, sql).await.into_iter().map(|row| (row[0] as i64, (row[1] as i64, row[2]))).collect()
}
