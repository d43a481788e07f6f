//! A registered `.proto` file, with what it imports, as the types that messages are read by.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protox::file::{File, FileResolver, GoogleFileResolver};
use protox::prost::Message as _;
use protox::prost_reflect::prost_types::FileDescriptorProto;
use protox::prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind as Declared, MessageDescriptor};

use super::{EnumType, Field, Form, Kind, MessageType, Place, ProtobufSchema, Shape};
use crate::wire::{RegisteredSchema, json_out};

/// What the registered file is called among the others; no import has the name.
const FILE: &str = "weir-registered-schema.proto";

/// Files that Confluent's serializers take for granted, so that no schema refers to them.
const CONFLUENT: [(&str, &str); 2] = [
    (
        "confluent/meta.proto",
        r#"syntax = "proto3";
        package confluent;
        import "google/protobuf/descriptor.proto";
        message Meta {
          string doc = 1;
          map<string, string> params = 2;
          repeated string tags = 3;
        }
        extend google.protobuf.FileOptions { Meta file_meta = 1088; }
        extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
        extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
        extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
        extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }"#,
    ),
    (
        "confluent/type/decimal.proto",
        r#"syntax = "proto3";
        package confluent.type;
        message Decimal {
          bytes value = 1;
          uint32 precision = 2;
          int32 scale = 3;
        }"#,
    ),
];

impl ProtobufSchema {
    pub(in crate::wire) fn compile(registered: &RegisteredSchema) -> Result<Self, &'static str> {
        let file = file(registered)?;
        let mut types = Types::default();
        let roots = file.messages().map(|message| types.place(&message)).collect();
        // Those that lie elsewhere are found while fields are read.
        let mut next = 0;
        while let Some(message) = types.wanted.get(next).cloned() {
            let read = types.message(&message);
            types.messages.push(read);
            next += 1;
        }
        Ok(Self { messages: types.messages, enums: types.enums, roots })
    }
}

pub(super) fn file(registered: &RegisteredSchema) -> Result<FileDescriptor, &'static str> {
    let mut compiler = protox::Compiler::with_file_resolver(Registered(registered.clone(), GoogleFileResolver::new()));
    compiler.include_imports(true);
    compiler.open_file(FILE).map_err(|error| match error.is_file_not_found() {
        true => "it imports a file that is not among its references",
        false => "its text, with the files that it imports, does not compile as proto2 or proto3",
    })?;
    compiler.descriptor_pool().get_file_by_name(FILE).ok_or("it holds no file")
}

/// The registered text and what it imports, by name.
struct Registered(RegisteredSchema, GoogleFileResolver);

impl FileResolver for Registered {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let references = self.0.references.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let mut texts = std::iter::once((FILE, self.0.text.as_str())).chain(references).chain(CONFLUENT);
        match texts.find(|(known, _)| *known == name) {
            Some((_, text)) => match descriptor(text) {
                Some(file) => {
                    Ok(File::from_file_descriptor_proto(FileDescriptorProto { name: Some(name.to_owned()), ..file }))
                }
                None => File::from_source(name, text),
            },
            None => self.1.open_file(name),
        }
    }
}

/// Some registries keep what Python's serializer gives them: a compiled file in base64, which no text of a file is.
fn descriptor(text: &str) -> Option<FileDescriptorProto> {
    FileDescriptorProto::decode(STANDARD.decode(text.trim_ascii()).ok()?.as_slice()).ok()
}

/// Types as they are found. A message may hold itself, so it has its number before it is read.
#[derive(Default)]
struct Types {
    wanted: Vec<MessageDescriptor>,
    messages: Vec<MessageType>,
    enums: Vec<EnumType>,
    message_numbers: HashMap<String, usize>,
    enum_numbers: HashMap<String, usize>,
}

impl Types {
    fn place(&mut self, message: &MessageDescriptor) -> Place {
        let number = (!message.is_map_entry()).then(|| self.number_of(message));
        Place { message: number, inner: message.child_messages().map(|inner| self.place(&inner)).collect() }
    }

    fn number_of(&mut self, message: &MessageDescriptor) -> usize {
        *self.message_numbers.entry(message.full_name().to_owned()).or_insert_with(|| {
            self.wanted.push(message.clone());
            self.wanted.len() - 1
        })
    }

    fn message(&mut self, message: &MessageDescriptor) -> MessageType {
        // A oneof of one field is how `optional` is written, or means no more than that.
        let oneofs: Vec<String> =
            message.oneofs().filter(|oneof| oneof.fields().len() > 1).map(|oneof| oneof.name().to_owned()).collect();
        let mut fields = Vec::new();
        let mut numbers = Vec::new();
        for (place, field) in (0_u32..).zip(message.fields()) {
            numbers.push((field.number(), place));
            // What is not there in an entry of a map has its type's first value, whatever the file says.
            let tells = field.supports_presence() && !message.is_map_entry();
            fields.push(self.field(&field, &oneofs, tells));
        }
        numbers.sort_unstable();
        MessageType { shape: shape(message), fields, numbers, oneofs: oneofs.len() }
    }

    fn field(&mut self, field: &FieldDescriptor, oneofs: &[String], tells_whether_set: bool) -> Field {
        let kind = self.kind(field);
        let form = match kind {
            Kind::Message(entry) if field.is_map() => Form::Map(entry),
            kind if field.is_list() => Form::List(kind),
            kind => Form::One(kind),
        };
        let oneof = field.containing_oneof();
        Field {
            member: json_out::member(field.name()),
            form,
            oneof: oneof.and_then(|oneof| oneofs.iter().position(|name| name == oneof.name())),
            absent: match form {
                Form::Map(_) => Some(b"{}".to_vec()),
                Form::List(_) => Some(b"[]".to_vec()),
                Form::One(_) if tells_whether_set => None,
                Form::One(kind) => self.zero(kind),
            },
        }
    }

    fn kind(&mut self, field: &FieldDescriptor) -> Kind {
        match field.kind() {
            Declared::Bool => Kind::Bool,
            Declared::Int32 => Kind::Int32,
            Declared::Int64 => Kind::Int64,
            Declared::Uint32 => Kind::Uint32,
            Declared::Uint64 => Kind::Uint64,
            Declared::Sint32 => Kind::Sint32,
            Declared::Sint64 => Kind::Sint64,
            Declared::Fixed32 => Kind::Fixed32,
            Declared::Fixed64 => Kind::Fixed64,
            Declared::Sfixed32 => Kind::Sfixed32,
            Declared::Sfixed64 => Kind::Sfixed64,
            Declared::Float => Kind::Float,
            Declared::Double => Kind::Double,
            Declared::String => Kind::Text,
            Declared::Bytes => Kind::Bytes,
            Declared::Enum(of) if of.full_name() == "google.protobuf.NullValue" => Kind::Null,
            Declared::Enum(of) => Kind::Enum(self.enumeration(&of)),
            Declared::Message(of) if field.is_group() => Kind::Group(self.number_of(&of)),
            Declared::Message(of) => Kind::Message(self.number_of(&of)),
        }
    }

    fn enumeration(&mut self, of: &EnumDescriptor) -> usize {
        if let Some(known) = self.enum_numbers.get(of.full_name()) {
            return *known;
        }
        let mut symbols: Vec<(i32, Vec<u8>)> = Vec::new();
        for value in &of.enum_descriptor_proto().value {
            let mut json = Vec::new();
            json_out::text(value.name(), &mut json);
            symbols.push((value.number(), json));
        }
        let first = symbols.first().map_or(b"0".to_vec(), |(_, json)| json.clone());
        // Of several names the first counts: the sort keeps their order.
        symbols.sort_by_key(|(number, _)| *number);
        symbols.dedup_by_key(|(number, _)| *number);
        self.enums.push(EnumType { symbols, first });
        self.enum_numbers.insert(of.full_name().to_owned(), self.enums.len() - 1);
        self.enums.len() - 1
    }

    fn zero(&self, kind: Kind) -> Option<Vec<u8>> {
        let json: &[u8] = match kind {
            Kind::Bool => b"false",
            Kind::Text | Kind::Bytes => b"\"\"",
            Kind::Float | Kind::Double => b"0.0",
            Kind::Null => b"null",
            Kind::Enum(of) => &self.enums[of].first,
            Kind::Message(_) | Kind::Group(_) => return None,
            Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Fixed32
            | Kind::Fixed64
            | Kind::Sfixed32
            | Kind::Sfixed64 => b"0",
        };
        Some(json.to_vec())
    }
}

impl EnumType {
    pub(super) fn symbol(&self, number: i32) -> Option<&[u8]> {
        let place = self.symbols.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.symbols[place].1)
    }
}

/// Well-known types stand for something simpler, if they are what their names say.
fn shape(message: &MessageDescriptor) -> Shape {
    let has = |fields: &[(&str, Declared)]| {
        fields.len() == message.fields().len()
            && fields
                .iter()
                .zip(message.fields())
                .all(|((name, kind), field)| field.name() == *name && field.kind() == *kind && !field.is_list())
    };
    let span = [("seconds", Declared::Int64), ("nanos", Declared::Int32)];
    let decimal = [("value", Declared::Bytes), ("precision", Declared::Uint32), ("scale", Declared::Int32)];
    match message.full_name() {
        "google.protobuf.Timestamp" if has(&span) => Shape::Timestamp,
        "google.protobuf.Duration" if has(&span) => Shape::Duration,
        "confluent.type.Decimal" if has(&decimal) => Shape::Decimal,
        "google.protobuf.Value" => Shape::AnyOf,
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue"
        | "google.protobuf.Struct"
        | "google.protobuf.ListValue"
            if message.fields().len() == 1 =>
        {
            Shape::Only
        }
        _ => Shape::Object,
    }
}
