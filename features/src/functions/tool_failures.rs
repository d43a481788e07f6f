//! What went wrong with the tools that a request called.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, ListBuilder, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

pub(super) fn tool_failures() -> ScalarUDF {
    ScalarUDF::from(ToolFailures { signature: Signature::any(2, Volatility::Immutable) })
}

pub(super) fn failed_tools() -> ScalarUDF {
    ScalarUDF::from(FailedTools { signature: Signature::any(1, Volatility::Immutable) })
}

/// Parts of an error's class that say that the model named a tool that is not there.
const WRONG_TOOL: [&str; 4] = ["unknown_tool", "no_such_tool", "tool_not_found", "not_offered"];
/// Parts of an error's class that say that the tool refused its arguments.
const BAD_ARGUMENTS: [&str; 5] = ["argument", "validation", "schema", "parse", "invalid_input"];

/// The classes of a request's failed tool calls, each once: `wrong_tool`, `bad_arguments`, `tool_error`. Empty where no call is
/// known to have failed, NULL where calls are not reported. A tool that was not among those offered is a wrong one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToolFailures {
    signature: Signature,
}

fn texts() -> DataType {
    DataType::new_list(DataType::Utf8, true)
}

fn takes_calls(given: &DataType, function: &str) -> Result<DataType> {
    match given {
        DataType::List(item) if matches!(item.data_type(), DataType::Struct(_)) => Ok(texts()),
        _ => plan_err!("{function} takes the column tools_called"),
    }
}

impl ScalarUDFImpl for ToolFailures {
    fn name(&self) -> &'static str {
        "tool_failures"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        takes_calls(&given[0], "tool_failures")
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let offered = columns[1].as_list_opt::<i32>();
        let classes = of_calls(columns[0].as_list::<i32>(), |row, call| {
            let offers = offered.filter(|offered| offered.is_valid(row)).map(|offered| offered.value(row));
            let is_offered = offers.is_none_or(|offers| {
                offers.is_empty() || offers.as_string::<i32>().iter().any(|name| name == Some(call.name))
            });
            if !is_offered {
                return Some("wrong_tool");
            }
            (call.success == Some(false)).then(|| class_of(call.error_class))
        });
        Ok(ColumnarValue::Array(classes))
    }
}

fn class_of(error_class: Option<&str>) -> &'static str {
    let error_class = error_class.unwrap_or_default().to_ascii_lowercase().replace(['-', ' ', '.'], "_");
    let says = |parts: &[&str]| parts.iter().any(|part| error_class.contains(part));
    if says(&WRONG_TOOL) {
        "wrong_tool"
    } else if says(&BAD_ARGUMENTS) {
        "bad_arguments"
    } else {
        "tool_error"
    }
}

/// The names of the tools whose calls are known to have failed, each once.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FailedTools {
    signature: Signature,
}

impl ScalarUDFImpl for FailedTools {
    fn name(&self) -> &'static str {
        "failed_tools"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        takes_calls(&given[0], "failed_tools")
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let failed = |_: usize, call: Call<'_>| (call.success == Some(false)).then(|| call.name.to_owned());
        Ok(ColumnarValue::Array(of_calls(columns[0].as_list::<i32>(), failed)))
    }
}

struct Call<'a> {
    name: &'a str,
    success: Option<bool>,
    error_class: Option<&'a str>,
}

/// A list of different texts for each row, from its calls.
fn of_calls<T: AsRef<str> + PartialEq>(rows: &ListArray, say: impl Fn(usize, Call<'_>) -> Option<T>) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    let calls = rows.values().as_struct();
    let column = |name: &str| calls.column_by_name(name);
    let (Some(names), Some(success)) = (column("name"), column("success")) else {
        (0..rows.len()).for_each(|_| lists.append_null());
        return Arc::new(lists.finish());
    };
    let (names, success) = (names.as_string::<i32>(), success.as_boolean());
    let errors = column("error_class").map(|errors| errors.as_string::<i32>());
    for (row, ends) in rows.offsets().windows(2).enumerate() {
        if rows.is_null(row) {
            lists.append_null();
            continue;
        }
        let mut said: Vec<T> = Vec::new();
        for call in ends[0] as usize..ends[1] as usize {
            let text = say(
                row,
                Call {
                    name: names.value(call),
                    success: success.is_valid(call).then(|| success.value(call)),
                    error_class: errors.filter(|errors| errors.is_valid(call)).map(|errors| errors.value(call)),
                },
            );
            said.extend(text.filter(|text| !said.contains(text)));
        }
        said.iter().for_each(|text| lists.values().append_value(text));
        lists.append(true);
    }
    Arc::new(lists.finish())
}
