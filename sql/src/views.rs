//! The analytics views: a name, a line of help, and a query each.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use crate::SqlError;

/// A view, as `weir sql` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Its name in SQL.
    pub name: &'static str,
    /// What one row is, in a line.
    pub doc: &'static str,
}

struct Analytics {
    view: View,
    sql: &'static str,
}

macro_rules! analytics {
    ($($name:literal: $doc:literal;)*) => {
        &[$(Analytics { view: View { name: $name, doc: $doc }, sql: include_str!(concat!("views/", $name, ".sql")) }),*]
    };
}

/// Each may name those before it.
const ANALYTICS: &[Analytics] = analytics! {
    "workload_mix_by_minute": "the live mix: requests and shares of each class, a row per minute of arrival";
    "workload_mix": "the mix over everything summarised: one row";
    "latency": "TTFT, time per output token and end-to-end time per model: means, and quantiles within 1 %";
    "tokens": "prompt and completion tokens per model and domain: exact means, quantiles within 1 %";
    "token_totals": "prompt and completion tokens over everything: exact sums and means, quantiles within 1 %";
    "cost": "dollars per model: total, per request, per million tokens";
    "arrivals": "arrivals per 10 minutes: rate and index of dispersion (1 is Poisson, more is burstier)";
    "arrival_process": "arrivals in windows of 1 s to 1 h: rate quantiles and index of dispersion at each length";
    "diurnal_profile": "requests by hour of the day, UTC, as a mean and relative to all hours";
    "workload_cdf": "prompt lengths in each sliding hour: CDF, archetype, and the distance to every archetype";
    "axis_mix": "the mix along every workload axis, by hour: requests and tokens of each value";
    "fingerprints": "what a system prompt foretells: session length, tool calls, pauses, by its fingerprint";
    "prefix_requests": "how much of each prompt its pool's prefix cache would have held, from hashes of prefix blocks";
    "prefix_cache": "hit ratio of a pool's prefix cache at every size: by requests, blocks and tokens";
    "prefix_routing": "hit ratio if sessions stayed at an instance, or requests were spread at random";
    "watermarks": "up to when each partition of each source is complete, idle ones set apart";
    "completeness": "rows of each source in each 10 minutes, and whether more are to be expected";
    "pool_state": "each instance's queue, prefill and decode rates, from requests, beside what its engine says";
    "request_engines": "what each request's engine and GPUs had told when it arrived: queue, KV cache, load, power";
    "drift_series": "what is watched for changes: a value per metric, model and closed window of 10 minutes";
    "drift_statistics": "how far each series is from showing a change, window by window";
    "drift": "what has changed, since when, how much, in a sentence; false alarms are bounded";
    "reputation_pieces": "verdicts and judgements by hour, tenant, model and domain: counts that add up";
    "model_reputation": "hallucination and success rates of each model, domain and tenant, pooled, with intervals";
    "fact_check_gates": "which requests are worth checking for hallucination, learned from the older half of verdicts";
    "failure_checks": "each request and each class of failure that could have been seen in it: did it show?";
    "failure_rates": "how often each model fails in each way, by domain, pooled, with intervals";
    "attribution": "why each poor session came out badly, which knob could have prevented it, and who fails less";
    "attribution_by_knob": "poor sessions by the knob that could have prevented them: where to push";
    "handoff_penalties": "how many more requests a session takes after a switch of models, adjusted and not";
    "rebalancing": "where traffic should go after a model's errors rose or its quality fell, by domain";
    "session_tokens": "tokens of each session up to each of its requests";
    "token_budgets": "quantiles of a session's tokens by its n-th request, by domain and system prompt";
    "effective_context": "up to which length of prompt each model still answers well";
    "budget_trials": "what acting at two to six times the median would have saved, and harmed";
    "caller_budgets": "quantiles of a caller's tokens in a day, by tenant and role, and who is above a ceiling";
    "cut_back_gains": "what it would gain to cut a session back to an earlier request, and what it costs";
    "tool_calls": "each tool call: who made it, whether it worked, how long it took";
    "tools": "what each tool does by domain, model and stage of the session, pooled, with intervals";
    "tool_transitions": "which tool follows which, and how often it then works";
    "tool_sequences": "runs of tools that recur, and how much more often than by chance";
    "tool_results": "how much of what tools returned was taken up by the answer, where texts are kept";
    "approvals": "each decision on a tool call, with who asked for it";
    "permission_matrix": "how often each role was allowed each tool and operation, pooled, with intervals";
    "permission_rules": "candidates for rules on tool calls, from decisions that are always the same";
    "tool_ranking": "tools in the order in which to offer them: allowed ones, then by success and use of their results";
    "tool_embedding_trials": "whether embeddings of requests tell which tool will work, better than counts do";
    "commitments": "answers in which a model says that it will not do something, found by rules";
    "resume_curves": "how soon sessions go on after each tool, and for how long their blocks are held until then";
    "session_risk": "how unsafe each session looks: two decayed scores, peak, persistence, categories";
    "risk_thresholds": "whom acting on a score of risk would catch, and whom it would trouble, by threshold";
    "risk_actions": "from which score on should what be done, at a share of false alarms for each action";
    "caller_risk": "how unsafe each caller looks, over all sessions: decayed scores, and what safe requests regain";
    "semantic_cache": "how many hits of the semantic cache are bad at each threshold, by domain, with intervals";
    "reasoning_gain": "what reasoning gains and costs, by model, domain and complexity";
    "models": "one row per model: traffic, errors, tokens, latency, cost";
    "quality": "mean quality per policy version and model, over the requests that somebody judged";
    "propensities": "does the logged randomisation add up? inverse_propensity_mean should be near 1 for each model";
    "router_requests": "one row per request of a router that logs line by line, joined from raw_router_events";
    "gpu_pools": "GPUs and engines per pool: utilisation, power, memory, queues, KV cache";
    "dead_letters_pending": "messages that could not be read and that no replay has stored, with the last reason";
};

/// Tables and views that come with a session.
const TABLES: [View; 24] = [
    View { name: "requests", doc: "each finished request once, its last revision, with its classes (is_agent, ...)" },
    View { name: "request_axes", doc: "where each request lies on every workload axis, and the rule that said so" },
    View { name: "feedback", doc: "each opinion once, its last revision, unless withdrawn" },
    View {
        name: "request_opinions",
        doc: "which request each opinion is about, also where it names session and turn only",
    },
    View { name: "rewards", doc: "one quality, 0 to 1, per request that somebody judged" },
    View {
        name: "session_turns",
        doc: "each request of a session: its place, pause, switch of model, growth of the prompt",
    },
    View { name: "sessions", doc: "what became of each session: models, tools, failures, tokens, pauses, opinions" },
    View {
        name: "request_outcomes",
        doc: "what became of each request that a model answered: checks, judgements, failures",
    },
    View {
        name: "outcome_pieces",
        doc: "checks, judgements and failures by hour, tenant, model and domain: counts that add up, remembered days too",
    },
    View { name: "live_outcome_pieces", doc: "the same, of the rows that are kept" },
    View { name: "outcome_memory", doc: "the same, of days that were put down before their rows were removed" },
    View { name: "reward_delays", doc: "how long it takes until a request is judged, young requests reckoned with" },
    View {
        name: "training_examples",
        doc: "each routing decision: what was known, what was chosen, what became of it",
    },
    View { name: "raw_requests", doc: "request messages as they came" },
    View { name: "raw_feedback", doc: "feedback messages as they came" },
    View { name: "raw_gpu_telemetry", doc: "GPU and engine samples as they came" },
    View { name: "raw_router_events", doc: "log lines of routers as they came" },
    View { name: "dead_letters", doc: "messages that could not be read, and why" },
    View { name: "dead_letter_replays", doc: "what each replay did with which dead letter" },
    View { name: "ingest_gaps", doc: "offsets that were passed over unread: which, why, and who decided it" },
    View { name: "workload_minute", doc: "partial counts and sums per minute; sum them by key" },
    View { name: "workload_sketch", doc: "partial sketches per 10 minutes; merge them by key" },
    View { name: "token_sketch", doc: "partial token sketches per hour; merge them by key" },
    View { name: "views", doc: "this list" },
];

/// What a session offers, analytics first.
pub fn views() -> impl Iterator<Item = View> {
    ANALYTICS.iter().map(|analytics| analytics.view).chain(TABLES)
}

/// Name and query of each analytics view.
pub(crate) fn definitions() -> impl Iterator<Item = (&'static str, &'static str)> {
    ANALYTICS.iter().map(|analytics| (analytics.view.name, analytics.sql))
}

pub(crate) fn register_listing(ctx: &SessionContext) -> Result<(), SqlError> {
    ctx.register_table("views", Arc::new(listing()?)).map_err(SqlError::planning)?;
    Ok(())
}

fn listing() -> Result<MemTable, SqlError> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("about", DataType::Utf8, false),
    ]));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(views().map(|view| view.name)));
    let docs: ArrayRef = Arc::new(StringArray::from_iter_values(views().map(|view| view.doc)));
    let batch = RecordBatch::try_new(schema.clone(), vec![names, docs])?;
    MemTable::try_new(schema, vec![vec![batch]]).map_err(SqlError::planning)
}
