//! Reputations from a few verdicts, beside what thousands say: Vectara's hallucination leaderboard, where every model
//! summarised the same documents.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::{ParquetReadOptions, SessionContext};

#[test]
fn a_reputation_from_few_verdicts_is_nearer_the_truth_when_it_leans_on_others() {
    let Some(folder) = weir_tests::shared_data("routing_hhem_summaries") else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    println!(
        "| documents checked a model | pooled intervals of 95 % that hold | width | error | Jeffreys' that hold | width | error | \
         rate of who is chosen by pooled, by raw rates | of the best, of the average model |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for folds in [400, 200, 50] {
        let row = runtime.block_on(async {
            let ctx = SessionContext::new();
            weir_features::register_functions(&ctx);
            let file = folder.join("current_scores.parquet");
            let file = file.to_str().expect("a plain path");
            ctx.register_parquet("scores", file, ParquetReadOptions::default()).await.expect("the data set opens");
            let sql = include_str!("traces/sampled_reputations.sql").replace("{folds}", &folds.to_string());
            ctx.sql(&sql).await.expect("plans").collect().await.expect("runs").remove(0)
        });
        let figures: Vec<f64> = row
            .columns()
            .iter()
            .map(|column| {
                let column = arrow::compute::cast(column, &DataType::Float64).expect("a number");
                column.as_primitive::<Float64Type>().value(0)
            })
            .collect();
        let [checked, holds, width, error, raw_holds, raw_width, raw_error, chosen, raw_chosen, best, average] =
            figures[..]
        else {
            panic!("{figures:?}")
        };
        println!(
            "| {checked:.1} | {:.1} % | {width:.3} | {error:.4} | {:.1} % | {raw_width:.3} | {raw_error:.4} | {chosen:.4}, \
             {raw_chosen:.4} | {best:.4}, {average:.4} |",
            100.0 * holds,
            100.0 * raw_holds
        );
        assert!(holds > 0.93, "{holds} of the intervals hold the rate over all documents");
        assert!(width < raw_width && error < raw_error, "pooled {width} {error}, alone {raw_width} {raw_error}");
        assert!(chosen < average && raw_chosen < average, "who is chosen by few verdicts is better than the average");
    }
}
