//! Real Delta tables in, samples and verdicts out.

mod stores;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use stores::{append, fresh_store, opinion, request};
use weir_learners::hallucination::{
    Estimator, HallucinationConfig, JobSummary, LabelledPair, run_hallucination_job, train_hallucination,
};
use weir_learners::{ActionPart, LearnError, TrainingSet, Wanted, training_set, training_set_of};
use weir_schemas::{Candidate, EventTimeMs, Feedback, Request};
use weir_store::{Advance, Store, StoreError, Table};

#[tokio::test]
async fn samples_hold_what_was_logged_and_impute_nothing() {
    let (_folder, store) = fresh_store().await;
    let candidate = |model: &str, propensity| Candidate { model: model.to_owned(), score: None, propensity };
    let requests = [
        Request {
            tools_offered: Some(vec!["search".into(), "calc".into()]),
            modalities: Some(vec!["text".into(), "image".into()]),
            gateway_tags: Some([("weir.query_id".to_owned(), "q1".to_owned())].into()),
            embedding: Some(vec![0.5, -0.5]),
            embedding_model: Some("weir-hash-2".into()),
            candidates: Some(vec![candidate("b", Some(0.25)), candidate("c", Some(0.75))]),
            ..request("rated", 1)
        },
        Request {
            executed_model: Some("a".into()),
            fallback_reason: Some("429".into()),
            policy_version: Some("v1".into()),
            // A gateway that tags every request by itself does not take sessions apart.
            gateway_tags: Some([("query_id".to_owned(), "its own".to_owned())].into()),
            ..request("fallback", 2)
        },
        Request { propensity: None, ..request("no-propensity", 3) },
        Request { session_id: None, cost_usd: None, ..request("no-session", 4) },
        Request { semantic_cache_hit: Some(true), ..request("cached", 5) },
        Request { terminal: Some(false), ..request("running", 6) },
    ];
    append(&store, Request::contract(), &requests).await;
    append(&store, Feedback::contract(), &[opinion("rated", 1.0), opinion("fallback", 0.0)]).await;

    let set = training_set(&store).await.expect("the views plan and read");
    let models: Vec<&str> = set.actions.iter().map(|action| action.model.as_str()).collect();
    assert_eq!(models, ["a", "b", "c"]);
    assert_eq!(set.tables.keys().collect::<Vec<_>>(), ["feedback", "requests"]);
    assert_eq!(set.samples.len(), 4, "cached and running requests are no evidence: {:#?}", set.samples);

    let rated = &set.samples[0];
    assert_eq!((rated.action, rated.propensity, rated.quality, rated.cost_usd), (1, Some(0.25), Some(1.0), Some(0.5)));
    assert_eq!(rated.cluster, "q1");
    assert_eq!((rated.context.tools_offered, rated.context.multimodal), (Some(2), Some(true)));
    assert_eq!(rated.context.embedding.as_deref(), Some(&[0.5, -0.5][..]));
    assert_eq!(rated.allowed.as_deref(), Some(&[false, true, true][..]));
    assert_eq!(rated.logged_distribution.as_deref(), Some(&[0.0, 0.25, 0.75][..]));

    let fallback = &set.samples[1];
    assert!(!fallback.executed_as_intended && rated.executed_as_intended);
    assert_eq!((fallback.action, fallback.quality, fallback.cluster.as_str()), (0, Some(0.0), "s"));
    assert_eq!((fallback.intended, fallback.policy.as_deref(), rated.intended), (Some(1), Some("v1"), Some(1)));
    assert_eq!((set.samples[2].propensity, set.samples[2].quality), (None, None));
    assert_eq!((set.samples[3].cluster.as_str(), set.samples[3].cost_usd), ("no-session", None));
    assert_eq!((set.samples[3].context.tools_offered, set.samples[3].context.multimodal), (None, None));
}

#[tokio::test]
async fn an_action_may_have_a_provider_and_a_mode_of_reasoning() {
    let (_folder, store) = fresh_store().await;
    let candidate =
        |model: &str, propensity| Candidate { model: model.to_owned(), score: None, propensity: Some(propensity) };
    let drawn = "b;provider=own;reasoning=high";
    let requests = [
        // Nobody drew the mode: it is what it is.
        Request { provider: Some("own".into()), reasoning_mode: Some("on".into()), ..request("bare", 1) },
        // The draw names it, and the call carried it out.
        Request {
            intended_model: Some(drawn.into()),
            provider: Some("own".into()),
            reasoning_mode: Some("on".into()),
            reasoning_effort: Some("high".into()),
            candidates: Some(vec![candidate(drawn, 0.25), candidate("b", 0.75)]),
            ..request("drawn", 2)
        },
        // The draw names it, and the call was made without.
        Request {
            intended_model: Some(drawn.into()),
            provider: Some("own".into()),
            reasoning_mode: Some("off".into()),
            ..request("otherwise", 3)
        },
        // Another model answered: with which mode the intended one would have been called is not known.
        Request { executed_model: Some("a".into()), fallback_reason: Some("429".into()), ..request("fallback", 4) },
        Request { executed_model: None, provider: Some(String::new()), ..request("believed", 5) },
        // A draw among models.
        Request {
            provider: Some("own".into()),
            candidates: Some(vec![candidate("a", 0.75), candidate("b", 0.25)]),
            ..request("models", 6)
        },
        // Of a model that is called in one way only, nothing is open.
        Request { intended_model: Some("c".into()), executed_model: Some("c".into()), ..request("alike", 7) },
    ];
    append(&store, Request::contract(), &requests).await;
    let of = async |parts: &[ActionPart]| {
        let wanted = Wanted { action_parts: parts.iter().copied().collect(), risk: true, ..Wanted::default() };
        let set = training_set_of(&store, &wanted).await.expect("the views plan and read");
        let name = |action: usize| set.actions[action].model.clone();
        let row = |sample: &weir_learners::Sample| {
            (name(sample.action), sample.intended.map(name), sample.executed_as_intended)
        };
        (set.samples.iter().map(row).collect::<Vec<_>>(), set)
    };
    let row = |executed: &str, intended: Option<&str>, as_intended| {
        (executed.to_owned(), intended.map(str::to_owned), as_intended)
    };
    let (rows, set) = of(&[ActionPart::Provider, ActionPart::Reasoning]).await;
    let bare = "b;provider=own;reasoning=on";
    assert_eq!(
        rows,
        [
            row(bare, Some(bare), true),
            row(drawn, Some(drawn), true),
            row("b;provider=own;reasoning=off", Some(drawn), false),
            row("a", None, false),
            row("b", Some("b"), true),
            row("b;provider=own", Some("b;provider=own"), true),
            row("c", Some("c"), true),
        ]
    );
    let chances = set.samples[1].logged_distribution.as_ref().expect("all candidates have one");
    let chance = |model: &str| chances[set.actions.iter().position(|action| action.model == model).unwrap()];
    assert_eq!((chance(drawn), chance("b"), chance(bare)), (0.25, 0.75, 0.0));
    let propensities = |set: &TrainingSet| set.samples.iter().map(|sample| sample.propensity).collect::<Vec<_>>();
    let of_actions = [None, Some(0.25), Some(0.25), None, None, None, Some(0.25)];
    assert_eq!(propensities(&set), of_actions, "a draw of models is none of modes");
    let of_models = &set.samples[5];
    assert!(of_models.logged_distribution.is_none());
    let allowed = of_models.allowed.as_ref().expect("it names candidates");
    for (action, allowed) in set.actions.iter().zip(allowed) {
        assert_eq!(*allowed, action.model != "c", "{} of {:?}", action.model, set.actions);
    }

    let (rows, _) = of(&[ActionPart::Reasoning]).await;
    assert_eq!(rows[0], row("b;reasoning=on", Some("b;reasoning=on"), true));
    let high = "b;reasoning=high";
    assert_eq!(rows[1], row(high, Some(high), true), "the draw named more, and was carried out");

    // Read without parts: what was chosen among actions was chosen among their models.
    let (rows, set) = of(&[]).await;
    let models: Vec<&str> = set.actions.iter().map(|action| action.model.as_str()).collect();
    assert_eq!(models, ["a", "b", "c"]);
    assert_eq!(rows[1], row("b", Some("b"), true));
    assert_eq!(set.samples[1].logged_distribution.as_deref(), Some(&[0.0, 1.0, 0.0][..]));
    assert!(rows[2].2 && !rows[3].2);
    let of_models = [Some(0.25), Some(1.0), None, Some(0.25), Some(0.25), Some(0.25), Some(0.25)];
    assert_eq!(propensities(&set), of_models, "of a draw of an action alone, nobody knows its model's probability");
}

#[tokio::test]
async fn an_empty_store_gives_an_empty_training_set() {
    let (_folder, store) = fresh_store().await;
    let set = training_set(&store).await.expect("missing tables are empty ones");
    assert!(set.samples.is_empty() && set.actions.is_empty() && set.tables.is_empty());
}

/// An estimator that has learned to tell copies from other texts, from pairs made here.
fn estimator() -> Estimator {
    let pairs: Vec<LabelledPair> = (0..400)
        .map(|i| {
            let context = format!("The river number {i} flows through valley {} and feeds lake {}.", i * 7, i * 13);
            let hallucinated = i % 2 == 0;
            let response =
                if hallucinated { format!("Mount {i} erupted in {} near Paris.", 1900 + i) } else { context.clone() };
            LabelledPair { dataset: "made".into(), context, response, hallucinated }
        })
        .collect();
    train_hallucination(&pairs, &HallucinationConfig { epochs: 30, ..HallucinationConfig::default() })
        .expect("it trains")
        .0
}

async fn feedback_rows(store: &Store) -> (Table, Vec<RecordBatch>) {
    let table = store.existing("feedback").await.expect("readable").expect("verdicts made the table");
    let mut rows = Vec::new();
    for version in 0..=table.version() {
        rows.extend(table.appended(version).await.expect("readable"));
    }
    (table, rows)
}

#[tokio::test]
async fn every_version_is_judged_once_and_what_cannot_be_checked_has_no_verdict() {
    let (_folder, store) = fresh_store().await;
    let estimator = estimator();
    let missing = run_hallucination_job(&store, &estimator, 1.0).await;
    assert!(matches!(missing, Err(LearnError::MissingTable("requests"))), "{missing:?}");

    let with_text = |id: &str, context: Option<&str>, response: &str| Request {
        context_text: context.map(str::to_owned),
        response_text: Some(response.to_owned()),
        end_to_end_ms: Some(500.0),
        ..request(id, 1_767_225_600_000)
    };
    let river = "The river number 9 flows through valley 63 and feeds lake 117.";
    append(&store, Request::contract(), &[with_text("copy", Some(river), river), with_text("bare", None, river)]).await;
    append(&store, Request::contract(), &[with_text("made-up", Some(river), "Mount 8 erupted in 1908 near Paris.")])
        .await;

    let first = run_hallucination_job(&store, &estimator, 1.0).await.expect("the job runs");
    assert_eq!((first.requests, first.verdicts, first.not_checkable), (3, 2, 1));
    let again = run_hallucination_job(&store, &estimator, 1.0).await.expect("the job runs");
    assert_eq!(again, JobSummary::default(), "a second run found something to do");

    append(&store, Request::contract(), &[with_text("later", Some(river), river)]).await;
    let later = run_hallucination_job(&store, &estimator, 1.0).await.expect("the job runs");
    assert_eq!((later.versions, later.verdicts), (1, 1));

    let (table, batches) = feedback_rows(&store).await;
    let app_id = format!("estimate/hallucination/{}", estimator.id());
    let requests = store.existing("requests").await.unwrap().unwrap();
    assert_eq!(table.position(&app_id).await.unwrap(), Some(requests.version()));
    let text = |batch: &RecordBatch, name: &str, row: usize| {
        batch.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned()
    };
    let mut verdicts = std::collections::BTreeMap::new();
    let mut sources = std::collections::BTreeSet::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let id = text(batch, "request_id", row);
            assert_eq!(text(batch, "feedback_id", row), format!("hallucination/{}/{id}", estimator.id()));
            assert_eq!((text(batch, "source", row), text(batch, "kind", row)), ("evaluation".into(), "verdict".into()));
            assert_eq!(text(batch, "event_date", row), "2026-01-01");
            assert!(batch.column_by_name("checked").unwrap().as_boolean().value(row));
            let offset = batch.column_by_name("source_offset").unwrap().as_primitive::<Int64Type>().value(row);
            assert!(sources.insert((text(batch, "source_topic", row), offset)), "two rows from one place");
            let value = batch.column_by_name("value").unwrap().as_primitive::<Float64Type>().value(row);
            assert!(verdicts.insert(id, (text(batch, "label", row), value)).is_none(), "judged twice");
        }
    }
    assert_eq!(verdicts.keys().collect::<Vec<_>>(), ["copy", "later", "made-up"]);
    assert_eq!((verdicts["copy"].0.as_str(), verdicts["made-up"].0.as_str()), ("faithful", "hallucination"));
    assert!(verdicts["copy"].1 > verdicts["made-up"].1);
}

/// Versions without rows up to that one, and a checkpoint.
async fn checkpoint_at(store: &Store, version: i64) {
    let mut requests = store.existing("requests").await.unwrap().unwrap();
    while requests.version() < version {
        let filler = Advance { app_id: format!("filler/{}", requests.version()), expected: None, next: 0 };
        requests.commit(Vec::new(), vec![filler]).await.expect("the commit lands");
    }
    requests.maintained().await; // the commit of version 100 has started a checkpoint
}

#[tokio::test]
async fn a_new_estimator_starts_at_the_oldest_version_that_the_log_still_holds() {
    let (_folder, store) = fresh_store().await;
    let estimator = estimator();
    let river = "The river number 9 flows through valley 63 and feeds lake 117.";
    let with_text = |id: &str| Request {
        context_text: Some(river.to_owned()),
        response_text: Some(river.to_owned()),
        ..request(id, 1_767_225_600_000)
    };
    for version in 0..3 {
        append(&store, Request::contract(), &[with_text(&format!("r{version}"))]).await;
    }
    checkpoint_at(&store, 100).await;
    // The table's creation, r0 and r1: what retention removes behind a checkpoint.
    let lose = async |version: i64| {
        store.delete(&format!("tables/requests/_delta_log/{version:020}.json")).await.expect("is removed");
    };
    for version in 0..3 {
        lose(version).await;
    }
    let first = run_hallucination_job(&store, &estimator, 1.0).await.expect("the job starts after what is gone");
    assert_eq!((first.versions_gone, first.versions, first.verdicts), (3, 98, 1));
    let again = run_hallucination_job(&store, &estimator, 1.0).await.expect("the job runs");
    assert_eq!(again, JobSummary::default());

    // With a position, a gap is rows that nobody has judged: an error, not a skip.
    append(&store, Request::contract(), &[with_text("r3")]).await;
    append(&store, Request::contract(), &[with_text("r4")]).await;
    checkpoint_at(&store, 200).await;
    for version in 3..=101 {
        lose(version).await;
    }
    let refused = run_hallucination_job(&store, &estimator, 1.0).await;
    assert!(matches!(&refused, Err(LearnError::Store(StoreError::VersionGone { version: 101, .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_request_learns_from_its_own_tenants_opinions() {
    let (_folder, store) = fresh_store().await;
    let of = |tenant: &str, at| Request { tenant: Some(tenant.to_owned()), ..request("r", at) };
    append(&store, Request::contract(), &[of("acme", 1), of("globex", 2)]).await;
    let by_acme = Feedback { tenant: Some("acme".to_owned()), ..opinion("r", 1.0) };
    append(&store, Feedback::contract(), &[by_acme]).await;
    let set = training_set(&store).await.expect("the views plan and read");
    assert_eq!(set.samples.iter().map(|sample| sample.quality).collect::<Vec<_>>(), [Some(1.0), None]);
}

#[tokio::test]
async fn a_sample_is_a_function_of_the_request_id() {
    let (_folder, store) = fresh_store().await;
    let estimator = estimator();
    let requests: Vec<Request> = (0..400)
        .map(|i| Request {
            context_text: Some("a context".into()),
            response_text: Some("a response".into()),
            ..request(&format!("r{i}"), i)
        })
        .collect();
    append(&store, Request::contract(), &requests).await;
    let summary = run_hallucination_job(&store, &estimator, 0.25).await.expect("the job runs");
    // 100 expected, standard deviation 8.7.
    assert!((65..=135).contains(&summary.sampled), "{summary:?}");
    assert_eq!(summary.verdicts, summary.sampled);
    assert!(run_hallucination_job(&store, &estimator, 1.5).await.is_err(), "a rate above one");
}

#[test]
fn an_estimator_reads_back_as_itself_and_refuses_other_bytes() {
    let estimator = estimator();
    let reread = Estimator::from_bytes(estimator.bytes()).expect("its own file");
    assert_eq!(reread.id(), estimator.id());
    assert_eq!(reread.score("a b c", "a b d"), estimator.score("a b c", "a b d"));
    assert!(estimator.score("", "words").is_none() && estimator.score("words", " ").is_none());
    let other = String::from_utf8(estimator.bytes().to_vec()).unwrap().replace("stem_novelty", "stem_oddity");
    assert!(Estimator::from_bytes(other.as_bytes()).is_err(), "features that this build does not compute");
    assert!(Estimator::from_bytes(&estimator.bytes()[..100]).is_err(), "a truncated file");
}

/// Opinions come after 1, 2, ... 10 seconds; nine in ten have come after nine. The clock stands at the newest event.
#[tokio::test]
async fn decisions_too_young_to_be_judged_are_not_judged_by_what_came_fast() {
    let (_folder, store) = fresh_store().await;
    let requests: Vec<Request> = (0..40).map(|i| request(&format!("r{i}"), 1_000 * i)).collect();
    append(&store, Request::contract(), &requests).await;
    // Each request of the first thirty is judged after 1 to 10 seconds; of the last ten, only those judged within a second so far.
    let delay_s = |i: i64| if i < 30 { i % 10 + 1 } else { 1 };
    let judged = (0..40).filter(|i| *i < 30 || i % 3 == 0);
    let opinions: Vec<Feedback> = judged
        .map(|i| Feedback { event_ms: EventTimeMs(1_000 * (i + delay_s(i))), ..opinion(&format!("r{i}"), 1.0) })
        .collect();
    append(&store, Feedback::contract(), &opinions).await;
    let all = training_set(&store).await.expect("it can be read");
    assert_eq!(all.samples.iter().filter(|sample| sample.quality.is_some()).count(), 34);
    let wanted = Wanted { settled_share: Some(0.9), ..Wanted::default() };
    let settled = training_set_of(&store, &wanted).await.expect("it can be read");
    let young: Vec<i64> =
        settled.samples.iter().filter(|sample| sample.is_unsettled).map(|sample| sample.time_ms).collect();
    // The newest event is the opinion on r39, at 40 s; nine seconds before that is 31 s.
    assert_eq!(young, (32..40).map(|i| 1_000 * i).collect::<Vec<i64>>());
    assert!(settled.samples.iter().all(|sample| !(sample.is_unsettled && sample.quality.is_some())));
    assert_eq!(settled.samples.iter().filter(|sample| sample.quality.is_some()).count(), 31);
}
