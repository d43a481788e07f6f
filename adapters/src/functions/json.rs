//! Values within JSON text. What is not there, or is not JSON, is NULL.

use std::sync::Arc;

use arrow::array::builder::{ListBuilder, StringBuilder};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, StringArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use sonic_rs::{JsonType, JsonValueTrait, LazyValue};

use super::path::{self, Path};
use super::{map_builder, words};

pub(super) fn text(columns: &[ArrayRef]) -> Result<ArrayRef> {
    each(columns, |json, path| first(json, path, &as_text))
        .map(|texts| -> ArrayRef { Arc::new(StringArray::from(texts)) })
}

pub(super) fn word(columns: &[ArrayRef]) -> Result<ArrayRef> {
    each(columns, |json, path| first(json, path, &as_word))
        .map(|texts| -> ArrayRef { Arc::new(StringArray::from(texts)) })
}

pub(super) fn number(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let numbers = each(columns, |json, path| {
        first(json, path, &|value| if value.is_number() { value.as_raw_str().parse::<f64>().ok() } else { None })
    })?;
    Ok(Arc::new(Float64Array::from(numbers)))
}

pub(super) fn length(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let lengths = each(columns, |json, path| first(json, path, &as_length))?;
    Ok(Arc::new(Int32Array::from(lengths)))
}

pub(super) fn texts(columns: &[ArrayRef]) -> Result<ArrayRef> {
    list(columns, &as_text)
}

pub(super) fn words(columns: &[ArrayRef]) -> Result<ArrayRef> {
    list(columns, &as_word)
}

pub(super) fn map(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let maps = each(columns, |json, path| first(json, path, &as_members))?;
    let mut builder = map_builder();
    for members in maps {
        let there = members.is_some();
        for (key, value) in members.unwrap_or_default() {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(there)?;
    }
    Ok(Arc::new(builder.finish()))
}

fn list(columns: &[ArrayRef], read: &dyn Fn(&LazyValue<'_>) -> Option<String>) -> Result<ArrayRef> {
    let lists = each(columns, |json, path| {
        let mut found = Vec::new();
        visit(json, path, &mut |value| found.extend(read(value))).map(|()| found)
    })?;
    let element = Field::new("element", DataType::Utf8, true);
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(element);
    for list in lists {
        let there = list.is_some();
        list.into_iter().flatten().for_each(|text| builder.values().append_value(text));
        builder.append(there);
    }
    Ok(Arc::new(builder.finish()))
}

/// Runs `read` over every row. A path mostly is a literal, the same in every row: it is read when it changes.
fn each<T>(columns: &[ArrayRef], read: impl Fn(&str, &Path) -> Option<T>) -> Result<Vec<Option<T>>> {
    let (jsons, paths) = (columns[0].as_string::<i32>(), columns[1].as_string::<i32>());
    let mut last: Option<(&str, Path)> = None;
    let mut values = Vec::with_capacity(jsons.len());
    for row in 0..jsons.len() {
        if jsons.is_null(row) || paths.is_null(row) {
            values.push(None);
            continue;
        }
        let text = paths.value(row);
        let path = match &last {
            Some((known, path)) if *known == text => path,
            _ => &last.insert((text, path::parse(text)?)).1,
        };
        values.push(read(jsons.value(row), path));
    }
    Ok(values)
}

fn first<T>(json: &str, path: &Path, read: &dyn Fn(&LazyValue<'_>) -> Option<T>) -> Option<T> {
    let mut found = None;
    visit(json, path, &mut |value| {
        if found.is_none() {
            found = read(value);
        }
    })?;
    found
}

/// Calls `read` for each value at the path. `None` when the part before the first wildcard is not there.
fn visit(json: &str, path: &[Vec<sonic_rs::PointerNode>], read: &mut dyn FnMut(&LazyValue<'_>)) -> Option<()> {
    let (steps, rest) = path.split_first()?;
    let value = sonic_rs::get(json, steps.iter()).ok()?;
    if rest.is_empty() {
        read(&value);
        return Some(());
    }
    for element in value.into_array_iter()? {
        // An element without the rest of the path adds nothing, as in every language of JSON paths.
        let element = element.ok()?;
        let _: Option<()> = visit(element.as_raw_str(), rest, read);
    }
    Some(())
}

fn as_text(value: &LazyValue<'_>) -> Option<String> {
    match value.get_type() {
        JsonType::Null => None,
        JsonType::String => value.as_str().map(str::to_owned),
        _ => Some(value.as_raw_str().to_owned()),
    }
}

fn as_word(value: &LazyValue<'_>) -> Option<String> {
    value.as_str().filter(|text| words::is_code_word(text)).map(str::to_owned)
}

fn as_length(value: &LazyValue<'_>) -> Option<i32> {
    let raw = value.as_raw_str();
    let length = match value.get_type() {
        JsonType::Array => sonic_rs::to_array_iter(raw).take_while(std::result::Result::is_ok).count(),
        JsonType::Object => sonic_rs::to_object_iter(raw).take_while(std::result::Result::is_ok).count(),
        _ => return None,
    };
    i32::try_from(length).ok()
}

/// Members by name that are not null; the last of a name counts. Lists of texts are joined by commas.
fn as_members(value: &LazyValue<'_>) -> Option<std::collections::BTreeMap<String, String>> {
    if value.get_type() != JsonType::Object {
        return None;
    }
    let members = sonic_rs::to_object_iter(value.as_raw_str()).map_while(std::result::Result::ok);
    Some(
        members
            .filter_map(|(key, value)| Some((key.to_string(), joined(&value).or_else(|| as_text(&value))?)))
            .collect(),
    )
}

fn joined(value: &LazyValue<'_>) -> Option<String> {
    if value.get_type() != JsonType::Array {
        return None;
    }
    let elements = sonic_rs::to_array_iter(value.as_raw_str());
    let texts = elements.map(|element| element.ok()?.as_str().map(str::to_owned));
    Some(texts.collect::<Option<Vec<_>>>()?.join(","))
}
