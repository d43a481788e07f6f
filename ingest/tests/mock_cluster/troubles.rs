//! Trouble with a part of Kafka or with storage: what is not in trouble goes on, and what is goes on afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::bench::{Bench, assert_rows, eventually, ids, request};
use crate::faulty::Faulty;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::watch;
use weir_ingest::{Format, IngestConfig, IngestError};
use weir_store::{Fault, Store};

const REQUESTS: [(&str, Format); 1] = [("llm", Format::Requests)];

fn without_end(bench: &Bench) -> IngestConfig {
    IngestConfig { stop_when_drained: false, ..bench.config(&REQUESTS) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_keeps_no_other_from_being_read() {
    a_leader_goes_and_comes("range").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_keeps_no_other_from_being_read_in_a_cooperative_group_either() {
    a_leader_goes_and_comes("cooperative-sticky").await;
}

async fn a_leader_goes_and_comes(assignment: &str) {
    let bench = Bench::new(&[("llm", 3)]).await;
    (0..3).for_each(|partition| bench.produce("llm", partition, (0..40).map(request)));
    bench.cluster.partition_leader("llm", 1, None).unwrap();
    let mut config = without_end(&bench);
    config.kafka.insert("partition.assignment.strategy".to_owned(), assignment.to_owned());
    let running = bench.start(config, |_, _, _| {});
    eventually("the rows of the others", async || bench.row_ids("requests").await.len() == 80).await;
    // They go on, too: nobody stops them to look once more.
    bench.produce("llm", 0, (40..50).map(request));
    eventually("what came meanwhile", async || bench.row_ids("requests").await.len() == 90).await;

    bench.cluster.partition_leader("llm", 1, Some(1)).unwrap();
    eventually("the rows of the partition", async || bench.row_ids("requests").await.len() >= 130).await;
    bench.produce("llm", 1, (40..45).map(request));
    eventually("what came since", async || bench.row_ids("requests").await.len() >= 135).await;
    assert_eq!(running.stop().await.unwrap().restarts, 0);
    let expected = [ids("llm", 0, 0..50), ids("llm", 1, 0..45), ids("llm", 2, 0..40)].concat();
    assert_rows(&bench.row_ids("requests").await, &expected);

    // Where it was read to is where it goes on.
    bench.produce("llm", 1, (45..48).map(request));
    bench.run(bench.config(&REQUESTS)).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &[expected, ids("llm", 1, 45..48)].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_waits_for_a_partition_whose_leader_went_before_the_assignment() {
    let bench = Bench::new(&[("llm", 2)]).await;
    (0..2).for_each(|partition| bench.produce("llm", partition, (0..40).map(request)));
    let mut running = bench.start(bench.config(&REQUESTS), |_, _, _| {});
    // By then it knows what there is to read, and the group has not given it anything yet.
    let claimed = async || bench.store.get("sources/requests/llm.json").await.unwrap().is_some();
    eventually("the tables are open", claimed).await;
    bench.cluster.partition_leader("llm", 1, None).unwrap();
    eventually("the rows of the other", async || bench.row_ids("requests").await.len() == 40).await;
    let ended = tokio::time::timeout(Duration::from_secs(3), &mut running.task).await;
    assert!(ended.is_err(), "it ended without the rows of a partition: {ended:?}");
    bench.cluster.partition_leader("llm", 1, Some(1)).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), &mut running.task).await.expect("it ends");
    assert_eq!(ended.unwrap().unwrap().rows["requests"], 80);
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, 0..40), ids("llm", 1, 0..40)].concat());
}

/// The bench on a store that can be switched off.
fn on_a_faulty_store(bench: Bench) -> (Bench, Arc<AtomicBool>) {
    let backend = Arc::new(Faulty::default());
    let store = Store::with_backend(backend.clone(), "memory:///data/".parse().unwrap()).unwrap();
    (Bench { store, ..bench }, backend.dead.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_is_away_for_a_while_is_waited_for() {
    let (bench, dead) = on_a_faulty_store(Bench::new(&[("llm", 2)]).await);
    (0..2).for_each(|partition| bench.produce("llm", partition, (0..300).map(request)));
    let config = IngestConfig { flush_rows: 100, ..bench.config(&REQUESTS) };
    let (commits, went_away) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
    let (is_dead, has_gone) = (dead.clone(), went_away.clone());
    let running = bench.start(config, move |_, _, _| {
        if commits.fetch_add(1, Ordering::SeqCst) == 1 {
            has_gone.store(true, Ordering::SeqCst);
            is_dead.store(true, Ordering::SeqCst);
        }
    });
    eventually("storage goes away", async || went_away.load(Ordering::SeqCst)).await;
    // For longer than six attempts took.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(!running.task.is_finished(), "a full disk would have ended it");
    dead.store(false, Ordering::SeqCst);
    let summary = tokio::time::timeout(Duration::from_secs(60), running.task).await.expect("it goes on").unwrap();
    assert!(summary.unwrap().restarts > 1, "storage was not away: nothing was tested");
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, 0..300), ids("llm", 1, 0..300)].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_stays_away_is_given_up_in_time_and_a_stop_is_heeded_before() {
    let (bench, dead) = on_a_faulty_store(Bench::new(&[("llm", 1)]).await);
    bench.produce("llm", 0, (0..300).map(request));
    let start = |patience| {
        dead.store(false, Ordering::SeqCst);
        let is_dead = dead.clone();
        let mut config = without_end(&bench);
        (config.flush_rows, config.storage_patience) = (100, patience);
        bench.start(config, move |_, _, _| is_dead.store(true, Ordering::SeqCst))
    };
    let is_dead = async || dead.load(Ordering::SeqCst);

    let running = start(Duration::from_secs(3));
    eventually("storage goes away", is_dead).await;
    let began = Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(30), running.task).await.expect("it is given up").unwrap();
    let error = ended.unwrap_err();
    assert!(matches!(error, IngestError::Store(_)) && error.fault() == Fault::Outside && error.retry_helps());
    assert!(began.elapsed() >= Duration::from_millis(2_500), "{error}, after {:?}", began.elapsed());

    let running = start(Duration::from_secs(3_600));
    eventually("storage goes away", is_dead).await;
    // By then it rests for seconds.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let began = Instant::now();
    running.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "it finished its rest first: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_once_it_knows_what_to_read_and_not_before() {
    let bench = Bench::new(&[("llm", 2)]).await;
    bench.produce("llm", 0, (0..10).map(request));
    bench.cluster.partition_leader("llm", 1, None).unwrap();
    let loading = RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
    bench.cluster.request_errors(RDKafkaApiKey::FindCoordinator, &[loading; 1_000]);
    let (stop, stopping) = watch::channel(false);
    let ready = Arc::new(AtomicU64::new(0));
    let task = tokio::spawn(weir_ingest::run_and_tell(
        bench.store.clone(),
        bench.keyring.clone(),
        without_end(&bench),
        stopping,
        |_, _, _| {},
        {
            let ready = ready.clone();
            move || {
                ready.fetch_add(1, Ordering::SeqCst);
            }
        },
    ));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(ready.load(Ordering::SeqCst), 0, "no group has taken it in");
    bench.cluster.clear_request_errors(RDKafkaApiKey::FindCoordinator);
    // Also with a partition that cannot be read: that is for an alert to say.
    eventually("it is ready", async || ready.load(Ordering::SeqCst) > 0).await;
    eventually("what can be read is", async || bench.row_ids("requests").await.len() == 10).await;
    stop.send_replace(true);
    task.await.unwrap().unwrap();
    assert_eq!(ready.load(Ordering::SeqCst), 1, "told once");
}

/// The second member's coming makes the group rebalance while the first one's sink is busy for longer than the group would
/// wait for a member that does not poll.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_takes_longer_than_the_group_waits_costs_nothing() {
    let bench = Bench::new(&[("llm", 2)]).await;
    (0..2).for_each(|partition| bench.produce("llm", partition, (0..2_000).map(request)));
    let mut config = without_end(&bench);
    config.flush_rows = 200;
    config.kafka.insert("max.poll.interval.ms".to_owned(), "6000".to_owned());
    let is_slow = Arc::new(AtomicBool::new(true));
    let (slow, begun) = (is_slow.clone(), Arc::new(AtomicBool::new(false)));
    let has_begun = begun.clone();
    let first = bench.start(config.clone(), move |_, _, _| {
        if slow.swap(false, Ordering::SeqCst) {
            has_begun.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(14));
        }
    });
    eventually("the slow commit", async || begun.load(Ordering::SeqCst)).await;
    let second = bench.start(config, |_, _, _| {});
    eventually("all rows", async || bench.row_ids("requests").await.len() >= 4_000).await;
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, 0..2_000), ids("llm", 1, 0..2_000)].concat());
}
