//! Columns that take JSON values one after another.
//!
//! A column may lag behind its table: rows that never name it cost nothing, and the gap is filled with nulls when its
//! next value comes, or at the end. What a bad message has left behind is cut off again.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
    MapArray, PrimitiveArray, StringArray, StructArray, new_null_array,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, FieldRef, Fields, Float32Type, Float64Type, Int32Type, Int64Type,
};

use super::cursor::{Broken, Cursor, Text, Within};
use super::number;
use super::object::Object;
use super::validity::Validity;

/// Metadata key that marks a field of type `Utf8` as taking any JSON value, as its JSON text.
pub const JSON_TEXT: &str = "weir.json_text";

/// Buffers that many columns share while a message is read.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) text: Vec<u8>,
    pub(super) nesting: Vec<Within>,
}

/// Why a value was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// The message is no JSON.
    Broken(Broken),
    /// A JSON value of another type than the column's. The cursor may stand anywhere in it.
    Conflict,
    /// A number of the right type in a column of whole numbers, with a fraction or out of range.
    NotWhole,
}

impl From<Broken> for NotTaken {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

#[derive(Debug)]
pub(super) enum Column {
    Text(Texts),
    JsonText(Texts),
    Bool {
        values: BooleanBufferBuilder,
        validity: Validity,
    },
    Int32(Numbers<Int32Type>),
    /// Whole numbers that a 64-bit float holds, as counts and times are.
    Whole64(Numbers<Int64Type>),
    /// Any 64-bit integer, as hashes are.
    Int64(Numbers<Int64Type>),
    Float32(Numbers<Float32Type>),
    Float64(Numbers<Float64Type>),
    List {
        field: FieldRef,
        offsets: Vec<i32>,
        elements: Box<Column>,
        validity: Validity,
    },
    Map {
        field: FieldRef,
        offsets: Vec<i32>,
        keys: Texts,
        values: Box<Column>,
        validity: Validity,
    },
    Struct {
        fields: Fields,
        object: Box<Object>,
        validity: Validity,
    },
}

impl Column {
    /// A column for values of `field`; `None` for types that no JSON value is read as. `nested` integers are exact.
    pub(super) fn new(field: &FieldRef, nested: bool) -> Option<Self> {
        Some(match field.data_type() {
            DataType::Utf8 if field.metadata().contains_key(JSON_TEXT) => Self::JsonText(Texts::default()),
            DataType::Utf8 => Self::Text(Texts::default()),
            DataType::Boolean => Self::Bool { values: BooleanBufferBuilder::new(0), validity: Validity::default() },
            DataType::Int32 => Self::Int32(Numbers::default()),
            DataType::Int64 if nested => Self::Int64(Numbers::default()),
            DataType::Int64 => Self::Whole64(Numbers::default()),
            DataType::Float32 => Self::Float32(Numbers::default()),
            DataType::Float64 => Self::Float64(Numbers::default()),
            DataType::List(element) => Self::List {
                field: element.clone(),
                offsets: vec![0],
                elements: Box::new(Self::new(element, true)?),
                validity: Validity::default(),
            },
            DataType::Map(entries, false) => {
                let DataType::Struct(key_and_value) = entries.data_type() else { return None };
                let [key, value] = key_and_value.as_ref() else { return None };
                (*key.data_type() == DataType::Utf8).then_some(())?;
                Self::Map {
                    field: entries.clone(),
                    offsets: vec![0],
                    keys: Texts::default(),
                    values: Box::new(Self::new(value, true)?),
                    validity: Validity::default(),
                }
            }
            DataType::Struct(fields) => Self::Struct {
                fields: fields.clone(),
                object: Box::new(Object::new(fields, true)?),
                validity: Validity::default(),
            },
            _ => return None,
        })
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.validity().len()
    }

    fn validity(&self) -> &Validity {
        match self {
            Self::Text(texts) | Self::JsonText(texts) => &texts.validity,
            Self::Int32(numbers) => &numbers.validity,
            Self::Whole64(numbers) | Self::Int64(numbers) => &numbers.validity,
            Self::Float32(numbers) => &numbers.validity,
            Self::Float64(numbers) => &numbers.validity,
            Self::Bool { validity, .. }
            | Self::List { validity, .. }
            | Self::Map { validity, .. }
            | Self::Struct { validity, .. } => validity,
        }
    }

    /// Takes the value at the cursor, which stands on its first byte.
    #[inline]
    pub(super) fn push(&mut self, cursor: &mut Cursor<'_>, scratch: &mut Scratch) -> Result<(), NotTaken> {
        let Some(first) = cursor.peek() else { return Err(Broken::Truncated.into()) };
        if first == b'n' {
            cursor.literal(b"null")?;
            self.push_nulls(1);
            return Ok(());
        }
        match self {
            Self::Text(texts) => {
                if first != b'"' {
                    return Err(NotTaken::Conflict);
                }
                texts.push_string(cursor, scratch)
            }
            Self::JsonText(texts) => {
                let start = cursor.at();
                cursor.skip_value(&mut scratch.text, &mut scratch.nesting)?;
                texts.push(cursor.since(start));
                Ok(())
            }
            Self::Bool { values, validity } => {
                let (value, literal): (bool, &[u8]) = match first {
                    b't' => (true, b"true"),
                    b'f' => (false, b"false"),
                    _ => return Err(NotTaken::Conflict),
                };
                cursor.literal(literal)?;
                values.append(value);
                validity.push_valid();
                Ok(())
            }
            Self::Int32(numbers) => {
                let (low, high) = (i64::from(i32::MIN), i64::from(i32::MAX));
                numbers.push_whole(first, cursor, scratch, low, high, |whole| whole as i32)
            }
            Self::Whole64(numbers) => {
                numbers.push_whole(first, cursor, scratch, -number::WHOLE_MAX, number::WHOLE_MAX, |whole| whole)
            }
            Self::Int64(numbers) => numbers.push(first, cursor, scratch, number::exact64),
            Self::Float32(numbers) => numbers.push(first, cursor, scratch, number::float32),
            Self::Float64(numbers) => numbers.push(first, cursor, scratch, number::float64),
            Self::List { offsets, elements, validity, .. } => {
                if first != b'[' {
                    return Err(NotTaken::Conflict);
                }
                cursor.advance(1);
                while cursor.next_member()? != b']' {
                    elements.push(cursor, scratch)?;
                }
                cursor.advance(1);
                offsets.push(offset(elements.len())?);
                validity.push_valid();
                Ok(())
            }
            Self::Map { offsets, keys, values, validity, .. } => {
                if first != b'{' {
                    return Err(NotTaken::Conflict);
                }
                cursor.advance(1);
                loop {
                    match cursor.next_member()? {
                        b'"' => keys.push_string(cursor, scratch)?,
                        b'}' => break,
                        _ => return Err(Broken::NotJson.into()),
                    }
                    cursor.colon()?;
                    values.push(cursor, scratch)?;
                }
                cursor.advance(1);
                offsets.push(offset(keys.validity.len())?);
                validity.push_valid();
                Ok(())
            }
            Self::Struct { object, validity, .. } => {
                if first != b'{' {
                    return Err(NotTaken::Conflict);
                }
                // Also where the struct itself was null before: its fields lag like any others.
                object.push(validity.len(), cursor, scratch)?;
                validity.push_valid();
                Ok(())
            }
        }
    }

    /// Takes the value at the cursor although it is not the column's type, where that loses nothing: any value in a
    /// text column as its JSON text, one element in a list column as a list of one.
    pub(super) fn push_widened(&mut self, cursor: &mut Cursor<'_>, scratch: &mut Scratch) -> Result<(), NotTaken> {
        match self {
            Self::Text(texts) => {
                let start = cursor.at();
                cursor.skip_value(&mut scratch.text, &mut scratch.nesting)?;
                texts.push(cursor.since(start));
                Ok(())
            }
            Self::List { offsets, elements, validity, .. } => {
                elements.push(cursor, scratch)?;
                offsets.push(offset(elements.len())?);
                validity.push_valid();
                Ok(())
            }
            _ => Err(NotTaken::Conflict),
        }
    }

    pub(super) fn push_nulls(&mut self, count: usize) {
        match self {
            Self::Text(texts) | Self::JsonText(texts) => texts.push_nulls(count),
            Self::Bool { values, validity } => {
                values.append_n(count, false);
                validity.push_nulls(count);
            }
            Self::Int32(numbers) => numbers.push_nulls(count),
            Self::Whole64(numbers) | Self::Int64(numbers) => numbers.push_nulls(count),
            Self::Float32(numbers) => numbers.push_nulls(count),
            Self::Float64(numbers) => numbers.push_nulls(count),
            Self::List { offsets, validity, .. } | Self::Map { offsets, validity, .. } => {
                let last = offsets.last().copied().unwrap_or(0);
                offsets.resize(offsets.len() + count, last);
                validity.push_nulls(count);
            }
            Self::Struct { validity, .. } => validity.push_nulls(count),
        }
    }

    /// Fills up with nulls to `len` slots.
    #[inline]
    pub(super) fn pad(&mut self, len: usize) {
        let missing = len - self.len().min(len);
        if missing > 0 {
            self.push_nulls(missing);
        }
    }

    /// Cuts off what lies behind `len` slots, also of a value that was begun and not finished.
    pub(super) fn truncate(&mut self, len: usize) {
        match self {
            Self::Text(texts) | Self::JsonText(texts) => texts.truncate(len),
            Self::Bool { values, validity } => {
                values.truncate(len.min(values.len()));
                validity.truncate(len);
            }
            Self::Int32(numbers) => numbers.truncate(len),
            Self::Whole64(numbers) | Self::Int64(numbers) => numbers.truncate(len),
            Self::Float32(numbers) => numbers.truncate(len),
            Self::Float64(numbers) => numbers.truncate(len),
            Self::List { offsets, elements, validity, .. } => {
                offsets.truncate(len + 1);
                elements.truncate(offsets.last().map_or(0, |end| *end as usize));
                validity.truncate(len);
            }
            Self::Map { offsets, keys, values, validity, .. } => {
                offsets.truncate(len + 1);
                let end = offsets.last().map_or(0, |end| *end as usize);
                keys.truncate(end);
                values.truncate(end);
                validity.truncate(len);
            }
            Self::Struct { object, validity, .. } => {
                object.truncate(len);
                validity.truncate(len);
            }
        }
    }

    /// The column as an array of `len` slots; empty afterwards.
    pub(super) fn finish(&mut self, data_type: &DataType, len: usize) -> ArrayRef {
        if self.len() == 0 {
            self.truncate(0);
            return new_null_array(data_type, len);
        }
        self.pad(len);
        match self {
            Self::Text(texts) | Self::JsonText(texts) => Arc::new(texts.finish()),
            Self::Bool { values, validity } => Arc::new(BooleanArray::new(values.finish(), validity.finish())),
            Self::Int32(numbers) => Arc::new(Int32Array::from(numbers.finish())),
            Self::Whole64(numbers) | Self::Int64(numbers) => Arc::new(Int64Array::from(numbers.finish())),
            Self::Float32(numbers) => Arc::new(Float32Array::from(numbers.finish())),
            Self::Float64(numbers) => Arc::new(Float64Array::from(numbers.finish())),
            Self::List { field, offsets, elements, validity } => {
                let values = elements.finish(field.data_type(), elements.len());
                Arc::new(ListArray::new(field.clone(), finish_offsets(offsets), values, validity.finish()))
            }
            Self::Map { field, offsets, keys, values, validity } => {
                let DataType::Struct(fields) = field.data_type() else { unreachable!("checked when it was built") };
                let count = keys.validity.len();
                let values = values.finish(fields[1].data_type(), count);
                let entries = StructArray::try_new_with_length(
                    fields.clone(),
                    vec![Arc::new(keys.finish()), values],
                    None,
                    count,
                )
                .expect("keys are never null, and there are as many values");
                Arc::new(MapArray::new(field.clone(), finish_offsets(offsets), entries, validity.finish(), false))
            }
            Self::Struct { fields, object, validity } => {
                let columns = object.finish(fields, len);
                let array = StructArray::try_new_with_length(fields.clone(), columns, validity.finish(), len);
                Arc::new(array.expect("columns of the fields' types, all of one length"))
            }
        }
    }
}

fn offset(len: usize) -> Result<i32, NotTaken> {
    // The caller bounds a batch far below; a value that does not fit is refused, not cut.
    i32::try_from(len).map_err(|_| NotTaken::Conflict)
}

fn finish_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let mut next = Vec::with_capacity(offsets.len());
    next.push(0);
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, next)))
}

/// Strings, end to end.
#[derive(Debug)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    offsets: Vec<i32>,
    validity: Validity,
    /// Bytes of the batch before: the next one will need about as many.
    expected: usize,
}

impl Default for Texts {
    fn default() -> Self {
        Self { bytes: Vec::new(), offsets: vec![0], validity: Validity::default(), expected: 0 }
    }
}

impl Texts {
    #[inline]
    fn push_string(&mut self, cursor: &mut Cursor<'_>, scratch: &mut Scratch) -> Result<(), NotTaken> {
        match cursor.string(&mut scratch.text)? {
            Text::Plain(plain) => self.push(plain),
            Text::Unescaped => self.push(&scratch.text),
        }
        Ok(())
    }

    #[inline]
    fn push(&mut self, text: &[u8]) {
        if self.bytes.capacity() == 0 {
            // A little more than last time: growing copies.
            self.bytes.reserve(self.expected + self.expected / 8);
        }
        self.bytes.extend_from_slice(text);
        // A batch holds some MiB of messages, and unescaping never lengthens: far from 2 GiB.
        self.offsets.push(self.bytes.len() as i32);
        self.validity.push_valid();
    }

    fn push_nulls(&mut self, count: usize) {
        let last = self.offsets.last().copied().unwrap_or(0);
        self.offsets.resize(self.offsets.len() + count, last);
        self.validity.push_nulls(count);
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.bytes.truncate(self.offsets.last().map_or(0, |end| *end as usize));
        self.validity.truncate(len);
    }

    fn finish(&mut self) -> StringArray {
        self.expected = self.bytes.len();
        let bytes = Buffer::from_vec(std::mem::take(&mut self.bytes));
        let offsets = finish_offsets(&mut self.offsets);
        let nulls = self.validity.finish();
        // SAFETY: the offsets rise from 0 to the length of `bytes`, since each is that length at the time of its push
        // or a copy of the one before. Between two of them lies a pushed string. Only messages that were checked to be
        // UTF-8 as a whole leave anything behind (see `JsonDecoder::take`), and what is pushed of them is cut at
        // ASCII bytes (quotes, or the borders of a JSON value), or was unescaped character by character: UTF-8 again.
        #[expect(unsafe_code, reason = "every message was checked to be UTF-8 before; the proof stands above")]
        unsafe {
            StringArray::new_unchecked(offsets, bytes, nulls)
        }
    }
}

#[derive(Debug)]
pub(super) struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    validity: Validity,
}

impl<T: ArrowPrimitiveType> Default for Numbers<T> {
    fn default() -> Self {
        Self { values: Vec::new(), validity: Validity::default() }
    }
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    /// A number, or a string that holds one.
    #[inline]
    fn push(
        &mut self,
        first: u8,
        cursor: &mut Cursor<'_>,
        scratch: &mut Scratch,
        parse: impl Fn(&[u8]) -> Option<T::Native>,
    ) -> Result<(), NotTaken>
    where
        T: Parser,
    {
        let value = match first {
            b'-' | b'0'..=b'9' => parse(cursor.number()?),
            b'"' => {
                let text = match cursor.string(&mut scratch.text)? {
                    Text::Plain(plain) => plain,
                    Text::Unescaped => &scratch.text,
                };
                std::str::from_utf8(text).ok().and_then(T::parse)
            }
            _ => None,
        };
        self.take(value.ok_or(NotTaken::Conflict)?);
        Ok(())
    }

    /// A whole number within limits, or a string that holds one.
    #[inline]
    fn push_whole(
        &mut self,
        first: u8,
        cursor: &mut Cursor<'_>,
        scratch: &mut Scratch,
        low: i64,
        high: i64,
        convert: impl Fn(i64) -> T::Native,
    ) -> Result<(), NotTaken> {
        let whole = match first {
            b'-' | b'0'..=b'9' => {
                let text = cursor.number()?;
                match number::whole64(text, low, high) {
                    Some(whole) => Ok(whole),
                    None => Err(number::float64(text)),
                }
            }
            b'"' => {
                let text = match cursor.string(&mut scratch.text)? {
                    Text::Plain(plain) => plain,
                    Text::Unescaped => &scratch.text,
                };
                let number = std::str::from_utf8(text).ok().and_then(Float64Type::parse);
                number.and_then(|number| number::whole(number, low, high)).ok_or(number)
            }
            _ => Err(None),
        };
        let whole = whole.map_err(|number| if number.is_some() { NotTaken::NotWhole } else { NotTaken::Conflict })?;
        self.take(convert(whole));
        Ok(())
    }

    #[inline]
    fn take(&mut self, value: T::Native) {
        self.values.push(value);
        self.validity.push_valid();
    }

    fn push_nulls(&mut self, count: usize) {
        self.values.resize(self.values.len() + count, T::default_value());
        self.validity.push_nulls(count);
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.validity.truncate(len);
    }

    fn finish(&mut self) -> PrimitiveArray<T> {
        let values = std::mem::take(&mut self.values);
        self.values.reserve(values.len());
        PrimitiveArray::new(values.into(), self.validity.finish())
    }
}
