//! The fields that an adapter reads, written as column definitions.
//!
//! ```text
//! columns = column { "," column } [ "," ]
//! column  = name type
//! name    = word of letters, digits and _, or anything between double quotes
//! type    = "text" | "boolean" | "int" | "bigint" | "double" | "json"
//!         | "list" "<" type ">" | "map" "<" "text" "," type ">" | "struct" "<" columns ">"
//! ```
//!
//! Names are a message's own, with their case. A `--` starts a comment that ends with its line. `json` keeps a value of
//! any kind as JSON text.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};

/// Metadata key of fields that hold the raw JSON of a value rather than a string.
pub const JSON_TEXT: &str = "weir.json_text";

/// Structs within lists within structs: deeper than any real message, and far from the end of the stack.
const DEPTH_MAX: usize = 16;

/// Does the field hold a value's raw JSON?
#[must_use]
pub fn is_json_text(field: &Field) -> bool {
    field.metadata().contains_key(JSON_TEXT)
}

/// Reads column definitions into nullable fields.
pub(crate) fn parse(text: &str) -> Result<Vec<Field>, String> {
    let mut parser = Parser { rest: text };
    let fields = parser.columns(0)?;
    parser.skip();
    if parser.rest.is_empty() {
        Ok(fields)
    } else {
        Err(format!("columns: expected a comma or the end before `{}`", parser.near()))
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn columns(&mut self, depth: usize) -> Result<Vec<Field>, String> {
        let mut fields: Vec<Field> = Vec::new();
        let mut seen = HashSet::new();
        loop {
            // A comma may follow the last column.
            self.skip();
            if !fields.is_empty() && (self.rest.is_empty() || self.rest.starts_with('>')) {
                return Ok(fields);
            }
            let name = self.name()?;
            let (data_type, json) = self.data_type(depth)?;
            if !seen.insert(name.clone()) {
                return Err(format!("columns: {name} is declared twice"));
            }
            fields.push(field(&name, data_type, json));
            if !self.eat(',') {
                return Ok(fields);
            }
        }
    }

    fn data_type(&mut self, depth: usize) -> Result<(DataType, bool), String> {
        if depth > DEPTH_MAX {
            return Err(format!("columns: types nest deeper than {DEPTH_MAX} levels: read that part as json"));
        }
        let word = self.word();
        let data_type = match word.to_ascii_lowercase().as_str() {
            "text" => DataType::Utf8,
            "json" => return Ok((DataType::Utf8, true)),
            "boolean" => DataType::Boolean,
            "int" => DataType::Int32,
            "bigint" => DataType::Int64,
            "double" => DataType::Float64,
            "list" => {
                self.expect('<', "list")?;
                let (item, json) = self.data_type(depth + 1)?;
                self.expect('>', "list")?;
                DataType::List(Arc::new(field("element", item, json)))
            }
            "map" => {
                self.expect('<', "map")?;
                if !matches!(self.data_type(depth + 1)?, (DataType::Utf8, false)) {
                    return Err("columns: the keys of a map are text: write map<text, ...>".to_owned());
                }
                self.expect(',', "map")?;
                let (value, json) = self.data_type(depth + 1)?;
                self.expect('>', "map")?;
                let key = Field::new("key", DataType::Utf8, false);
                let entries = DataType::Struct(vec![key, field("value", value, json)].into());
                DataType::Map(Arc::new(Field::new("key_value", entries, false)), false)
            }
            "struct" => {
                self.expect('<', "struct")?;
                let fields = self.columns(depth + 1)?;
                self.expect('>', "struct")?;
                DataType::Struct(fields.into())
            }
            _ => {
                let found = if word.is_empty() { self.near() } else { word };
                return Err(format!(
                    "columns: `{found}` is no type: take text, boolean, int, bigint, double, json, list<...>, \
                     map<text, ...> or struct<...>"
                ));
            }
        };
        Ok((data_type, false))
    }

    fn name(&mut self) -> Result<String, String> {
        self.skip();
        if let Some(quoted) = self.rest.strip_prefix('"') {
            let end = quoted.find('"').ok_or("columns: a name's closing quote is missing")?;
            self.rest = &quoted[end + 1..];
            return Ok(quoted[..end].to_owned());
        }
        let word = self.word();
        if word.is_empty() {
            let near = self.near();
            return Err(format!("columns: expected a name before `{near}`; put names with other signs into quotes"));
        }
        Ok(word)
    }

    fn word(&mut self) -> String {
        self.skip();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn expect(&mut self, sign: char, what: &str) -> Result<(), String> {
        if self.eat(sign) {
            return Ok(());
        }
        let near = self.near();
        Err(format!("columns: expected `{sign}` of a {what} before `{near}`"))
    }

    fn eat(&mut self, sign: char) -> bool {
        self.skip();
        let found = self.rest.strip_prefix(sign);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let Some(comment) = self.rest.strip_prefix("--") else { return };
            self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
        }
    }

    fn near(&self) -> String {
        if self.rest.is_empty() { "the end".to_owned() } else { self.rest.chars().take(20).collect() }
    }
}

fn field(name: &str, data_type: DataType, json: bool) -> Field {
    let field = Field::new(name, data_type, true);
    if !json {
        return field;
    }
    field.with_metadata(HashMap::from([(JSON_TEXT.to_owned(), "true".to_owned())]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_nest_and_keep_their_case() {
        let fields = parse(
            "id text, startTime double, -- seconds\n \"gen_ai.usage.input_tokens\" bigint,\n\
             metadata struct<team text, tags list<text>>, labels map<text, text>, messages json,",
        )
        .unwrap();
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["id", "startTime", "gen_ai.usage.input_tokens", "metadata", "labels", "messages"]);
        assert!(is_json_text(&fields[5]) && !is_json_text(&fields[0]));
        let DataType::Struct(metadata) = fields[3].data_type() else { panic!("a struct") };
        assert!(matches!(metadata[1].data_type(), DataType::List(item) if item.data_type() == &DataType::Utf8));
        assert!(fields.iter().all(Field::is_nullable));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, said) in [
            ("", "expected a name before `the end`"),
            ("id string", "`string` is no type"),
            ("id text name text", "expected a comma or the end before `name text`"),
            ("id text, id int", "id is declared twice"),
            ("a list<text", "expected `>` of a list before `the end`"),
            ("a map<int, text>", "the keys of a map are text"),
            ("a.b text", "`.b text` is no type"),
            ("\"a text", "closing quote"),
            ("a struct<>", "expected a name before `>`"),
            (&format!("a {}text{}", "list<".repeat(40), ">".repeat(40)), "nest deeper than 16"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_the_parser(text in "[a-z\"<>, \n-]{0,60}") {
            // A panic is what fails here; an error is an answer.
            parse(&text).ok();
        }
    }
}
