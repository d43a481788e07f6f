//! `spread`: a name's place among so many, the same everywhere and always.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use xxhash_rust::xxh3::xxh3_64;

pub(super) fn spread() -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Utf8, DataType::Int64], Volatility::Immutable);
    ScalarUDF::from(Spread { signature })
}

/// XXH3 of the name, modulo the number of places: 0 to places - 1. NULL for no name and where there is no place.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Spread {
    signature: Signature,
}

impl ScalarUDFImpl for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let (names, places) = (columns[0].as_string::<i32>(), columns[1].as_primitive::<Int64Type>());
        let rows = names.iter().zip(places);
        let placed = rows.map(|(name, places)| {
            let places = u64::try_from(places?).ok().filter(|places| *places > 0)?;
            i64::try_from(xxh3_64(name?.as_bytes()) % places).ok()
        });
        Ok(ColumnarValue::Array(Arc::new(placed.collect::<Int64Array>())))
    }
}
