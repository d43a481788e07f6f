//! What a report on the workload holds.

use super::Shown::{Count, Moment, Number, Percent, Text};
use super::{Chart, Section};

pub(in super::super) const SECTIONS: [Section; 14] = [
    Section {
        title: "Overview",
        about: "What was served. Shares are of what was reported; a figure that nobody reported is a dash.",
        sql: include_str!("../sql/workload/overview.sql"),
        columns: &[
            ("requests", "requests", Count),
            ("models", "models", Count),
            ("tenants", "tenants", Count),
            ("prompt_tokens", "prompt tokens", Count),
            ("cached_prompt_share", "of them cached", Percent),
            ("completion_tokens", "completion tokens", Count),
            ("error_share", "errors", Percent),
            ("cost_usd", "cost, USD", Number(2)),
        ],
        chart: None,
        nothing: "No request was summarised.",
    },
    Section {
        title: "Completeness",
        about: "Up to when each source has told everything. Later figures may still grow. An idle partition holds nobody up. \
                The lateness is what one event in a thousand exceeds.",
        sql: include_str!("../sql/workload/completeness.sql"),
        columns: &[
            ("source", "source", Text),
            ("partitions", "partitions", Count),
            ("idle_partitions", "idle", Count),
            ("rows", "rows", Count),
            ("late_ms_p999", "lateness p99.9, ms", Count),
            ("complete_to", "complete to, UTC", Moment),
        ],
        chart: None,
        nothing: "Nothing was ingested.",
    },
    Section {
        title: "What changed",
        about: "Changes that were noticed, of rates, lengths, mix, errors, latency, cost and quality. False alarms are \
                bounded: see the view drift_statistics.",
        sql: include_str!("../sql/workload/changes.sql"),
        columns: &[("since", "since, UTC", Moment), ("sentence", "what", Text)],
        chart: None,
        nothing: "No change was noticed.",
    },
    Section {
        title: "Traffic over time",
        about: "Requests by the time of their arrival. A pool is sized for the busy hours and paid for in all of them.",
        sql: include_str!("../sql/workload/traffic.sql"),
        columns: &[
            ("moment", "from, UTC", Moment),
            ("requests", "requests", Count),
            ("agent_share", "agents", Percent),
            ("prompt_tokens_mean", "mean prompt", Count),
            ("completion_tokens_mean", "mean completion", Count),
        ],
        chart: Some(Chart::Lines { x: "moment", series: &["requests"] }),
        nothing: "No request was summarised.",
    },
    Section {
        title: "Arrival process",
        about: "Rates over windows of several lengths. The index of dispersion is the variance of arrivals in a window over \
                their mean: 1 for a Poisson process, more where arrivals come in bursts, which take headroom.",
        sql: include_str!("../sql/workload/arrivals.sql"),
        columns: &[
            ("window_s", "window, s", Count),
            ("rate_mean_per_s", "mean, 1/s", Number(3)),
            ("rate_p99_per_s", "p99, 1/s", Number(3)),
            ("rate_max_per_s", "most, 1/s", Number(3)),
            ("dispersion", "dispersion", Number(2)),
        ],
        chart: None,
        nothing: "No window was whole.",
    },
    Section {
        title: "Mix",
        about: "Where requests lie on each workload axis, of those whose router reports what it takes to tell.",
        sql: include_str!("../sql/workload/mix.sql"),
        columns: &[
            ("axis", "axis", Text),
            ("value", "value", Text),
            ("requests", "requests", Count),
            ("share", "share", Percent),
            ("prompt_tokens_mean", "mean prompt", Count),
            ("completion_tokens_mean", "mean completion", Count),
        ],
        chart: Some(Chart::Bars { label: &["axis", "value"], value: "share" }),
        nothing: "No router reports what it takes to tell.",
    },
    Section {
        title: "Token lengths",
        about: "By model. Quantiles are within 1 %.",
        sql: include_str!("../sql/workload/lengths.sql"),
        columns: &[
            ("model", "model", Text),
            ("requests", "requests", Count),
            ("prompt_p50", "prompt p50", Count),
            ("prompt_p90", "p90", Count),
            ("prompt_p99", "p99", Count),
            ("completion_p50", "completion p50", Count),
            ("completion_p90", "p90", Count),
            ("completion_p99", "p99", Count),
        ],
        chart: None,
        nothing: "No request was summarised.",
    },
    Section {
        title: "Length distribution",
        about: "The share of prompts, and of completions, of at most so many tokens. A pool boundary splits traffic where the line \
                of prompts says.",
        sql: include_str!("../sql/workload/prompt_cdf.sql"),
        columns: &[
            ("tokens", "tokens", Count),
            ("prompt_share", "prompts", Percent),
            ("completion_share", "completions", Percent),
        ],
        chart: Some(Chart::Lines { x: "tokens", series: &["prompt_share", "completion_share"] }),
        nothing: "No router reports token counts.",
    },
    Section {
        title: "Models",
        about: "Who served how much, how well, at which cost.",
        sql: include_str!("../sql/workload/models.sql"),
        columns: &[
            ("model", "model", Text),
            ("requests", "requests", Count),
            ("share", "share", Percent),
            ("error_share", "errors", Percent),
            ("fallback_share", "fallbacks", Percent),
            ("cost_usd", "cost, USD", Number(2)),
            ("cost_usd_per_1000", "USD per 1,000", Number(3)),
        ],
        chart: Some(Chart::Bars { label: &["model"], value: "share" }),
        nothing: "No request was summarised.",
    },
    Section {
        title: "Latency",
        about: "By model, ms. Time to first token (TTFT), time per output token after it (TPOT), and from arrival to the last \
                token. Quantiles are within 1 %.",
        sql: include_str!("../sql/workload/latency.sql"),
        columns: &[
            ("model", "model", Text),
            ("ttft_p50_ms", "TTFT p50", Number(1)),
            ("ttft_p99_ms", "p99", Number(1)),
            ("tpot_p50_ms", "TPOT p50", Number(2)),
            ("tpot_p99_ms", "p99", Number(2)),
            ("e2e_p50_ms", "end to end p50", Number(0)),
            ("e2e_p99_ms", "p99", Number(0)),
        ],
        chart: None,
        nothing: "No router reports latencies.",
    },
    Section {
        title: "Objectives",
        about: "The share of requests within the objectives that the report was asked for (--ttft-ms, --tpot-ms). One within 1 % of \
                an objective may count on either side.",
        sql: include_str!("../sql/workload/slo.sql"),
        columns: &[
            ("model", "model", Text),
            ("ttft_share", "TTFT kept", Percent),
            ("tpot_share", "TPOT kept", Percent),
        ],
        chart: None,
        nothing: "No router reports latencies.",
    },
    Section {
        title: "Instances",
        about: "The busiest. In flight: dispatched and not done, as requests tell it; beside it what the engines say of themselves. \
                Rates are of the last ten minutes in which they were known, prefill with its interval of 95 %; a dash is an \
                instance that is cold. Instance all: requests name only the pool.",
        sql: include_str!("../sql/workload/instances.sql"),
        columns: &[
            ("pool", "pool", Text),
            ("instance", "instance", Text),
            ("model", "model", Text),
            ("requests", "requests", Count),
            ("in_flight_mean", "in flight", Number(1)),
            ("in_flight_max", "most", Count),
            ("engine_in_flight_mean", "engine says", Number(1)),
            ("kv_cache_use_max", "KV cache, most", Percent),
            ("prefill", "prefill, tokens/s", Count),
            ("prefill_low", "low", Count),
            ("prefill_high", "high", Count),
            ("decode", "decode, tokens/s", Number(1)),
        ],
        chart: None,
        nothing: "No router tells pools.",
    },
    Section {
        title: "Prefix cache",
        about: "What a cache of so many blocks, shared by a pool, would have held of the prompts: the last row is a cache without \
                an end. From hashes of prefix blocks; what was used least recently is evicted first.",
        sql: include_str!("../sql/workload/prefix.sql"),
        columns: &[
            ("capacity_blocks", "blocks", Count),
            ("block_hit_ratio", "hits, by blocks", Percent),
            ("request_hit_ratio", "hits, by requests", Percent),
        ],
        chart: Some(Chart::Lines { x: "capacity_blocks", series: &["block_hit_ratio", "request_hit_ratio"] }),
        nothing: "No router tells the hashes of prefix blocks.",
    },
    Section {
        title: "Sessions",
        about: "Conversations and agent runs that began in the period. They end with half an hour of silence. Failed tokens were \
                spent in calls that ended with an error or whose tool did.",
        sql: include_str!("../sql/workload/sessions.sql"),
        columns: &[
            ("sessions", "sessions", Count),
            ("open_sessions", "still open", Count),
            ("requests", "requests", Count),
            ("requests_p50", "requests p50", Count),
            ("requests_p90", "p90", Count),
            ("switches_mean", "model switches", Number(2)),
            ("failed_token_share", "failed tokens", Percent),
            ("quality_mean", "quality", Number(3)),
        ],
        chart: None,
        nothing: "No router tells sessions.",
    },
];
