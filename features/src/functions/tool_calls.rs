//! `failed_tool_calls`: a count over a list of structs, which SQL can only write with a join on itself.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

pub(super) fn failed_tool_calls() -> ScalarUDF {
    ScalarUDF::from(FailedToolCalls { signature: Signature::any(1, Volatility::Immutable) })
}

/// Calls whose `success` is false. A call whose result nobody saw is not counted; a NULL list gives NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FailedToolCalls {
    signature: Signature,
}

impl ScalarUDFImpl for FailedToolCalls {
    fn name(&self) -> &'static str {
        "failed_tool_calls"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        let calls = match &given[0] {
            DataType::List(item) => item.data_type(),
            other => other,
        };
        match calls {
            DataType::Struct(fields)
                if fields.find("success").is_some_and(|(_, field)| field.data_type() == &DataType::Boolean) =>
            {
                Ok(DataType::Int64)
            }
            _ => plan_err!("failed_tool_calls takes the column tools_called"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let failed: Int64Array = columns[0]
            .as_list::<i32>()
            .iter()
            .map(|calls| {
                let calls = calls?;
                let success = calls.as_struct().column_by_name("success")?.as_boolean().clone();
                Some(success.iter().filter(|success| *success == Some(false)).count() as i64)
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(failed)))
    }
}
