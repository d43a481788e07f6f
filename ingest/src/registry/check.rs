//! Before anything is read: do the schemas that topics have now lead to rows, and what becomes of their fields?
//!
//! A topic's schema is the latest of the subject `TOPIC-value`, which is what serializers register under unless they are
//! told otherwise. Messages name their schema by id, so a topic without such a subject can be read all the same.

use std::cmp::Reverse;

use weir_decode::{RegisteredSchema, message_fields};
use weir_schemas::{Contract, Requirement};

use super::Registry;
use crate::config::no_registry;
use crate::decode::EXTRA;
use crate::{Format, IngestConfig, IngestError, Result, TopicConfig};

/// What the registry has for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSchema {
    /// The topic.
    pub topic: String,
    /// Where serializers register its schemas, unless they are told otherwise.
    pub subject: String,
    /// The latest schema; none, when the registry has no such subject.
    pub latest: Option<LatestSchema>,
}

/// What becomes of the fields of a schema. Of several types that a message can be it is the one that fits best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatestSchema {
    /// Its version within the subject.
    pub version: i64,
    /// The contract whose columns the fields are; none, when something else makes rows of them.
    pub contract: Option<&'static str>,
    /// Fields that are read.
    pub read: Vec<String>,
    /// Fields that the contract does not know and the operator keeps.
    pub kept: Vec<String>,
    /// Fields that nothing reads.
    pub dropped: Vec<String>,
}

/// Asks the registry for the schema of each topic whose encoding needs one, in their order. Blocks. When the registry does
/// not answer as it should, that is the last thing in the list.
#[must_use]
pub fn probe_schemas(config: &IngestConfig) -> Vec<Result<TopicSchema>> {
    let mut topics = config.topics.iter().filter(|topic| topic.encoding.needs_schemas()).peekable();
    let Some(first) = topics.peek() else { return Vec::new() };
    let registry = config.registry.as_ref().ok_or_else(|| no_registry(&first.topic)).and_then(Registry::new);
    let registry = match registry {
        Ok(registry) => registry,
        Err(error) => return vec![Err(error)],
    };
    let mut found = Vec::new();
    for topic in topics {
        let subject = format!("{}-value", topic.topic);
        let latest = match registry.latest(&subject) {
            Ok(latest) => latest,
            Err(trouble) => {
                found.push(Err(trouble.into()));
                break;
            }
        };
        let latest = latest.map(|(version, schema)| fit(topic, &subject, version, &schema, &config.allowed_unknown));
        found.push(latest.transpose().map(|latest| TopicSchema { topic: topic.topic.clone(), subject, latest }));
    }
    found
}

/// Holds a schema against what reads the topic.
fn fit(
    topic: &TopicConfig,
    subject: &str,
    version: i64,
    schema: &RegisteredSchema,
    allowed_unknown: &[String],
) -> Result<LatestSchema> {
    let unusable = |why, mend| IngestError::UnusableSchema {
        topic: topic.topic.clone(),
        subject: subject.to_owned(),
        version,
        why,
        mend,
    };
    let types = message_fields(topic.encoding, schema).map_err(|why| {
        unusable(why.to_owned(), "correct the topic's encoding, or have a schema registered that Weir can read")
    })?;
    let reader = Reader::of(&topic.format);
    let best = types.iter().min_by_key(|fields| {
        let read = fields.iter().filter(|field| reader.reads(field)).count();
        (reader.missing(fields).len(), Reverse(read))
    });
    let fields = best.map(Vec::as_slice).unwrap_or_default();
    let missing = reader.missing(fields);
    if let Reader::Contract(contract) = &reader
        && !missing.is_empty()
    {
        let columns = if missing.len() == 1 { "the required column" } else { "the required columns" };
        let why = format!("no field feeds {columns} {} of {}", missing.join(", "), contract.name);
        return Err(unusable(why, "have fields of these names sent, or read the topic with an adapter"));
    }
    let mut latest = LatestSchema { version, contract: reader.contract(), read: vec![], kept: vec![], dropped: vec![] };
    for field in fields {
        let place = if reader.reads(field) {
            &mut latest.read
        } else if reader.keeps(field, allowed_unknown) {
            &mut latest.kept
        } else {
            &mut latest.dropped
        };
        place.push(field.clone());
    }
    Ok(latest)
}

/// What makes rows of a topic's fields.
enum Reader {
    /// They are columns.
    Contract(&'static Contract),
    /// An adapter that reads fields of these names.
    Adapter(Vec<String>),
    /// An adapter that looks for itself.
    Whole,
}

impl Reader {
    fn of(format: &Format) -> Self {
        match format {
            Format::Requests | Format::Feedback | Format::GpuTelemetry => Self::Contract(format.contracts()[0]),
            Format::VllmSemanticRouter => Self::Whole,
            Format::Adapter(adapter) => {
                Self::Adapter(adapter.input_schema().fields().iter().map(|field| field.name().clone()).collect())
            }
        }
    }

    fn contract(&self) -> Option<&'static str> {
        match self {
            Self::Contract(contract) => Some(contract.name),
            Self::Adapter(_) | Self::Whole => None,
        }
    }

    fn reads(&self, field: &str) -> bool {
        match self {
            // A producer's own `extra` is no column: the door opens it for the operator's list.
            Self::Contract(contract) => field != EXTRA && contract.field(field).is_some(),
            Self::Adapter(fields) => fields.iter().any(|name| name == field),
            Self::Whole => true,
        }
    }

    fn keeps(&self, field: &str, allowed_unknown: &[String]) -> bool {
        let listed = allowed_unknown.iter().any(|name| name == field);
        matches!(self, Self::Contract(_)) && (listed || (field == EXTRA && !allowed_unknown.is_empty()))
    }

    /// Required columns that none of the fields is.
    fn missing(&self, fields: &[String]) -> Vec<&'static str> {
        let Self::Contract(contract) = self else { return Vec::new() };
        let required = contract.fields.iter().filter(|column| column.requirement == Requirement::Required);
        required.map(|column| column.name).filter(|column| !fields.iter().any(|field| field == column)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_adapters::{Adapter, Definition};
    use weir_decode::{Encoding, SchemaLanguage};

    use super::*;

    fn topic(format: Format, encoding: Encoding) -> TopicConfig {
        TopicConfig { topic: "t".to_owned(), format, encoding, headers: vec![] }
    }

    /// Holds the schema against the format; `flavour` may go to `extra`.
    fn held(format: Format, encoding: Encoding, language: SchemaLanguage, text: &str) -> Result<LatestSchema, String> {
        let schema = RegisteredSchema { language, text: text.to_owned(), references: vec![] };
        let allowed = ["flavour".to_owned()];
        fit(&topic(format, encoding), "t-value", 3, &schema, &allowed).map_err(|error| error.to_string())
    }

    fn avro(format: Format, fields: &[&str]) -> Result<LatestSchema, String> {
        held(format, Encoding::Avro, SchemaLanguage::Avro, &record("R", fields))
    }

    fn record(name: &str, fields: &[&str]) -> String {
        let fields: Vec<_> = fields.iter().map(|name| format!(r#"{{"name":"{name}","type":"string"}}"#)).collect();
        format!(r#"{{"type":"record","name":"{name}","fields":[{}]}}"#, fields.join(","))
    }

    #[test]
    fn fields_are_columns_or_kept_or_dropped() {
        let latest = avro(Format::Requests, &["request_id", "arrival_ms", "flavour", "colour", "extra"]).unwrap();
        assert_eq!((latest.version, latest.contract), (3, Some("requests")));
        assert_eq!(latest.read, ["request_id", "arrival_ms"]);
        assert_eq!(latest.kept, ["flavour", "extra"]);
        assert_eq!(latest.dropped, ["colour"]);
    }

    #[test]
    fn a_required_column_needs_a_field() {
        let said = avro(Format::Requests, &["request_id", "arrivalMs"]).unwrap_err();
        assert!(said.contains("topic t, version 3 of t-value"), "{said}");
        assert!(said.contains("no field feeds the required column arrival_ms of requests; have"), "{said}");
        let said = avro(Format::Requests, &["id"]).unwrap_err();
        assert!(said.contains("the required columns request_id, arrival_ms of requests"), "{said}");
    }

    #[test]
    fn of_several_types_the_one_that_fits_counts() {
        let fitting = record("B", &["request_id", "arrival_ms", "tenant"]);
        let union =
            format!(r#"["null",{},{},{fitting}]"#, record("A", &["x"]), record("C", &["request_id", "arrival_ms"]));
        let latest = held(Format::Requests, Encoding::Avro, SchemaLanguage::Avro, &union).unwrap();
        assert_eq!(latest.read, ["request_id", "arrival_ms", "tenant"]);

        let file = "syntax = \"proto3\"; message First { string x = 1; } message Outer { map<string, string> m = 1; \
                    message Request { string request_id = 1; int64 arrival_ms = 2; string y = 3; } }";
        let latest = held(Format::Requests, Encoding::Protobuf, SchemaLanguage::Protobuf, file).unwrap();
        assert_eq!((latest.read.len(), latest.dropped), (2, vec!["y".to_owned()]));
    }

    #[test]
    fn schemas_that_the_decoder_cannot_use_are_refused() {
        for (language, text, why) in [
            (SchemaLanguage::Protobuf, "syntax = \"proto3\";", "another language than its topic's encoding"),
            (SchemaLanguage::Avro, "\"string\"", "no record"),
            (SchemaLanguage::Avro, "{", "is of no use: "),
        ] {
            let said = held(Format::Requests, Encoding::Avro, language, text).unwrap_err();
            assert!(said.contains(why) && said.contains("correct the topic's encoding"), "{said}");
        }
        let said =
            held(Format::Requests, Encoding::Protobuf, SchemaLanguage::Protobuf, "syntax = \"proto3\";").unwrap_err();
        assert!(said.contains("no record"), "{said}");
    }

    #[test]
    fn an_adapter_reads_the_fields_that_it_names_and_needs_no_columns() {
        let definition = Definition::built_in("litellm").unwrap();
        let adapter = Adapter::compile(&definition).unwrap();
        let latest = avro(Format::Adapter(Arc::new(adapter)), &["id", "flavour", "colour"]).unwrap();
        assert_eq!((latest.contract, latest.read), (None, vec!["id".to_owned()]));
        assert_eq!(latest.dropped, ["flavour", "colour"], "an adapter's rows have no unknown fields to keep");
        let latest = avro(Format::VllmSemanticRouter, &["id", "colour"]).unwrap();
        assert_eq!((latest.contract, latest.read.len()), (None, 2));
    }
}
