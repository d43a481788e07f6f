//! `action_part`: one part of an action's name, by the same grammar as policies use.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use weir_policy_runtime::ActionParts;

pub(super) fn action_part() -> ScalarUDF {
    ScalarUDF::from(ActionPart { signature: Signature::string(2, Volatility::Immutable) })
}

/// `model`, `provider` or `reasoning` of a name; NULL where the name does not say it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ActionPart {
    signature: Signature,
}

impl ScalarUDFImpl for ActionPart {
    fn name(&self) -> &'static str {
        "action_part"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        Ok(given[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [names, part] = args.args.as_slice() else { return plan_err!("action_part takes a name and a part") };
        let part = match part {
            ColumnarValue::Scalar(part) => part.try_as_str().flatten(),
            ColumnarValue::Array(_) => None,
        };
        let Some(part) = part.filter(|part| ["model", "provider", "reasoning"].contains(part)) else {
            return plan_err!("the part is 'model', 'provider' or 'reasoning'");
        };
        let of = |array: &ArrayRef| -> Result<ArrayRef> {
            let names = cast(array, &DataType::Utf8)?;
            let names = names.as_string::<i32>();
            // Most logs name models, and these stay as they are.
            if part == "model" && !names.value_data().contains(&b';') {
                return Ok(Arc::clone(array));
            }
            let found: StringArray = names.iter().map(|name| one(name?, part)).collect();
            Ok(cast(&found, array.data_type())?)
        };
        match names {
            ColumnarValue::Array(array) => of(array).map(ColumnarValue::Array),
            ColumnarValue::Scalar(name) => {
                let found = of(&name.to_array()?)?;
                ScalarValue::try_from_array(&found, 0).map(ColumnarValue::Scalar)
            }
        }
    }
}

fn one<'a>(name: &'a str, part: &str) -> Option<&'a str> {
    let parts = ActionParts::of(name);
    match part {
        "model" => Some(parts.model),
        "provider" => parts.provider,
        _ => parts.reasoning,
    }
}
