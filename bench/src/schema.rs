//! The columns of the `requests` contract in Delta's own notation, for other programs that fill such a table.

use std::error::Error;

use arrow::datatypes::{DataType, Field};
use serde_json::{Value, json};

/// Prints the schema as one JSON object, as the `schemaString` of a Delta log has it.
pub fn print() -> Result<(), Box<dyn Error>> {
    println!("{}", of(weir_schemas::Request::contract().arrow_schema().fields())?);
    Ok(())
}

fn of<'a>(fields: impl IntoIterator<Item = &'a std::sync::Arc<Field>>) -> Result<Value, Box<dyn Error>> {
    let fields = fields
        .into_iter()
        .map(|field| {
            let (name, nullable) = (field.name(), field.is_nullable());
            Ok(json!({"name": name, "type": type_of(field.data_type())?, "nullable": nullable, "metadata": {}}))
        })
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    Ok(json!({"type": "struct", "fields": fields}))
}

fn type_of(data_type: &DataType) -> Result<Value, Box<dyn Error>> {
    Ok(match data_type {
        DataType::Utf8 => json!("string"),
        DataType::Boolean => json!("boolean"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::List(item) => {
            json!({"type": "array", "elementType": type_of(item.data_type())?, "containsNull": item.is_nullable()})
        }
        DataType::Struct(fields) => of(fields)?,
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => json!({
                "type": "map",
                "keyType": type_of(pair[0].data_type())?,
                "valueType": type_of(pair[1].data_type())?,
                "valueContainsNull": pair[1].is_nullable(),
            }),
            other => return Err(format!("{other} cannot be the entries of a map").into()),
        },
        other => {
            return Err(format!("no contract has had columns of type {other} yet: name its Delta type here").into());
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    // As Delta's protocol writes them, in its section "Schema Serialization Format".
    const LIST: &str = r#"{"type":"array","elementType":"string","containsNull":true}"#;
    const MAP: &str = r#"{"type":"map","keyType":"string","valueType":"double","valueContainsNull":true}"#;

    #[test]
    fn nested_types_are_written_as_the_protocol_says() {
        let contract = weir_schemas::Request::contract().arrow_schema();
        let written = |name: &str| type_of(contract.field_with_name(name).unwrap().data_type()).unwrap();
        assert_eq!(written("scopes"), serde_json::from_str::<Value>(LIST).unwrap());
        assert_eq!(written("hazard_scores"), serde_json::from_str::<Value>(MAP).unwrap());
        assert_eq!(written("candidates")["elementType"]["fields"][1]["type"], "double");
    }

    #[test]
    fn every_column_of_the_contract_has_a_delta_type() {
        let contract = weir_schemas::Request::contract();
        let schema = of(contract.arrow_schema().fields()).unwrap();
        assert_eq!(schema["fields"].as_array().unwrap().len(), contract.fields.len());
    }

    #[test]
    fn a_type_without_a_notation_is_refused() {
        let field = Arc::new(Field::new("day", DataType::Date32, true));
        assert!(of([&field]).unwrap_err().to_string().contains("Date32"));
    }
}
