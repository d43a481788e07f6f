//! The reference page of the adapters, generated from their definitions.

use arrow::datatypes::{DataType, Field};

use crate::{Column, Definition, Input, is_json_text};

/// `docs/reference/adapters.md`: what each built-in adapter reads and yields, with its SQL.
#[must_use]
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Adapters\n\n\
         What each adapter that comes with Weir reads of a message, and the projection that it makes of it. This page is \
         generated from `adapters/definitions`; `WEIR_BLESS=1 cargo test -p weir-adapters` rewrites it. An operator's \
         own adapters are written the same way: see [connect other routers](../how-to/connect-other-routers.md).\n",
    );
    for definition in Definition::built_in_names().into_iter().filter_map(Definition::built_in) {
        page += &format!("\n## `{}`\n\n{}", definition.name, describe(&definition));
    }
    page
}

/// What an adapter reads and yields, as Markdown.
#[must_use]
pub fn describe(definition: &Definition) -> String {
    let mut page = format!("{}\n\n", definition.doc);
    if let Input::Prometheus { group_by, sum_over } = &definition.input {
        page += &format!("- One row per set of labels `{}`.\n", group_by.join("`, `"));
        if !sum_over.is_empty() {
            page += &format!("- Added up over `{}`.\n", sum_over.join("`, `"));
        }
    }
    if !definition.personal.is_empty() {
        page += &format!("- Holds people's text: `{}`.\n", definition.personal.join("`, `"));
    }
    let columns: Vec<String> = definition.columns.iter().map(|column| format!("  {column}")).collect();
    page += &format!("\nReads:\n\n```text\n{}\n```\n", columns.join(",\n"));
    for output in &definition.outputs {
        let each = output.each.as_ref().map_or_else(String::new, |each| format!(", for each `item` of `{each}`"));
        page += &format!("\nRows of `{}`{each}:\n\n```sql\n{}\n```\n", output.table, output.sql.trim());
    }
    page
}

/// As a column definition.
impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.json { "json".to_owned() } else { type_text(&self.data_type) };
        write!(f, "{} {kind}", name_text(&self.name))
    }
}

fn name_text(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.to_owned() } else { format!("\"{name}\"") }
}

fn field_type(field: &Field) -> String {
    if is_json_text(field) { "json".to_owned() } else { type_text(field.data_type()) }
}

fn type_text(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 => "text".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::List(item) => format!("list<{}>", field_type(item)),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => format!("map<text, {}>", field_type(&fields[1])),
            other => format!("{other}"),
        },
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{} {}", name_text(field.name()), field_type(field)));
            format!("struct<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        other => format!("{other}"),
    }
}
