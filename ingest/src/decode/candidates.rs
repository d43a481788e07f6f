//! Do the candidates' propensities make one distribution, and does the logged propensity come from it?

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::Float64Type;
use weir_schemas::Bounds;

use super::Reason;

/// How far a sum or a copy may be off when somebody computed it in single precision.
const TOLERANCE: f64 = 1e-5;

/// Rows whose candidates contradict themselves or the row's propensity, each with its reason. Unset propensities are
/// no contradiction.
pub(super) fn broken(batch: &RecordBatch) -> Vec<(usize, Reason)> {
    let Some(lists) = batch.column_by_name("candidates").and_then(|column| column.as_list_opt::<i32>()) else {
        return Vec::new();
    };
    let given = lists.values().as_struct_opt().and_then(|all| all.column_by_name("propensity"));
    if given.is_none_or(|given| given.null_count() == given.len()) {
        return Vec::new();
    }
    let chosen = batch.column_by_name("intended_model").and_then(|column| column.as_string_opt::<i32>());
    let propensities = batch.column_by_name("propensity").and_then(|column| column.as_primitive_opt::<Float64Type>());
    let judge = |row: usize| {
        let candidates = lists.value(row);
        let chosen = chosen.filter(|chosen| chosen.is_valid(row)).map(|chosen| chosen.value(row));
        let propensity = propensities.filter(|all| all.is_valid(row)).map(|all| all.value(row));
        contradiction(candidates.as_struct_opt()?, chosen, propensity)
    };
    let rows = (0..batch.num_rows()).filter(|row| lists.is_valid(*row));
    rows.filter_map(|row| Some((row, Reason::CandidatePropensity { why: judge(row)? }))).collect()
}

fn contradiction(candidates: &StructArray, chosen: Option<&str>, propensity: Option<f64>) -> Option<&'static str> {
    let share = Bounds::of_unit("0..1")?;
    let models = candidates.column_by_name("model")?.as_string_opt::<i32>()?;
    let given = candidates.column_by_name("propensity")?.as_primitive_opt::<Float64Type>()?;
    if given.iter().flatten().any(|one| !share.allow(one)) {
        return Some("a candidate's propensity is not within 0..1");
    }
    if given.iter().flatten().sum::<f64>() > 1.0 + TOLERANCE {
        return Some("the candidates' propensities add up to more than 1");
    }
    let of_chosen = models.iter().zip(given).find(|(model, _)| model.is_some() && *model == chosen)?.1?;
    let differs = propensity.is_some_and(|propensity| (of_chosen - propensity).abs() > TOLERANCE);
    differs.then_some("propensity is not the one that the candidates give the intended model")
}
