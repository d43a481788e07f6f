//! `weir features`: training sets for learners outside of Weir.

use serde_json::json;

use super::{configuration, print_json, store_to_read};
use crate::cli::{Common, ExportArgs, FeaturesCommand};
use crate::error::{Failure, Result};

/// Runs the command.
pub async fn run(common: &Common, command: FeaturesCommand) -> Result<()> {
    match command {
        FeaturesCommand::Export(args) => export(common, args).await,
    }
}

async fn export(common: &Common, args: ExportArgs) -> Result<()> {
    let (from_ms, to_ms) = (args.from.unwrap_or(i64::MIN), args.to.unwrap_or(i64::MAX));
    if from_ms >= to_ms {
        return Err(Failure::user("the period is empty: --from must be before --to"));
    }
    if args.cut.is_some_and(|cut_ms| cut_ms <= from_ms || cut_ms >= to_ms) {
        return Err(Failure::user("--cut must lie within the period, so that there is something on both sides"));
    }
    let config = configuration(common)?;
    let store = store_to_read(&config)?;
    let context = weir_sql::open(&store).await?;
    let sql = match args.cut {
        None => include_str!("export.sql").to_owned(),
        Some(cut_ms) => include_str!("export_cut.sql").replace("{cut_ms}", &cut_ms.to_string()),
    };
    // The least number is no literal in SQL.
    let sql = sql.replace("{from_ms}", &from_ms.max(-i64::MAX).to_string()).replace("{to_ms}", &to_ms.to_string());
    let rows = weir_sql::write_parquet(&context, &sql, &args.output).await?;
    if common.json {
        return print_json(&json!({ "rows": rows, "file": args.output }));
    }
    println!("{rows} decisions in {}", args.output.display());
    Ok(())
}
