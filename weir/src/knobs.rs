//! The tables for knobs that a bundle brings beside its policy, from the views on outcomes.
//!
//! Risk of callers is none of them: their names are pseudonyms, which no router knows.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use weir_policy_runtime::{KNOB_SCHEMA, KnobRow, KnobTable, Support, knob_path};
use weir_sql::{Context, Format};
use weir_store::Store;

use crate::error::{Failure, Result};

struct Knob {
    name: &'static str,
    about: &'static str,
    /// What vLLM Semantic Router can do with it: it cannot load what was learned elsewhere, but some of its settings are
    /// such figures.
    vllm_sr: Support,
    keys: &'static [&'static str],
    values: &'static [&'static str],
    sql: &'static str,
}

macro_rules! knobs {
    ($($name:literal, $support:ident, [$($key:literal),+] => [$($value:literal),+], $about:literal;)*) => {
        &[$(Knob {
            name: $name,
            about: $about,
            vllm_sr: Support::$support,
            keys: &[$($key),+],
            values: &[$($value),+],
            sql: include_str!(concat!("../sql/knobs/", $name, ".sql")),
        }),*]
    };
}

const KNOBS: &[Knob] = knobs! {
    "model_reputation", Unsupported, ["model", "domain"] =>
        ["hallucination_rate", "hallucination_rate_low", "hallucination_rate_high", "success_rate", "success_rate_low", "success_rate_high"],
        "How often a model hallucinates on checked requests that seek facts, and answers well, by domain; intervals of 95 %.";
    "failure_rates", Unsupported, ["class", "model", "domain"] => ["rate", "rate_low", "rate_high"],
        "How often a model fails in a way, of the requests in which it could show; intervals of 95 %.";
    "handoff_penalties", Unsupported, ["from_model", "to_model"] =>
        ["extra_requests", "extra_requests_low", "extra_requests_high", "extra_requests_unadjusted"],
        "How many more requests a session takes after a switch of models than in the same situation without one.";
    "token_budgets", Unsupported, ["domain", "system_prompt_hash", "place"] =>
        ["tokens_p50", "tokens_p90", "tokens_p99", "trigger_tokens"],
        "Tokens that a session has used by its n-th request; the trigger is three times the median.";
    "tools", Unsupported, ["domain", "tool", "model", "stage"] =>
        ["success_rate", "success_rate_low", "success_rate_high", "latency_p50_ms"],
        "How often a tool works in a model's hands, by domain and stage of the session; intervals of 95 %.";
    "resume_curves", Unsupported, ["tool", "within_s"] =>
        ["resumed_share", "resumed_share_low", "resumed_share_high", "held_s_mean"],
        "The share of sessions that go on within a time after a tool was called, and for how long blocks are held until then.";
    "semantic_cache", Advisory, ["domain", "threshold"] => ["bad_rate", "bad_rate_low", "bad_rate_high"],
        "The share of bad answers among hits of the semantic cache at a similarity or above; intervals of 95 %.";
    "reasoning_gain", Advisory, ["model", "domain", "complexity"] => ["success_on", "success_off", "gain", "extra_tokens"],
        "What reasoning gains in success, and takes in tokens.";
};

/// The tables that have a row, as files of a bundle.
pub async fn files(store: &Store) -> Result<BTreeMap<String, Vec<u8>>> {
    let context = weir_sql::open(store).await?;
    let Some((from_ms, to_ms)) = period(&context).await? else { return Ok(BTreeMap::new()) };
    let mut files = BTreeMap::new();
    for knob in KNOBS {
        let rows: Vec<KnobRow> = rows(&context, knob.sql).await?.iter().map(|row| cell(knob, row)).collect();
        if rows.is_empty() {
            continue;
        }
        let table = KnobTable {
            schema: KNOB_SCHEMA,
            about: knob.about.to_owned(),
            routers: BTreeMap::from([("vllm-semantic-router".to_owned(), knob.vllm_sr)]),
            from_ms,
            to_ms,
            keys: knob.keys.iter().map(|name| (*name).to_owned()).collect(),
            values: knob.values.iter().map(|name| (*name).to_owned()).collect(),
            rows,
            left_out: 0,
        };
        let bytes = table.finished().map_err(Failure::ours)?.to_json().map_err(Failure::ours)?;
        files.insert(knob_path(knob.name), bytes);
    }
    Ok(files)
}

/// Arrival of the oldest and the newest request that is stored, ms since the Unix epoch; none where no request is.
pub async fn period(context: &Context) -> Result<Option<(i64, i64)>> {
    let period = rows(context, include_str!("../sql/knobs/period.sql")).await?;
    let moment = |name: &str| period.first().and_then(|row| row.get(name)).and_then(Value::as_i64);
    Ok(moment("from_ms").zip(moment("to_ms")))
}

fn cell(knob: &Knob, row: &Map<String, Value>) -> KnobRow {
    KnobRow {
        key: knob.keys.iter().map(|name| row.get(*name)?.as_str().map(str::to_owned)).collect(),
        values: knob.values.iter().map(|name| row.get(*name)?.as_f64()).collect(),
        evidence: row.get("evidence").and_then(Value::as_u64).unwrap_or_default(),
    }
}

/// The rows of a query, by the names of its columns.
pub async fn rows(context: &Context, sql: &str) -> Result<Vec<Map<String, Value>>> {
    let batches = weir_sql::query(context, sql).await?;
    let json = weir_sql::render(&batches, Format::Json)?;
    serde_json::from_str(&json).map_err(Failure::ours)
}
