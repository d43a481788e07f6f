//! Avro's binary form, written as JSON by the schema that it was written with (Avro 1.12, "Data Serialization").
//!
//! Unions are their value alone, without the branch's name. Times are milliseconds whatever the schema counts in, decimals
//! are numbers, enumerations their symbols, bytes base64.

use std::collections::HashMap;

use serde_json::Value;

use super::{RegisteredSchema, json_out};
use crate::Reason;

/// Types inside types: more is no event, and would cost the stack.
const DEPTH_MAX: usize = 64;
/// Values that a message may hold beyond one for each of its bytes: nulls and empty records take none. Few, since every
/// message of a batch may claim as many.
const FREE_VALUES: usize = 1_024;

/// A schema, its named types resolved.
#[derive(Debug)]
pub(super) struct AvroSchema {
    types: Vec<Type>,
    root: usize,
}

/// Types that hold types name them by index, since they may hold themselves.
#[derive(Debug)]
enum Type {
    Null,
    Bool,
    /// `int` and `long`: one form on the wire.
    Integer,
    /// A point in time, in so many units a millisecond; below one it is cut off.
    Time {
        per_ms: i64,
    },
    /// A span, in microseconds.
    SpanUs,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    /// Two's complement, most significant byte first; `size` when it is fixed.
    Decimal {
        scale: usize,
        size: Option<usize>,
    },
    Enum(Vec<Vec<u8>>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    /// Members as they begin in JSON, with their types.
    Record(Vec<(Vec<u8>, usize)>),
    /// A named type that is being read.
    Open,
}

impl AvroSchema {
    pub(super) fn parse(registered: &RegisteredSchema) -> Result<Self, &'static str> {
        let mut parser = Parser::default();
        for (_, text) in &registered.references {
            let referred = serde_json::from_str(text).map_err(|_| NOT_A_SCHEMA)?;
            parser.read(&referred, "", 0)?;
        }
        let schema = serde_json::from_str(&registered.text).map_err(|_| NOT_A_SCHEMA)?;
        let root = parser.read(&schema, "", 0)?;
        Ok(Self { types: parser.types, root })
    }

    /// Names of the fields of each record that a message can be: several, where the schema is a union.
    pub(super) fn message_fields(&self) -> Vec<Vec<String>> {
        let branches = match &self.types[self.root] {
            Type::Union(branches) => branches.as_slice(),
            _ => std::slice::from_ref(&self.root),
        };
        let records = branches.iter().filter_map(|branch| match &self.types[*branch] {
            Type::Record(members) => Some(members),
            _ => None,
        });
        records.map(|members| members.iter().map(|(member, _)| json_out::name(member)).collect()).collect()
    }

    /// Writes one value, which ends where the bytes end.
    pub(super) fn write_json(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
        let mut input = Input { rest: bytes, values_left: bytes.len().saturating_add(FREE_VALUES) };
        self.value(self.root, &mut input, out, 0)?;
        if input.rest.is_empty() { Ok(()) } else { Err(MISFIT) }
    }

    fn value(&self, kind: usize, input: &mut Input<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
        if depth > DEPTH_MAX {
            return Err(MISFIT);
        }
        input.values_left = input.values_left.checked_sub(1).ok_or(MISFIT)?;
        match &self.types[kind] {
            Type::Null => json_out::null(out),
            Type::Bool => match input.take(1)? {
                [0] => json_out::boolean(false, out),
                [1] => json_out::boolean(true, out),
                _ => return Err(MISFIT),
            },
            Type::Integer => json_out::integer(input.long()?, out),
            Type::Time { per_ms } => json_out::integer(input.long()?.div_euclid(*per_ms), out),
            #[expect(clippy::cast_precision_loss, reason = "a span of 285 years may be off by a microsecond")]
            Type::SpanUs => json_out::number(input.long()? as f64 / 1e3, out),
            Type::Float => json_out::number(f64::from(f32::from_le_bytes(input.array()?)), out),
            Type::Double => json_out::number(f64::from_le_bytes(input.array()?), out),
            Type::Bytes => json_out::bytes(input.counted()?, out),
            Type::Text => json_out::text(std::str::from_utf8(input.counted()?).map_err(|_| MISFIT)?, out),
            Type::Fixed(size) => json_out::bytes(input.take(*size)?, out),
            Type::Decimal { scale, size } => {
                let digits = match size {
                    Some(size) => input.take(*size)?,
                    None => input.counted()?,
                };
                json_out::decimal(digits, *scale, out).ok_or(MISFIT)?;
            }
            Type::Enum(symbols) => {
                let symbol = usize::try_from(input.long()?).ok().and_then(|number| symbols.get(number));
                out.extend_from_slice(symbol.ok_or(MISFIT)?);
            }
            Type::Union(branches) => {
                let branch = usize::try_from(input.long()?).ok().and_then(|number| branches.get(number));
                self.value(*branch.ok_or(MISFIT)?, input, out, depth + 1)?;
            }
            Type::Record(members) => {
                out.push(b'{');
                for (number, (member, kind)) in members.iter().enumerate() {
                    if number > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(member);
                    self.value(*kind, input, out, depth + 1)?;
                }
                out.push(b'}');
            }
            Type::Array(element) => {
                out.push(b'[');
                self.blocks(input, out, |input, out| self.value(*element, input, out, depth + 1))?;
                out.push(b']');
            }
            Type::Map(value) => {
                out.push(b'{');
                self.blocks(input, out, |input, out| {
                    json_out::text(std::str::from_utf8(input.counted()?).map_err(|_| MISFIT)?, out);
                    out.push(b':');
                    self.value(*value, input, out, depth + 1)
                })?;
                out.push(b'}');
            }
            Type::Open => return Err(MISFIT),
        }
        Ok(())
    }

    /// Items in blocks: a count each (negative, when the block's size in bytes follows), the last one with none.
    fn blocks(
        &self,
        input: &mut Input<'_>,
        out: &mut Vec<u8>,
        mut item: impl FnMut(&mut Input<'_>, &mut Vec<u8>) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let mut first = true;
        loop {
            let count = input.long()?;
            if count < 0 {
                input.long()?;
            }
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count.unsigned_abs() {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                item(input, out)?;
            }
        }
    }
}

const MISFIT: Reason = Reason::NotOfItsSchema;
const NOT_A_SCHEMA: &str = "its text is no Avro schema";

/// Bytes not yet read.
struct Input<'a> {
    rest: &'a [u8],
    values_left: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Reason> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(MISFIT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(MISFIT)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Bytes behind their number.
    fn counted(&mut self) -> Result<&'a [u8], Reason> {
        let count = usize::try_from(self.long()?).map_err(|_| MISFIT)?;
        self.take(count)
    }

    /// A zigzag number in groups of seven bits, least significant first.
    fn long(&mut self) -> Result<i64, Reason> {
        let mut zigzag = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                return Err(MISFIT);
            }
            zigzag |= group << shift;
            if byte & 0x80 == 0 {
                return Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        Err(MISFIT)
    }
}

/// Reads schemas, and remembers the types that have names.
#[derive(Default)]
struct Parser {
    types: Vec<Type>,
    named: HashMap<String, usize>,
}

impl Parser {
    fn add(&mut self, kind: Type) -> usize {
        self.types.push(kind);
        self.types.len() - 1
    }

    fn read(&mut self, schema: &Value, namespace: &str, depth: usize) -> Result<usize, &'static str> {
        if depth > DEPTH_MAX {
            return Err("its types lie too deep in each other");
        }
        match schema {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.read(branch, namespace, depth + 1));
                let branches = branches.collect::<Result<Vec<_>, _>>()?;
                Ok(self.add(Type::Union(branches)))
            }
            Value::Object(object) => {
                let kind = object.get("type").ok_or(NOT_A_SCHEMA)?;
                let Some(kind) = kind.as_str() else { return self.read(kind, namespace, depth + 1) };
                let text = |name: &str| object.get(name).and_then(Value::as_str);
                let number = |name: &str| object.get(name).and_then(Value::as_u64);
                let size = || number("size").and_then(|size| usize::try_from(size).ok()).ok_or(NOT_A_SCHEMA);
                let logical = text("logicalType");
                let scale = usize::try_from(number("scale").unwrap_or(0)).ok();
                let scale =
                    scale.filter(|scale| *scale <= json_out::SCALE_MAX).ok_or("a decimal has too many digits")?;
                match (kind, logical) {
                    ("bytes", Some("decimal")) => Ok(self.add(Type::Decimal { scale, size: None })),
                    ("long", Some("timestamp-micros" | "local-timestamp-micros")) => {
                        Ok(self.add(Type::Time { per_ms: 1_000 }))
                    }
                    ("long", Some("timestamp-nanos" | "local-timestamp-nanos")) => {
                        Ok(self.add(Type::Time { per_ms: 1_000_000 }))
                    }
                    ("long", Some("time-micros")) => Ok(self.add(Type::SpanUs)),
                    ("array", _) => {
                        let element = self.read(object.get("items").ok_or(NOT_A_SCHEMA)?, namespace, depth + 1)?;
                        Ok(self.add(Type::Array(element)))
                    }
                    ("map", _) => {
                        let value = self.read(object.get("values").ok_or(NOT_A_SCHEMA)?, namespace, depth + 1)?;
                        Ok(self.add(Type::Map(value)))
                    }
                    ("record" | "error", _) => {
                        let (full, namespace) =
                            full_name(text("name").ok_or(NOT_A_SCHEMA)?, text("namespace"), namespace);
                        let record = self.add(Type::Open);
                        self.named.insert(full, record);
                        let fields = object.get("fields").and_then(Value::as_array).ok_or(NOT_A_SCHEMA)?;
                        let fields = fields.iter().map(|field| -> Result<_, &'static str> {
                            let name = field.get("name").and_then(Value::as_str).ok_or(NOT_A_SCHEMA)?;
                            let kind = field.get("type").ok_or(NOT_A_SCHEMA)?;
                            Ok((json_out::member(name), self.read(kind, &namespace, depth + 1)?))
                        });
                        self.types[record] = Type::Record(fields.collect::<Result<_, _>>()?);
                        Ok(record)
                    }
                    ("enum", _) => {
                        let (full, _) = full_name(text("name").ok_or(NOT_A_SCHEMA)?, text("namespace"), namespace);
                        let symbols = object.get("symbols").and_then(Value::as_array).ok_or(NOT_A_SCHEMA)?;
                        let symbols = symbols.iter().map(|symbol| -> Result<_, &'static str> {
                            let mut json = Vec::new();
                            json_out::text(symbol.as_str().ok_or(NOT_A_SCHEMA)?, &mut json);
                            Ok(json)
                        });
                        let symbols = symbols.collect::<Result<_, _>>()?;
                        let kind = self.add(Type::Enum(symbols));
                        self.named.insert(full, kind);
                        Ok(kind)
                    }
                    ("fixed", logical) => {
                        let (full, _) = full_name(text("name").ok_or(NOT_A_SCHEMA)?, text("namespace"), namespace);
                        let kind = self.add(match logical {
                            Some("decimal") => Type::Decimal { scale, size: Some(size()?) },
                            _ => Type::Fixed(size()?),
                        });
                        self.named.insert(full, kind);
                        Ok(kind)
                    }
                    (name, _) => self.by_name(name, namespace),
                }
            }
            _ => Err(NOT_A_SCHEMA),
        }
    }

    fn by_name(&mut self, name: &str, namespace: &str) -> Result<usize, &'static str> {
        let primitive = match name {
            "null" => Type::Null,
            "boolean" => Type::Bool,
            "int" | "long" => Type::Integer,
            "float" => Type::Float,
            "double" => Type::Double,
            "bytes" => Type::Bytes,
            "string" => Type::Text,
            _ => {
                let (full, _) = full_name(name, None, namespace);
                // A name without a namespace of its own may be one without any.
                let known = self.named.get(&full).or_else(|| self.named.get(name));
                return known.copied().ok_or("it names a type that it does not define");
            }
        };
        Ok(self.add(primitive))
    }
}

/// The full name, and the namespace of what it encloses.
fn full_name(name: &str, own: Option<&str>, enclosing: &str) -> (String, String) {
    if let Some((namespace, _)) = name.rsplit_once('.') {
        return (name.to_owned(), namespace.to_owned());
    }
    match own.unwrap_or(enclosing) {
        "" => (name.to_owned(), String::new()),
        namespace => (format!("{namespace}.{name}"), namespace.to_owned()),
    }
}
