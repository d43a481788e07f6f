//! OTLP over gRPC: the `Export` method of its three services. Each takes one message and gives one back, which is all of
//! gRPC that is needed here: a length before each message, and a status behind it.
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prost::Message;

use super::otlp::{Encoding, decode, partial_success};
use super::refusal::Refusal;
use super::{Desk, TooLarge, body};
use crate::message::Signal;
use crate::proto::otlp::{Any, Duration, ExportResponse, RetryInfo, Status};

const RECEIVER: &str = "otlp_grpc";
const CONTENT_TYPE: &str = "application/grpc";
/// A flag and a length before each message.
const PREFIX_BYTES: usize = 5;

pub(super) async fn receive(signal: Signal, State(desk): State<Arc<Desk>>, request: Request<Body>) -> Response {
    let mut body_bytes = 0;
    let (status, response) = match take(signal, &desk, request, &mut body_bytes).await {
        Ok(too_large) => (200, success(too_large)),
        Err(refusal) => (refusal.status(), failure(&refusal)),
    };
    desk.answered(RECEIVER, status, body_bytes);
    response
}

async fn take(
    signal: Signal,
    desk: &Arc<Desk>,
    request: Request<Body>,
    body_bytes: &mut usize,
) -> Result<TooLarge, Refusal> {
    desk.admit(request.headers())?;
    desk.receives(signal)?;
    let content_type = body::plain(request.headers(), header::CONTENT_TYPE);
    if content_type != CONTENT_TYPE && content_type != "application/grpc+proto" {
        return Err(Refusal::Unsupported("OTLP over gRPC is content-type: application/grpc"));
    }
    let encoding = request.headers().get("grpc-encoding").and_then(|value| value.to_str().ok()).unwrap_or("identity");
    let gzip = match encoding {
        "identity" => false,
        "gzip" => true,
        _ => return Err(Refusal::Unsupported("OTLP over gRPC is grpc-encoding: gzip, or none")),
    };
    let _place = desk.place().await?;
    let limit = desk.config.max_body_bytes;
    let framed = body::read(request.into_body(), limit + PREFIX_BYTES).await?;
    *body_bytes = framed.len();
    let request = body::work(move || {
        let message = unframed(&framed, gzip, limit)?;
        decode(signal, Encoding::Protobuf, &message)
    })
    .await?;
    desk.take_otlp(request).await
}

/// The one message of the body.
pub(super) fn unframed(framed: &Bytes, gzip: bool, limit: usize) -> Result<Bytes, Refusal> {
    let bad = Refusal::BadBytes("it is not one message of gRPC");
    let Some(&[flag, l0, l1, l2, l3]) = framed.first_chunk::<PREFIX_BYTES>() else { return Err(bad) };
    let message = framed.slice(PREFIX_BYTES..);
    if u32::from_be_bytes([l0, l1, l2, l3]) as usize != message.len() {
        return Err(bad);
    }
    match flag {
        0 => Ok(message),
        1 if gzip => body::gunzip(&message, limit),
        _ => Err(bad),
    }
}

fn success(too_large: TooLarge) -> Response {
    let message = ExportResponse { partial_success: partial_success(too_large) }.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    framed.extend_from_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers))));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::new(body)).into_response()
}

/// A status without a message goes into the head of the answer.
fn failure(refusal: &Refusal) -> Response {
    let mut status = Status { code: refusal.grpc_code(), message: refusal.sentence(), details: Vec::new() };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert("grpc-status", HeaderValue::from(status.code));
    if let Ok(sentence) = HeaderValue::from_str(&percent_encoded(&status.message)) {
        headers.insert("grpc-message", sentence);
    }
    if let Some(seconds) = refusal.retry_after_s() {
        let delay = Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX) };
        let value = RetryInfo { retry_delay: Some(delay) }.encode_to_vec();
        status.details.push(Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value });
        if let Ok(details) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(status.encode_to_vec())) {
            headers.insert("grpc-status-details-bin", details);
        }
    }
    (headers, Body::empty()).into_response()
}

/// As `grpc-message` wants it: printable ASCII without the percent sign as it is, the rest escaped.
fn percent_encoded(sentence: &str) -> String {
    let escaped = |byte: u8| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    sentence.bytes().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), gzip: bool) {
            let _message = unframed(&bytes.into(), gzip, 1_000);
        }
    }

    #[test]
    fn one_message_is_taken_out_of_its_frame() {
        let framed =
            |flag, length: u32, message: &[u8]| Bytes::from([&[flag], &length.to_be_bytes()[..], message].concat());
        assert_eq!(unframed(&framed(0, 3, b"abc"), false, 9).unwrap(), "abc");
        for wrong in [framed(0, 4, b"abc"), framed(0, 2, b"abc"), framed(1, 3, b"abc"), framed(7, 3, b"abc")] {
            assert!(unframed(&wrong, false, 9).is_err());
        }
        assert_eq!(percent_encoded("50 % \u{e9}"), "50 %25 %C3%A9");
    }
}
