//! The tables for knobs that a bundle brings beside its policy, from the views on outcomes.
//!
//! Risk of callers is none of them: their names are pseudonyms, which no router knows.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tempfile::TempDir;
use weir_fleet::retention::cache::answered;
use weir_fleet::retention::{Budget, Class, Directive, plan, resumption};
use weir_policy_runtime::{KNOB_SCHEMA, KnobRow, KnobTable, Support, knob_path};
use weir_sql::{Context, Format};
use weir_store::Store;

use crate::error::{Failure, Result};
use crate::retention;

struct Knob {
    name: &'static str,
    about: &'static str,
    /// What vLLM Semantic Router can do with it: it cannot load what was learned elsewhere, but some of its settings are
    /// such figures.
    vllm_sr: Support,
    /// What `weir decide` does with it: it hands every table out, and acts by some.
    decide: Support,
    keys: &'static [&'static str],
    values: &'static [&'static str],
    sql: &'static str,
}

macro_rules! knobs {
    ($($name:literal, $support:ident, $decide:ident, [$($key:literal),+] => [$($value:literal),+], $about:literal;)*) => {
        &[$(Knob {
            name: $name,
            about: $about,
            vllm_sr: Support::$support,
            decide: Support::$decide,
            keys: &[$($key),+],
            values: &[$($value),+],
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

/// Name of the table of retention.
const RETENTION: &str = "kv_retention";

/// Retention is learned from the newest requests: what pauses were like a week ago is told by fewer blocks each day.
const RETENTION_MS: i64 = 86_400_000;

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

/// The tables that have a row, as files of a bundle. With a `cache`, one of retention is among them.
pub async fn files(store: &Store, cache: Option<KvCache>) -> Result<BTreeMap<String, Vec<u8>>> {
    let context = weir_sql::open(store).await?;
    let Some((from_ms, to_ms)) = period(&context).await? else { return Ok(BTreeMap::new()) };
    let Outcomes { context, _folder } = outcomes(store).await?;
    let mut files = BTreeMap::new();
    for knob in KNOBS {
        let rows: Vec<KnobRow> = rows(&context, knob.sql).await?.iter().map(|row| cell(knob, row)).collect();
        if !rows.is_empty() {
            files.insert(knob_path(knob.name), knob.table(from_ms, to_ms, rows)?);
        }
    }
    if let Some(cache) = cache {
        let from_ms = from_ms.max(to_ms - RETENTION_MS);
        let rows = retention_rows(&context, from_ms, to_ms, &cache).await?;
        files.insert(knob_path(RETENTION), RETENTION_KNOB.table(from_ms, to_ms, rows)?);
    }
    Ok(files)
}

const RETENTION_KNOB: Knob = Knob {
    name: RETENTION,
    about: "The priority with which engines keep the blocks of a prompt after its answer, until an age in seconds; 0 is none. \
            Of the model with most blocks.",
    vllm_sr: Support::Unsupported,
    decide: Support::Advisory,
    keys: &["model", "system_prompt_hash", "tool", "stage", "until_s"],
    values: &["priority", "hits_per_held_s", "ttl_s"],
    sql: "",
};

async fn retention_rows(context: &Context, from_ms: i64, to_ms: i64, cache: &KvCache) -> Result<Vec<KnobRow>> {
    let (model, calls) = retention::calls(context, from_ms, to_ms + 1, None, cache.pool.as_deref()).await?;
    let span_s = (to_ms - from_ms) as f64 / 1e3;
    let pinned_blocks = cache.blocks as f64 * cache.pinned_share;
    let budget = Budget { pinned_blocks, other_blocks: cache.blocks as f64 - pinned_blocks, span_s };
    let directives = plan(&resumption(&answered(&calls, to_ms)), budget);
    let row = |class: &Class, until_s: f64, priority: u8, hits_per_held_s: f64, directive: &Directive| KnobRow {
        key: vec![
            model.clone(),
            class.system_prompt_hash.clone(),
            class.tool.clone(),
            Some(class.stage.clone()),
            Some(until_s.to_string()),
        ],
        values: vec![Some(f64::from(priority)), Some(hits_per_held_s), Some(directive.ttl_s)],
        evidence: directive.evidence,
    };
    let rows = directives.iter().flat_map(|(class, directive)| {
        let none = directive.steps.is_empty().then(|| row(class, 0.0, 0, 0.0, directive));
        let steps = directive.steps.iter();
        none.into_iter()
            .chain(steps.map(move |step| row(class, step.until_s, step.priority, step.hits_per_held_s, directive)))
    });
    Ok(rows.collect())
}

/// Views on outcomes that many others lean on, each after those that it leans on.
const SHARED_VIEWS: [&str; 9] = [
    "session_turns",
    "rewards",
    "sessions",
    "request_outcomes",
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

/// Opens one. Linear in requests, of which it keeps a few columns on the disk while it lives.
pub async fn outcomes(store: &Store) -> Result<Outcomes> {
    let context = weir_sql::open(store).await?;
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

impl Knob {
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
