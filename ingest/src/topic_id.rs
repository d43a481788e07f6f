//! The id that Kafka gives a topic when it is created: what tells a topic from a later one of the same name. And whether
//! we may read it.
//!
//! rdkafka has no safe call for it, so librdkafka's is called here. The only other unsafe call of this crate is in `source::parked`.
#![expect(unsafe_code, reason = "rdkafka does not wrap DescribeTopics")]

use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What Kafka calls a topic that it has no id for.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The topic's id in base64; `None` when the brokers are too old to have ids (before Kafka 2.8).
pub(crate) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    wait: Duration,
) -> Result<Option<String>, KafkaError> {
    let broker = client.fetch_metadata(Some(topic), wait)?.orig_broker_id();
    topic_id_by(client, broker, topic, wait)
}

/// As [`topic_id`], said by a broker that is known to answer. Any can tell; left to itself the client would wait for the one
/// that is the controller.
pub(crate) fn topic_id_by<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    topic: &str,
    wait: Duration,
) -> Result<Option<String>, KafkaError> {
    let name = CString::new(topic).map_err(KafkaError::Nul)?;
    match describe(client, broker, &name, wait) {
        Ok(Described { id, .. }) => Ok(Some(id).filter(|id| !id.is_empty() && !id.starts_with(NO_ID))),
        Err(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => Ok(None),
        Err(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

/// May we read the topic? `None` when the brokers do not tell.
pub(crate) fn may_read<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    wait: Duration,
) -> Result<Option<bool>, KafkaError> {
    let name = CString::new(topic).map_err(KafkaError::Nul)?;
    let broker = client.fetch_metadata(Some(topic), wait)?.orig_broker_id();
    match describe(client, broker, &name, wait) {
        Ok(Described { may_read, .. }) => Ok(may_read),
        Err(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => Ok(None),
        Err(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

/// What brokers say of a topic.
struct Described {
    /// Empty when they have none.
    id: String,
    may_read: Option<bool>,
}

/// Something that librdkafka made for us and that is destroyed once, here.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, RDKafkaErrorCode> {
        NonNull::new(pointer).map(|pointer| Self { pointer, destroy }).ok_or(RDKafkaErrorCode::Fail)
    }

    fn as_ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the call that `destroy` is the counterpart of, and nobody else destroys it.
        unsafe { (self.destroy)(self.pointer.as_ptr()) }
    }
}

fn describe<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    topic: &CStr,
    wait: Duration,
) -> Result<Described, RDKafkaErrorCode> {
    let kafka = client.native_ptr();
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    let mut names = [topic.as_ptr()];
    // SAFETY: `kafka` lives as long as `client`, which is borrowed for all of this function. `names` is one valid C
    // string, which the collection copies. Each result is null or ours to destroy, which `Owned` does, in the reverse
    // order of these lines: the event before the queue that it came from, the queue before the client.
    let (queue, topics, options) = unsafe {
        (
            Owned::new(sys::rd_kafka_queue_new(kafka), sys::rd_kafka_queue_destroy)?,
            Owned::new(
                sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
                sys::rd_kafka_TopicCollection_destroy,
            )?,
            Owned::new(
                sys::rd_kafka_AdminOptions_new(kafka, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
                sys::rd_kafka_AdminOptions_destroy,
            )?,
        )
    };
    // SAFETY: all four live; the call copies topics and options, and takes a reference to the queue. The error text is
    // not asked for: a null buffer of length 0 is allowed. An option that the client does not take leaves an error object,
    // which is ours to destroy; destroying null does nothing.
    unsafe {
        sys::rd_kafka_error_destroy(sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.as_ptr(), 1));
        sys::rd_kafka_AdminOptions_set_request_timeout(options.as_ptr(), wait_ms, ptr::null_mut(), 0);
        sys::rd_kafka_AdminOptions_set_broker(options.as_ptr(), broker, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(kafka, topics.as_ptr(), options.as_ptr(), queue.as_ptr());
    }
    // SAFETY: the queue lives; the event is null after the timeout, or ours. The request itself times out after
    // `wait_ms`, so that the second more never passes without an event unless the client is being torn down.
    let event = unsafe { sys::rd_kafka_queue_poll(queue.as_ptr(), wait_ms.saturating_add(1_000)) };
    let event = Owned::new(event, sys::rd_kafka_event_destroy).map_err(|_| RDKafkaErrorCode::RequestTimedOut)?;
    // SAFETY: the event lives. The result is null if the event is of another kind. What it and its descriptions point
    // to lives as long as the event; the text is copied out before the event goes.
    unsafe {
        no_error(sys::rd_kafka_event_error(event.as_ptr()))?;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.as_ptr());
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if descriptions.is_null() || count != 1 {
            return Err(RDKafkaErrorCode::Fail);
        }
        let description = *descriptions;
        no_error(sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(description)))?;
        let text = sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(description));
        let id = if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() };
        let mut count = 0;
        let operations = sys::rd_kafka_TopicDescription_authorized_operations(description, &raw mut count);
        // Brokers that have no access rules, or do not tell, list nothing.
        let may_read = (!operations.is_null() && count > 0).then(|| {
            std::slice::from_raw_parts(operations, count)
                .contains(&sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ)
        });
        Ok(Described { id, may_read })
    }
}

fn no_error(code: sys::rd_kafka_resp_err_t) -> Result<(), RDKafkaErrorCode> {
    match code {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(error.into()),
    }
}
