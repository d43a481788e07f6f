//! Topics by pattern: those that are there, those that come while a run goes on, and those that go.

use tokio::task::JoinHandle;
use weir_ingest::{Decided, Pattern, TopicPattern, forget};

use super::*;

fn by_pattern(kafka: &Kafka, pattern: &str) -> IngestConfig {
    let mut config = config(kafka, "patterns");
    config.topics.clear();
    config.patterns.push(TopicPattern {
        pattern: Pattern::new(pattern).unwrap(),
        format: Format::Requests,
        encoding: Encoding::Json,
        headers: Vec::new(),
    });
    // How soon topics are seen that come.
    config.kafka.insert("topic.metadata.refresh.interval.ms".to_owned(), "500".to_owned());
    config
}

struct Endless {
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<IngestSummary, IngestError>>,
}

impl Endless {
    async fn start(folder: &Path, mut config: IngestConfig) -> Self {
        config.stop_when_drained = false;
        let (data, keyring) = store(folder).await;
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(weir_ingest::run(data, keyring, config, stopping, |_, _, _| {}));
        Self { stop, running }
    }

    async fn stop(self) -> IngestSummary {
        self.stop.send_replace(true);
        self.running.await.unwrap().unwrap()
    }
}

async fn delete(kafka: &Kafka, topic: &str) {
    for deleted in kafka.admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_match_a_pattern_are_read_whenever_they_come_and_may_go() {
    let folder = tempfile::tempdir().unwrap();
    let Some(kafka) = Kafka::start(folder.path()) else { return };

    // What matches now, whole names only; an entry by name goes before a pattern.
    let config = by_pattern(&kafka, r"llm\.[a-z]+");
    assert_eq!(run(folder.path(), config.clone()).await.unwrap(), IngestSummary::default(), "nothing is there to read");
    for topic in ["llm.a", "llm.b", "llm.a2", "my.llm.a", "llm.named"] {
        kafka.create_topic(topic, 2).await;
    }
    kafka.produce("llm.a", 0..100);
    kafka.produce("llm.b", 100..150);
    for topic in ["llm.a2", "my.llm.a"] {
        kafka.produce(topic, 900..950);
    }
    let mut mixed = config.clone();
    mixed.topics.push(TopicConfig {
        topic: "llm.named".to_owned(),
        format: Format::GpuTelemetry,
        encoding: Encoding::Json,
        headers: Vec::new(),
    });
    kafka.produce("llm.named", 950..960);
    let read = weir_ingest::probe(&mixed).await.unwrap().read;
    assert_eq!(read, ["llm.named", "llm.a", "llm.b"], "named ones first");
    let summary = run(folder.path(), mixed).await.unwrap();
    assert_eq!((summary.rows["requests"], summary.dead_letters), (150, 10), "requests are no GPU telemetry");
    assert_eq!(stored(folder.path()).await, (0..150).collect::<Vec<_>>());

    // One that comes while a run goes on is read from its first message, also where "latest" was chosen for those before.
    let live = tempfile::tempdir().unwrap();
    let mut latest = by_pattern(&kafka, r"llm\.[a-z]+");
    latest.start = Start::Latest;
    let endless = Endless::start(live.path(), latest.clone()).await;
    wait_for_position(live.path(), "weir/test/llm.a/0", 0).await;
    kafka.create_topic("llm.new", 3).await;
    kafka.produce("llm.new", 200..260);
    kafka.produce("llm.a", 260..300);
    wait_for(live.path(), 100).await;

    // One that goes ends nothing, and the others are read on.
    delete(&kafka, "llm.b").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    kafka.produce("llm.new", 300..310);
    wait_for(live.path(), 110).await;
    let summary = endless.stop().await;
    assert_eq!(summary.rows["requests"], 110);
    assert_eq!(stored(live.path()).await, (200..310).collect::<Vec<_>>());

    // One that came while nobody read was not there when "latest" was chosen either.
    kafka.create_topic("llm.late", 1).await;
    kafka.produce("llm.late", 310..320);
    run(live.path(), latest.clone()).await.unwrap();
    assert_eq!(stored(live.path()).await, (200..320).collect::<Vec<_>>());

    // One that is made again under its name is another one: its offsets would be taken for those of the first. It is set
    // aside, and the others are read on.
    let endless = Endless::start(live.path(), latest.clone()).await;
    wait_for_group(&kafka).await;
    delete(&kafka, "llm.late").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    kafka.create_topic("llm.late", 1).await;
    kafka.produce("llm.late", 400..410);
    tokio::time::sleep(Duration::from_secs(4)).await;
    kafka.produce("llm.new", 320..330);
    wait_for(live.path(), 130).await;
    endless.stop().await;
    assert_eq!(stored(live.path()).await, (200..330).collect::<Vec<_>>());

    // Given up, it is read as another one from its first message.
    let by = Decided { actor: "ann".to_owned(), reason: None };
    let (data, _) = store(live.path()).await;
    let forgotten = forget(&data, &latest, "llm.late", false, by).await.unwrap();
    assert_eq!((forgotten.source_topic.as_str(), forgotten.left_at), ("llm.late@2", [(0, 10)].into()));
    run(live.path(), latest).await.unwrap();
    assert_eq!(stored(live.path()).await, (200..330).chain(400..410).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_while_it_is_read_is_set_aside_however_fast_that_was() {
    let folder = tempfile::tempdir().unwrap();
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    for topic in ["llm.a", "llm.b"] {
        kafka.create_topic(topic, 1).await;
    }
    kafka.produce("llm.b", 0..50);
    let config = by_pattern(&kafka, r"llm\..*");
    let endless = Endless::start(folder.path(), config).await;
    wait_for(folder.path(), 50).await;
    delete(&kafka, "llm.b").await;
    kafka.create_topic("llm.b", 1).await;
    kafka.produce("llm.b", 900..910);
    tokio::time::sleep(Duration::from_secs(6)).await;
    kafka.produce("llm.a", 50..60);
    wait_for(folder.path(), 60).await;
    endless.stop().await;
    assert_eq!(stored(folder.path()).await, (0..60).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_topic_that_goes_ends_the_run_though_there_are_patterns() {
    let folder = tempfile::tempdir().unwrap();
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    kafka.create_topic("needed", 1).await;
    kafka.create_topic("llm.a", 1).await;
    let mut config = by_pattern(&kafka, r"llm\..*");
    config.topics = super::config(&kafka, "needed").topics;
    let endless = Endless::start(folder.path(), config).await;
    wait_for_group(&kafka).await;
    delete(&kafka, "needed").await;
    let ended = tokio::time::timeout(Duration::from_secs(60), endless.running).await.expect("it ends").unwrap();
    let said = ended.unwrap_err().to_string();
    assert!(said.starts_with("topic needed does not exist"), "{said}");
}

/// Until a member of the group reads.
async fn wait_for_group(kafka: &Kafka) {
    let client: BaseConsumer = kafka.client().create().unwrap();
    for _ in 0..300 {
        // A broker that has just started does not know its groups yet.
        if let Ok(groups) = client.fetch_group_list(Some("weir-patterns"), WAIT)
            && groups.groups().iter().any(|group| group.state() == "Stable" && !group.members().is_empty())
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody reads after 30 s");
}
