//! Why a message is a dead letter: in our words only, since a parser's words quote the payload.

use std::borrow::Cow;
use std::fmt;

use crate::SchemaId;

/// Why a message could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The value is empty or blank.
    Empty,
    /// Not JSON.
    NotJson,
    /// JSON that ends in the middle.
    Truncated,
    /// More than one JSON value.
    SeveralValues,
    /// JSON, but not an object.
    NotAnObject,
    /// Not in the framing of a schema registry's serializers: no schema id at its start or in a header.
    NotFramed,
    /// The schema that the message names cannot be used.
    UnusableSchema {
        /// What the registry knows it by.
        id: SchemaId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The registry answers that it has no schema by the id that the message names. Which id is not said: where nobody
    /// registered it, it may be any bytes of a message that was never framed.
    UnknownSchema,
    /// The bytes do not follow the schema that the message names.
    NotOfItsSchema,
    /// A field has another type than its contract says, or a string is not UTF-8.
    WrongType {
        /// The field: of the contract, or one that the operator declared.
        field: Cow<'static, str>,
    },
    /// A value of some field cannot be read.
    Unreadable,
    /// A required field is absent or null.
    Missing {
        /// The contract's field.
        field: &'static str,
    },
    /// Event time before 2000: a wrong unit or an unset clock.
    TimeTooEarly {
        /// The contract's time field.
        field: &'static str,
    },
    /// Event time more than a day after the message was sent.
    TimeTooLate {
        /// The contract's time field.
        field: &'static str,
    },
    /// A quantity that cannot be: negative tokens, an infinite cost, a share above one.
    OutOfRange {
        /// The contract's field.
        field: &'static str,
        /// The numbers that can be.
        range: &'static str,
    },
    /// A word outside a closed vocabulary.
    UnknownWord {
        /// The contract's field.
        field: &'static str,
        /// The words that can be: `one of: ...`.
        choices: &'static str,
    },
    /// A propensity outside (0, 1].
    Propensity,
    /// Propensities of the candidates that cannot be, or that contradict the row's own.
    CandidatePropensity {
        /// What is wrong.
        why: &'static str,
    },
    /// An adapter's words, which never quote the payload.
    Adapter(String),
}

impl Reason {
    /// A short name, for counters and for `GROUP BY`.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotJson => "not_json",
            Self::Truncated => "truncated",
            Self::SeveralValues => "several_values",
            Self::NotAnObject => "not_an_object",
            Self::NotFramed => "not_framed",
            Self::UnusableSchema { .. } => "unusable_schema",
            Self::UnknownSchema => "unknown_schema",
            Self::NotOfItsSchema => "not_of_its_schema",
            Self::WrongType { .. } => "wrong_type",
            Self::Unreadable => "unreadable",
            Self::Missing { .. } => "missing_field",
            Self::TimeTooEarly { .. } | Self::TimeTooLate { .. } => "implausible_time",
            Self::OutOfRange { .. } => "out_of_range",
            Self::UnknownWord { .. } => "unknown_word",
            Self::Propensity | Self::CandidatePropensity { .. } => "propensity",
            Self::Adapter(_) => "adapter",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the message is empty: send one JSON object"),
            Self::NotJson => f.write_str("the message is not JSON: send one JSON object"),
            Self::Truncated => f.write_str("the message ends in the middle of its JSON"),
            Self::SeveralValues => f.write_str("the message holds more than one JSON value: send one per message"),
            Self::NotAnObject => f.write_str("the message is JSON, but not an object"),
            Self::NotFramed => f.write_str(
                "the message has no schema id, neither at its start nor in a header: send it with a schema registry's serializer",
            ),
            Self::UnusableSchema { id, why } => write!(f, "schema {id} of the registry cannot be used: {why}"),
            Self::UnknownSchema => f.write_str(
                "the schema registry has no schema of the id that the message names: register it and replay the message, or send it with the registry's serializer",
            ),
            Self::NotOfItsSchema => f.write_str("the message's bytes do not follow the schema that it names"),
            Self::WrongType { field } => write!(f, "field {field} has another type than its contract says"),
            Self::Unreadable => f.write_str("a field cannot be read as its contract says"),
            Self::Missing { field } => write!(f, "required field {field} is absent or null"),
            Self::TimeTooEarly { field } => {
                write!(f, "{field} lies before the year 2000: send milliseconds since the Unix epoch")
            }
            Self::TimeTooLate { field } => {
                write!(f, "{field} lies more than a day after the message was sent: check unit and clock")
            }
            Self::OutOfRange { field, range } => write!(f, "field {field} holds a number that is not {range}"),
            Self::UnknownWord { field, choices } => write!(f, "field {field} is not {choices}"),
            Self::Propensity => f.write_str("propensity is not in (0, 1]"),
            Self::CandidatePropensity { why } => f.write_str(why),
            Self::Adapter(words) => f.write_str(words),
        }
    }
}
