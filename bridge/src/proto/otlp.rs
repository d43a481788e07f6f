//! OTLP: the requests of its three signals, in Protocol Buffers and in JSON.
//! <https://opentelemetry.io/docs/specs/otlp/>
//!
//! The members of a `oneof` are plain optional fields here, which is the same on the wire, so that one struct serves
//! both encodings.

use serde::Deserialize;

use super::json::{bytes_in_base64, bytes_in_hex, integer, optional_double, optional_integer};

macro_rules! messages {
    ($($(#[$about:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, PartialEq, prost::Message, Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            pub struct $name {
                $($(#[$attribute])* pub $field: $kind,)*
            }
        )*
    };
}

messages! {
    /// Body of `/v1/metrics`.
    MetricsRequest {
        /// Metrics by resource.
        #[prost(message, repeated, tag = "1")]
        resource_metrics: Vec<ResourceMetrics>,
    }
    /// Metrics of one resource.
    ResourceMetrics {
        /// Who emitted them.
        #[prost(message, optional, tag = "1")]
        resource: Option<Resource>,
        /// Metrics by scope.
        #[prost(message, repeated, tag = "2")]
        scope_metrics: Vec<ScopeMetrics>,
    }
    /// Metrics of one scope.
    ScopeMetrics {
        /// The metrics.
        #[prost(message, repeated, tag = "2")]
        metrics: Vec<Metric>,
    }
    /// One metric: at most one of its kinds is there.
    Metric {
        /// Its name.
        #[prost(string, tag = "1")]
        name: String,
        /// A gauge.
        #[prost(message, optional, tag = "5")]
        gauge: Option<Points>,
        /// A sum.
        #[prost(message, optional, tag = "7")]
        sum: Option<Points>,
        /// A histogram: only the number of its points is read.
        #[prost(message, optional, tag = "9")]
        histogram: Option<UnreadPoints>,
        /// An exponential histogram: only the number of its points is read.
        #[prost(message, optional, tag = "10")]
        exponential_histogram: Option<UnreadPoints>,
        /// A summary: only the number of its points is read.
        #[prost(message, optional, tag = "11")]
        summary: Option<UnreadPoints>,
    }
    /// Points of a gauge or a sum.
    Points {
        /// The points.
        #[prost(message, repeated, tag = "1")]
        data_points: Vec<Point>,
        /// Of a sum: 1 delta, 2 cumulative.
        #[prost(int32, tag = "2")]
        aggregation_temporality: i32,
    }
    /// Points that are counted and not read.
    UnreadPoints {
        /// The points.
        #[prost(message, repeated, tag = "1")]
        data_points: Vec<UnreadPoint>,
    }
    /// A point that is counted and not read.
    UnreadPoint {}
    /// A value at a time.
    Point {
        /// What tells this series from others of its metric.
        #[prost(message, repeated, tag = "7")]
        attributes: Vec<KeyValue>,
        /// Nanoseconds since the Unix epoch.
        #[serde(deserialize_with = "integer")]
        #[prost(fixed64, tag = "3")]
        time_unix_nano: u64,
        /// The value, if it is a double.
        #[serde(deserialize_with = "optional_double")]
        #[prost(double, optional, tag = "4")]
        as_double: Option<f64>,
        /// The value, if it is an integer.
        #[serde(deserialize_with = "optional_integer")]
        #[prost(sfixed64, optional, tag = "6")]
        as_int: Option<i64>,
        /// Bit 0: there is no value (what Prometheus calls stale).
        #[prost(uint32, tag = "8")]
        flags: u32,
    }

    /// Body of `/v1/traces`.
    TracesRequest {
        /// Spans by resource.
        #[prost(message, repeated, tag = "1")]
        resource_spans: Vec<ResourceSpans>,
    }
    /// Spans of one resource.
    ResourceSpans {
        /// Who emitted them.
        #[prost(message, optional, tag = "1")]
        resource: Option<Resource>,
        /// Spans by scope.
        #[prost(message, repeated, tag = "2")]
        scope_spans: Vec<ScopeSpans>,
    }
    /// Spans of one scope.
    ScopeSpans {
        /// The instrumentation.
        #[prost(message, optional, tag = "1")]
        scope: Option<Scope>,
        /// The spans.
        #[prost(message, repeated, tag = "2")]
        spans: Vec<Span>,
    }
    /// One span.
    Span {
        /// 16 bytes.
        #[serde(deserialize_with = "bytes_in_hex")]
        #[prost(bytes = "vec", tag = "1")]
        trace_id: Vec<u8>,
        /// 8 bytes.
        #[serde(deserialize_with = "bytes_in_hex")]
        #[prost(bytes = "vec", tag = "2")]
        span_id: Vec<u8>,
        /// 8 bytes; empty for a root.
        #[serde(deserialize_with = "bytes_in_hex")]
        #[prost(bytes = "vec", tag = "4")]
        parent_span_id: Vec<u8>,
        /// What was done.
        #[prost(string, tag = "5")]
        name: String,
        /// 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
        #[prost(int32, tag = "6")]
        kind: i32,
        /// Nanoseconds since the Unix epoch.
        #[serde(deserialize_with = "integer")]
        #[prost(fixed64, tag = "7")]
        start_time_unix_nano: u64,
        /// Nanoseconds since the Unix epoch.
        #[serde(deserialize_with = "integer")]
        #[prost(fixed64, tag = "8")]
        end_time_unix_nano: u64,
        /// What is known of it.
        #[prost(message, repeated, tag = "9")]
        attributes: Vec<KeyValue>,
        /// What happened in it.
        #[prost(message, repeated, tag = "11")]
        events: Vec<SpanEvent>,
        /// How it ended.
        #[prost(message, optional, tag = "15")]
        status: Option<SpanStatus>,
    }
    /// A moment in a span.
    SpanEvent {
        /// Nanoseconds since the Unix epoch.
        #[serde(deserialize_with = "integer")]
        #[prost(fixed64, tag = "1")]
        time_unix_nano: u64,
        /// What happened.
        #[prost(string, tag = "2")]
        name: String,
        /// What is known of it.
        #[prost(message, repeated, tag = "3")]
        attributes: Vec<KeyValue>,
    }
    /// How a span ended.
    SpanStatus {
        /// In the emitter's words.
        #[prost(string, tag = "2")]
        message: String,
        /// 0 unset, 1 ok, 2 error.
        #[prost(int32, tag = "3")]
        code: i32,
    }

    /// Body of `/v1/logs`.
    LogsRequest {
        /// Records by resource.
        #[prost(message, repeated, tag = "1")]
        resource_logs: Vec<ResourceLogs>,
    }
    /// Records of one resource.
    ResourceLogs {
        /// Who emitted them.
        #[prost(message, optional, tag = "1")]
        resource: Option<Resource>,
        /// Records by scope.
        #[prost(message, repeated, tag = "2")]
        scope_logs: Vec<ScopeLogs>,
    }
    /// Records of one scope.
    ScopeLogs {
        /// The instrumentation.
        #[prost(message, optional, tag = "1")]
        scope: Option<Scope>,
        /// The records.
        #[prost(message, repeated, tag = "2")]
        log_records: Vec<LogRecord>,
    }
    /// One log record.
    LogRecord {
        /// Nanoseconds since the Unix epoch; 0 where unknown.
        #[serde(deserialize_with = "integer")]
        #[prost(fixed64, tag = "1")]
        time_unix_nano: u64,
        /// When a collector saw it, nanoseconds since the Unix epoch.
        #[serde(deserialize_with = "integer")]
        #[prost(fixed64, tag = "11")]
        observed_time_unix_nano: u64,
        /// 1 to 24: trace, debug, info, warn, error, fatal, four steps each.
        #[prost(int32, tag = "2")]
        severity_number: i32,
        /// In the emitter's words.
        #[prost(string, tag = "3")]
        severity_text: String,
        /// What is logged.
        #[prost(message, optional, tag = "5")]
        body: Option<AnyValue>,
        /// What is known of it.
        #[prost(message, repeated, tag = "6")]
        attributes: Vec<KeyValue>,
        /// 16 bytes, or empty.
        #[serde(deserialize_with = "bytes_in_hex")]
        #[prost(bytes = "vec", tag = "9")]
        trace_id: Vec<u8>,
        /// 8 bytes, or empty.
        #[serde(deserialize_with = "bytes_in_hex")]
        #[prost(bytes = "vec", tag = "10")]
        span_id: Vec<u8>,
        /// Which event it is, if it is one.
        #[prost(string, tag = "12")]
        event_name: String,
    }

    /// Who emits.
    Resource {
        /// `service.name` and the like.
        #[prost(message, repeated, tag = "1")]
        attributes: Vec<KeyValue>,
    }
    /// The instrumentation that emits.
    Scope {
        /// Its name.
        #[prost(string, tag = "1")]
        name: String,
    }
    /// A name and its value.
    KeyValue {
        /// The name.
        #[prost(string, tag = "1")]
        key: String,
        /// The value.
        #[prost(message, optional, tag = "2")]
        value: Option<AnyValue>,
    }
    /// A value: at most one of its kinds is there.
    AnyValue {
        /// Text.
        #[prost(string, optional, tag = "1")]
        string_value: Option<String>,
        /// A flag.
        #[prost(bool, optional, tag = "2")]
        bool_value: Option<bool>,
        /// An integer.
        #[serde(deserialize_with = "optional_integer")]
        #[prost(int64, optional, tag = "3")]
        int_value: Option<i64>,
        /// A number.
        #[serde(deserialize_with = "optional_double")]
        #[prost(double, optional, tag = "4")]
        double_value: Option<f64>,
        /// A list.
        #[prost(message, optional, tag = "5")]
        array_value: Option<ArrayValue>,
        /// A map.
        #[prost(message, optional, tag = "6")]
        kvlist_value: Option<KeyValueList>,
        /// Bytes.
        #[serde(deserialize_with = "bytes_in_base64")]
        #[prost(bytes = "vec", optional, tag = "7")]
        bytes_value: Option<Vec<u8>>,
    }
    /// A list of values.
    ArrayValue {
        /// The values.
        #[prost(message, repeated, tag = "1")]
        values: Vec<AnyValue>,
    }
    /// A map of values.
    KeyValueList {
        /// Its entries.
        #[prost(message, repeated, tag = "1")]
        values: Vec<KeyValue>,
    }
}

/// Answer to a request of any signal.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportResponse {
    /// What was not taken of the request, if anything.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// What was not taken of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartialSuccess {
    /// Points, spans or records that were not taken and must not be sent again.
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// `google.rpc.Status`: the body of an error answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// A code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What is wrong, for a person.
    #[prost(string, tag = "2")]
    pub message: String,
    /// More for programs.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// What the bytes are.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct RetryInfo {
    /// After which time the same call may pass.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<Duration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
}
