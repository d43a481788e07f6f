//! `POST /api/v1/write`: Prometheus remote-write, protocols 1.0 and 2.0.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use prost::Message as _;

use super::refusal::Refusal;
use super::{Desk, body};
use crate::message::{Message, Signal};
use crate::proto::remote_write::{Request as RequestV2, WriteRequest};
use crate::room::{NoMessages, Room};
use crate::telemetry::{self, Ignored, Parts};

const RECEIVER: &str = "remote_write";
/// What protocol 2.0's senders want to hear: how much was received. What the contract has no column for counts too, since
/// it was received and is not to be sent again.
const SAMPLES_WRITTEN: &str = "x-prometheus-remote-write-samples-written";

/// A request of either protocol.
#[derive(Debug)]
pub(super) enum Write {
    V1(WriteRequest),
    V2(RequestV2),
}

pub(super) async fn receive(State(desk): State<Arc<Desk>>, request: Request<Body>) -> Response {
    let mut body_bytes = 0;
    let (status, response) = match take(&desk, request, &mut body_bytes).await {
        Ok(samples) => {
            let headers = samples.map(|samples| [(SAMPLES_WRITTEN, samples.to_string())]);
            (StatusCode::NO_CONTENT, headers.map_or_else(Response::default, IntoResponse::into_response))
        }
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let retry = refusal.retry_after_s().map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
            let text = refusal.sentence() + "\n";
            (status, retry.map_or_else(|| text.clone().into_response(), |retry| (retry, text.clone()).into_response()))
        }
    };
    desk.answered(RECEIVER, status.as_u16(), body_bytes);
    (status, response).into_response()
}

/// The number of samples, to a sender of protocol 2.0.
async fn take(desk: &Arc<Desk>, request: Request<Body>, body_bytes: &mut usize) -> Result<Option<usize>, Refusal> {
    desk.admit(request.headers())?;
    desk.receives(Signal::Metrics)?;
    let content_type =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_v2 = content_type.contains("io.prometheus.write.v2.Request");
    if !content_type.is_empty() && body::plain(request.headers(), header::CONTENT_TYPE) != "application/x-protobuf" {
        return Err(Refusal::Unsupported("remote-write is Content-Type: application/x-protobuf"));
    }
    if !["", "snappy"].contains(&body::plain(request.headers(), header::CONTENT_ENCODING).as_str()) {
        return Err(Refusal::Unsupported("remote-write is Content-Encoding: snappy"));
    }
    let _place = desk.place().await?;
    let limit = desk.config.max_body_bytes;
    let packed = body::read(request.into_body(), limit).await?;
    *body_bytes = packed.len();
    let pivoting = desk.clone();
    let (samples, pivoted) = body::work(move || {
        let write = decode(&body::unsnappy(&packed, limit)?, is_v2)?;
        let pivoted = write.messages(&pivoting.parts, pivoting.config.room())?;
        let samples = match &write {
            Write::V1(_) => None,
            Write::V2(request) => Some(request.timeseries.iter().map(|series| series.samples.len()).sum()),
        };
        Ok((samples, pivoted))
    })
    .await?;
    desk.take_metrics(pivoted).await?;
    Ok(samples)
}

impl Write {
    pub(super) fn messages(&self, parts: &Parts, room: Room) -> Result<(Vec<Message>, Ignored), NoMessages> {
        match self {
            Self::V1(request) => telemetry::of_remote_write(request, parts, room),
            Self::V2(request) => telemetry::of_remote_write_v2(request, parts, room),
        }
    }
}

pub(super) fn decode(bytes: &Bytes, is_v2: bool) -> Result<Write, Refusal> {
    if is_v2 {
        let request = RequestV2::decode(bytes.clone());
        return request.map(Write::V2).map_err(|_| Refusal::BadBytes("it is no io.prometheus.write.v2.Request"));
    }
    WriteRequest::decode(bytes.clone())
        .map(Write::V1)
        .map_err(|_| Refusal::BadBytes("it is no prometheus.WriteRequest"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            for is_v2 in [false, true] {
                match decode(&bytes, is_v2) {
                    Ok(write) => drop(write.messages(&Parts::default(), Room::of(1 << 20))),
                    Err(refusal) => prop_assert_eq!(refusal.status(), 400),
                }
            }
        }
    }
}
