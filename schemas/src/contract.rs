//! One table per event contract, and what is derived from it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema, SchemaRef};

use crate::Bounds;

/// The shape of a field's value, on the wire (JSON) and in Arrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// JSON string, Arrow `Utf8`.
    Text,
    /// JSON boolean, Arrow `Boolean`.
    Bool,
    /// JSON integer, Arrow `Int32`.
    Int32,
    /// JSON integer, Arrow `Int64`.
    Int64,
    /// JSON number, Arrow `Float64`.
    Float64,
    /// JSON array of strings, Arrow `List<Utf8>`.
    TextList,
    /// JSON array of integers, Arrow `List<Int64>`.
    Int64List,
    /// JSON array of numbers, Arrow `List<Float32>`.
    Float32List,
    /// JSON object of strings, Arrow `Map<Utf8, Utf8>`.
    TextMap,
    /// JSON object of numbers, Arrow `Map<Utf8, Float64>`.
    NumberMap,
    /// JSON array of [`crate::ToolCall`].
    ToolCalls,
    /// JSON array of [`crate::Candidate`].
    Candidates,
}

/// Whether a producer must send the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// A message without it is a dead letter.
    Required,
    /// Null when the producer lacks it; null is never imputed.
    Optional,
}

/// One field of a contract.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Name on the wire and of the column.
    pub name: &'static str,
    /// Shape of the value.
    pub kind: FieldKind,
    /// Must it be there?
    pub requirement: Requirement,
    /// Unit or vocabulary of the value (`ms`, `tokens`, `USD`, `id`, `0..1`, ...). It also decides what is refused:
    /// see [`Field::bounds`] and [`Field::choices`].
    pub unit: &'static str,
    /// What the value means.
    pub doc: &'static str,
}

impl Field {
    /// The numbers that the value, or each value of a map, can be.
    #[must_use]
    pub fn bounds(&self) -> Option<Bounds> {
        match self.kind {
            FieldKind::Int32 | FieldKind::Int64 | FieldKind::Float64 | FieldKind::NumberMap => {
                Bounds::of_unit(self.unit)
            }
            _ => None,
        }
    }

    /// The only words that the value can be, where the vocabulary is closed.
    #[must_use]
    pub fn choices(&self) -> Option<Vec<&'static str>> {
        Some(self.unit.strip_prefix("one of: ")?.split(", ").collect())
    }
}

/// One event contract: the fields of a topic.
#[derive(Debug)]
pub struct Contract {
    /// Topic, table and contract name.
    pub name: &'static str,
    /// What one message stands for.
    pub doc: &'static str,
    /// Its fields, in column order.
    pub fields: &'static [Field],
    /// The column that holds event time, in milliseconds since the Unix epoch.
    pub time_column: &'static str,
    /// Columns that name a person or a conversation: replaced by keyed pseudonyms at the door.
    pub pseudonymised: &'static [&'static str],
    /// Columns that hold prompt, context or response text: dropped at the door unless the operator keeps text.
    pub text_columns: &'static [&'static str],
}

impl Contract {
    /// The Arrow schema that messages of this contract decode into.
    #[must_use]
    pub fn arrow_schema(&self) -> SchemaRef {
        let fields: Fields = self
            .fields
            .iter()
            .map(|field| {
                let nullable = field.requirement == Requirement::Optional;
                ArrowField::new(field.name, field.kind.arrow_type(), nullable)
            })
            .collect();
        Arc::new(Schema::new(fields))
    }

    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl FieldKind {
    /// The Arrow type of a value of this kind.
    #[must_use]
    pub fn arrow_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float64 => DataType::Float64,
            Self::TextList => list_of(DataType::Utf8),
            Self::Int64List => list_of(DataType::Int64),
            Self::Float32List => list_of(DataType::Float32),
            Self::TextMap => map_to(DataType::Utf8),
            Self::NumberMap => map_to(DataType::Float64),
            Self::ToolCalls => list_of(DataType::Struct(
                vec![
                    ArrowField::new("name", DataType::Utf8, true),
                    ArrowField::new("success", DataType::Boolean, true),
                    ArrowField::new("error_class", DataType::Utf8, true),
                    ArrowField::new("latency_ms", DataType::Float64, true),
                ]
                .into(),
            )),
            Self::Candidates => list_of(DataType::Struct(
                vec![
                    ArrowField::new("model", DataType::Utf8, true),
                    ArrowField::new("score", DataType::Float64, true),
                    ArrowField::new("propensity", DataType::Float64, true),
                ]
                .into(),
            )),
        }
    }
}

// Child names are Delta's ("element", "key_value"), so that a table written and read back has this very schema.
fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(ArrowField::new("element", item, true)))
}

fn map_to(value: DataType) -> DataType {
    let entries = DataType::Struct(
        vec![ArrowField::new("key", DataType::Utf8, false), ArrowField::new("value", value, true)].into(),
    );
    DataType::Map(Arc::new(ArrowField::new("key_value", entries, false)), false)
}

/// Declares a contract once: the serde struct for producers and the [`Contract`] table for everyone else.
///
/// A field reads `name: RustType = Kind, "unit", "meaning";` and is optional unless marked `required`.
/// `serde` renames are written as `name ("wire name"): ...` for names that Rust cannot spell.
macro_rules! contract {
    (
        $(#[doc = $doc:literal])*
        $name:ident = $topic:literal, time = $time:literal,
        pseudonymised = [$($pseudonymised:literal),*], text = [$($text:literal),*];
        required { $($req:ident: $req_ty:ty = $req_kind:ident, $req_unit:literal, $req_doc:literal;)* }
        optional { $($opt:ident $(($wire:literal))?: $opt_ty:ty = $opt_kind:ident, $opt_unit:literal, $opt_doc:literal;)* }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(#[doc = concat!($req_doc, " Unit: ", $req_unit, ". Required.")] pub $req: $req_ty,)*
            $(
                #[doc = concat!($opt_doc, " Unit: ", $opt_unit, ".")]
                #[serde(skip_serializing_if = "Option::is_none" $(, rename = $wire)?)]
                pub $opt: Option<$opt_ty>,
            )*
        }

        impl $name {
            /// The table of fields that this struct, the Arrow schema and the JSON Schema share.
            #[must_use]
            pub fn contract() -> &'static $crate::Contract {
                static CONTRACT: $crate::Contract = $crate::Contract {
                    name: $topic,
                    doc: concat!($($doc, "\n",)*),
                    fields: &[
                        $($crate::Field {
                            name: stringify!($req), kind: $crate::FieldKind::$req_kind,
                            requirement: $crate::Requirement::Required, unit: $req_unit, doc: $req_doc,
                        },)*
                        $($crate::Field {
                            name: $crate::contract::wire_name!($opt $(, $wire)?), kind: $crate::FieldKind::$opt_kind,
                            requirement: $crate::Requirement::Optional, unit: $opt_unit, doc: $opt_doc,
                        },)*
                    ],
                    time_column: $time,
                    pseudonymised: &[$($pseudonymised),*],
                    text_columns: &[$($text),*],
                };
                &CONTRACT
            }
        }
    };
}

/// The wire name of a field: its Rust name, unless it has one of its own.
macro_rules! wire_name {
    ($rust:ident) => {
        stringify!($rust)
    };
    ($rust:ident, $wire:literal) => {
        $wire
    };
}

pub(crate) use {contract, wire_name};
