//! From the tables to calls of a prefix cache, and to what engines are told of its blocks.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use weir_fleet::retention::cache::{Call, answered, chain};
use weir_fleet::retention::{Budget, Class, Directive, PriorityStep, plan, resumption};
use weir_policy_runtime::{KnobRow, Support};

use crate::error::{Failure, Result};
use crate::knobs::{self, Shape};

const CALLS_SQL: &str = include_str!("../sql/retention_calls.sql");

const MODEL_SQL: &str = include_str!("../sql/retention_model.sql");

/// What comes later than this after the end of what came before is another session, as in the views.
const SESSION_GAP_MS: i64 = 1_800_000;

/// The table of retention in a bundle.
pub const TABLE: Shape = Shape {
    name: "kv_retention",
    about: "The priority with which engines keep the blocks of a prompt after its answer, until an age in seconds; 0 is none. \
            Of blocks of one priority those used least recently go first, and where newest_first is 1 those used last. Of the \
            model with most blocks.",
    vllm_sr: Support::Unsupported,
    decide: Support::Advisory,
    keys: &["model", "system_prompt_hash", "tool", "stage", "until_s"],
    values: &["priority", "newest_first", "hits_per_held_s", "ttl_s"],
};

/// The table is learned from the newest requests: what pauses were like a week ago is told by fewer blocks each day.
pub const LEARNED_FROM_MS: i64 = 86_400_000;

/// A pool's prefix cache.
#[derive(Debug, Clone)]
pub struct KvCache {
    /// Its pool; all of them as one where there is none.
    pub pool: Option<String>,
    /// Blocks of all its instances together.
    pub blocks: u64,
    /// Share of them that may be pinned.
    pub pinned_share: f64,
}

/// Rows of [`TABLE`], learned from the requests that arrived in `[from_ms, to_ms]`.
pub async fn rows(context: &weir_sql::Context, from_ms: i64, to_ms: i64, cache: &KvCache) -> Result<Vec<KnobRow>> {
    let (model, calls) = calls(context, from_ms, to_ms + 1, None, cache.pool.as_deref()).await?;
    let span_s = (to_ms - from_ms) as f64 / 1e3;
    let pinned_blocks = cache.blocks as f64 * cache.pinned_share;
    let budget = Budget { pinned_blocks, other_blocks: cache.blocks as f64 - pinned_blocks, span_s };
    let directives = plan(&resumption(&answered(&calls, to_ms)), budget);
    let none = PriorityStep { until_s: 0.0, priority: 0, hits_per_held_s: 0.0, rises: false };
    let row = |class: &Class, step: &PriorityStep, directive: &Directive| KnobRow {
        key: vec![
            model.clone(),
            class.system_prompt_hash.clone(),
            class.tool.clone(),
            Some(class.stage.clone()),
            Some(step.until_s.to_string()),
        ],
        values: vec![
            Some(f64::from(step.priority)),
            Some(f64::from(u8::from(step.rises))),
            Some(step.hits_per_held_s),
            Some(directive.ttl_s),
        ],
        evidence: directive.evidence,
    };
    let mut rows = Vec::new();
    for (class, directive) in &directives {
        if directive.steps.is_empty() {
            rows.push(row(class, &none, directive));
        }
        rows.extend(directive.steps.iter().map(|step| row(class, step, directive)));
    }
    Ok(rows)
}

/// Calls in `[from_ms, to_ms)` of one model, in the order of arrival, with its name. Those that name no session are told by
/// their blocks among themselves.
pub async fn calls(
    session: &weir_sql::Context,
    from_ms: i64,
    to_ms: i64,
    model: Option<&str>,
    pool: Option<&str>,
) -> Result<(Option<String>, Vec<Call>)> {
    let is = |column: &str, name: &str| format!("{column} = '{}'", name.replace('\'', "''"));
    let within = |sql: &str| {
        let pool = pool.map_or("true".to_owned(), |pool| is("pool", pool));
        sql.replace("{from_ms}", &from_ms.to_string()).replace("{to_ms}", &to_ms.to_string()).replace("{pool}", &pool)
    };
    let model = match model {
        Some(model) => Some(model.to_owned()),
        None => {
            let found = knobs::rows(session, &within(MODEL_SQL)).await?;
            let first = found.first().ok_or_else(nothing)?;
            first.get("model").and_then(|name| name.as_str()).map(str::to_owned)
        }
    };
    let condition = model.as_deref().map_or("model is null".to_owned(), |name| is("model", name));
    let batches = weir_sql::query(session, &within(CALLS_SQL).replace("{model}", &condition)).await?;
    let mut sessions = Sessions::default();
    for batch in &batches {
        sessions.add(&Columns::of(batch)?);
    }
    let calls = sessions.finished();
    if calls.is_empty() { Err(nothing()) } else { Ok((model, calls)) }
}

fn nothing() -> Failure {
    Failure::user(
        "no request with hashes of its prefix blocks was observed: have the router send `prefix_block_hashes`, or widen the \
         selection",
    )
}

struct Columns {
    arrival_ms: Int64Array,
    end_ms: Int64Array,
    tenant: StringArray,
    session_id: StringArray,
    system_prompt_hash: StringArray,
    tool: StringArray,
    blocks: ListArray,
}

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self> {
        let column = |name: &str, kind: &DataType| {
            let column =
                batch.column_by_name(name).ok_or_else(|| Failure::ours(format!("the query gives no {name}")))?;
            cast(column, kind).map_err(Failure::ours)
        };
        let number = |name: &str| Ok::<_, Failure>(column(name, &DataType::Int64)?.as_primitive::<Int64Type>().clone());
        let text = |name: &str| Ok::<_, Failure>(column(name, &DataType::Utf8)?.as_string::<i32>().clone());
        let hashes = DataType::List(std::sync::Arc::new(Field::new_list_field(DataType::Int64, true)));
        Ok(Self {
            arrival_ms: number("arrival_ms")?,
            end_ms: number("end_ms")?,
            tenant: text("tenant")?,
            session_id: text("session_id")?,
            system_prompt_hash: text("system_prompt_hash")?,
            tool: text("tool")?,
            blocks: column("prefix_block_hashes", &hashes)?.as_list::<i32>().clone(),
        })
    }
}

#[derive(Default)]
struct Sessions {
    calls: Vec<Call>,
    /// Whether each call names its session.
    named: Vec<bool>,
    /// The last call of each (tenant, session).
    last: HashMap<(String, String), usize>,
}

impl Sessions {
    fn add(&mut self, columns: &Columns) {
        let text = |column: &StringArray, row: usize| column.is_valid(row).then(|| column.value(row).to_owned());
        for row in 0..columns.arrival_ms.len() {
            let (arrival_ms, index) = (columns.arrival_ms.value(row), self.calls.len());
            let session = text(&columns.session_id, row);
            self.named.push(session.is_some());
            let previous = session
                .and_then(|session| self.last.insert((columns.tenant.value(row).to_owned(), session), index))
                .filter(|&before| arrival_ms - self.calls[before].end_ms <= SESSION_GAP_MS);
            let class = Class {
                system_prompt_hash: text(&columns.system_prompt_hash, row),
                tool: text(&columns.tool, row),
                stage: String::new(),
            };
            let blocks = columns.blocks.value(row).as_primitive::<Int64Type>().values().to_vec();
            self.calls.push(Call { arrival_ms, end_ms: columns.end_ms.value(row), class, previous, blocks });
        }
    }

    fn finished(mut self) -> Vec<Call> {
        let unnamed: Vec<usize> = (0..self.calls.len()).filter(|call| !self.named[*call]).collect();
        let prompts: Vec<Vec<i64>> = unnamed.iter().map(|call| self.calls[*call].blocks.clone()).collect();
        for (call, previous) in unnamed.iter().zip(chain(&prompts)) {
            self.calls[*call].previous = previous.map(|previous| unnamed[previous]);
        }
        let mut places = vec![1_u32; self.calls.len()];
        for index in 0..self.calls.len() {
            if let Some(previous) = self.calls[index].previous {
                places[index] = places[previous] + 1;
            }
            self.calls[index].class.stage = stage(places[index]).to_owned();
        }
        self.calls
    }
}

/// As the views on tools cut sessions.
fn stage(place: u32) -> &'static str {
    match place {
        0..=4 => "1 to 4",
        5..=12 => "5 to 12",
        _ => "later",
    }
}
