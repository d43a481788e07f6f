//! The events that the benchmark reads: request records of about 0.9 kB, every one different.

use std::collections::BTreeMap;

use weir_schemas::{Candidate, EventTimeMs, Propensity, Request, Tokens, Usd};

const MODELS: [&str; 3] = ["small-8b", "medium-32b", "large-70b"];
const DOMAINS: [&str; 4] = ["law", "code", "biology", "chat"];

/// The JSON of event number `n`. Its time is of a fixed day, so that runs repeat: 1,000 events a second from 2026-01-01.
pub fn event(n: u64) -> Vec<u8> {
    event_at(n, EventTimeMs(1_767_225_600_000 + i64::try_from(n).unwrap_or(0)))
}

/// The JSON of event number `n` with an arrival time of its own.
pub fn event_at(n: u64, arrival_ms: EventTimeMs) -> Vec<u8> {
    let pick = |of: usize| usize::try_from(n.wrapping_mul(2_654_435_761) >> 7).unwrap_or(0) % of;
    let model = MODELS[pick(3)].to_owned();
    let request = Request {
        request_id: format!("req-{n:012x}"),
        arrival_ms,
        session_id: Some(format!("session-{}", n / 6)),
        turn: i32::try_from(n % 6).ok(),
        tenant: Some("acme".into()),
        caller: Some(format!("user-{}", n % 997)),
        role: Some("member".into()),
        router: Some("semantic-router".into()),
        policy_version: Some("uniform".into()),
        gateway_tags: Some(BTreeMap::from([("region".into(), "eu-1".into()), ("route".into(), "default".into())])),
        ttft_ms: Some(80.0 + (n % 311) as f64),
        end_to_end_ms: Some(900.0 + (n % 7_919) as f64),
        queue_ms: Some((n % 13) as f64),
        api: Some("chat_completions".into()),
        message_count: Some(3),
        tools_offered: Some(vec!["search".into(), "calculator".into()]),
        system_prompt_hash: Some(format!("{:016x}", n % 17)),
        domain: Some(DOMAINS[pick(4)].to_owned()),
        complexity: Some("medium".into()),
        language: Some("en".into()),
        requested_model: Some("auto".into()),
        candidates: Some(
            MODELS
                .iter()
                .map(|model| Candidate { model: (*model).into(), score: None, propensity: Some(0.333) })
                .collect(),
        ),
        intended_model: Some(model.clone()),
        propensity: Propensity::new(0.333).ok(),
        executed_model: Some(model),
        pool: Some("shared".into()),
        instance: Some(format!("engine-{}", n % 4)),
        prompt_tokens: Some(Tokens(200 + i32::try_from(n % 3_001).unwrap_or(0))),
        cached_prompt_tokens: Some(Tokens(128)),
        completion_tokens: Some(Tokens(20 + i32::try_from(n % 701).unwrap_or(0))),
        http_status: Some(200),
        finish_reason: Some("stop".into()),
        cost_usd: Some(Usd(0.000_4)),
        ..Request::default()
    };
    serde_json::to_vec(&request).expect("a request is JSON")
}
