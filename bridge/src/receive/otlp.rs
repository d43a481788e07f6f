//! `POST /v1/metrics`, `/v1/traces`, `/v1/logs`: OTLP over HTTP, in Protocol Buffers or JSON.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use prost::Message;
use serde::de::DeserializeOwned;

use super::refusal::Refusal;
use super::{Desk, Otlp, TooLarge, body};
use crate::message::Signal;
use crate::proto::otlp::{ExportResponse, PartialSuccess, Status};

const RECEIVER: &str = "otlp_http";

/// How bodies are written, of requests and of their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        match body::plain(headers, header::CONTENT_TYPE).as_str() {
            "application/x-protobuf" => Ok(Self::Protobuf),
            "application/json" => Ok(Self::Json),
            _ => Err(Refusal::Unsupported("OTLP is Content-Type: application/x-protobuf or application/json")),
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

pub(super) async fn receive(signal: Signal, State(desk): State<Arc<Desk>>, request: Request<Body>) -> Response {
    let encoding = Encoding::of(request.headers());
    let mut body_bytes = 0;
    let answer = match encoding {
        Ok(encoding) => take(signal, encoding, &desk, request, &mut body_bytes).await,
        Err(ref refusal) => Err(refusal.clone()),
    };
    // Who writes neither is answered in the one that a person can read.
    let encoding = encoding.unwrap_or(Encoding::Json);
    let content_type = (header::CONTENT_TYPE, encoding.content_type().to_owned());
    let (status, response) = match answer {
        Ok(too_large) => (StatusCode::OK, ([content_type], success(signal, encoding, too_large)).into_response()),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = failure(encoding, &refusal);
            let response = match refusal.retry_after_s() {
                Some(seconds) => ([content_type, (header::RETRY_AFTER, seconds.to_string())], body).into_response(),
                None => ([content_type], body).into_response(),
            };
            (status, response)
        }
    };
    desk.answered(RECEIVER, status.as_u16(), body_bytes);
    (status, response).into_response()
}

async fn take(
    signal: Signal,
    encoding: Encoding,
    desk: &Arc<Desk>,
    request: Request<Body>,
    body_bytes: &mut usize,
) -> Result<TooLarge, Refusal> {
    desk.admit(request.headers())?;
    desk.receives(signal)?;
    let packed = match body::plain(request.headers(), header::CONTENT_ENCODING).as_str() {
        "" | "identity" => false,
        "gzip" => true,
        _ => return Err(Refusal::Unsupported("OTLP is Content-Encoding: gzip, or none")),
    };
    let _place = desk.place().await?;
    let limit = desk.config.max_body_bytes;
    let bytes = body::read(request.into_body(), limit).await?;
    *body_bytes = bytes.len();
    let request = body::work(move || {
        let bytes = if packed { body::gunzip(&bytes, limit)? } else { bytes };
        decode(signal, encoding, &bytes)
    })
    .await?;
    desk.take_otlp(request).await
}

/// Reads a request of a signal.
pub(super) fn decode(signal: Signal, encoding: Encoding, bytes: &Bytes) -> Result<Otlp, Refusal> {
    Ok(match signal {
        Signal::Metrics => Otlp::Metrics(read(encoding, bytes, "it is no ExportMetricsServiceRequest")?),
        Signal::Traces => Otlp::Traces(read(encoding, bytes, "it is no ExportTraceServiceRequest")?),
        Signal::Logs => Otlp::Logs(read(encoding, bytes, "it is no ExportLogsServiceRequest")?),
    })
}

fn read<T: Message + Default + DeserializeOwned>(
    encoding: Encoding,
    bytes: &Bytes,
    otherwise: &'static str,
) -> Result<T, Refusal> {
    let bad = Refusal::BadBytes(otherwise);
    match encoding {
        Encoding::Protobuf => T::decode(bytes.clone()).map_err(|_| bad),
        Encoding::Json => serde_json::from_slice(bytes).map_err(|_| bad),
    }
}

/// What was not taken of a request that was.
pub(super) fn partial_success(TooLarge(rejected): TooLarge) -> Option<PartialSuccess> {
    (rejected > 0).then(|| PartialSuccess {
        rejected: i64::try_from(rejected).unwrap_or(i64::MAX),
        error_message: "larger than a Kafka message may be: shorten attributes, or raise message.max.bytes".to_owned(),
    })
}

fn success(signal: Signal, encoding: Encoding, too_large: TooLarge) -> Vec<u8> {
    let partial_success = partial_success(too_large);
    match encoding {
        Encoding::Protobuf => ExportResponse { partial_success }.encode_to_vec(),
        Encoding::Json => {
            let rejected = match signal {
                Signal::Metrics => "rejectedDataPoints",
                Signal::Traces => "rejectedSpans",
                Signal::Logs => "rejectedLogRecords",
            };
            let body = partial_success.map_or_else(
                || serde_json::json!({}),
                |partial| {
                    // 64-bit integers are strings in JSON.
                    let count = partial.rejected.to_string();
                    serde_json::json!({ "partialSuccess": { rejected: count, "errorMessage": partial.error_message } })
                },
            );
            body.to_string().into_bytes()
        }
    }
}

fn failure(encoding: Encoding, refusal: &Refusal) -> Vec<u8> {
    let status = Status { code: refusal.grpc_code(), message: refusal.sentence(), details: Vec::new() };
    match encoding {
        Encoding::Protobuf => status.encode_to_vec(),
        Encoding::Json => {
            serde_json::json!({ "code": status.code, "message": status.message }).to_string().into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::room::Room;
    use crate::telemetry::{self, Parts};
    use crate::{spans, text::Text};

    fn flatten(request: &Otlp) {
        let (text, room) = (Text::dropped(&[]), Room::of(1 << 20));
        match request {
            Otlp::Metrics(request) => drop(telemetry::of_otlp(request, &Parts::default(), room)),
            Otlp::Traces(request) => drop(spans::spans(request, &text, room)),
            Otlp::Logs(request) => drop(spans::logs(request, &text, room)),
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), json in "[{}\\[\\]\":,a-zA-Z0-9]{0,80}") {
            for signal in Signal::ALL {
                for (encoding, bytes) in [(Encoding::Protobuf, Bytes::from(bytes.clone())), (Encoding::Json, Bytes::from(json.clone()))] {
                    match decode(signal, encoding, &bytes) {
                        Ok(request) => flatten(&request),
                        Err(refusal) => prop_assert_eq!(refusal.status(), 400),
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_nested_without_end_is_refused_and_not_a_stack_overflow() {
        // AnyValue { array_value { values { ... } } }, a thousand deep: lengths grow from the inside out.
        let mut value = Vec::new();
        for _ in 0..1_000 {
            for tag in [0x0a, 0x2a] {
                let mut outer = vec![tag];
                prost::encoding::encode_varint(value.len() as u64, &mut outer);
                outer.extend(value);
                value = outer;
            }
        }
        // resource_spans { resource { attributes { value } } }
        for tag in [0x12, 0x0a, 0x0a, 0x0a] {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(value.len() as u64, &mut outer);
            outer.extend(value);
            value = outer;
        }
        assert!(decode(Signal::Traces, Encoding::Protobuf, &value.into()).is_err());
        let json = format!(
            r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"k","value":{}"#,
            r#"{"arrayValue":{"values":["#.repeat(1_000)
        );
        assert!(decode(Signal::Traces, Encoding::Json, &json.into()).is_err());
    }
}
