//! The functions that adapters have beside DataFusion's own. All are pure: the same arguments give the same value.
//!
//! | function | gives |
//! |---|---|
//! | `epoch_ms(text)` | ms since the Unix epoch of an ISO 8601 moment, read as UTC where it names no zone; NULL if it is none |
//! | `epoch_ms(number)` | ms since the Unix epoch of seconds since it |
//! | `json_text(json, path)` | the value at a path as text: strings without quotes, everything else as JSON; NULL for `null` |
//! | `json_texts(json, path)` | the list of them at a path with `[*]` |
//! | `json_number(json, path)` | the number at a path |
//! | `json_length(json, path)` | how many elements or members the list or object at a path has |
//! | `json_map(json, path)` | the object at a path as a map to text: `null` is left out, lists of texts are joined by commas |
//! | `json_word(json, path)`, `json_words(json, path)` | as `json_text` and `json_texts`, but code words only |
//! | `word(text)` | the text if it is a code word, else NULL |
//! | `text_hash(text)` | the first 128 bits of its SHA-256 in hex digits |
//! | `tag_map(list)` | a map of tags: `team:a` and `team=a` map `team` to `a`, other tags map to `true` |
//!
//! A code word is at most 128 letters, digits and `_ - . : /`, all ASCII: names of models, tools and classes are, and
//! sentences are not. A path is `a.b[0].c`, `messages[*].role` or `["a.b"].c`; `$` or nothing is the value itself.

mod json;
mod path;
mod words;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// Functions that let no text of people through: of these an adapter may fill any column, from personal fields too.
pub const WITHOUT_TEXT: [&str; 5] = ["json_length", "json_word", "json_words", "word", "text_hash"];

/// All of them.
#[must_use]
pub fn all() -> Vec<ScalarUDF> {
    use Arguments::{JsonAndPath, Moment, Text, Texts};
    let function = |name, arguments, returns, run| {
        let signature = Signature::user_defined(Volatility::Immutable);
        ScalarUDF::from(Function { name, arguments, returns, run, signature })
    };
    let (text, texts) = (DataType::Utf8, list_of_text());
    vec![
        function("epoch_ms", Moment, DataType::Int64, words::epoch_ms),
        function("json_text", JsonAndPath, text.clone(), json::text),
        function("json_texts", JsonAndPath, texts.clone(), json::texts),
        function("json_number", JsonAndPath, DataType::Float64, json::number),
        function("json_length", JsonAndPath, DataType::Int32, json::length),
        function("json_map", JsonAndPath, map_of_text(), json::map),
        function("json_word", JsonAndPath, text.clone(), json::word),
        function("json_words", JsonAndPath, texts, json::words),
        function("word", Text, text.clone(), words::word),
        function("text_hash", Text, text, words::text_hash),
        function("tag_map", Texts, map_of_text(), words::tag_map),
    ]
}

/// What a function takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arguments {
    Text,
    Texts,
    Moment,
    JsonAndPath,
}

#[derive(Debug)]
struct Function {
    name: &'static str,
    arguments: Arguments,
    returns: DataType,
    run: fn(&[ArrayRef]) -> Result<ArrayRef>,
    signature: Signature,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let is_text = |kind: &DataType| kind.is_string() || kind.is_null();
        match (self.arguments, given) {
            (Arguments::Text | Arguments::Moment, [text]) if is_text(text) => Ok(vec![DataType::Utf8]),
            (Arguments::Moment, [number]) if number.is_numeric() => Ok(vec![DataType::Float64]),
            (Arguments::Texts, [DataType::List(item)]) if is_text(item.data_type()) => Ok(vec![list_of_text()]),
            (Arguments::JsonAndPath, [json, path]) if is_text(json) && is_text(path) => {
                Ok(vec![DataType::Utf8, DataType::Utf8])
            }
            (Arguments::Text, _) => plan_err!("{} takes a text", self.name),
            (Arguments::Moment, _) => plan_err!("{} takes an ISO 8601 text or a number of seconds", self.name),
            (Arguments::Texts, _) => plan_err!("{} takes a list of texts", self.name),
            (Arguments::JsonAndPath, _) => plan_err!("{} takes JSON text and a path", self.name),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let result = (self.run)(&columns)?;
        Ok(if scalar {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)
        } else {
            ColumnarValue::Array(result)
        })
    }
}

fn list_of_text() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)))
}

fn map_of_text() -> DataType {
    weir_schemas::FieldKind::TextMap.arrow_type()
}

fn map_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}
