//! The laws of what senders send.

use bytes::Bytes;
use serde_json::Value;
use weir_schemas::GpuTelemetry;

use super::otlp::{Encoding, decode};
use super::remote_write::{self, Write};
use super::{Otlp, body, grpc};
use crate::message::{Message, Signal};
use crate::proto::otlp::{AnyValue, KeyValue, LogsRequest, TracesRequest};
use crate::proto::remote_write::{Request, TimeSeriesV2, WriteRequest};
use crate::room::{NoMessages, Room};
use crate::telemetry::{self, Parts};
use crate::text::{Text, is_genai_event};
use crate::{attributes::find, spans};

/// Bytes that a body unpacks to at most.
const LIMIT: usize = 1 << 20;
/// What a request may become: less than the fuzzer's inputs could.
const ROOM_BYTES: usize = 1 << 18;

/// A request of remote-write is refused, or becomes messages of the contract within the room that it has; protocol 2.0 says
/// the same as 1.0. The first byte chooses the protocol, and whether the rest is packed.
pub fn remote_write(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let unpacked = match choice & 2 {
        0 => Bytes::copy_from_slice(bytes),
        _ => match body::unsnappy(bytes, LIMIT) {
            Ok(unpacked) => unpacked,
            Err(refusal) => return assert!([400, 413].contains(&refusal.status()), "{refusal:?}"),
        },
    };
    assert!(unpacked.len() <= LIMIT);
    let Ok(write) = remote_write::decode(&unpacked, choice & 1 == 1) else { return };
    let became = messages(&write);
    if let Write::V1(request) = &write {
        assert_eq!(messages(&Write::V2(with_symbols(request))), became);
    }
    let Ok(messages) = became else { return };
    hold(Signal::Metrics, &messages);
}

fn messages(write: &Write) -> Result<Vec<Message>, NoMessages> {
    write.messages(&Parts::default(), Room::of(ROOM_BYTES)).map(|(messages, _)| messages)
}

/// The request in protocol 2.0.
fn with_symbols(request: &WriteRequest) -> Request {
    let mut symbols = Vec::new();
    let timeseries = request.timeseries.iter().map(|series| {
        let mut symbol = |text: &str| {
            symbols.push(text.to_owned());
            u32::try_from(symbols.len() - 1).expect("symbols are counted in 32 bits")
        };
        let labels_refs = series.labels.iter().flat_map(|label| [symbol(&label.name), symbol(&label.value)]).collect();
        TimeSeriesV2 { labels_refs, samples: series.samples.clone(), histograms: series.histograms.clone() }
    });
    let timeseries = timeseries.collect();
    Request { symbols, timeseries }
}

/// A request of OTLP is refused, or becomes messages within the room that it has: the same in both encodings, and the same
/// whatever stands where a prompt or a response can. The first byte chooses the signal, and how the rest is written.
pub fn otlp(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let signal = Signal::ALL[usize::from(choice % 3)];
    let bytes = Bytes::copy_from_slice(bytes);
    let body = match choice / 3 % 4 {
        0 => Ok((Encoding::Protobuf, bytes)),
        1 => Ok((Encoding::Json, bytes)),
        2 => grpc::unframed(&bytes, true, LIMIT).map(|message| (Encoding::Protobuf, message)),
        _ => body::gunzip(&bytes, LIMIT).map(|message| (Encoding::Json, message)),
    };
    let request = body.and_then(|(encoding, bytes)| decode(signal, encoding, &bytes));
    match request {
        Ok(Otlp::Metrics(request)) => {
            let flatten = |request: &_| telemetry::of_otlp(request, &Parts::default(), Room::of(ROOM_BYTES));
            let became = flatten(&request);
            assert_eq!(flatten(&again(&request)), became, "in Protocol Buffers");
            let Ok((messages, _)) = became else { return };
            hold(signal, &messages);
        }
        Ok(Otlp::Traces(request)) => {
            let flatten = |request: &_, text: &Text| {
                let flattened = spans::spans(request, text, Room::of(ROOM_BYTES))?;
                Ok((flattened.messages, flattened.dropped))
            };
            hold_without_text(signal, &request, flatten, replace_text_of_spans);
        }
        Ok(Otlp::Logs(request)) => {
            let flatten = |request: &_, text: &Text| {
                let flattened = spans::logs(request, text, Room::of(ROOM_BYTES))?;
                Ok((flattened.messages, flattened.dropped))
            };
            hold_without_text(signal, &request, flatten, replace_text_of_logs);
        }
        Err(refusal) => assert!([400, 413].contains(&refusal.status()), "{refusal:?}"),
    }
}

/// Written in Protocol Buffers and read.
fn again<T: prost::Message + Default>(request: &T) -> T {
    T::decode(&request.encode_to_vec()[..]).expect("what we wrote can be read")
}

fn hold_without_text<T: prost::Message + Default + Clone>(
    signal: Signal,
    request: &T,
    flatten: impl Fn(&T, &Text) -> Result<(Vec<Message>, u64), NoMessages>,
    replace_text: impl Fn(&mut T),
) {
    let without = Text::dropped(&[]);
    let became = flatten(request, &without);
    assert_eq!(flatten(&again(request), &without), became, "in Protocol Buffers");
    let mut other = request.clone();
    replace_text(&mut other);
    assert_eq!(flatten(&other, &without), became, "with other text");
    let Ok((messages, _)) = became else { return };
    hold(signal, &messages);
    if let Ok((kept, dropped)) = flatten(request, &Text::kept()) {
        hold(signal, &kept);
        assert_eq!((kept.len(), dropped), (messages.len(), 0));
    }
}

/// What must hold of the messages of any request.
fn hold(signal: Signal, messages: &[Message]) {
    let bytes: usize = messages.iter().map(|message| message.key.len() + message.payload.len()).sum();
    assert!(bytes <= ROOM_BYTES, "{bytes} bytes of messages");
    for message in messages {
        assert_eq!(message.signal, signal);
        if signal == Signal::Metrics {
            let row: GpuTelemetry = serde_json::from_slice(&message.payload).expect("a message of the contract");
            let key = row.instance.or(row.gpu).unwrap_or_default();
            assert_eq!(message.key, key);
            continue;
        }
        let value: Value = serde_json::from_slice(&message.payload).expect("a message is JSON");
        for name in ["attributes", "resource"] {
            let object = value[name].as_object().expect("attributes are an object");
            assert!(object.values().all(Value::is_string), "{object:?}");
        }
    }
}

const REPLACED: &str = "replaced";

fn replaced() -> AnyValue {
    AnyValue { string_value: Some(REPLACED.to_owned()), ..AnyValue::default() }
}

fn replace_text_of_spans(request: &mut TracesRequest) {
    for of_resource in &mut request.resource_spans {
        let resource = of_resource.resource.iter_mut().flat_map(|resource| &mut resource.attributes);
        resource.for_each(|attribute| replace_text(attribute, false));
        for span in of_resource.scope_spans.iter_mut().flat_map(|of_scope| &mut of_scope.spans) {
            span.attributes.iter_mut().for_each(|attribute| replace_text(attribute, false));
            for event in &mut span.events {
                let of_genai = is_genai_event(&event.name);
                event.attributes.iter_mut().for_each(|attribute| replace_text(attribute, of_genai));
            }
            if let Some(status) = span.status.as_mut().filter(|status| !status.message.is_empty()) {
                REPLACED.clone_into(&mut status.message);
            }
        }
    }
}

fn replace_text_of_logs(request: &mut LogsRequest) {
    for of_resource in &mut request.resource_logs {
        let resource = of_resource.resource.iter_mut().flat_map(|resource| &mut resource.attributes);
        resource.for_each(|attribute| replace_text(attribute, false));
        for record in of_resource.scope_logs.iter_mut().flat_map(|of_scope| &mut of_scope.log_records) {
            let attribute = find(&record.attributes, "event.name").unwrap_or_default();
            let of_genai = match record.event_name.as_str() {
                "" => is_genai_event(attribute),
                name => is_genai_event(name),
            };
            record.attributes.iter_mut().for_each(|attribute| replace_text(attribute, of_genai));
            match &mut record.body {
                Some(body) if of_genai => *body = replaced(),
                Some(body) => replace_text_in(body, of_genai),
                None => {}
            }
        }
    }
}

/// At any depth.
fn replace_text(attribute: &mut KeyValue, of_genai: bool) {
    let text = Text::dropped(&[]);
    if text.drops(&attribute.key) || (of_genai && text.drops_in_genai_event(&attribute.key)) {
        attribute.value = Some(replaced());
    } else if let Some(value) = &mut attribute.value {
        replace_text_in(value, of_genai);
    }
}

fn replace_text_in(value: &mut AnyValue, of_genai: bool) {
    let entries = value.kvlist_value.iter_mut().flat_map(|map| &mut map.values);
    entries.for_each(|entry| replace_text(entry, of_genai));
    let elements = value.array_value.iter_mut().flat_map(|array| &mut array.values);
    elements.for_each(|element| replace_text_in(element, of_genai));
}
