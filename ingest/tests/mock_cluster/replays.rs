//! Dead letters that can be read after a fix get their rows once, wherever a replay is stopped, killed or doubled.

use std::sync::Arc;

use object_store::memory::InMemory;
use weir_ingest::{DeadLetters, Format, IngestConfig, LetterFilter, LetterPayload, ReplayMode, ReplayReport, replay};
use weir_store::{Keyring, Store, UtcDay};

use crate::bench::{AT_MS, Bench, RowId, assert_rows, ids, replay_record, request, row_ids};
use crate::gate::{Side, gated};

/// Two topics whose native messages were configured as another system's, with some messages of that system and some that
/// nobody can read among them.
const WRONG: [(&str, Format); 2] = [("llm", Format::VllmSemanticRouter), ("opinions", Format::VllmSemanticRouter)];
const MENDED: [(&str, Format); 2] = [("llm", Format::Requests), ("opinions", Format::Feedback)];

fn opinion(id: i64) -> Option<Vec<u8>> {
    let opinion = format!(r#"{{"feedback_id": "{id}", "event_ms": {AT_MS}, "source": "user", "kind": "thumb"}}"#);
    Some(opinion.into_bytes())
}

/// A bench whose letters lie in `memory`: of `llm` in both partitions, of `opinions` in one.
async fn bench_with_letters(memory: &Arc<InMemory>) -> (Bench, IngestConfig) {
    let mut bench = Bench::new(&[("llm", 2), ("opinions", 1)]).await;
    (bench.store, _) = gated(memory, None);
    bench.produce("llm", 0, (0..6).map(|n| if n % 3 == 0 { replay_record(n) } else { request(n) }));
    bench.produce("llm", 1, [request("x"), Some(b"nobody reads this".to_vec()), None, request("y")]);
    bench.produce("opinions", 0, (0..3).map(opinion));
    let summary = bench.run(bench.config(&WRONG)).await.unwrap();
    assert_eq!((summary.dead_letters, summary.rows["requests"]), (10, 2));
    let mut mended = bench.config(&MENDED);
    // Several epochs, one of which feeds two tables.
    mended.flush_rows = 4;
    (bench, mended)
}

/// The rows that `bench_with_letters` lacks for being whole: requests, feedback.
fn all_rows() -> (Vec<RowId>, Vec<RowId>) {
    let mut requests = [ids("llm", 0, 0..6), ids("llm", 1, [0, 3])].concat();
    requests.sort();
    (requests, ids("opinions", 0, 0..3))
}

async fn assert_whole(store: &Store) {
    let (requests, opinions) = all_rows();
    assert_rows(&row_ids(store, "requests").await, &requests);
    let feedback: Vec<RowId> =
        row_ids(store, "feedback").await.into_iter().filter(|(topic, ..)| topic == "opinions").collect();
    assert_rows(&feedback, &opinions);
    let left = store.list("replays").await.unwrap();
    assert!(left.is_empty(), "records were left behind: {left:?}");
}

async fn replay_all(store: &Store, keyring: &Keyring, config: &IngestConfig) -> ReplayReport {
    replay(store, keyring, config, &LetterFilter::default(), ReplayMode::Store, |_, _, _| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_after_a_fix_gets_its_rows_once() {
    let memory = Arc::new(InMemory::new());
    let (bench, mended) = bench_with_letters(&memory).await;
    let all = LetterFilter::default();
    let before = bench.row_ids("requests").await;

    let dry = replay(&bench.store, &bench.keyring, &mended, &all, ReplayMode::DryRun, |_, _, _| {}).await.unwrap();
    assert_eq!((dry.stored, dry.rows["requests"], dry.rows["feedback"], dry.dry_run), (9, 6, 3, true));
    assert_rows(&bench.row_ids("requests").await, &before);
    assert!(bench.store.existing("dead_letter_replays").await.unwrap().is_none(), "a dry run left a table");

    let one = LetterFilter { topic: Some("llm".into()), partition: Some(1), ..LetterFilter::default() };
    let first = replay(&bench.store, &bench.keyring, &mended, &one, ReplayMode::Store, |_, _, _| {}).await.unwrap();
    assert_eq!((first.stored, first.rejected.len()), (2, 1));
    assert_eq!((first.rejected[0].reason_class, first.rejected[0].letters), ("not_json", 1));

    let second = replay_all(&bench.store, &bench.keyring, &mended).await;
    assert_eq!((second.stored, second.rows["requests"], second.rows["feedback"]), (7, 4, 3));
    assert_whole(&bench.store).await;

    let versions = bench.store.existing("dead_letter_replays").await.unwrap().unwrap().version();
    let third = replay_all(&bench.store, &bench.keyring, &mended).await;
    assert_eq!((third.stored, third.rows.len(), third.rejected[0].letters), (0, 0, 1));
    assert_whole(&bench.store).await;
    let after = bench.store.existing("dead_letter_replays").await.unwrap().unwrap().version();
    assert_eq!(after, versions, "a replay that changes nothing was written down");

    // Ingest goes on beside its letters as if nothing had been.
    bench.produce("llm", 0, [request(6)]);
    bench.run(mended).await.unwrap();
    assert_eq!(bench.row_ids("requests").await.len(), all_rows().0.len() + 1);

    let letters = DeadLetters::open(&bench.store, "test", 7).await.unwrap();
    let groups = letters.list(&all, Some(&bench.keyring)).await.unwrap();
    let sum = |of: fn(&weir_ingest::LetterGroup) -> u64| groups.iter().map(of).sum::<u64>();
    assert_eq!((sum(|group| group.letters), sum(|group| group.replayed), sum(|group| group.pending)), (10, 9, 1));
    assert_eq!(sum(|group| group.readable.unwrap()), 1);
    let stored = letters.find(&"llm/1/0".parse().unwrap()).await.unwrap().unwrap();
    let replayed = stored.replay.as_ref().unwrap();
    assert_eq!((replayed.outcome, replayed.rows, stored.reason_class.as_str()), ("stored", 1, "adapter"));
    let hopeless = letters.find(&"llm/1/1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(hopeless.replay.as_ref().unwrap().outcome, "rejected");
    assert!(
        hopeless.payload(&bench.keyring).unwrap()
            == LetterPayload::Message { payload: b"nobody reads this".to_vec(), headers: vec![] }
    );
    assert!(letters.find(&"llm/1/2".parse().unwrap()).await.unwrap().is_none(), "a tombstone is no letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_any_change_or_woken_after_its_successor_it_stores_each_letter_once() {
    let memory = Arc::new(InMemory::new());
    let (bench, mended) = bench_with_letters(&memory).await;
    // How many changes there are to be stopped in.
    let (store, keeper) = gated(&Arc::new(memory.fork()), None);
    replay_all(&store, &bench.keyring, &mended).await;
    let changes = keeper.changes();
    assert!(changes > 20, "{changes} changes: several epochs with records and commits have more");

    for at in 0..changes {
        for side in [Side::Before, Side::After] {
            for wakes in [false, true] {
                let forked = Arc::new(memory.fork());
                let (frozen, keeper) = gated(&forked, Some((at, side)));
                let (keyring, config) = (bench.keyring.clone(), mended.clone());
                let process = tokio::spawn(async move { replay_all(&frozen, &keyring, &config).await });
                keeper.stopped().await;
                if !wakes {
                    process.abort();
                }
                let (successor, _) = gated(&forked, None);
                replay_all(&successor, &bench.keyring, &mended).await;
                if wakes {
                    keeper.open();
                    process.await.unwrap();
                    // What it left behind goes with the next one.
                    replay_all(&successor, &bench.keyring, &mended).await;
                }
                let (requests, opinions) = all_rows();
                assert_rows(&row_ids(&successor, "requests").await, &requests);
                let feedback = row_ids(&successor, "feedback").await;
                let feedback: Vec<RowId> = feedback.into_iter().filter(|(topic, ..)| topic == "opinions").collect();
                assert_rows(&feedback, &opinions);
                let again = replay_all(&successor, &bench.keyring, &mended).await;
                assert_eq!(again.stored, 0, "change {at}, {side:?}, wakes: {wakes}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_replays_at_once_store_each_letter_once() {
    let memory = Arc::new(InMemory::new());
    let (bench, mended) = bench_with_letters(&memory).await;
    for _ in 0..10 {
        let forked = Arc::new(memory.fork());
        let running: Vec<_> = (0..4)
            .map(|_| {
                let ((store, _), keyring, config) = (gated(&forked, None), bench.keyring.clone(), mended.clone());
                tokio::spawn(async move { replay_all(&store, &keyring, &config).await })
            })
            .collect();
        let mut stored = 0;
        for process in running {
            stored += process.await.unwrap().stored;
        }
        assert_eq!(stored, 9, "each letter is counted by the replay that claimed it");
        assert_whole(&gated(&forked, None).0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_epoch_is_finished_as_it_was_claimed_whatever_the_configuration_says_now() {
    let memory = Arc::new(InMemory::new());
    let (bench, mended) = bench_with_letters(&memory).await;
    let (store, keyring, config) = (bench.store.clone(), bench.keyring.clone(), mended.clone());
    let claimed = tokio::spawn(async move {
        let dies =
            |table: &str, _: i64, _: u64| assert_ne!(table, "dead_letter_replays", "this death is part of the test");
        replay(&store, &keyring, &config, &LetterFilter::default(), ReplayMode::Store, dies).await
    });
    assert!(claimed.await.is_err(), "it did not die");

    // With the old configuration nothing could be decoded; and without keys not even opened.
    let wrong = bench.config(&WRONG);
    let empty = Keyring::open(bench.folder.path().join("no-keys")).unwrap();
    let all = LetterFilter::default();
    let dry = replay(&bench.store, &empty, &wrong, &all, ReplayMode::DryRun, |_, _, _| {}).await.unwrap();
    assert!(dry.unfinished);
    let finished = replay_all(&bench.store, &empty, &wrong).await;
    // How many rows the epoch holds depends on how many commits ingest made of the letters: four on a quiet machine.
    assert!((1..=4).contains(&finished.finished_rows), "{finished:?}");
    assert_eq!((finished.finished_rows + finished.expired, finished.stored), (10, 0));
    replay_all(&bench.store, &bench.keyring, &mended).await;
    assert_whole(&bench.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_message_ingest_stored_itself_is_not_stored_again() {
    let mut bench = Bench::new(&[("llm", 1)]).await;
    (bench.store, _) = gated(&Arc::new(InMemory::new()), None);
    bench.produce("llm", 0, (0..4).map(request));
    // Dies after the letters are durable and before the raw tables have passed them.
    let dies = bench.start(bench.config(&[("llm", Format::VllmSemanticRouter)]), |table, _, _| {
        assert_ne!(table, "dead_letters", "this death is part of the test");
    });
    assert!(dies.task.await.is_err(), "it did not die");
    assert_eq!(bench.row_ids("dead_letters").await.len(), 4);

    // Mended and replayed before ingest has passed them: they may still become rows without us.
    let mended = bench.config(&[("llm", Format::Requests)]);
    let early = replay_all(&bench.store, &bench.keyring, &mended).await;
    assert_eq!((early.stored, early.unsettled), (0, 4));
    bench.run(mended.clone()).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, 0..4));
    let late = replay_all(&bench.store, &bench.keyring, &mended).await;
    assert_eq!((late.stored, late.already_stored, late.unsettled), (0, 4, 0));
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, 0..4));
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_letters_and_those_of_other_keys_stay_unread() {
    let memory = Arc::new(InMemory::new());
    let (bench, mended) = bench_with_letters(&memory).await;
    let others = Keyring::open(bench.folder.path().join("other-keys")).unwrap();
    others.seal(UtcDay::today(), b"").unwrap();
    let foreign = replay_all(&bench.store, &others, &mended).await;
    assert_eq!((foreign.stored, foreign.foreign, foreign.expired), (0, 10, 0));

    bench.keyring.expire(UtcDay::of_ms(i64::MAX)).unwrap();
    let expired = replay_all(&bench.store, &bench.keyring, &mended).await;
    assert_eq!((expired.stored, expired.expired), (0, 10));
    let letters = DeadLetters::open(&bench.store, "test", 7).await.unwrap();
    let groups = letters.list(&LetterFilter::default(), Some(&bench.keyring)).await.unwrap();
    assert_eq!(groups.iter().map(|group| group.expired.unwrap()).sum::<u64>(), 10);
    let letter = letters.find(&"llm/1/1".parse().unwrap()).await.unwrap().unwrap();
    assert!(letter.payload(&bench.keyring).unwrap() == LetterPayload::Expired);
}
