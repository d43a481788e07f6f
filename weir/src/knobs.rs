//! The tables for knobs that a bundle brings beside its policy, from the views on outcomes.
//!
//! Risk of callers is none of them: their names are pseudonyms, which no router knows.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tempfile::TempDir;
use weir_policy_runtime::{KNOB_SCHEMA, KnobRow, KnobTable, Support, knob_path};
use weir_sql::{Context, Format};
use weir_store::Store;

use crate::error::{Failure, Result};
use crate::retention::{self, KvCache};

/// What a table is, apart from its rows.
pub struct Shape {
    pub name: &'static str,
    pub about: &'static str,
    /// What vLLM Semantic Router can do with it: it cannot load what was learned elsewhere, but some of its settings are
    /// such figures.
    pub vllm_sr: Support,
    /// What `weir decide` does with it: it hands every table out, and acts by some.
    pub decide: Support,
    pub keys: &'static [&'static str],
    pub values: &'static [&'static str],
}

/// A table whose rows a query gives.
struct Knob {
    shape: Shape,
    sql: &'static str,
}

macro_rules! knobs {
    ($($name:literal, $support:ident, $decide:ident, [$($key:literal),+] => [$($value:literal),+], $about:literal;)*) => {
        &[$(Knob {
            shape: Shape {
                name: $name,
                about: $about,
                vllm_sr: Support::$support,
                decide: Support::$decide,
                keys: &[$($key),+],
                values: &[$($value),+],
            },
            sql: include_str!(concat!("../sql/knobs/", $name, ".sql")),
        }),*]
    };
}

const KNOBS: &[Knob] = knobs! {
    "model_reputation", Unsupported, Enforced, ["model", "domain"] =>
        ["hallucination_rate", "hallucination_rate_low", "hallucination_rate_high", "success_rate", "success_rate_low", "success_rate_high"],
        "How often a model hallucinates on checked requests that seek facts, and answers well, by domain; intervals of 95 %.";
    "failure_rates", Unsupported, Advisory, ["class", "model", "domain"] => ["rate", "rate_low", "rate_high"],
        "How often a model fails in a way, of the requests in which it could show; intervals of 95 %.";
    "handoff_penalties", Unsupported, Advisory, ["from_model", "to_model"] =>
        ["extra_requests", "extra_requests_low", "extra_requests_high", "extra_requests_unadjusted"],
        "How many more requests a session takes after a switch of models than in the same situation without one.";
    "token_budgets", Unsupported, Advisory, ["domain", "system_prompt_hash", "place"] =>
        ["tokens_p50", "tokens_p90", "tokens_p99", "trigger_tokens"],
        "Tokens that a session has used by its n-th request; the trigger is three times the median.";
    "tools", Unsupported, Advisory, ["domain", "tool", "model", "stage"] =>
        ["success_rate", "success_rate_low", "success_rate_high", "latency_p50_ms"],
        "How often a tool works in a model's hands, by domain and stage of the session; intervals of 95 %.";
    "resume_curves", Unsupported, Advisory, ["tool", "within_s"] =>
        ["resumed_share", "resumed_share_low", "resumed_share_high", "held_s_mean"],
        "The share of sessions that go on within a time after a tool was called, and for how long blocks are held until then.";
    "fact_check_gates", Unsupported, Enforced, ["domain", "complexity", "model"] =>
        ["rate", "rate_low", "rate_high", "share_before", "share_through", "found_share"],
        "Which answers are worth checking for hallucination: those first that are found to hallucinate most.";
    "effective_context", Unsupported, Advisory, ["model", "domain", "from_tokens"] =>
        ["success_rate", "success_rate_low", "success_rate_high", "effective_tokens"],
        "How often a model answers well by length of prompt, and from which on worse than with shorter ones.";
    "budget_trials", Unsupported, Advisory, ["domain", "system_prompt_hash", "action"] =>
        ["multiple", "reached", "tokens_after_share", "reached_good_share", "good_share"],
        "What acting on sessions at so many times the median of tokens would have met, and whom it would have harmed.";
    "caller_budgets", Unsupported, Advisory, ["tenant", "role"] => ["tokens_p50", "tokens_p90", "tokens_p99", "ceiling_tokens"],
        "Tokens that a caller of a role uses in a day; the ceiling is three times the median.";
    "cut_back_gains", Unsupported, Advisory, ["domain", "from_place", "failed_requests", "failed_last", "cut_requests"] =>
        ["gain", "gain_low", "gain_high", "extra_tokens"],
        "What it gains in success to go on from an earlier request, and what it costs in tokens; intervals of 95 %.";
    "tool_ranking", Unsupported, Advisory, ["domain", "stage", "tool", "model"] =>
        ["place", "is_authorised", "reward", "success_rate_low", "success_rate_high", "information_density"],
        "In which order to offer tools: allowed ones first, then by success and by use of what they return.";
    "permission_rules", Unsupported, Advisory, ["tenant", "verdict", "role", "tool", "operation", "domain"] =>
        ["confidence", "confidence_low", "exceptions"],
        "Candidates for rules on tool calls, for a person to accept: decisions that were nearly always the same; null is any.";
    "risk_actions", Unsupported, Advisory, ["action", "score"] =>
        ["threshold", "catch_rate", "false_alarm_rate", "false_alarm_rate_high"],
        "From which score of risk on to act, within a share of false alarms for each action.";
    "rebalancing", Unsupported, Advisory, ["metric", "model", "domain", "to_model"] =>
        ["rate", "rate_low", "rate_high", "to_rate", "to_rate_high"],
        "After a model's errors rose or its quality fell: who is shown to do better since, by domain.";
    "semantic_cache", Advisory, Advisory, ["domain", "threshold"] => ["bad_rate", "bad_rate_low", "bad_rate_high"],
        "The share of bad answers among hits of the semantic cache at a similarity or above; intervals of 95 %.";
    "reasoning_gain", Advisory, Advisory, ["model", "domain", "complexity"] => ["success_on", "success_off", "gain", "extra_tokens"],
        "What reasoning gains in success, and takes in tokens.";
};

/// The tables that have a row, as files of a bundle. With a `cache`, one of retention is among them.
pub async fn files(store: &Store, cache: Option<KvCache>) -> Result<BTreeMap<String, Vec<u8>>> {
    let context = weir_sql::open(store).await?;
    let Some((from_ms, to_ms)) = period(&context).await? else { return Ok(BTreeMap::new()) };
    let shared = outcomes(context).await?;
    let mut files = BTreeMap::new();
    for Knob { shape, sql } in KNOBS {
        let rows: Vec<KnobRow> = rows(&shared.context, sql).await?.iter().map(|row| cell(shape, row)).collect();
        if !rows.is_empty() {
            files.insert(knob_path(shape.name), shape.table(from_ms, to_ms, rows)?);
        }
    }
    if let Some(cache) = cache {
        let from_ms = from_ms.max(to_ms - retention::LEARNED_FROM_MS);
        let rows = retention::rows(&shared.context, from_ms, to_ms, &cache).await?;
        files.insert(knob_path(retention::TABLE.name), retention::TABLE.table(from_ms, to_ms, rows)?);
    }
    Ok(files)
}

/// Views on outcomes that many others lean on, each after those that it leans on.
const SHARED_VIEWS: [&str; 10] = [
    "session_turns",
    "rewards",
    "sessions",
    "request_outcomes",
    "outcome_pieces",
    "failure_checks",
    "failure_rates",
    "session_tokens",
    "effective_context",
    "risk_thresholds",
];

/// A session for many questions about outcomes: what they share is computed once.
pub struct Outcomes {
    /// The session.
    pub context: Context,
    /// Where what they share is kept; removed with this.
    _folder: TempDir,
}

/// Makes one of a session in which no view on outcomes has been asked yet. Linear in requests, of which it keeps a few columns on
/// the disk while it lives.
pub async fn outcomes(context: Context) -> Result<Outcomes> {
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::outside(format!("no temporary folder could be made: {error}; set TMPDIR to one with room"))
    })?;
    weir_features::keep_views(&context, &SHARED_VIEWS, folder.path()).await?;
    Ok(Outcomes { context, _folder: folder })
}

/// Arrival of the oldest and the newest request that is stored, ms since the Unix epoch; none where no request is.
pub async fn period(context: &Context) -> Result<Option<(i64, i64)>> {
    let period = rows(context, include_str!("../sql/knobs/period.sql")).await?;
    let moment = |name: &str| period.first().and_then(|row| row.get(name)).and_then(Value::as_i64);
    Ok(moment("from_ms").zip(moment("to_ms")))
}

impl Shape {
    fn table(&self, from_ms: i64, to_ms: i64, rows: Vec<KnobRow>) -> Result<Vec<u8>> {
        let table = KnobTable {
            schema: KNOB_SCHEMA,
            about: self.about.to_owned(),
            routers: BTreeMap::from([
                ("vllm-semantic-router".to_owned(), self.vllm_sr),
                ("weir-decide".to_owned(), self.decide),
            ]),
            from_ms,
            to_ms,
            keys: self.keys.iter().map(|name| (*name).to_owned()).collect(),
            values: self.values.iter().map(|name| (*name).to_owned()).collect(),
            rows,
            left_out: 0,
        };
        table.finished().map_err(Failure::ours)?.to_json().map_err(Failure::ours)
    }
}

fn cell(shape: &Shape, row: &Map<String, Value>) -> KnobRow {
    KnobRow {
        key: shape.keys.iter().map(|name| row.get(*name)?.as_str().map(str::to_owned)).collect(),
        values: shape.values.iter().map(|name| row.get(*name)?.as_f64().map(to_twelve_digits)).collect(),
        evidence: row.get("evidence").and_then(Value::as_u64).unwrap_or_default(),
    }
}

/// The last bits of a sum depend on the order of its parts, which is another in each run; a bundle of the same tables and seed is to be
/// the same.
fn to_twelve_digits(number: f64) -> f64 {
    format!("{number:.11e}").parse().unwrap_or(number)
}

/// The rows of a query, by the names of its columns.
pub async fn rows(context: &Context, sql: &str) -> Result<Vec<Map<String, Value>>> {
    let batches = weir_sql::query(context, sql).await?;
    let json = weir_sql::render(&batches, Format::Json)?;
    serde_json::from_str(&json).map_err(Failure::ours)
}
