//! Claims about the canonical views.

use arrow::util::pretty::pretty_format_batches;
use weir_schemas::{EventTimeMs, Feedback, Request, Tokens, ToolCall};

use super::*;
use crate::testing::{T0_MS, append, append_feedback, memory_store, request};

async fn rows(store: &Store, sql: &str) -> String {
    let ctx = session(store).await.expect("the session opens");
    let batches = ctx.sql(sql).await.expect("plans").collect().await.expect("runs");
    pretty_format_batches(&batches).expect("prints").to_string()
}

fn opinion(id: &str, request_id: &str, source: &str, value: f64) -> Feedback {
    Feedback {
        feedback_id: id.to_owned(),
        event_ms: EventTimeMs(T0_MS),
        source: source.to_owned(),
        kind: "rating".to_owned(),
        request_id: Some(request_id.to_owned()),
        value: Some(value),
        ..Feedback::default()
    }
}

fn tool(success: Option<bool>) -> ToolCall {
    ToolCall { name: "search".to_owned(), success, ..ToolCall::default() }
}

#[tokio::test]
async fn an_empty_store_answers_every_view_with_no_rows() {
    let store = memory_store().await;
    let ctx = session(&store).await.expect("the session opens");
    let names = [
        "raw_requests",
        "raw_feedback",
        "raw_gpu_telemetry",
        "dead_letters",
        "workload_minute",
        "workload_sketch",
        "token_sketch",
        "requests",
        "request_axes",
        "feedback",
        "request_opinions",
        "rewards",
    ];
    for name in names {
        let count = ctx.table(name).await.expect("is there").count().await.expect("runs");
        assert_eq!(count, 0, "{name}");
    }
}

#[tokio::test]
async fn stored_tables_have_the_types_of_the_contracts() {
    let store = memory_store().await;
    append(&store, &[request("a", T0_MS)]).await;
    let ctx = session(&store).await.expect("the session opens");
    let stored = ctx.table("raw_requests").await.expect("is there").schema().as_arrow().clone();
    for field in Request::contract().arrow_schema().fields() {
        let column = stored.field_with_name(field.name()).expect("is there");
        assert_eq!(column.data_type(), field.data_type(), "{}", field.name());
    }
}

#[tokio::test]
async fn classes_are_told_from_what_is_reported_and_null_where_nothing_is() {
    let store = memory_store().await;
    let tokens = |prompt, completion, cached: Option<i32>| Request {
        prompt_tokens: Some(Tokens(prompt)),
        completion_tokens: Some(Tokens(completion)),
        cached_prompt_tokens: cached.map(Tokens),
        ..Request::default()
    };
    let at = |id: &str, rest: Request| Request { request_id: id.into(), arrival_ms: EventTimeMs(T0_MS), ..rest };
    append(
        &store,
        &[
            at("1 bare", Request::default()),
            at("2 chat", Request { message_count: Some(1), ..tokens(100, 100, Some(0)) }),
            at(
                "3 agent",
                Request { tools_offered: Some(vec!["search".into()]), turn: Some(2), ..tokens(800, 100, Some(64)) },
            ),
            at(
                "4 tools",
                Request {
                    tools_called: Some(vec![tool(Some(false)), tool(None), tool(Some(true))]),
                    turn: Some(0),
                    ..tokens(799, 100, None)
                },
            ),
            at(
                "5 chained",
                Request { chain_id: Some("x".into()), api: Some("responses".into()), ..tokens(10, 500, None) },
            ),
        ],
    )
    .await;
    let sql = "SELECT request_id, is_agent, is_multi_turn, is_warm, is_prefill_heavy, is_decode_heavy, \
        tools_called_count, tools_failed_count FROM requests ORDER BY request_id";
    let expected = "\
+------------+----------+---------------+---------+------------------+-----------------+--------------------+--------------------+
| request_id | is_agent | is_multi_turn | is_warm | is_prefill_heavy | is_decode_heavy | tools_called_count | tools_failed_count |
+------------+----------+---------------+---------+------------------+-----------------+--------------------+--------------------+
| 1 bare     |          |               |         |                  |                 |                    |                    |
| 2 chat     | false    | false         | false   | false            | true            |                    |                    |
| 3 agent    | true     | true          | true    | true             | false           |                    |                    |
| 4 tools    | true     | false         |         | false            | false           | 3                  | 1                  |
| 5 chained  | false    | true          |         | false            | true            |                    |                    |
+------------+----------+---------------+---------+------------------+-----------------+--------------------+--------------------+";
    assert_eq!(rows(&store, sql).await, expected);
}

#[tokio::test]
async fn an_answer_from_the_semantic_cache_is_no_models_work() {
    let store = memory_store().await;
    let chosen =
        |id: &str, hit| Request { intended_model: Some("m".to_owned()), semantic_cache_hit: hit, ..request(id, T0_MS) };
    append(&store, &[chosen("hit", Some(true)), chosen("miss", Some(false)), chosen("unknown", None)]).await;
    let expected = "\
+------------+-------+
| request_id | model |
+------------+-------+
| hit        |       |
| miss       | m     |
| unknown    | m     |
+------------+-------+";
    assert_eq!(rows(&store, "SELECT request_id, model FROM requests ORDER BY request_id").await, expected);
}

#[tokio::test]
async fn broken_clocks_and_meters_are_left_out_of_the_sums() {
    let store = memory_store().await;
    let timed = |id: &str, ttft_ms| Request { ttft_ms: Some(ttft_ms), ..request(id, T0_MS) };
    append(&store, &[timed("a", 1.2345), timed("b", -1.0), timed("c", 1e300)]).await;
    let sql = "SELECT sum(ttft_us) AS sum, count(ttft_us) AS count FROM requests";
    assert!(rows(&store, sql).await.contains("| 1235 | 1     |"), "{}", rows(&store, sql).await);
}

#[tokio::test]
async fn the_last_revision_of_an_opinion_counts_unless_it_is_withdrawn() {
    let store = memory_store().await;
    append_feedback(
        &store,
        &[
            opinion("a", "r", "user", 0.0),
            Feedback { revision: Some(2), ..opinion("a", "r", "user", 1.0) },
            Feedback { revision: Some(1), ..opinion("a", "r", "user", 0.5) },
            opinion("b", "r", "user", 0.25),
            Feedback { revision: Some(1), retracted: Some(true), ..opinion("b", "r", "user", 0.25) },
        ],
    )
    .await;
    assert!(rows(&store, "SELECT feedback_id, value FROM feedback").await.contains("| a           | 1.0   |"));
    assert!(rows(&store, "SELECT count(*) AS n FROM feedback").await.contains("| 1 |"));
}

#[tokio::test]
async fn a_reward_is_the_mean_of_the_best_source_that_checked() {
    let store = memory_store().await;
    let of = |feedback: Feedback, checked, estimator: Option<&str>| Feedback {
        checked,
        estimator: estimator.map(str::to_owned),
        ..feedback
    };
    append(&store, &["r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8"].map(|id| request(id, T0_MS))).await;
    append_feedback(
        &store,
        &[
            // A known answer beats users, users beat an estimator.
            of(opinion("1", "r1", "evaluation", 1.0), Some(true), None),
            opinion("2", "r1", "user", 0.0),
            opinion("3", "r2", "user", 0.0),
            opinion("4", "r2", "agent", 1.0),
            of(opinion("5", "r2", "evaluation", 0.9), Some(true), Some("halu-1")),
            of(opinion("11", "r8", "operator", 0.0), Some(true), None),
            of(opinion("12", "r8", "evaluation", 0.9), Some(true), Some("halu-1")),
            // Not checked is missing, never clean.
            of(opinion("6", "r3", "evaluation", 1.0), None, None),
            of(opinion("7", "r4", "judge", 1.0), Some(false), None),
            // Neither pairwise opinions nor those without a value are rewards.
            Feedback { kind: "pairwise".into(), ..opinion("8", "r5", "user", 1.0) },
            Feedback { value: None, ..opinion("9", "r6", "user", 1.0) },
            Feedback { request_id: None, session_id: Some("s".into()), ..opinion("10", "r7", "user", 1.0) },
        ],
    )
    .await;
    let expected = "\
+------------+-------------+---------+----------+
| request_id | source_rank | quality | opinions |
+------------+-------------+---------+----------+
| r1         | 1           | 1.0     | 1        |
| r2         | 2           | 0.5     | 2        |
| r8         | 2           | 0.0     | 1        |
+------------+-------------+---------+----------+";
    let sql = "SELECT request_id, source_rank, quality, opinions FROM rewards ORDER BY request_id";
    assert_eq!(rows(&store, sql).await, expected);
}

#[tokio::test]
async fn what_a_user_says_next_is_about_the_turn_before() {
    let store = memory_store().await;
    let turn = |id: &str, tenant: Option<&str>, turn: Option<i32>, at_s: i64| Request {
        tenant: tenant.map(str::to_owned),
        session_id: Some("s".to_owned()),
        turn,
        ..request(id, T0_MS + 1000 * at_s)
    };
    append(
        &store,
        &[
            turn("a0", None, Some(0), 0),
            // The first turn was tried again; the user saw the second answer.
            turn("a0 again", None, Some(0), 5),
            turn("a1", None, Some(1), 60),
            turn("a2", None, Some(2), 120),
            // The same session id of another tenant, whose router counts no turns.
            turn("b0", Some("acme"), None, 0),
            turn("b1", Some("acme"), None, 60),
            Request { session_id: Some("quiet".to_owned()), ..request("c0", T0_MS) },
        ],
    )
    .await;
    let said = |id: &str, tenant: Option<&str>, turn: Option<i32>, at_s: i64, value: f64| Feedback {
        tenant: tenant.map(str::to_owned),
        kind: "follow_up".to_owned(),
        request_id: None,
        session_id: Some("s".to_owned()),
        turn,
        event_ms: EventTimeMs(T0_MS + 1000 * at_s),
        ..opinion(id, "", "router", value)
    };
    append_feedback(
        &store,
        &[
            // Said with a1, of turn 0, by the tenant without a name: a session of that id of everyone's.
            said("1", None, Some(0), 60, 0.0),
            // Said with b1, which is not what it is about.
            said("2", Some("acme"), None, 60, 1.0),
            // Nobody had asked anything yet.
            said("3", Some("acme"), None, 0, 0.25),
            // Of a turn that nobody knows, and of a session that nobody knows.
            said("4", None, Some(7), 60, 0.25),
            Feedback { session_id: Some("unknown".to_owned()), ..said("5", None, Some(0), 60, 0.25) },
            // A thumb for the session as a whole is about no request of it.
            Feedback { kind: "thumb".to_owned(), ..said("6", None, None, 90, 0.25) },
        ],
    )
    .await;
    let expected = "\
+--------+------------+-------------+---------+----------+
| tenant | request_id | source_rank | quality | opinions |
+--------+------------+-------------+---------+----------+
|        | a0 again   | 3           | 0.0     | 1        |
| acme   | b0         | 3           | 1.0     | 1        |
+--------+------------+-------------+---------+----------+";
    let sql = "SELECT tenant, request_id, source_rank, quality, opinions FROM rewards ORDER BY tenant NULLS FIRST";
    assert_eq!(rows(&store, sql).await, expected);
}

#[tokio::test]
async fn an_opinion_with_a_tenant_counts_for_that_tenants_request_only() {
    let store = memory_store().await;
    let of = |tenant: &str| Request { tenant: Some(tenant.to_owned()), ..request("r", T0_MS) };
    append(&store, &[of("acme"), of("globex"), request("r", T0_MS)]).await;
    let by = |tenant: &str, opinion| Feedback { tenant: Some(tenant.to_owned()), ..opinion };
    append_feedback(
        &store,
        &[
            by("acme", opinion("1", "r", "user", 1.0)),
            by("globex", opinion("2", "r", "judge", 0.0)),
            opinion("3", "r", "judge", 0.5),
            by("nobody", opinion("4", "r", "user", 0.0)),
            // Another tenant's opinion of the same id is another opinion, and withdraws nothing here.
            by("globex", Feedback { revision: Some(9), retracted: Some(true), ..opinion("1", "r", "user", 1.0) }),
            opinion("5", "another", "user", 0.0),
        ],
    )
    .await;
    let expected = "\
+--------+------------+-------------+---------+----------+
| tenant | request_id | source_rank | quality | opinions |
+--------+------------+-------------+---------+----------+
|        | r          | 3           | 0.5     | 1        |
| acme   | r          | 2           | 1.0     | 1        |
| globex | r          | 3           | 0.25    | 2        |
+--------+------------+-------------+---------+----------+";
    let sql = "SELECT tenant, request_id, source_rank, quality, opinions FROM rewards ORDER BY tenant NULLS FIRST";
    assert_eq!(rows(&store, sql).await, expected);
}

#[tokio::test]
async fn a_session_names_the_versions_that_it_sees() {
    let store = memory_store().await;
    let first = append(&store, &[request("a", T0_MS)]).await;
    let (ctx, versions) = session_with_versions(&store).await.expect("the session opens");
    assert_eq!(versions.into_iter().collect::<Vec<_>>(), [("requests".to_owned(), first)]);
    append(&store, &[request("b", T0_MS)]).await;
    let seen = ctx.table("requests").await.expect("is there").count().await.expect("runs");
    assert_eq!(seen, 1, "a row that was committed later is seen under the earlier version");
}

#[tokio::test]
async fn a_foreign_table_beside_ours_is_left_out_and_the_others_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(folder.path().to_str().expect("a plain path")).await.expect("opens");
    append(&store, &[request("a", T0_MS)]).await;
    // A table that was made under another name, and a folder that is none at all.
    let tables = folder.path().join("tables");
    let log = |name: &str| tables.join(name).join("_delta_log");
    std::fs::create_dir_all(log("foreign")).expect("is made");
    std::fs::copy(log("requests").join(format!("{:020}.json", 0)), log("foreign").join(format!("{:020}.json", 0)))
        .expect("is copied");
    std::fs::create_dir_all(tables.join("notes/deep/down")).expect("is made");
    std::fs::write(tables.join("notes/deep/down/todo.txt"), "x").expect("is written");
    assert!(rows(&store, "SELECT count(*) AS n FROM requests").await.contains("| 1 |"));
    let ctx = session(&store).await.expect("the session opens");
    assert!(ctx.table("foreign").await.is_err(), "a table that was made under another name");
    assert!(ctx.table("notes").await.is_err(), "a folder that is no table");
    let columns = ctx.sql("SELECT * FROM information_schema.columns").await.expect("plans").collect().await;
    assert!(columns.is_ok(), "{columns:?}");
}

#[tokio::test]
async fn a_table_that_nobody_announced_shows_under_its_name() {
    let store = memory_store().await;
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new(
        "n",
        arrow::datatypes::DataType::Int64,
        true,
    )]));
    let spec = weir_store::TableSpec { name: "policy_events".into(), schema, partition_by: None };
    store.table(&spec).await.expect("is made");
    assert!(rows(&store, "SELECT count(n) AS n FROM policy_events").await.contains("| 0 |"));
}
