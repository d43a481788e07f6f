//! Why a request is not answered with "yes", in the words of HTTP and of gRPC.

use crate::buffer::NotTaken;
use crate::message::Signal;
use crate::room::NoMessages;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The bytes are not what they should be; the words follow "the body is not a request: ".
    BadBytes(&'static str),
    /// Text in an encoding or of a type that the receiver does not read; the sentence says which it does.
    Unsupported(&'static str),
    /// More bytes than the limit.
    TooLarge(usize),
    /// Messages of far more bytes than its body.
    BecomesTooMuch,
    WrongToken,
    NotReceived(Signal),
    /// The body did not come in time, or broke off.
    Slow,
    /// Too many requests at once.
    Busy,
    NotTaken(NotTaken),
}

impl From<NoMessages> for Refusal {
    fn from(why: NoMessages) -> Self {
        match why {
            NoMessages::Broken(why) => Self::BadBytes(why),
            NoMessages::TooMuch => Self::BecomesTooMuch,
        }
    }
}

impl Refusal {
    /// The HTTP status. What time mends is 503 throughout: of 429 Prometheus drops what it sent unless it is told not to,
    /// and of 408 OTLP's senders do too.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::BadBytes(_) => 400,
            Self::WrongToken => 401,
            Self::NotReceived(_) => 404,
            Self::TooLarge(_) | Self::BecomesTooMuch => 413,
            Self::Unsupported(_) => 415,
            Self::Slow | Self::Busy | Self::NotTaken(_) => 503,
        }
    }

    /// The code of gRPC. Senders try again after UNAVAILABLE, and not after the others.
    pub(super) fn grpc_code(&self) -> i32 {
        match self {
            Self::BadBytes(_) => 3,                            // INVALID_ARGUMENT
            Self::TooLarge(_) | Self::BecomesTooMuch => 8,     // RESOURCE_EXHAUSTED
            Self::NotReceived(_) | Self::Unsupported(_) => 12, // UNIMPLEMENTED
            Self::Slow | Self::Busy | Self::NotTaken(_) => 14, // UNAVAILABLE
            Self::WrongToken => 16,                            // UNAUTHENTICATED
        }
    }

    /// After how many seconds the same request may pass.
    pub(super) fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Busy => Some(1),
            Self::NotTaken(NotTaken::Full | NotTaken::Closing) => Some(5),
            Self::NotTaken(NotTaken::Disk(_)) => Some(30),
            _ => None,
        }
    }

    /// One sentence for whoever reads the sender's log.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::BadBytes(why) => format!("the body is not a request: {why}"),
            Self::Unsupported(sentence) => (*sentence).to_owned(),
            Self::TooLarge(limit) => {
                format!("the body has more than {limit} bytes: send smaller batches, or raise bridge.max_body_bytes")
            }
            Self::BecomesTooMuch => {
                "the body becomes far more than it is, since each of its messages repeats what they share: \
                                     send smaller batches, or raise bridge.max_body_bytes"
                    .to_owned()
            }
            Self::WrongToken => "this bridge needs its token: send the header Authorization: Bearer TOKEN".to_owned(),
            Self::NotReceived(signal) => {
                format!(
                    "this bridge does not receive {0}: add \"{0}\" to bridge.signals, or stop sending them",
                    signal.name()
                )
            }
            Self::Slow => "the body did not arrive in time: send it again".to_owned(),
            Self::Busy => "too many requests at once: send it again".to_owned(),
            Self::NotTaken(NotTaken::Full) => {
                "the bridge's buffer is full until Kafka has taken some of it: send it again later".to_owned()
            }
            Self::NotTaken(NotTaken::Disk(why)) => {
                format!("the bridge cannot write its buffer ({why}): send it again later")
            }
            Self::NotTaken(NotTaken::Closing) => "the bridge is stopping: send it again later".to_owned(),
        }
    }
}
