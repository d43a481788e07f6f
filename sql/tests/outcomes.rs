//! What models, tools and callers did, over tables small enough to be counted by hand.

mod common;
mod runner;

use std::path::Path;

use serde_json::{Value, json};
use weir_schemas::{Feedback, Request};
use weir_sql::Context;
use weir_store::{Store, Upkeep, UtcDay};

use crate::common::append;
use crate::runner::passes;

/// 2023-11-14 22:13:20 UTC.
const T0_MS: i64 = 1_700_000_000_000;

fn with(mut row: Value, more: Value) -> Value {
    let (Value::Object(row_fields), Value::Object(more)) = (&mut row, more) else { panic!("objects") };
    row_fields.extend(more);
    row
}

fn at(id: &str, after_s: i64, more: Value) -> Value {
    let row = json!({ "request_id": id, "arrival_ms": T0_MS + 1_000 * after_s, "executed_model": "m", "intended_model": "m" });
    with(row, more)
}

fn verdict(id: &str, request: &str, source: &str, value: f64, more: Value) -> Value {
    let row = json!({ "feedback_id": id, "event_ms": T0_MS + 500_000, "source": source, "kind": "verdict",
        "request_id": request, "value": value, "checked": true });
    with(row, more)
}

async fn stored(folder: &Path, requests: &[Value], opinions: &[Value]) -> Context {
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    append(&store, Request::contract(), 0, requests).await;
    if !opinions.is_empty() {
        append(&store, Feedback::contract(), 0, opinions).await;
    }
    weir_sql::open(&store).await.expect("the session opens")
}

/// A request for each rule of each class, its id beginning with the class, and what nobody said anything of.
async fn failures(folder: &Path) -> Context {
    let failed = |name: &str, class: &str| json!({ "name": name, "success": false, "error_class": class });
    let in_session = |turn: i64| json!({ "session_id": "s", "turn": turn });
    let looking = |turn: i64| with(in_session(turn), json!({ "tools_called": [failed("search", "http_500")] }));
    let requests = [
        at("nothing", 0, json!({})),
        at(
            "good",
            0,
            json!({ "http_status": 200, "finish_reason": "stop", "tools_called": [{ "name": "search", "success": true }],
            "tools_offered": ["search"] }),
        ),
        at("hallucination", 0, json!({})),
        at("supported", 0, json!({})),
        at("wrong_tool 1", 0, json!({ "tools_called": [{ "name": "rm" }], "tools_offered": ["search"] })),
        at("wrong_tool 2", 0, json!({ "tools_called": [failed("rm", "Tool-Not-Found")] })),
        at("bad_arguments", 0, json!({ "tools_called": [failed("search", "invalid_arguments")] })),
        at("retry 1", 0, looking(0)),
        at("retry 2", 1, looking(1)),
        at("retry 3", 2, looking(2)),
        at("refusal", 0, json!({ "finish_reason": "content_filter" })),
        at("time_out 1", 0, json!({ "error_class": "upstream_timeout" })),
        at("time_out 2", 0, json!({ "http_status": 504 })),
        at("truncation", 0, json!({ "finish_reason": "length" })),
        at("schema", 0, json!({ "error_class": "json_schema_mismatch" })),
        at("dissatisfied", 0, json!({})),
        at("safety", 0, json!({ "error_class": "pii_blocked" })),
        at("fallback", 0, json!({ "intended_model": "n" })),
        at("other", 0, json!({ "http_status": 500 })),
        // An answer from the semantic cache is no model's.
        at("cached", 0, json!({ "semantic_cache_hit": true, "http_status": 500 })),
    ];
    let estimator = json!({ "estimator": "e", "label": "hallucination" });
    let opinions = [
        verdict("1", "hallucination", "evaluation", 0.0, estimator.clone()),
        verdict("2", "supported", "evaluation", 1.0, estimator.clone()),
        verdict("3", "dissatisfied", "user", 0.25, json!({})),
        // A check that did not run says nothing.
        verdict("4", "nothing", "evaluation", 0.0, with(estimator, json!({ "checked": false }))),
    ];
    stored(folder, &requests, &opinions).await
}

#[test]
fn each_class_of_failure_has_its_rule_and_silence_is_no_failure() {
    passes("failures.slt", failures);
}

/// Two models on two subjects, with verdicts.
async fn reputations(folder: &Path) -> Context {
    let (mut requests, mut opinions) = (Vec::new(), Vec::new());
    let cells = [("a", "law", 400, 40), ("a", "code", 400, 36), ("b", "law", 400, 120), ("b", "code", 4, 0)];
    for (model, domain, verdicts, bad) in cells {
        for n in 0..verdicts {
            let id = format!("{model} {domain} {n}");
            requests.push(at(
                &id,
                n,
                json!({ "executed_model": model, "intended_model": model, "domain": domain, "fact_check": true }),
            ));
            let value = if n < bad { 0.0 } else { 1.0 };
            opinions.push(verdict(&id, &id, "evaluation", value, json!({ "estimator": "e" })));
        }
    }
    // Not checked, and not a matter of facts.
    requests.push(at(
        "a unchecked",
        0,
        json!({ "executed_model": "a", "intended_model": "a", "domain": "law", "fact_check": true }),
    ));
    requests.push(at(
        "a chat",
        0,
        json!({ "executed_model": "a", "intended_model": "a", "domain": "law", "fact_check": false }),
    ));
    opinions.push(verdict("chat", "a chat", "evaluation", 0.0, json!({ "estimator": "e" })));
    stored(folder, &requests, &opinions).await
}

#[test]
fn a_reputation_leans_on_others_the_less_it_has_been_checked() {
    passes("reputation.slt", reputations);
}

/// Sessions that switch from `a` to `b` after a failure, and sessions that stay after one, and that never fail.
async fn handoffs(folder: &Path) -> Context {
    let mut requests = Vec::new();
    let mut session = |name: &str, models: &str, fails_at: usize| {
        for (turn, model) in models.chars().enumerate() {
            let status = if turn == fails_at { 500 } else { 200 };
            requests.push(json!({ "request_id": format!("{name} {turn}"), "session_id": name, "turn": turn,
                "arrival_ms": T0_MS + 10_000 * turn as i64, "end_to_end_ms": 1_000.0, "http_status": status,
                "executed_model": model.to_string(), "prompt_tokens": 90, "completion_tokens": 10 }));
        }
    };
    for n in 0..10 {
        // After a failure, two more requests at the same model, or three more at another.
        session(&format!("stays {n}"), "aaaa", 0);
        session(&format!("switches {n}"), "abbbb", 0);
        // Nothing failed: one more.
        session(&format!("calm {n}"), "aa", 9);
    }
    // Much later, so that all of these have ended.
    requests.push(at("late", 100_000, json!({ "session_id": "late" })));
    stored(folder, &requests, &[]).await
}

#[test]
fn a_switch_is_compared_with_staying_in_the_same_trouble() {
    passes("handoffs.slt", handoffs);
}

/// Forty sessions of three requests, one of which uses ten times the tokens of the others from its second request on.
async fn budgets(folder: &Path) -> Context {
    let (mut requests, mut opinions) = (Vec::new(), Vec::new());
    for n in 0..40 {
        for turn in 0..3 {
            let tokens = if n == 0 && turn > 0 { 990 } else { 90 };
            requests.push(json!({ "request_id": format!("{n} {turn}"), "session_id": format!("s{n}"), "turn": turn,
                "arrival_ms": T0_MS + 10_000 * turn, "end_to_end_ms": 1_000.0, "executed_model": "m", "domain": "law",
                "prompt_tokens": tokens, "completion_tokens": 10, "http_status": if n == 1 && turn == 2 { 500 } else { 200 },
                "tools_called": [{ "name": if turn == 0 { "search" } else { "read" }, "success": n % 4 != 3, "latency_ms": 20.0 }] }));
        }
    }
    opinions.push(json!({ "feedback_id": "f", "event_ms": T0_MS + 60_000, "source": "user", "kind": "task_success",
        "session_id": "s0", "value": 1.0, "checked": true }));
    requests.push(at("late", 100_000, json!({ "session_id": "late" })));
    stored(folder, &requests, &opinions).await
}

#[test]
fn budgets_say_what_they_save_and_whom_they_harm_and_tools_what_they_do() {
    passes("budgets.slt", budgets);
}

/// A session that looks unsafe at its end, another that never does; a caller who stopped long ago.
async fn risks(folder: &Path) -> Context {
    let scored = |id: &str, after_s: i64, session: &str, caller: &str, score: f64| {
        at(
            id,
            after_s,
            json!({ "session_id": session, "caller": caller, "safety_score": score,
            "hazard_scores": { "violence": score, "fraud": 0.6 } }),
        )
    };
    let week_s = 604_800;
    let requests = [
        scored("1", 0, "bad", "eve", 0.1),
        scored("2", 300, "bad", "eve", 0.8),
        scored("3", 600, "bad", "eve", 0.9),
        scored("4", 0, "good", "ann", 0.0),
        scored("5", week_s, "later", "ann", 0.2),
    ];
    stored(folder, &requests, &[]).await
}

#[test]
fn risk_forgets_and_safe_requests_regain_trust() {
    passes("risk.slt", risks);
}

/// Hits of the semantic cache, the less similar ones judged badly more often.
async fn cache_hits(folder: &Path) -> Context {
    let (mut requests, mut opinions) = (Vec::new(), Vec::new());
    for (n, similarity) in [0.99, 0.99, 0.99, 0.95, 0.95, 0.901].into_iter().enumerate() {
        let id = format!("h{n}");
        requests.push(at(
            &id,
            0,
            json!({ "domain": "law", "semantic_cache_hit": true, "semantic_cache_similarity": similarity }),
        ));
        if n < 5 {
            opinions.push(verdict(&id, &id, "user", if n == 3 { 0.0 } else { 1.0 }, json!({ "kind": "rating" })));
        }
    }
    // Reasoning helped in one domain.
    for n in 0..60 {
        let (mode, good) = if n < 30 { ("on", n < 27) } else { ("off", n < 45) };
        let id = format!("r{n}");
        requests.push(at(
            &id,
            0,
            json!({ "domain": "maths", "complexity": "hard", "reasoning_mode": mode, "prompt_tokens": 100,
            "completion_tokens": if n < 30 { 900 } else { 100 } }),
        ));
        opinions.push(verdict(&id, &id, "user", if good { 1.0 } else { 0.0 }, json!({ "kind": "rating" })));
    }
    stored(folder, &requests, &opinions).await
}

#[test]
fn thresholds_have_error_rates_and_reasoning_has_a_gain() {
    passes("caches.slt", cache_hits);
}

/// Analysts may read and not drop, admins may both; a guest asked five times.
async fn decisions(folder: &Path) -> Context {
    let (mut requests, mut opinions) = (Vec::new(), Vec::new());
    let asked = [
        ("analyst", "table", "read", 60, 60),
        ("analyst", "table", "drop", 60, 0),
        ("admin", "table", "read", 50, 50),
        ("admin", "table", "drop", 50, 50),
        ("guest", "mail", "send", 5, 0),
        // Half and half: a matter for people.
        ("analyst", "mail", "send", 40, 20),
        ("admin", "mail", "send", 40, 40),
    ];
    for (role, tool, operation, times, approved) in asked {
        for n in 0..times {
            let id = format!("{role} {tool} {operation} {n}");
            requests.push(at(&id, n, json!({ "role": role, "caller": format!("{role} {}", n % 3) })));
            opinions.push(json!({ "feedback_id": id, "event_ms": T0_MS + 1_000 * n, "source": "operator", "kind": "approval",
                "request_id": id, "tool": tool, "operation": operation, "value": if n < approved { 1.0 } else { 0.0 } }));
        }
    }
    stored(folder, &requests, &opinions).await
}

#[test]
fn decisions_that_are_always_the_same_are_candidates_for_rules() {
    passes("decisions.slt", decisions);
}

/// 200 calm sessions, two that only look unsafe, and ten that are; a guard stopped one more caller.
async fn labelled_risks(folder: &Path) -> Context {
    let (mut requests, mut opinions) = (Vec::new(), Vec::new());
    for n in 0..212 {
        let (id, score) = (format!("{n}"), if n < 200 { 0.1 } else { 0.9 });
        requests.push(at(
            &id,
            n,
            json!({ "session_id": id, "caller": format!("c{n}"), "safety_score": score, "http_status": 200 }),
        ));
        let (value, label) = if n >= 202 { (0.0, "unsafe") } else { (1.0, "safe") };
        opinions.push(verdict(&id, &id, "operator", value, json!({ "label": label })));
    }
    opinions.push(json!({ "feedback_id": "guard", "event_ms": T0_MS, "source": "agent", "kind": "security_event",
        "caller": "c1", "label": "visual_confused_deputy", "value": 0.2 }));
    stored(folder, &requests, &opinions).await
}

#[test]
fn what_acting_on_a_score_catches_and_whom_it_troubles() {
    passes("risk_thresholds.slt", labelled_risks);
}

/// Checked answers on two subjects; prompts that get too long for their model; callers of a day.
async fn limits(folder: &Path) -> Context {
    let (mut requests, mut opinions) = (Vec::new(), Vec::new());
    // One in two on law and one in twenty on code, early and late alike.
    for n in 0..400 {
        let (domain, is_bad) = if n % 2 == 0 { ("law", n % 4 == 0) } else { ("code", n % 40 == 1) };
        let id = format!("check {n}");
        requests.push(at(&id, n, json!({ "domain": domain, "fact_check": true })));
        let value = if is_bad { 0.0 } else { 1.0 };
        opinions.push(verdict(&id, &id, "evaluation", value, json!({ "estimator": "e" })));
    }
    for (prompt, good) in [(1_500, 95), (6_000, 92), (24_000, 50), (50_000, 90)] {
        for n in 0..100 {
            let id = format!("{prompt} {n}");
            requests.push(at(&id, n, json!({ "executed_model": "long", "prompt_tokens": prompt })));
            opinions.push(verdict(&id, &id, "user", if n < good { 1.0 } else { 0.0 }, json!({})));
        }
    }
    for n in 0..10 {
        let tokens = if n == 9 { 9_000 } else { 1_000 };
        requests.push(at(
            &format!("caller {n}"),
            n,
            json!({ "caller": format!("c{n}"), "role": "agent", "prompt_tokens": tokens, "completion_tokens": 0 }),
        ));
    }
    stored(folder, &requests, &opinions).await
}

#[test]
fn checks_prompts_and_callers_have_limits_that_show() {
    passes("limits.slt", limits);
}

/// Sessions that look, read and answer, with their texts.
async fn tool_use(folder: &Path) -> Context {
    let (mut requests, mut opinions) = (Vec::new(), Vec::new());
    for n in 0..6 {
        let mut turn = |turn: i64, tool: Option<&str>, prompt: &str, response: &str| {
            let tools = tool.map(|tool| json!([{ "name": tool, "success": true, "latency_ms": 10.0 }]));
            requests.push(json!({ "request_id": format!("{n} {turn}"), "session_id": format!("s{n}"), "turn": turn,
                "arrival_ms": T0_MS + 10_000 * turn, "executed_model": "m", "domain": "law", "tools_called": tools,
                "prompt_text": prompt, "response_text": response }));
        };
        let question = "Where was Bentham born?";
        let found = "Where was Bentham born? result: London, Houndsditch";
        turn(0, Some("search"), question, "");
        turn(1, Some("read"), found, "In Houndsditch, London.");
        turn(
            2,
            None,
            &format!("{found} page: empty"),
            if n == 0 { "I won't open that page again." } else { "In London." },
        );
    }
    for n in 0..20 {
        opinions
            .push(json!({ "feedback_id": format!("{n}"), "event_ms": T0_MS, "source": "operator", "kind": "approval",
            "tool": "read", "value": 0.0 }));
    }
    stored(folder, &requests, &opinions).await
}

#[test]
fn results_that_are_used_count_and_tools_that_may_not_be_called_come_last() {
    passes("tool_use.slt", tool_use);
}

/// Nine hours of two models on code, and of one on law; after six of them it begins to fail every other time.
async fn worsening(folder: &Path) -> Context {
    let mut requests = Vec::new();
    for minute in 0..540 {
        for n in 0..8 {
            let (model, domain) = [("a", "code"), ("b", "code"), ("a", "law"), ("b", "chat")][n % 4];
            let is_bad = if model == "a" && minute >= 360 { n < 4 } else { minute % 50 == 0 && n < 4 };
            requests.push(json!({ "request_id": format!("{minute} {n}"), "arrival_ms": T0_MS + 60_000 * minute,
                "executed_model": model, "domain": domain, "http_status": if is_bad { 500 } else { 200 } }));
        }
    }
    let store = Store::open(folder.to_str().expect("a plain path")).await.expect("the folder opens");
    append(&store, Request::contract(), 0, &requests).await;
    weir_features::catch_up(&store).await.expect("catches up");
    weir_sql::open(&store).await.expect("the session opens")
}

#[test]
fn after_a_change_for_the_worse_traffic_goes_where_it_is_shown_to_be_better() {
    passes("rebalancing.slt", worsening);
}

/// Requests whose embedding says which of two tools will work, one of them seven times in ten; a third tool never works.
async fn embedded(folder: &Path) -> Context {
    let requests: Vec<Value> = (0..200)
        .map(|n| {
            let (tool, embedding) = if n % 10 < 7 { ("search", [1.0, 0.1]) } else { ("compute", [0.1, 1.0]) };
            at(
                &format!("{n:03}"),
                n,
                json!({ "domain": "law", "embedding": embedding, "embedding_model": "e", "tools_called":
                    [{ "name": tool, "success": true }, { "name": "broken", "success": false }] }),
            )
        })
        .collect();
    stored(folder, &requests, &[]).await
}

#[test]
fn embeddings_tell_tools_apart_where_counts_cannot() {
    passes("tool_embeddings.slt", embedded);
}

/// What they lean on is computed once, and they say the same.
#[test]
fn views_over_kept_ones_say_what_they_said() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let (folder, kept) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let ctx = budgets(folder.path()).await;
        let questions = ["failure_rates", "token_budgets", "budget_trials", "tools", "sessions", "request_outcomes"];
        let ask = async |ctx: &Context| {
            let mut said = Vec::new();
            for view in questions {
                let rows =
                    weir_sql::query(ctx, &format!("SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5")).await.expect(view);
                said.push(arrow::util::pretty::pretty_format_batches(&rows).expect("prints").to_string());
            }
            said
        };
        let wanted = ask(&ctx).await;
        let store = Store::open(folder.path().to_str().expect("a plain path")).await.expect("the folder opens");
        let fresh = weir_sql::open(&store).await.expect("the session opens");
        let views = ["session_turns", "sessions", "rewards", "request_outcomes", "failure_checks", "session_tokens"];
        weir_features::keep_views(&fresh, &views, kept.path()).await.expect("keeps");
        assert_eq!(ask(&fresh).await, wanted);
        let is_kept = |view: &str| kept.path().join(view).read_dir().expect("is there").next().is_some();
        assert!(is_kept("session_turns") && !is_kept("rewards"), "of the second there was no row");
    });
}

/// A day is put down once, rows that are there come first, and what was put down stays when they go.
#[test]
fn outcomes_outlive_their_rows() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        drop(reputations(folder.path()).await);
        let store = Store::open(folder.path().to_str().expect("a plain path")).await.expect("the folder opens");
        // Two days later, and not yet old.
        let later: Vec<Value> = (0..5)
            .map(|n| at(&format!("later {n}"), 2 * 86_400, json!({ "http_status": 504, "domain": "law" })))
            .collect();
        append(&store, Request::contract(), 10_000, &later).await;
        let ask = async || {
            let ctx = weir_sql::open(&store).await.expect("the session opens");
            let mut said = Vec::new();
            for view in ["failure_rates", "model_reputation", "reputation_pieces"] {
                let rows = weir_sql::query(&ctx, &format!("SELECT * FROM {view} ORDER BY 1, 2, 3, 4, 5")).await;
                said.push(arrow::util::pretty::pretty_format_batches(&rows.expect(view)).expect("prints").to_string());
            }
            said
        };
        let from_rows = ask().await;
        assert!(from_rows[0].contains("| time_out "), "{}", from_rows[0]);

        let first_kept = UtcDay::of_ms(T0_MS + 86_400_000);
        let done = weir_features::remember(&store, first_kept).await.expect("puts down");
        // Two models and two domains, and what seeks facts beside what does not.
        assert_eq!((done.days, done.rows), (1, 5));
        let again = weir_features::remember(&store, first_kept).await.expect("puts nothing down");
        assert_eq!(again, weir_features::Remembered::default());
        assert_eq!(ask().await, from_rows, "rows and memory are not added up");

        // A verdict that comes while the rows are there counts; once they are gone, what was put down does.
        let late = verdict("late", "a unchecked", "evaluation", 0.0, json!({ "estimator": "e" }));
        append(&store, Feedback::contract(), 10_000, &[late]).await;
        assert_ne!(ask().await, from_rows);
        for table in ["requests", "feedback"] {
            let mut table = store.existing(table).await.expect("opens").expect("is there");
            let kept = table.keep_up(&Upkeep { keep_days: Some(1), ..Upkeep::default() }).await.expect("is kept up");
            assert!(kept.expired_files > 0);
        }
        let after = ask().await;
        assert!(!after[0].contains("| time_out "), "the later day was not put down, so it went with its rows");
        let of_day = |said: &str| said.lines().filter(|line| !line.starts_with("| m ")).collect::<Vec<_>>().join("\n");
        assert_eq!(of_day(&after[1]), of_day(&from_rows[1]));
        let again = weir_features::remember(&store, UtcDay::today()).await.expect("finds no rows");
        assert_eq!(again, weir_features::Remembered::default());
    });
}

/// Feedback is kept for fewer days than requests: what was judged stays judged, while the rows tell of more requests.
#[test]
fn of_each_count_the_side_says_that_observed_more() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        drop(reputations(folder.path()).await);
        let store = Store::open(folder.path().to_str().expect("a plain path")).await.expect("the folder opens");
        weir_features::remember(&store, UtcDay::today()).await.expect("puts down");
        let mut feedback = store.existing("feedback").await.expect("opens").expect("is there");
        feedback.keep_up(&Upkeep { keep_days: Some(1), ..Upkeep::default() }).await.expect("is kept up");
        let late: Vec<Value> = (0..500)
            .map(|n| {
                let more = json!({ "executed_model": "a", "intended_model": "a", "domain": "law", "fact_check": true, "http_status": 200 });
                at(&format!("replayed {n}"), 1, more)
            })
            .collect();
        append(&store, Request::contract(), 20_000, &late).await;
        let ctx = weir_sql::open(&store).await.expect("the session opens");
        let sql = "SELECT model, domain, verdicts, hallucinations, unchecked FROM model_reputation ORDER BY 1, 2";
        let rows = weir_sql::query(&ctx, sql).await.expect("it answers");
        let said = arrow::util::pretty::pretty_format_batches(&rows).expect("prints").to_string();
        // The figures of `reputation.slt`, and the unchecked ones that came later.
        assert!(said.contains("| a     | code   | 400      | 36             | 0 "), "{said}");
        assert!(said.contains("| a     | law    | 400      | 40             | 501 "), "{said}");
    });
}
