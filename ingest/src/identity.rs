//! Which job and cluster a raw table was filled by: offsets of another cluster mean nothing here.
//!
//! The first writer leaves a create-only note per table and topic at `sources/<table>/<topic>.json`. Everybody else
//! must match it: another cluster's offsets would skip or repeat rows, and another job would read the same topic into
//! the same table a second time.

use serde::{Deserialize, Serialize};
use weir_store::{PutNew, Store};

use crate::{IngestError, Result};

/// Who fills a table from a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) job: String,
    /// Absent when the broker does not say.
    pub(crate) cluster_id: Option<String>,
    pub(crate) topic: String,
}

/// Claims the table for the source, or finds that it was claimed by the same one before.
pub(crate) async fn claim(store: &Store, table: &str, source: &Source) -> Result<()> {
    let path = format!("sources/{table}/{}.json", source.topic);
    let note = serde_json::to_vec_pretty(source).expect("three strings have a JSON form");
    if store.put_new(&path, note.into()).await? == PutNew::Created {
        return Ok(());
    }
    let bytes = store.get(&path).await?.unwrap_or_default();
    match serde_json::from_slice::<Source>(&bytes) {
        Ok(found) if same(&found, source) => Ok(()),
        Ok(found) => Err(other(table, source, describe(&found))),
        Err(_) => Err(other(table, source, format!("something that left an unreadable note at {path}"))),
    }
}

fn same(found: &Source, wanted: &Source) -> bool {
    let clusters_agree = match (&found.cluster_id, &wanted.cluster_id) {
        (Some(found), Some(wanted)) => found == wanted,
        // A broker that does not tell cannot be told from itself.
        _ => true,
    };
    found.job == wanted.job && clusters_agree
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

    fn source(job: &str, cluster: Option<&str>) -> Source {
        Source { job: job.into(), cluster_id: cluster.map(Into::into), topic: "llm.requests".into() }
    }

    #[tokio::test]
    async fn a_table_stays_with_the_job_and_cluster_that_filled_it() {
        let store = Store::open("memory://").await.unwrap();
        let owner = source("prod", Some("c1"));
        claim(&store, "requests", &owner).await.unwrap();
        claim(&store, "requests", &owner).await.unwrap();
        claim(&store, "requests", &source("prod", None)).await.unwrap();
        claim(&store, "feedback", &source("other", Some("c2"))).await.unwrap();
        for stranger in [source("other", Some("c1")), source("prod", Some("c2"))] {
            let error = claim(&store, "requests", &stranger).await.unwrap_err();
            assert!(matches!(error, IngestError::OtherSource { .. }));
            let words = error.to_string();
            assert!(words.contains("from another job") && words.contains("c1"), "{words}");
        }
    }
}
