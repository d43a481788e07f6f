//! Protobuf's binary form ("Encoding", protobuf.dev), written as JSON.
//!
//! Fields may come in any order, and again: of a single one the last counts, messages are merged, lists go on. So a
//! message's fields are found first, as places in its bytes, and written afterwards. What was found lies on one stack that
//! all messages share: nothing is allocated for a message.

use std::ops::Range;

use super::{Field, Form, Kind, MISFIT, MessageType, ProtobufSchema, Shape};
use crate::Reason;
use crate::wire::json_out;

/// Messages inside messages: as many as Protobuf's own readers follow.
const DEPTH_MAX: usize = 100;
/// Values that a message may become, for each of its bytes and beyond: fields that are not there have one too.
const VALUES_PER_BYTE: usize = 16;
const FREE_VALUES: usize = 65_536;
/// Fields and entries that memory is kept for.
const KEPT: usize = 65_536;

/// Memory that one message after the other is read with.
#[derive(Debug, Default)]
pub(in crate::wire) struct Scratch {
    found: Vec<Found>,
    entries: Vec<Entry>,
}

/// A field's value as it was found.
#[derive(Debug, Clone)]
struct Found {
    /// Its place in the message's type.
    field: u32,
    /// Where its bytes begin: a later one of a field counts more.
    at: usize,
    raw: Raw,
}

#[derive(Debug, Clone)]
enum Raw {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Behind their length.
    Counted(Range<usize>),
    /// Between two marks.
    Group(Range<usize>),
}

/// An entry of a map: its key, and what was found of its value.
#[derive(Debug)]
struct Entry {
    key: Key,
    number: usize,
    value: Range<usize>,
}

#[derive(Debug)]
enum Key {
    /// The number's bits, so that each key has one form.
    Number(u64),
    Text(Range<usize>),
}

pub(super) struct Reader<'a> {
    schema: &'a ProtobufSchema,
    bytes: &'a [u8],
    scratch: &'a mut Scratch,
    values_left: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(schema: &'a ProtobufSchema, bytes: &'a [u8], scratch: &'a mut Scratch) -> Self {
        scratch.found.clear();
        scratch.found.shrink_to(KEPT);
        scratch.entries.clear();
        scratch.entries.shrink_to(KEPT);
        let values_left = bytes.len().saturating_mul(VALUES_PER_BYTE).saturating_add(FREE_VALUES);
        Self { schema, bytes, scratch, values_left }
    }

    /// The message that begins there and ends with the bytes.
    pub(super) fn whole(mut self, message: usize, start: usize, out: &mut Vec<u8>) -> Result<(), Reason> {
        let raw = Raw::Counted(start..self.bytes.len());
        self.scratch.found.push(Found { field: 0, at: start, raw });
        self.message(message, 0..1, out, 0)
    }

    /// One message, of which the parts are the bytes.
    fn message(&mut self, kind: usize, parts: Range<usize>, out: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
        let schema = self.schema;
        let message = &schema.messages[kind];
        let start = self.scratch.found.len();
        self.gather(message, parts, out, depth)?;
        match message.shape {
            Shape::Object => {
                out.push(b'{');
                let mut first = true;
                let mut next = start;
                for (number, field) in (0..).zip(&message.fields) {
                    let found = self.next_of(&mut next, number);
                    if found.is_empty() && field.absent.is_none() {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    out.extend_from_slice(&field.member);
                    self.field(field, found, out, depth)?;
                }
                out.push(b'}');
            }
            Shape::Only => {
                let found = start..self.scratch.found.len();
                self.field(&message.fields[0], found, out, depth)?;
            }
            Shape::AnyOf => match self.scratch.found.get(start).map(|found| found.field as usize) {
                Some(field) => {
                    let found = start..self.scratch.found.len();
                    self.field(&message.fields[field], found, out, depth)?;
                }
                None => json_out::null(out),
            },
            Shape::Timestamp => {
                let (seconds, nanos) = self.seconds_and_nanos(start);
                json_out::integer(seconds.saturating_mul(1_000).saturating_add(nanos.div_euclid(1_000_000)), out);
            }
            Shape::Duration => {
                let (seconds, nanos) = self.seconds_and_nanos(start);
                json_out::milliseconds(i128::from(seconds) * 1_000_000_000 + i128::from(nanos), out);
            }
            Shape::Decimal => {
                let scale = self.last(start, 2).map_or(0, |raw| normal(Kind::Int32, raw.bits()));
                let digits = match self.last(start, 0) {
                    Some(Raw::Counted(range)) => &self.bytes[range.clone()],
                    _ => &[],
                };
                let scale = usize::try_from(scale).ok().filter(|scale| *scale <= json_out::SCALE_MAX);
                json_out::decimal(digits, scale.ok_or(MISFIT)?, out).ok_or(MISFIT)?;
            }
        }
        self.scratch.found.truncate(start);
        Ok(())
    }

    /// Finds the fields of a message in its parts, by field, each in the order in which it came.
    fn gather(
        &mut self,
        message: &MessageType,
        parts: Range<usize>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Reason> {
        if depth > DEPTH_MAX {
            return Err(MISFIT);
        }
        let start = self.scratch.found.len();
        for part in parts {
            let (Raw::Counted(range) | Raw::Group(range)) = self.scratch.found[part].raw.clone() else {
                return Err(MISFIT);
            };
            self.find(message, range)?;
        }
        if message.oneofs > 0 {
            self.keep_last_of_oneofs(message, start, out, depth)?;
        }
        let found = &mut self.scratch.found[start..];
        let key = |found: &Found| (found.field, found.at);
        if !found.is_sorted_by_key(key) {
            found.sort_unstable_by_key(key);
        }
        Ok(())
    }

    /// Finds the fields of a message in one run of bytes. Those that its type does not have are passed over.
    fn find(&mut self, message: &MessageType, range: Range<usize>) -> Result<(), Reason> {
        let bytes = &self.bytes[..range.end];
        let mut at = range.start;
        while at < range.end {
            let (number, raw, begun) = value(bytes, &mut at, 0).ok_or(MISFIT)?;
            if let Some(field) = message.place_of(number) {
                check_type(message.fields[field as usize].form, &raw)?;
                self.scratch.found.push(Found { field, at: begun, raw });
            }
        }
        Ok(())
    }

    /// Setting a field of a `oneof` unsets its others.
    fn keep_last_of_oneofs(
        &mut self,
        message: &MessageType,
        start: usize,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Reason> {
        let oneof_of = |found: &Found| message.fields[found.field as usize].oneof;
        let found = &self.scratch.found[start..];
        if found.iter().filter(|found| oneof_of(found).is_some()).count() < 2 {
            return Ok(());
        }
        // Rare: serializers write one of them. By oneof, from the end: which is set, and whether another was before it.
        let mut last: Vec<Option<(u32, bool)>> = vec![None; message.oneofs];
        let mut unset = Vec::new();
        for at in (start..self.scratch.found.len()).rev() {
            let found = &self.scratch.found[at];
            let Some(oneof) = oneof_of(found) else { continue };
            let (set, over) = last[oneof].get_or_insert((found.field, false));
            *over |= *set != found.field;
            if *over {
                unset.push(at);
            }
        }
        for at in &unset {
            if let Form::One(kind) = message.fields[self.scratch.found[*at].field as usize].form {
                self.judge(kind, *at, out, depth)?;
            }
        }
        let mut unset = unset.into_iter().rev().peekable();
        let kept = (start..self.scratch.found.len()).filter(|at| unset.next_if_eq(at).is_none());
        let kept: Vec<Found> = kept.map(|at| self.scratch.found[at].clone()).collect();
        self.scratch.found.truncate(start);
        self.scratch.found.extend(kept);
        Ok(())
    }

    /// A value that another takes the place of must be good too.
    fn judge(&mut self, kind: Kind, at: usize, out: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
        let end = out.len();
        self.spend()?;
        self.one(kind, at..at + 1, out, depth)?;
        out.truncate(end);
        Ok(())
    }

    /// What was found of that field, which is what comes next.
    fn next_of(&self, next: &mut usize, field: u32) -> Range<usize> {
        let first = *next;
        while self.scratch.found.get(*next).is_some_and(|found| found.field == field) {
            *next += 1;
        }
        first..*next
    }

    /// The last that was found of that field, among those from `start`.
    fn last(&self, start: usize, field: u32) -> Option<&Raw> {
        self.scratch.found[start..].iter().rev().find(|found| found.field == field).map(|found| &found.raw)
    }

    fn seconds_and_nanos(&self, start: usize) -> (i64, i64) {
        let value = |field, kind| self.last(start, field).map_or(0, |raw| normal(kind, raw.bits()).cast_signed());
        (value(0, Kind::Int64), value(1, Kind::Int32))
    }

    fn field(&mut self, field: &Field, found: Range<usize>, out: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
        self.spend()?;
        if found.is_empty() {
            out.extend_from_slice(field.absent.as_deref().unwrap_or(b"null"));
            return Ok(());
        }
        match field.form {
            Form::One(kind) => self.one(kind, found, out, depth),
            Form::List(kind) => self.list(kind, found, out, depth),
            Form::Map(entry) => self.map(entry, found, out, depth),
        }
    }

    /// A single value: the last, or the messages as one.
    fn one(&mut self, kind: Kind, found: Range<usize>, out: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
        match kind {
            Kind::Message(message) | Kind::Group(message) => self.message(message, found, out, depth + 1),
            _ => {
                for earlier in found.start..found.end - 1 {
                    self.judge(kind, earlier, out, depth)?;
                }
                self.scalar(kind, &self.scratch.found[found.end - 1].raw, out)
            }
        }
    }

    fn list(&mut self, kind: Kind, found: Range<usize>, out: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
        out.push(b'[');
        let mut first = true;
        for element in found {
            match (kind, self.scratch.found[element].raw.clone()) {
                (Kind::Message(message) | Kind::Group(message), _) => {
                    self.comma(&mut first, out)?;
                    self.message(message, element..element + 1, out, depth + 1)?;
                }
                (kind, Raw::Counted(range)) if is_packable(kind) => {
                    let bytes = &self.bytes[..range.end];
                    let mut at = range.start;
                    while at < range.end {
                        self.comma(&mut first, out)?;
                        let raw = packed(kind, bytes, &mut at).ok_or(MISFIT)?;
                        self.scalar(kind, &raw, out)?;
                    }
                }
                (kind, raw) => {
                    self.comma(&mut first, out)?;
                    self.scalar(kind, &raw, out)?;
                }
            }
        }
        out.push(b']');
        Ok(())
    }

    /// Entries by key, each once: of equal keys the last counts.
    fn map(&mut self, entry: usize, found: Range<usize>, out: &mut Vec<u8>, depth: usize) -> Result<(), Reason> {
        let schema = self.schema;
        let kind = &schema.messages[entry];
        let [Field { form: Form::One(key_kind), .. }, value] = &kind.fields[..] else { return Err(MISFIT) };
        let (stack, start) = (self.scratch.found.len(), self.scratch.entries.len());
        for (number, part) in found.enumerate() {
            let own = self.scratch.found.len();
            self.gather(kind, part..part + 1, out, depth + 1)?;
            let mut next = own;
            let keys = self.next_of(&mut next, 0);
            for earlier in keys.start..keys.end.saturating_sub(1) {
                self.judge(*key_kind, earlier, out, depth)?;
            }
            let key = match keys.last().map(|last| &self.scratch.found[last].raw) {
                Some(Raw::Counted(range)) => Key::Text(range.clone()),
                Some(raw) => Key::Number(normal(*key_kind, raw.bits())),
                None if *key_kind == Kind::Text => Key::Text(0..0),
                None => Key::Number(0),
            };
            let value = self.next_of(&mut next, 1);
            self.scratch.entries.push(Entry { key, number, value });
        }
        let bytes = self.bytes;
        let text = |range: &Range<usize>| &bytes[range.clone()];
        self.scratch.entries[start..].sort_unstable_by(|one, other| {
            let by_key = match (&one.key, &other.key) {
                (Key::Number(one), Key::Number(other)) => one.cmp(other),
                (Key::Text(one), Key::Text(other)) => text(one).cmp(text(other)),
                (Key::Number(_), Key::Text(_)) => std::cmp::Ordering::Less,
                (Key::Text(_), Key::Number(_)) => std::cmp::Ordering::Greater,
            };
            by_key.then(one.number.cmp(&other.number))
        });
        out.push(b'{');
        let mut first = true;
        for at in start..self.scratch.entries.len() {
            let Entry { key, value: found, .. } = &self.scratch.entries[at];
            let same = |next: &Entry| match (key, &next.key) {
                (Key::Number(one), Key::Number(other)) => one == other,
                (Key::Text(one), Key::Text(other)) => text(one) == text(other),
                _ => false,
            };
            let is_superseded = self.scratch.entries.get(at + 1).is_some_and(same);
            let end = out.len();
            if !first {
                out.push(b',');
            }
            match key {
                Key::Text(range) => json_out::text(std::str::from_utf8(text(range)).map_err(|_| MISFIT)?, out),
                Key::Number(bits) => {
                    out.push(b'"');
                    self.number(*key_kind, *bits, out);
                    out.push(b'"');
                }
            }
            out.push(b':');
            let found = found.clone();
            match value.form {
                // A message that is not there is an empty one.
                Form::One(Kind::Message(message)) => {
                    self.spend()?;
                    self.message(message, found, out, depth + 2)?;
                }
                _ => self.field(value, found, out, depth + 1)?,
            }
            match is_superseded {
                true => out.truncate(end),
                false => first = false,
            }
        }
        out.push(b'}');
        self.scratch.entries.truncate(start);
        self.scratch.found.truncate(stack);
        Ok(())
    }

    fn comma(&mut self, first: &mut bool, out: &mut Vec<u8>) -> Result<(), Reason> {
        if !std::mem::take(first) {
            out.push(b',');
        }
        self.spend()
    }

    fn spend(&mut self) -> Result<(), Reason> {
        self.values_left = self.values_left.checked_sub(1).ok_or(MISFIT)?;
        Ok(())
    }

    fn scalar(&self, kind: Kind, raw: &Raw, out: &mut Vec<u8>) -> Result<(), Reason> {
        if let Raw::Counted(range) = raw {
            let bytes = &self.bytes[range.clone()];
            match kind {
                Kind::Text => json_out::text(std::str::from_utf8(bytes).map_err(|_| MISFIT)?, out),
                _ => json_out::bytes(bytes, out),
            }
            return Ok(());
        }
        self.number(kind, normal(kind, raw.bits()), out);
        Ok(())
    }

    fn number(&self, kind: Kind, bits: u64, out: &mut Vec<u8>) {
        match kind {
            Kind::Bool => json_out::boolean(bits != 0, out),
            Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => json_out::natural(bits, out),
            Kind::Float => json_out::number(f64::from(f32::from_bits(bits as u32)), out),
            Kind::Double => json_out::number(f64::from_bits(bits), out),
            Kind::Null => json_out::null(out),
            // A number without a name stays a number.
            Kind::Enum(of) => match self.schema.enums[of].symbol(bits as i32) {
                Some(symbol) => out.extend_from_slice(symbol),
                None => json_out::integer(bits.cast_signed(), out),
            },
            _ => json_out::integer(bits.cast_signed(), out),
        }
    }
}

impl MessageType {
    fn place_of(&self, number: u32) -> Option<u32> {
        // Mostly fields are numbered from one on.
        let guess = self.numbers.get((number as usize).wrapping_sub(1));
        let found = guess.filter(|(known, _)| *known == number).or_else(|| {
            let at = self.numbers.binary_search_by_key(&number, |(known, _)| *known).ok()?;
            self.numbers.get(at)
        });
        found.map(|(_, place)| *place)
    }
}

impl Raw {
    fn bits(&self) -> u64 {
        match self {
            Self::Varint(bits) | Self::Fixed64(bits) => *bits,
            Self::Fixed32(bits) => u64::from(*bits),
            Self::Counted(_) | Self::Group(_) => 0,
        }
    }
}

/// Is the value in the form that its type has on the wire? Bytes that say otherwise were not written by this schema.
fn check_type(form: Form, raw: &Raw) -> Result<(), Reason> {
    let kind = match form {
        // Numbers of a list may lie end to end.
        Form::List(kind) if is_packable(kind) && matches!(raw, Raw::Counted(_)) => return Ok(()),
        Form::One(kind) | Form::List(kind) => kind,
        Form::Map(entry) => Kind::Message(entry),
    };
    let fits = match kind {
        Kind::Text | Kind::Bytes | Kind::Message(_) => matches!(raw, Raw::Counted(_)),
        Kind::Group(_) => matches!(raw, Raw::Group(_)),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => matches!(raw, Raw::Fixed32(_)),
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => matches!(raw, Raw::Fixed64(_)),
        Kind::Bool
        | Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Enum(_)
        | Kind::Null => matches!(raw, Raw::Varint(_)),
    };
    if fits { Ok(()) } else { Err(MISFIT) }
}

fn is_packable(kind: Kind) -> bool {
    !matches!(kind, Kind::Text | Kind::Bytes | Kind::Message(_) | Kind::Group(_))
}

/// The next element of a list whose elements lie end to end.
fn packed(kind: Kind, bytes: &[u8], at: &mut usize) -> Option<Raw> {
    Some(match kind {
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Raw::Fixed32(u32::from_le_bytes(array(bytes, at)?)),
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Raw::Fixed64(u64::from_le_bytes(array(bytes, at)?)),
        _ => Raw::Varint(varint(bytes, at)?),
    })
}

/// The value of a number of that type; of signed ones the bits in two's complement.
fn normal(kind: Kind, bits: u64) -> u64 {
    let signed = |value: i32| i64::from(value).cast_unsigned();
    match kind {
        Kind::Bool => u64::from(bits != 0),
        Kind::Int32 | Kind::Sfixed32 | Kind::Enum(_) => signed(bits as i32),
        Kind::Uint32 => u64::from(bits as u32),
        Kind::Sint32 => {
            let zigzag = bits as u32;
            signed((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
        }
        Kind::Sint64 => ((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed()).cast_unsigned(),
        _ => bits,
    }
}

/// The next field: its number, its value, and where it begins.
fn value(bytes: &[u8], at: &mut usize, depth: usize) -> Option<(u32, Raw, usize)> {
    let begun = *at;
    let tag = u32::try_from(varint(bytes, at)?).ok()?;
    let number = tag >> 3;
    let raw = match tag & 7 {
        0 => Raw::Varint(varint(bytes, at)?),
        1 => Raw::Fixed64(u64::from_le_bytes(array(bytes, at)?)),
        2 => {
            let length = usize::try_from(varint(bytes, at)?).ok()?;
            let start = *at;
            *at = start.checked_add(length).filter(|end| *end <= bytes.len())?;
            Raw::Counted(start..*at)
        }
        3 if depth < DEPTH_MAX => Raw::Group(group(bytes, at, number, depth)?),
        5 => Raw::Fixed32(u32::from_le_bytes(array(bytes, at)?)),
        _ => return None,
    };
    (number > 0).then_some((number, raw, begun))
}

/// What lies between the mark that was read and the one that ends it.
fn group(bytes: &[u8], at: &mut usize, number: u32, depth: usize) -> Option<Range<usize>> {
    let start = *at;
    loop {
        let end = *at;
        let mut mark = end;
        if varint(bytes, &mut mark)? == u64::from(number << 3 | 4) {
            *at = mark;
            return Some(start..end);
        }
        value(bytes, at, depth + 1)?;
    }
}

/// A number in groups of seven bits, least significant first.
pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        let group = u64::from(byte & 0x7f);
        if shift == 63 && group > 1 {
            return None;
        }
        number |= group << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn array<const N: usize>(bytes: &[u8], at: &mut usize) -> Option<[u8; N]> {
    let taken = bytes.get(*at..)?.first_chunk()?;
    *at += N;
    Some(*taken)
}
