//! What an adapter is made of, as an operator writes it and as the engine reads it.

use arrow::datatypes::DataType;
use serde::Deserialize;

use crate::columns;
use crate::{AdapterError, built_in};

/// An adapter: what it reads, and what it makes of that.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its name; topics ask for it as `adapter:NAME`.
    pub name: String,
    /// What it reads, in a sentence or two.
    pub doc: String,
    /// How messages become rows of columns.
    pub input: Input,
    /// The fields to read. All are nullable.
    pub columns: Vec<Column>,
    /// What holds text of people: a column, or a key of a map column written as `column.key`.
    pub personal: Vec<String>,
    /// What it yields: rows per table.
    pub outputs: Vec<Output>,
}

/// How messages become rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// One JSON object per message, one row.
    Json,
    /// One scraped page in the Prometheus text format per message. Samples that share the labels named here are one
    /// row, with a column per metric; see [`crate::prometheus`].
    Prometheus {
        /// Labels that tell rows apart.
        group_by: Vec<String>,
        /// Labels whose values are added up. Series that differ in any other label only are the same series again.
        sum_over: Vec<String>,
    },
}

/// One field to read.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name in the message.
    pub name: String,
    /// Its type; of type `json` it is text that holds the value's JSON.
    pub data_type: DataType,
    /// Is it the raw JSON of a value? Nested fields say so in their metadata, see [`crate::is_json_text`].
    pub json: bool,
}

/// Rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Contract whose rows it yields.
    pub table: String,
    /// `SELECT expression AS column, ... FROM message [WHERE ...]`.
    pub sql: String,
    /// A list column: the projection runs once per element, which is the column `item`.
    pub each: Option<String>,
}

/// A definition as TOML holds it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionText {
    /// See [`Definition::name`].
    pub name: String,
    /// See [`Definition::doc`].
    #[serde(default)]
    pub doc: String,
    /// `json`, or `prometheus`.
    #[serde(default)]
    pub input: InputText,
    /// Column definitions.
    pub columns: String,
    /// See [`Definition::personal`].
    #[serde(default)]
    pub personal: Vec<String>,
    /// Labels that tell the rows of a Prometheus page apart.
    #[serde(default)]
    pub group_by: Vec<String>,
    /// Labels of a Prometheus page whose values are added up.
    #[serde(default)]
    pub sum_over: Vec<String>,
    /// See [`Definition::outputs`].
    pub outputs: Vec<OutputText>,
}

/// The words for [`Input`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputText {
    /// [`Input::Json`].
    #[default]
    Json,
    /// [`Input::Prometheus`].
    Prometheus,
}

/// One output as TOML holds it: its SQL, or the name of the file with it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputText {
    /// See [`Output::table`].
    pub table: String,
    /// See [`Output::sql`].
    #[serde(default)]
    pub sql: Option<String>,
    /// File that holds the SQL.
    #[serde(default)]
    pub sql_file: Option<String>,
    /// See [`Output::each`].
    #[serde(default)]
    pub each: Option<String>,
}

impl Definition {
    /// Reads a definition. `sql_file` gives the text of a file that an output names, or says why it can't.
    ///
    /// # Errors
    /// When the text is not such TOML, its columns do not parse, or a file is not there. What the SQL says is checked
    /// by [`crate::Adapter::compile`].
    pub fn from_toml(text: &str, sql_file: impl Fn(&str) -> Result<String, String>) -> Result<Self, AdapterError> {
        let text: DefinitionText = toml::from_str(text).map_err(|error| AdapterError::Definition {
            adapter: "without a name".to_owned(),
            problem: error.message().to_owned(),
        })?;
        text.read(sql_file)
    }

    /// The adapter of that name that comes with Weir.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        built_in::definition(name)
    }

    /// Names of the adapters that come with Weir, in the order in which documents list them.
    #[must_use]
    pub fn built_in_names() -> Vec<&'static str> {
        built_in::names().collect()
    }
}

impl DefinitionText {
    /// Reads columns and SQL files.
    ///
    /// # Errors
    /// As [`Definition::from_toml`].
    pub fn read(&self, sql_file: impl Fn(&str) -> Result<String, String>) -> Result<Definition, AdapterError> {
        let wrong = |problem: String| AdapterError::Definition { adapter: self.name.clone(), problem };
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.name.is_empty() || !self.name.chars().all(is_word) {
            return Err(wrong("name it with small letters, digits and _".to_owned()));
        }
        let fields = columns::parse(&self.columns).map_err(wrong)?;
        let columns: Vec<Column> = fields
            .iter()
            .map(|field| Column {
                name: field.name().clone(),
                data_type: field.data_type().clone(),
                json: columns::is_json_text(field),
            })
            .collect();
        for personal in &self.personal {
            if split_personal(&columns, personal).is_none() {
                return Err(wrong(format!(
                    "personal names {personal}, which is neither a column nor a key of a map column: declare the column"
                )));
            }
        }
        let input = match self.input {
            InputText::Json if self.group_by.is_empty() && self.sum_over.is_empty() => Input::Json,
            InputText::Json => {
                return Err(wrong("group_by and sum_over are for input = \"prometheus\": leave them out".to_owned()));
            }
            InputText::Prometheus => {
                Input::Prometheus { group_by: self.group_by.clone(), sum_over: self.sum_over.clone() }
            }
        };
        if self.outputs.is_empty() {
            return Err(wrong("it has no outputs: add one with table and sql".to_owned()));
        }
        let output = |output: &OutputText| -> Result<Output, AdapterError> {
            let wrong = |problem: String| AdapterError::Output {
                adapter: self.name.clone(),
                table: output.table.clone(),
                problem,
            };
            let sql = match (&output.sql, &output.sql_file) {
                (Some(sql), None) => sql.clone(),
                (None, Some(file)) => sql_file(file).map_err(wrong)?,
                _ => return Err(wrong("give either sql or sql_file".to_owned())),
            };
            Ok(Output { table: output.table.clone(), sql, each: output.each.clone() })
        };
        Ok(Definition {
            name: self.name.clone(),
            doc: self.doc.trim().to_owned(),
            input,
            columns,
            personal: self.personal.clone(),
            outputs: self.outputs.iter().map(output).collect::<Result<_, _>>()?,
        })
    }
}

/// The column that a `personal` entry names, and the key of its map if it names one.
pub(crate) fn split_personal<'a>(columns: &'a [Column], personal: &'a str) -> Option<(&'a str, Option<&'a str>)> {
    // Names may hold dots themselves, so columns decide where the name ends.
    if let Some(column) = columns.iter().find(|column| column.name == personal) {
        return Some((&column.name, None));
    }
    columns.iter().filter(|column| matches!(column.data_type, DataType::Map(_, _))).find_map(|column| {
        let key = personal.strip_prefix(column.name.as_str())?.strip_prefix('.')?;
        Some((column.name.as_str(), Some(key)))
    })
}
