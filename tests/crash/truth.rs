//! What is produced, and what must become of it: a pure function of topic and number, so that the checker needs no copy
//! of what was sent.
//!
//! Numbers are dense within a topic; offsets are not (transactions leave markers and aborted messages between them).
//! About one message in a thousand cannot be read, one in a thousand has no value.

use serde_json::json;

use crate::digest::Row;

/// 2024-03-31T23:50:00Z, ten minutes before midnight: rows of two dates are in most commits.
const BASE_MS: i64 = 1_711_929_000_000;
/// Messages of one topic, at a millisecond each, for which [`rfc3339`] can write times.
pub const NUMBERS_MAX: u64 = 3_600_000;
/// Sessions that some requests belong to, and the tenants whose keys make their pseudonyms.
pub const SESSIONS: u64 = 500;
pub const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

/// A topic of the series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Requests,
    Feedback,
    GpuTelemetry,
    /// Records of a router: most of them feed two tables, some hold two calls.
    Replay,
}

/// All of them.
pub const TOPICS: [Topic; 4] = [Topic::Requests, Topic::Feedback, Topic::GpuTelemetry, Topic::Replay];

/// A table that rows go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Requests,
    Feedback,
    GpuTelemetry,
}

/// All of them.
pub const TABLES: [Table; 3] = [Table::Requests, Table::Feedback, Table::GpuTelemetry];

impl Topic {
    /// Its name in Kafka.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "crash.requests",
            Self::Feedback => "crash.feedback",
            Self::GpuTelemetry => "crash.gpu",
            Self::Replay => "crash.replay",
        }
    }

    /// The format that the configuration names for it.
    pub fn format(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Feedback => "feedback",
            Self::GpuTelemetry => "gpu_telemetry",
            Self::Replay => "vllm_semantic_router",
        }
    }

    pub fn partitions(self) -> i32 {
        match self {
            Self::Requests => 4,
            Self::Replay => 3,
            Self::Feedback | Self::GpuTelemetry => 2,
        }
    }

    /// Its messages among so many of all topics.
    pub fn count(self, events: u64) -> u64 {
        let (feedback, gpu, replay) = (events * 15 / 100, events * 10 / 100, events * 10 / 100);
        match self {
            Self::Requests => events - feedback - gpu - replay,
            Self::Feedback => feedback,
            Self::GpuTelemetry => gpu,
            Self::Replay => replay,
        }
    }

    /// Sent in transactions, some of which are aborted?
    pub fn is_transactional(self) -> bool {
        matches!(self, Self::Requests | Self::Replay)
    }

    pub fn feeds(self) -> &'static [Table] {
        match self {
            Self::Requests => &[Table::Requests],
            Self::Feedback => &[Table::Feedback],
            Self::GpuTelemetry => &[Table::GpuTelemetry],
            Self::Replay => &[Table::Requests, Table::Feedback],
        }
    }

    fn salt(self) -> u64 {
        self as u64 + 1
    }
}

impl Table {
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Feedback => "feedback",
            Self::GpuTelemetry => "gpu_telemetry",
        }
    }
}

/// What must become of one message.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// Rows, each with its table.
    Rows(Vec<(Table, Row)>),
    /// One dead letter with these bytes.
    DeadLetter,
    /// Nothing.
    Tombstone,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its value; none for a tombstone.
    pub payload: Option<Vec<u8>>,
    pub fate: Fate,
}

/// The partition that a number is sent to.
pub fn partition(topic: Topic, number: u64) -> i32 {
    let partitions = u64::from(topic.partitions().unsigned_abs());
    i32::try_from(mix(number ^ (topic.salt() << 40)) % partitions).unwrap_or_default()
}

/// The session of a request and the index of its tenant, if it has one.
pub fn session(topic: Topic, number: u64) -> Option<(usize, u64)> {
    (topic == Topic::Requests && number.is_multiple_of(4)).then(|| (tenant(number), mix(number) % SESSIONS))
}

pub fn session_name(session: u64) -> String {
    format!("session-{session}")
}

fn tenant(number: u64) -> usize {
    usize::try_from(number % TENANTS.len() as u64).unwrap_or_default()
}

/// Message `number` of a topic.
pub fn message(topic: Topic, number: u64) -> Message {
    let draw = mix(number.wrapping_mul(31) ^ (topic.salt() << 48));
    match draw % 1_000 {
        0 => Message { payload: Some(bad(topic, number, draw / 1_000)), fate: Fate::DeadLetter },
        1 => Message { payload: None, fate: Fate::Tombstone },
        _ => good(topic, number),
    }
}

/// A message that can be read, whatever becomes of its number elsewhere: what a transaction that is aborted holds.
pub fn readable(topic: Topic, number: u64) -> Vec<u8> {
    good(topic, number).payload.unwrap_or_default()
}

fn good(topic: Topic, number: u64) -> Message {
    let (payload, rows) = match topic {
        Topic::Requests => request(number),
        Topic::Feedback => feedback(number),
        Topic::GpuTelemetry => gpu_telemetry(number),
        Topic::Replay => replay(number),
    };
    Message { payload: Some(payload), fate: Fate::Rows(rows) }
}

/// Bytes that no topic can read, in several ways.
fn bad(topic: Topic, number: u64, way: u64) -> Vec<u8> {
    match way % 5 {
        0 => Vec::new(),
        1 => format!("not JSON, number {number}").into_bytes(),
        2 => format!(r#"{{"number": {number}}}"#).into_bytes(),
        3 => format!(r#"["{number}"]"#).into_bytes(),
        _ => {
            let mut cut = good(topic, number).payload.unwrap_or_default();
            cut.truncate(cut.len() / 2);
            cut
        }
    }
}

fn request(number: u64) -> (Vec<u8>, Vec<(Table, Row)>) {
    let id = format!("r-{number}");
    let arrival_ms = at_ms(number);
    let model = format!("model-{}", number % 5);
    let (prompt, completion) = (small(number, 1) + 10, small(number, 2) + 1);
    let (ttft, whole) = (quarter(number, 3), quarter(number, 4) + 1_000.0);
    let mut object = json!({
        "request_id": id, "arrival_ms": arrival_ms, "tenant": TENANTS[tenant(number)], "executed_model": model,
        "intended_model": model, "propensity": 0.25, "prompt_tokens": prompt, "completion_tokens": completion,
        "ttft_ms": ttft, "end_to_end_ms": whole, "http_status": 200, "unknown_field": small(number, 5),
    });
    if let Some((_, session)) = session(Topic::Requests, number) {
        object["session_id"] = session_name(session).into();
    }
    let mut row = Row::default();
    row.text("request_id", &id).integer("arrival_ms", arrival_ms).text("tenant", TENANTS[tenant(number)]);
    row.text("executed_model", &model).text("intended_model", &model).number("propensity", 0.25);
    row.integer("prompt_tokens", prompt).integer("completion_tokens", completion);
    row.number("ttft_ms", ttft).number("end_to_end_ms", whole).integer("http_status", 200);
    (object.to_string().into_bytes(), vec![(Table::Requests, row)])
}

fn feedback(number: u64) -> (Vec<u8>, Vec<(Table, Row)>) {
    let (id, about) = (format!("f-{number}"), format!("r-{}", number * 3));
    let event_ms = at_ms(number);
    let value = f64::from(u8::from(number.is_multiple_of(2)));
    let object = json!({
        "feedback_id": id, "event_ms": event_ms, "source": "user", "kind": "thumb", "request_id": about, "value": value,
        "tenant": TENANTS[tenant(number)],
    });
    let mut row = Row::default();
    row.text("feedback_id", &id).integer("event_ms", event_ms).text("source", "user").text("kind", "thumb");
    row.text("request_id", &about).number("value", value).text("tenant", TENANTS[tenant(number)]);
    (object.to_string().into_bytes(), vec![(Table::Feedback, row)])
}

fn gpu_telemetry(number: u64) -> (Vec<u8>, Vec<(Table, Row)>) {
    let (event_ms, gpu, instance) = (at_ms(number), format!("{}", number % 8), format!("engine-{}", number % 3));
    let (used, power) = (quarter(number, 6) % 100.0, quarter(number, 7) % 700.0);
    let object = json!({
        "event_ms": event_ms, "gpu": gpu, "instance": instance, "pool": "blue", "DCGM_FI_DEV_GPU_UTIL": used,
        "DCGM_FI_DEV_POWER_USAGE": power,
    });
    let mut row = Row::default();
    row.integer("event_ms", event_ms).text("gpu", &gpu).text("instance", &instance).text("pool", "blue");
    row.number("DCGM_FI_DEV_GPU_UTIL", used).number("DCGM_FI_DEV_POWER_USAGE", power);
    (object.to_string().into_bytes(), vec![(Table::GpuTelemetry, row)])
}

/// One record, or a page of two.
fn replay(number: u64) -> (Vec<u8>, Vec<(Table, Row)>) {
    let (first, mut rows) = record(number, "a");
    if !number.is_multiple_of(10) {
        return (first.to_string().into_bytes(), rows);
    }
    let (second, more) = record(number, "b");
    rows.extend(more);
    let page = json!({ "object": "router_replay.list", "data": [first, second] });
    (page.to_string().into_bytes(), rows)
}

fn record(number: u64, part: &str) -> (serde_json::Value, Vec<(Table, Row)>) {
    let id = format!("v-{number}{part}");
    let model = format!("model-{}", number % 5);
    let (prompt, completion) = (small(number, 8) + 10, small(number, 9) + 1);
    let is_wrong = !number.is_multiple_of(3);
    let mut object = json!({
        "id": id, "timestamp": rfc3339(number), "lifecycle_state": "completed", "ended_at": rfc3339(number + 1),
        "original_model": "auto", "selected_model": model, "prompt_tokens": prompt, "completion_tokens": completion,
        "response_status": 200,
    });
    // Ended, answered, with tokens, and with a verdict or without: bits 28, 27, 26 and 24 of the adapter's revision.
    let revision = 0b1_1100 << 24 | i64::from(is_wrong) << 24;
    let mut request = Row::default();
    request.text("request_id", &id).integer("arrival_ms", at_ms(number)).integer("revision", revision);
    request.flag("terminal", true).text("router", "vllm-semantic-router").text("requested_model", "auto");
    request.text("intended_model", &model).text("executed_model", &model).integer("http_status", 200);
    request.integer("prompt_tokens", prompt).integer("completion_tokens", completion).flag("semantic_cache_hit", false);
    let mut rows = vec![(Table::Requests, request)];
    if is_wrong {
        object["hallucination_detected"] = true.into();
        object["hallucination_confidence"] = 0.75.into();
        let mut verdict = Row::default();
        verdict.text("feedback_id", &format!("vllm-sr:hallucination:{id}")).integer("event_ms", at_ms(number + 1));
        verdict.text("source", "evaluation").text("kind", "verdict").integer("revision", revision);
        verdict.text("request_id", &id).text("model", &model).number("value", 0.0).text("label", "hallucination");
        verdict.number("confidence", 0.75).flag("checked", true).text("estimator", "vllm-sr/hallucination");
        rows.push((Table::Feedback, verdict));
    }
    (object, rows)
}

fn at_ms(number: u64) -> i64 {
    BASE_MS + i64::try_from(number).unwrap_or_default()
}

/// [`at_ms`] as the router writes it.
fn rfc3339(number: u64) -> String {
    let (minutes, rest) = (number / 60_000, number % 60_000);
    let (date, hour, minute) =
        if minutes < 10 { ("2024-03-31", 23, 50 + minutes) } else { ("2024-04-01", 0, minutes - 10) };
    format!("{date}T{hour:02}:{minute:02}:{:02}.{:03}Z", rest / 1_000, rest % 1_000)
}

fn small(number: u64, field: u64) -> i64 {
    i64::try_from(mix(number ^ (field << 52)) % 4_000).unwrap_or_default()
}

/// A number that binary fractions hold exactly.
fn quarter(number: u64, field: u64) -> f64 {
    small(number, field) as f64 / 4.0
}

/// SplitMix64's finaliser (Steele, Lea and Flood, 2014): spreads counters over all 64 bits.
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_message_is_produced() {
        for topic in TOPICS {
            let messages: Vec<Message> = (0..20_000).map(|number| message(topic, number)).collect();
            let count = |fate: fn(&Fate) -> bool| messages.iter().filter(|message| fate(&message.fate)).count();
            let (bad, none) = (count(|fate| *fate == Fate::DeadLetter), count(|fate| *fate == Fate::Tombstone));
            assert!((5..60).contains(&bad) && (5..60).contains(&none), "{topic:?}: {bad} bad, {none} without a value");
            let of_two = messages.iter().filter(|m| matches!(&m.fate, Fate::Rows(rows) if rows.len() > 1)).count();
            assert_eq!(of_two > 10_000, topic == Topic::Replay, "{topic:?}: {of_two} messages of several rows");
            for partition_number in 0..topic.partitions() {
                let sent = (0..20_000).filter(|number| partition(topic, *number) == partition_number).count();
                assert!(sent > 4_000, "{topic:?}/{partition_number} gets {sent} of 20000");
            }
        }
    }

    #[test]
    fn counts_of_the_topics_add_up() {
        for events in [1_000, 99_999, 1_000_000] {
            assert_eq!(TOPICS.iter().map(|topic| topic.count(events)).sum::<u64>(), events);
        }
    }

    #[test]
    fn midnight_is_crossed() {
        assert_eq!(rfc3339(0), "2024-03-31T23:50:00.000Z");
        assert_eq!(rfc3339(599_999), "2024-03-31T23:59:59.999Z");
        assert_eq!(rfc3339(600_000), "2024-04-01T00:00:00.000Z");
    }
}
