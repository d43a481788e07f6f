//! Which job, cluster and topic a raw table was filled from: offsets of others mean nothing here.
//!
//! The first writer leaves a create-only note per table and topic at `sources/<table>/<topic>.json`. Everybody else
//! must match it: offsets of another cluster, or of a topic that was deleted and created again, would skip or repeat
//! rows, and another job would read the same topic into the same table a second time. What the brokers did not tell the
//! first writer is filled in by the first one that they tell.
//!
//! **A topic that was made again** is another topic, and an operator may say so (`positions::forget`). Its rows, letters and
//! positions are kept under another name, `topic@2`, `topic@3` and so on: no topic of Kafka's has an `@` in its name, so
//! topic, partition and offset go on naming one message.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weir_store::{PutNew, Store};

use crate::{IngestError, Result};

/// How long a note may take to be whole, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// Who fills a table from a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) job: String,
    /// Absent when the broker does not say.
    pub(crate) cluster_id: Option<String>,
    pub(crate) topic: String,
    /// Absent when the broker does not say.
    #[serde(default)]
    pub(crate) topic_id: Option<String>,
    /// How many partitions the topic had when the first writer came: those above were added later.
    #[serde(default)]
    pub(crate) partitions_at_first: Option<i32>,
    /// How often the topic was given up for another of its name.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) made_again: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Source {
    /// Does Kafka's topic have this id, on this cluster? What brokers do not tell cannot differ.
    pub(crate) fn is_of(&self, cluster_id: Option<&str>, topic_id: Option<&str>) -> bool {
        let differ = |found: Option<&str>, wanted: Option<&str>| found.zip(wanted).is_some_and(|(a, b)| a != b);
        !differ(self.cluster_id.as_deref(), cluster_id) && !differ(self.topic_id.as_deref(), topic_id)
    }
}

/// What rows, letters and positions call the topic that was made again so often.
pub(crate) fn stored_topic(topic: &str, made_again: u32) -> String {
    if made_again == 0 { topic.to_owned() } else { format!("{topic}@{}", made_again + 1) }
}

/// What Kafka calls the topic that rows, letters and positions call so.
pub(crate) fn kafka_topic(stored: &str) -> &str {
    stored.split_once('@').map_or(stored, |(topic, _)| topic)
}

/// Finds that the table was claimed by the same source before, or by nobody. Writes nothing.
pub(crate) async fn check(store: &Store, table: &str, source: &Source) -> Result<()> {
    match settled_if_there(store, &note_path(table, source)).await? {
        Some(note) => read(table, source, &note).map(|_| ()),
        None => Ok(()),
    }
}

async fn settled_if_there(store: &Store, path: &str) -> Result<Option<bytes::Bytes>> {
    if store.get(path).await?.is_none() { Ok(None) } else { settled(store, path).await }
}

/// A note as its writer left it. Some stores refuse to create what another process is just writing, and do not show it yet,
/// or not all of it: that is waited for.
async fn settled(store: &Store, path: &str) -> Result<Option<bytes::Bytes>> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let note = store.get(path).await?;
        let whole = note.as_ref().is_some_and(|note| serde_json::from_slice::<Source>(note).is_ok());
        if whole || Instant::now() >= patience {
            return Ok(note);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Claims the table for the source, or finds that it was claimed by the same one before; what the note says then.
pub(crate) async fn claim(store: &Store, table: &str, source: &Source) -> Result<Source> {
    let path = note_path(table, source);
    if store.get(&path).await?.is_none() {
        // A table that the topic feeds from now on learns what the others know.
        let made_again =
            of_topic(store, &source.job, &source.topic).await?.iter().map(|(_, note)| note.made_again).max();
        let source = Source { made_again: made_again.unwrap_or_default(), ..source.clone() };
        if store.put_new(&path, note(&source)).await? == PutNew::Created {
            return Ok(source);
        }
    }
    let mut found = read(table, source, &settled(store, &path).await?.unwrap_or_default())?;
    let known = (found.cluster_id.is_some(), found.topic_id.is_some());
    found.cluster_id = found.cluster_id.or_else(|| source.cluster_id.clone());
    found.topic_id = found.topic_id.or_else(|| source.topic_id.clone());
    if known != (found.cluster_id.is_some(), found.topic_id.is_some()) {
        // Whoever else fills it in now writes the same: it has passed the same checks.
        store.put(&path, note(&found)).await?;
    }
    Ok(found)
}

/// Has the job filled any table from any topic?
pub(crate) async fn has_run(store: &Store, job: &str) -> Result<bool> {
    for path in store.list("sources").await? {
        let Some(note) = store.get(&path).await? else { continue };
        if serde_json::from_slice::<Source>(&note).is_ok_and(|source| source.job == job) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The notes of a job, each with its table.
pub(crate) async fn of_job(store: &Store, job: &str) -> Result<Vec<(String, Source)>> {
    let mut notes = Vec::new();
    for path in store.list("sources").await? {
        let Some(table) = path.split('/').nth(1) else { continue };
        let Some(note) = store.get(&path).await? else { continue };
        if let Ok(source) = serde_json::from_slice::<Source>(&note)
            && source.job == job
        {
            notes.push((table.to_owned(), source));
        }
    }
    Ok(notes)
}

/// The notes of a job about one topic, each with its table.
pub(crate) async fn of_topic(store: &Store, job: &str, topic: &str) -> Result<Vec<(String, Source)>> {
    let mut notes = Vec::new();
    for table in store.folders("sources").await? {
        let Some(note) = store.get(&format!("sources/{table}/{topic}.json")).await? else { continue };
        if let Ok(source) = serde_json::from_slice::<Source>(&note)
            && source.job == job
        {
            notes.push((table, source));
        }
    }
    Ok(notes)
}

/// Replaces the note of a table about a topic.
pub(crate) async fn rewrite(store: &Store, table: &str, source: &Source) -> Result<()> {
    Ok(store.put(&note_path(table, source), note(source)).await?)
}

/// Finds that no other job fills a table from the topic.
pub(crate) async fn check_sole(store: &Store, topic: &str, job: &str) -> Result<()> {
    for table in store.folders("sources").await? {
        let ours = Source {
            job: job.to_owned(),
            cluster_id: None,
            topic: topic.to_owned(),
            topic_id: None,
            partitions_at_first: None,
            made_again: 0,
        };
        let Some(note) = settled_if_there(store, &note_path(&table, &ours)).await? else { continue };
        match read(&table, &ours, &note) {
            Ok(_) => {}
            Err(error) => {
                let Ok(found) = serde_json::from_slice::<Source>(&note) else { return Err(error) };
                return Err(IngestError::SharedTopic { topic: topic.to_owned(), other: found.job, table });
            }
        }
    }
    Ok(())
}

fn note_path(table: &str, source: &Source) -> String {
    format!("sources/{table}/{}.json", source.topic)
}

fn note(source: &Source) -> bytes::Bytes {
    serde_json::to_vec_pretty(source).expect("strings and a number have a JSON form").into()
}

fn read(table: &str, source: &Source, note: &[u8]) -> Result<Source> {
    let Ok(found) = serde_json::from_slice::<Source>(note) else {
        let path = note_path(table, source);
        return Err(other(table, source, format!("something that left an unreadable note at {path}")));
    };
    if found.job != source.job {
        return Err(other(table, source, describe(&found)));
    }
    if !found.is_of(source.cluster_id.as_deref(), None) {
        return Err(IngestError::OtherCluster {
            table: table.to_owned(),
            topic: source.topic.clone(),
            found: describe(&found),
            wanted: describe(source),
        });
    }
    if !found.is_of(None, source.topic_id.as_deref()) {
        return Err(IngestError::TopicRecreated { topic: source.topic.clone() });
    }
    Ok(found)
}

fn describe(source: &Source) -> String {
    let cluster = source.cluster_id.as_deref().unwrap_or("of unknown id");
    format!("job {} on Kafka cluster {cluster}", source.job)
}

fn other(table: &str, source: &Source, found: String) -> IngestError {
    IngestError::OtherSource { table: table.to_owned(), topic: source.topic.clone(), found, wanted: describe(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(job: &str, cluster: Option<&str>, topic_id: Option<&str>) -> Source {
        Source {
            job: job.into(),
            cluster_id: cluster.map(Into::into),
            topic: "llm.requests".into(),
            topic_id: topic_id.map(Into::into),
            partitions_at_first: Some(3),
            made_again: 0,
        }
    }

    #[tokio::test]
    async fn a_table_stays_with_the_job_cluster_and_topic_that_filled_it() {
        let store = Store::open("memory://").await.unwrap();
        let owner = source("prod", Some("c1"), Some("t1"));
        check(&store, "requests", &owner).await.unwrap();
        assert_eq!(store.list("").await.unwrap().len(), 0, "a check claims nothing");
        claim(&store, "requests", &owner).await.unwrap();
        claim(&store, "requests", &owner).await.unwrap();
        claim(&store, "requests", &source("prod", None, None)).await.unwrap();
        claim(&store, "feedback", &source("other", Some("c2"), Some("t2"))).await.unwrap();
        for stranger in [source("other", Some("c1"), Some("t1")), source("prod", Some("c2"), Some("t1"))] {
            for error in
                [check(&store, "requests", &stranger).await, claim(&store, "requests", &stranger).await.map(|_| ())]
            {
                let error = error.unwrap_err();
                let words = error.to_string();
                let expected = match error {
                    IngestError::OtherSource { .. } => stranger.job == "other" && words.contains("from another job"),
                    IngestError::OtherCluster { .. } => words.contains("weir positions forget llm.requests"),
                    _ => false,
                };
                assert!(expected && words.contains("c1"), "{words}");
            }
        }
        let recreated = claim(&store, "requests", &source("prod", Some("c1"), Some("t9"))).await.unwrap_err();
        assert!(matches!(recreated, IngestError::TopicRecreated { .. }), "{recreated}");
    }

    #[tokio::test]
    async fn a_note_that_is_just_being_written_is_waited_for_and_one_that_stays_broken_is_not() {
        let store = Store::open("memory://").await.unwrap();
        let path = "sources/requests/llm.requests.json";
        let owner = source("prod", Some("c1"), Some("t1"));
        store.put(path, bytes::Bytes::new()).await.unwrap();
        let whole = async {
            tokio::time::sleep(4 * PAUSE).await;
            store.put(path, note(&owner)).await.unwrap();
        };
        let (claimed, ()) = tokio::join!(claim(&store, "requests", &owner), whole);
        assert_eq!(claimed.unwrap(), owner);

        store.put(path, bytes::Bytes::from_static(b"{")).await.unwrap();
        let broken = check(&store, "requests", &owner).await.unwrap_err().to_string();
        assert!(broken.contains("unreadable note"), "{broken}");
    }

    #[tokio::test]
    async fn a_topic_of_two_jobs_has_no_sole_owner() {
        let store = Store::open("memory://").await.unwrap();
        check_sole(&store, "llm.requests", "prod").await.unwrap();
        claim(&store, "requests", &source("prod", Some("c1"), Some("t1"))).await.unwrap();
        check_sole(&store, "llm.requests", "prod").await.unwrap();
        claim(&store, "feedback", &source("other", Some("c1"), Some("t1"))).await.unwrap();
        let shared = check_sole(&store, "llm.requests", "prod").await.unwrap_err();
        assert!(
            matches!(&shared, IngestError::SharedTopic { other, table, .. } if other == "other" && table == "feedback")
        );
        check_sole(&store, "another.topic", "prod").await.unwrap();
    }

    #[tokio::test]
    async fn what_the_first_writer_was_not_told_is_filled_in_and_then_guarded() {
        let store = Store::open("memory://").await.unwrap();
        claim(&store, "requests", &source("prod", None, None)).await.unwrap();
        let mut later = source("prod", Some("c1"), Some("t1"));
        later.partitions_at_first = Some(8);
        let found = claim(&store, "requests", &later).await.unwrap();
        assert_eq!(found.partitions_at_first, Some(3), "what the topic had at first does not change");
        let stranger = claim(&store, "requests", &source("prod", Some("c2"), Some("t1"))).await;
        assert!(matches!(stranger, Err(IngestError::OtherCluster { .. })), "{stranger:?}");
    }

    #[tokio::test]
    async fn a_topic_that_was_given_up_has_another_name_in_every_table() {
        let store = Store::open("memory://").await.unwrap();
        let first = claim(&store, "requests", &source("prod", Some("c1"), Some("t1"))).await.unwrap();
        let name = |source: &Source| stored_topic(&source.topic, source.made_again);
        assert_eq!(name(&first), "llm.requests");
        let note = store.get("sources/requests/llm.requests.json").await.unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&note).contains("made_again"), "older versions read it");
        let again = Source { made_again: 1, topic_id: Some("t2".into()), ..first };
        rewrite(&store, "requests", &again).await.unwrap();
        let now = source("prod", Some("c1"), Some("t2"));
        assert_eq!(name(&claim(&store, "requests", &now).await.unwrap()), "llm.requests@2");
        // A table that comes later too: dead letters of both would have the same names else.
        assert_eq!(name(&claim(&store, "feedback", &now).await.unwrap()), "llm.requests@2");
        assert_eq!((kafka_topic("llm.requests@2"), kafka_topic("llm.requests")), ("llm.requests", "llm.requests"));
    }
}
