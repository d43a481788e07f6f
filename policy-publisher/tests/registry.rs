//! What the registry promises, over real Delta tables.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{because, bundle, by, clock, key, proposed, registry, trust};
use weir_policy_publisher::{Decision, EventKind, PublisherError, Registry, Status, verify_path};
use weir_policy_runtime::{BundleError, SignatureError, Standing, Trust};
use weir_store::Store;

#[tokio::test]
async fn a_policy_lives_from_proposal_to_rollback() {
    let (_, registry) = registry().await;
    let first = proposed(&registry, "first", 1.0, "better").await;
    let second = proposed(&registry, "second", 2.0, "better").await;

    let approved = registry.approve(&first.id, &by("alice")).await.unwrap();
    assert_eq!((approved.previous, approved.forced), (None, false));
    assert_eq!(approved.standing, Standing::SignedBy(key(1).public().key_id()));
    let approved = registry.approve(&second.id, &by("bob")).await.unwrap();
    assert_eq!(approved.previous, Some(first.id.clone()));

    let back = registry.rollback(&second.id, &because("carol", "errors doubled")).await.unwrap();
    assert_eq!((back.from, back.to), (second.id.clone(), Some(first.id.clone())));
    let back = registry.rollback(&first.id, &because("carol", "still")).await.unwrap();
    assert_eq!((back.from, back.to), (first.id.clone(), None));
    assert!(matches!(registry.rollback(&first.id, &because("carol", "?")).await, Err(PublisherError::NothingActive)));

    let loaded = registry.load().await.unwrap();
    assert_eq!(loaded.state.active(), None);
    assert_eq!(loaded.state.policies[&second.id].status, Status::RolledBack);
    let again = registry.propose(&second, None, "weir learn").await.unwrap();
    assert!(!again.new, "proposing a withdrawn policy again does not wash it clean");
    let refused = registry.approve(&second.id, &by("alice")).await.unwrap_err();
    assert!(matches!(refused, PublisherError::WasRolledBack { .. }), "{refused}");
    let kinds: Vec<EventKind> = loaded.events.iter().map(|event| event.event).collect();
    use EventKind::{Approved, Proposed, RolledBack};
    assert_eq!(kinds, [Proposed, Proposed, Approved, Approved, RolledBack, RolledBack]);
}

#[tokio::test]
async fn another_process_reads_the_same_state() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let here = Registry::open(&Store::open(place).await.unwrap(), trust(1)).await.unwrap();
    let policy = proposed(&here, "demo", 1.0, "better").await;
    here.approve(&policy.id, &by("alice")).await.unwrap();

    let there = Registry::open(&Store::open(place).await.unwrap(), trust(1)).await.unwrap();
    assert_eq!(there.load().await.unwrap(), here.load().await.unwrap());
    let active = there.active(&there.load().await.unwrap()).await.unwrap().unwrap();
    assert_eq!((active.id, active.tar), (policy.id.clone(), policy.to_tar().into()));
}

#[tokio::test]
async fn the_same_bundle_twice_is_one_policy() {
    let (_, registry) = registry().await;
    let policy = proposed(&registry, "demo", 1.0, "better").await;
    let again = registry.propose(&policy, Some(&key(1).sign(&policy.id)), "weir learn").await.unwrap();
    assert!(!again.new);
    assert_eq!(registry.load().await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn only_what_is_signed_by_a_trusted_key_goes_into_force() {
    let (_, registry) = registry().await;
    let policy = bundle("demo", 1.0, "better");
    let error = registry.propose(&policy, Some(&key(2).sign(&policy.id)), "mallory").await.unwrap_err();
    assert!(matches!(error, PublisherError::Signature(SignatureError::UnknownKey { .. })), "{error}");

    registry.propose(&policy, None, "weir learn").await.unwrap();
    let error = registry.approve(&policy.id, &by("alice")).await.unwrap_err();
    assert!(matches!(error, PublisherError::Signature(SignatureError::Unsigned { .. })), "{error}");
    assert_eq!(registry.load().await.unwrap().state.active(), None);

    // Proposing it again with a signature signs it.
    registry.propose(&policy, Some(&key(1).sign(&policy.id)), "release").await.unwrap();
    registry.approve(&policy.id, &by("alice")).await.unwrap();
}

#[tokio::test]
async fn accepting_unsigned_policies_is_an_explicit_choice() {
    let store = Store::open("memory:///").await.unwrap();
    let registry = Registry::open(&store, Trust::AcceptUnsigned).await.unwrap();
    let policy = bundle("demo", 1.0, "better");
    registry.propose(&policy, None, "demo").await.unwrap();
    let approved = registry.approve(&policy.id, &by("demo")).await.unwrap();
    assert_eq!(approved.standing, Standing::Unsigned);
}

#[tokio::test]
async fn a_verdict_other_than_better_needs_force_and_a_reason() {
    let (_, registry) = registry().await;
    let policy = proposed(&registry, "demo", 1.0, "insufficient_support").await;
    let refused = registry.approve(&policy.id, &because("alice", "please")).await.unwrap_err();
    assert!(matches!(refused, PublisherError::NotBetter { .. }), "{refused}");
    let force = Decision { force: true, ..by("alice") };
    assert!(matches!(registry.approve(&policy.id, &force).await, Err(PublisherError::NeedsReason)));
    let force = Decision { force: true, ..because("alice", "the incident") };
    assert!(registry.approve(&policy.id, &force).await.unwrap().forced);
    let event = registry.load().await.unwrap().events.last().cloned().unwrap();
    assert_eq!((event.forced, event.reason.as_deref()), (true, Some("the incident")));
}

#[tokio::test]
async fn content_that_was_changed_in_the_store_is_not_approved() {
    let (store, registry) = registry().await;
    let policy = proposed(&registry, "demo", 1.0, "better").await;
    let path = format!("policies/{}/weights.safetensors", policy.id.hex());
    let mut bytes = store.get(&path).await.unwrap().unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    store.put(&path, bytes.into()).await.unwrap();
    let error = registry.approve(&policy.id, &by("alice")).await.unwrap_err();
    assert!(matches!(error, PublisherError::Bundle(BundleError::WrongHash { .. })), "{error}");
    let error = registry.propose(&policy, None, "weir learn").await.unwrap_err();
    assert!(matches!(error, PublisherError::OtherContent { .. }), "{error}");
}

#[tokio::test]
async fn a_withdrawal_is_not_washed_off_by_rejecting_and_proposing_again() {
    let (_, registry) = registry().await;
    let policy = proposed(&registry, "demo", 1.0, "better").await;
    registry.approve(&policy.id, &by("alice")).await.unwrap();
    registry.rollback(&policy.id, &because("alice", "errors")).await.unwrap();
    registry.reject(&policy.id, &by("alice")).await.unwrap();
    assert!(registry.propose(&policy, None, "weir learn").await.unwrap().new);

    let refused = registry.approve(&policy.id, &by("bob")).await.unwrap_err();
    assert!(matches!(refused, PublisherError::WasRolledBack { .. }), "{refused}");
    let force = Decision { force: true, ..because("bob", "the cause was elsewhere") };
    assert!(registry.approve(&policy.id, &force).await.unwrap().forced);
    assert!(!registry.load().await.unwrap().state.policies[&policy.id].withdrawn, "lifted by name and reason");
}

#[tokio::test]
async fn a_blocked_way_back_says_how_to_go_around_it() {
    let (store, registry) = registry().await;
    let first = proposed(&registry, "first", 1.0, "better").await;
    let second = proposed(&registry, "second", 2.0, "better").await;
    let third = proposed(&registry, "third", 3.0, "better").await;
    for policy in [&first, &second, &third] {
        registry.approve(&policy.id, &by("alice")).await.unwrap();
    }
    store.put(&format!("policies/{}/report.md", second.id.hex()), "changed".into()).await.unwrap();

    let error = registry.rollback(&third.id, &because("alice", "errors")).await.unwrap_err();
    assert!(matches!(&error, PublisherError::NoWayBack { target, .. } if *target == second.id), "{error}");
    assert!(error.to_string().contains("reject it, and a rollback goes to the one before it"), "{error}");
    registry.reject(&second.id, &by("alice")).await.unwrap();
    let back = registry.rollback(&third.id, &because("alice", "errors")).await.unwrap();
    assert_eq!(back.to, Some(first.id));
}

#[tokio::test]
async fn reading_a_registry_writes_nothing() {
    let store = Store::open("memory:///").await.unwrap();
    let registry = Registry::open(&store, trust(1)).await.unwrap();
    assert!(registry.list().await.unwrap().policies.is_empty());
    assert!(registry.show("active").await.is_err() && registry.diff("000000", "111111").await.is_err());
    assert_eq!(store.list("").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_bundle_that_cannot_be_scored_is_not_stored() {
    let (store, registry) = registry().await;
    let good = bundle("demo", 1.0, "better");
    let mut files = good.files.clone();
    files.insert("weights.safetensors".to_owned(), b"nonsense".to_vec());
    let bad = weir_policy_runtime::Bundle::build(good.manifest.clone(), files).unwrap();
    assert!(matches!(registry.propose(&bad, None, "x").await, Err(PublisherError::Policy(_))));
    assert_eq!(store.list("policies").await.unwrap(), Vec::<String>::new());
}

/// Runs `meanwhile` between the first reading of the state and the first commit of a decision: the clock is asked
/// just then.
async fn raced(store: &Store, meanwhile: impl Fn() + Send + Sync + 'static) -> Registry {
    let (tick, done) = (clock(), AtomicBool::new(false));
    let racing_clock = Arc::new(move || {
        if !done.swap(true, Ordering::Relaxed) {
            tokio::task::block_in_place(&meanwhile);
        }
        tick()
    });
    Registry::with_clock(store, trust(1), racing_clock).await.unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(future)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_approvers_at_once_cannot_both_win() {
    let (store, alices) = registry().await;
    let hers = proposed(&alices, "hers", 1.0, "better").await;
    let his = proposed(&alices, "his", 2.0, "better").await;
    let winner = hers.id.clone();
    let bobs = {
        let alices = alices.clone();
        raced(&store, move || {
            block_on(alices.approve(&winner, &by("alice"))).unwrap();
        })
        .await
    };
    let error = bobs.approve(&his.id, &by("bob")).await.unwrap_err();
    assert!(matches!(error, PublisherError::Overtaken { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        format!("the active policy changed meanwhile and is {} now: look at it and decide again", hers.id.short())
    );
    let state = &alices.load().await.unwrap().state;
    assert_eq!((state.active(), state.policies[&his.id].status), (Some(&hers.id), Status::Proposed));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rollbacks_at_once_go_back_one_step() {
    let (store, alices) = registry().await;
    let first = proposed(&alices, "first", 1.0, "better").await;
    let second = proposed(&alices, "second", 2.0, "better").await;
    alices.approve(&first.id, &by("alice")).await.unwrap();
    alices.approve(&second.id, &by("alice")).await.unwrap();
    let bobs = {
        let (alices, second) = (alices.clone(), second.id.clone());
        raced(&store, move || {
            block_on(alices.rollback(&second, &because("alice", "errors"))).unwrap();
        })
        .await
    };
    let error = bobs.rollback(&second.id, &because("bob", "errors")).await.unwrap_err();
    assert!(matches!(error, PublisherError::Overtaken { .. }), "{error}");
    assert_eq!(alices.load().await.unwrap().state.active(), Some(&first.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_another_does_not_touch_is_taken_again_and_lands() {
    let (store, alices) = registry().await;
    let hers = proposed(&alices, "hers", 1.0, "better").await;
    let his = proposed(&alices, "his", 2.0, "better").await;
    let winner = hers.id.clone();
    let bobs = {
        let alices = alices.clone();
        raced(&store, move || {
            block_on(alices.approve(&winner, &by("alice"))).unwrap();
        })
        .await
    };
    bobs.reject(&his.id, &by("bob")).await.unwrap();
    let loaded = alices.load().await.unwrap();
    assert_eq!(loaded.state.policies[&his.id].status, Status::Rejected);
    assert_eq!(loaded.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_folder_and_a_tar_are_verified_like_a_stored_policy() {
    let (_, registry) = registry().await;
    let policy = proposed(&registry, "demo", 1.0, "better").await;
    let signature = key(1).sign(&policy.id);
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("policy");
    policy.write_dir(&place, Some(&signature)).unwrap();
    let tar = folder.path().join("policy.tar");
    std::fs::write(&tar, policy.to_tar()).unwrap();

    let stored = registry.verify(policy.id.short()).await.unwrap();
    assert_eq!(registry.verify(place.to_str().unwrap()).await.unwrap(), stored);
    assert!(matches!(registry.verify(tar.to_str().unwrap()).await, Err(PublisherError::Signature(_))));
    let packed = folder.path().join("packed.tar");
    let packing = std::process::Command::new("tar").arg("cf").arg(&packed).arg("-C").arg(&place).arg(".").status();
    if packing.is_ok_and(|status| status.success()) {
        assert_eq!(registry.verify(packed.to_str().unwrap()).await.unwrap(), stored, "the signature is in the tar");
    }
    assert_eq!(verify_path(&tar, &Trust::AcceptUnsigned).unwrap().id, policy.id);
    let tarred = std::fs::read(&tar).unwrap();
    std::fs::write(&tar, &tarred[..tarred.len() / 2]).unwrap();
    assert!(verify_path(&tar, &Trust::AcceptUnsigned).is_err());
    assert!(matches!(registry.verify("0000000").await, Err(PublisherError::Unknown { .. })));
}

/// Everything that a person reads, in one go.
#[tokio::test]
async fn what_people_read() {
    let (_, registry) = registry().await;
    insta::assert_snapshot!("list_empty", registry.list().await.unwrap().to_string());
    let first = proposed(&registry, "nightly", 1.0, "better").await;
    let second = proposed(&registry, "with more exploration", 2.0, "not_shown").await;
    let third = proposed(&registry, "broken", 3.0, "insufficient_support").await;

    let mut answers = Vec::new();
    answers.push(registry.approve(&first.id, &by("alice")).await.unwrap().to_string());
    answers.push(registry.reject(&third.id, &because("bob", "too few logs")).await.unwrap().to_string());
    let force = Decision { force: true, ..because("alice", "we want the data") };
    answers.push(registry.approve(&second.id, &force).await.unwrap().to_string());
    insta::assert_snapshot!("list", registry.list().await.unwrap().to_string());
    insta::assert_snapshot!("show", registry.show("active").await.unwrap().to_string());
    insta::assert_snapshot!("diff", registry.diff(first.id.short(), second.id.short()).await.unwrap().to_string());
    answers.push(registry.rollback(&second.id, &because("carol", "errors doubled")).await.unwrap().to_string());
    answers.push(registry.rollback(&first.id, &because("carol", "still")).await.unwrap().to_string());
    answers.push(registry.verify(first.id.short()).await.unwrap().to_string());
    answers.push(registry.propose(&first, None, "x").await.unwrap().to_string());
    answers.push(registry.diff(first.id.short(), first.id.short()).await.unwrap().to_string());
    insta::assert_snapshot!("answers", answers.join(""));

    let refusals = [
        registry.approve(&third.id, &by("alice")).await.map(drop),
        registry.approve(&second.id, &by("alice")).await.map(drop),
        registry.reject(&third.id, &by("alice")).await.map(drop),
        registry.rollback(&first.id, &by("alice")).await.map(drop),
        registry.show("123").await.map(drop),
        registry.show("active").await.map(drop),
    ];
    insta::assert_snapshot!("refusals", refusals.map(|refusal| refusal.unwrap_err().to_string()).join("\n"));

    let json = serde_json::to_string_pretty(&registry.list().await.unwrap()).unwrap();
    insta::assert_snapshot!("list_json", json);
}
