//! Tables of outcomes over public runs of agents, beside plain counts over the same files.

mod common;
mod parquet_rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::util::display::array_value_to_string;
use serde_json::Value;
use weir_schemas::{Feedback, Request};
use weir_sql::Context;
use weir_store::Store;

use crate::common::append;
use crate::parquet_rows::parquet_rows;

async fn stored(folder: &Path, requests: &[Value], opinions: &[Value]) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    append(&store, Request::contract(), 0, requests).await;
    append(&store, Feedback::contract(), 0, opinions).await;
    weir_features::catch_up(&store).await.expect("catches up");
    weir_sql::open(&store).await.expect("the session opens")
}

/// Rows of a view as the text of their cells.
async fn said(ctx: &Context, sql: &str) -> Vec<Vec<String>> {
    let batches = weir_sql::query(ctx, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let row = |batch: &arrow::array::RecordBatch, row| {
        batch.columns().iter().map(|column| array_value_to_string(column, row).expect("prints")).collect()
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |at| row(batch, at)).collect::<Vec<_>>()).collect()
}

/// The same of a query over the files.
async fn counted(folder: &Path, tables: &[&str], sql: &str) -> Vec<Vec<String>> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let rows = parquet_rows(folder, tables, sql).await;
    rows.iter().map(|row| row["cells"].as_array().expect("a list").iter().map(text).collect()).collect()
}

#[test]
fn agents_of_tau_bench_succeed_as_often_as_their_files_say() {
    let Some(data) = weir_tests::shared("data/tau_agent_trajectories") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let tables = ["llm_calls", "simulations"];
    runtime.block_on(async {
        let requests = parquet_rows(&data, &tables, include_str!("traces/tau_agent_trajectories.sql")).await;
        // Told once the last message had been sent.
        let opinions = "SELECT simulations.sim_id AS feedback_id, simulations.sim_id AS session_id, 'evaluation' AS source, \
                'task_success' AS kind, TRUE AS checked, max(reward) AS value, CAST(max(t_unix_s) * 1000 AS BIGINT) AS event_ms \
            FROM simulations JOIN llm_calls ON llm_calls.sim_id = simulations.sim_id \
            WHERE reward BETWEEN 0 AND 1 AND role = 'assistant' GROUP BY simulations.sim_id";
        let opinions = parquet_rows(&data, &tables, opinions).await;
        let ctx = stored(folder.path(), &requests, &opinions).await;
        let ours = said(
            &ctx,
            "SELECT turns.model, turns.domain, CAST(count(*) AS VARCHAR), \
                CAST(count(*) FILTER (WHERE task_success >= 0.5) AS VARCHAR), CAST(sum(requests) AS VARCHAR) \
            FROM sessions JOIN session_turns AS turns \
                ON turns.session_id = sessions.session_id AND turns.session_start_ms = sessions.session_start_ms AND place = 1 \
            WHERE task_success IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2",
        )
        .await;
        let theirs = "SELECT make_array(agent_model, domain, CAST(count(*) AS VARCHAR), \
                CAST(count(*) FILTER (WHERE reward >= 0.5) AS VARCHAR), CAST(sum(calls) AS VARCHAR)) AS cells \
            FROM simulations JOIN (SELECT sim_id, count(*) AS calls FROM llm_calls WHERE role = 'assistant' GROUP BY sim_id) AS used \
                ON used.sim_id = simulations.sim_id \
            WHERE reward BETWEEN 0 AND 1 GROUP BY agent_model, domain ORDER BY agent_model, domain";
        let theirs = counted(&data, &tables, theirs).await;
        println!("{} models and domains of tau-bench", theirs.len());
        assert!(theirs.len() > 10);
        assert_eq!(ours, theirs);
    });
}

#[test]
fn agents_of_swe_bench_resolve_what_their_files_say() {
    let Some(data) = weir_tests::shared("data/routing_swebench_agents_nc") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let run = "query_id || '/' || model";
        let requests = format!(
            "SELECT {run} AS request_id, 1700000000000 AS arrival_ms, model AS executed_model, repo AS domain, cost_usd FROM runs"
        );
        let opinions = format!(
            "SELECT {run} AS feedback_id, {run} AS request_id, 1700000000000 AS event_ms, 'evaluation' AS source, \
                'verdict' AS kind, TRUE AS checked, score AS value FROM runs"
        );
        let requests = parquet_rows(&data, &["runs"], &requests).await;
        let opinions = parquet_rows(&data, &["runs"], &opinions).await;
        let ctx = stored(folder.path(), &requests, &opinions).await;
        let ours = said(
            &ctx,
            "SELECT model, domain, CAST(judged AS VARCHAR), CAST(successes AS VARCHAR), \
                CAST(success_rate BETWEEN success_rate_low AND success_rate_high AS VARCHAR) \
            FROM model_reputation ORDER BY model, domain",
        )
        .await;
        let theirs = "SELECT make_array(model, repo, CAST(count(*) AS VARCHAR), CAST(count(*) FILTER (WHERE score >= 0.5) AS VARCHAR), \
                'true') AS cells FROM runs GROUP BY model, repo ORDER BY model, repo";
        let theirs = counted(&data, &["runs"], theirs).await;
        println!("{} models and repositories of SWE-bench", theirs.len());
        assert!(theirs.len() > 200);
        assert_eq!(ours, theirs);

        let ours = said(&ctx, "SELECT model, CAST(round(total_usd * 1e4) AS VARCHAR) FROM cost ORDER BY model").await;
        let theirs = "SELECT make_array(model, CAST(round(sum(cost_usd) * 1e4) AS VARCHAR)) AS cells FROM runs GROUP BY model ORDER BY model";
        assert_eq!(ours, counted(&data, &["runs"], theirs).await);
    });
}

#[test]
fn what_aiders_user_took_back_counts_against_the_model_that_wrote_it() {
    let Some(data) = weir_tests::shared("data/aider_usage_events") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let requests = parquet_rows(&data, &["events"], include_str!("traces/aider_usage_events.sql")).await;
        // An undo is about the message that the same user's machine sent last in its session.
        let taken_back = "SELECT 'undo/' || row_number() OVER (ORDER BY at) AS feedback_id, \
                CAST(at * 1000 AS BIGINT) AS event_ms, 'user' AS source, 'thumb' AS kind, 0.0 AS value, request_id FROM ( \
                SELECT event, time_unix_s AS at, last_value(request_id) IGNORE NULLS OVER ( \
                    PARTITION BY \"user\", session ORDER BY time_unix_s, place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW \
                ) AS request_id FROM ( \
                    SELECT \"user\", session, event, time_unix_s, CASE WHEN event = 'message_send' THEN 0 ELSE 1 END AS place, \
                        CASE WHEN event = 'message_send' THEN 'aider/' || row_number() OVER (PARTITION BY event \
                            ORDER BY time_unix_s, \"user\", session, prompt_tokens, completion_tokens) END AS request_id \
                    FROM events)) \
            WHERE event = 'command_undo' AND request_id IS NOT NULL";
        let opinions = parquet_rows(&data, &["events"], taken_back).await;
        let ctx = stored(folder.path(), &requests, &opinions).await;
        let ours = said(
            &ctx,
            "SELECT model, CAST(observed AS VARCHAR), CAST(failures AS VARCHAR) FROM failure_rates \
            WHERE class = 'dissatisfaction' AND model IS NOT NULL ORDER BY model",
        )
        .await;
        // Every undo is a dissatisfaction with one message, and nobody said anything of the others.
        let mut theirs: BTreeMap<String, BTreeSet<String>> = Default::default();
        let model_of: BTreeMap<&str, &str> = requests
            .iter()
            .filter_map(|row| Some((row["request_id"].as_str()?, row["executed_model"].as_str()?)))
            .collect();
        for opinion in &opinions {
            let request = opinion["request_id"].as_str().expect("names a request");
            if let Some(model) = model_of.get(request) {
                theirs.entry((*model).to_owned()).or_default().insert(request.to_owned());
            }
        }
        let theirs: Vec<Vec<String>> = theirs
            .into_iter()
            .map(|(model, messages)| vec![model, messages.len().to_string(), messages.len().to_string()])
            .collect();
        println!("{} messages of {} models taken back", opinions.len(), theirs.len());
        assert!(opinions.len() > 100 && theirs.len() > 5);
        assert_eq!(ours, theirs);
    });
}
