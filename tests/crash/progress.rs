//! How far a seed is, from the positions in its tables.

use weir_store::{Store, Table as Stored};

use crate::check::app_id;
use crate::series::Truth;
use crate::truth::{TABLES, TOPICS};

/// Follows the positions of a job.
pub struct Progress<'a> {
    store: Store,
    truth: &'a Truth,
    job: String,
    tables: Vec<Option<Stored>>,
}

impl<'a> Progress<'a> {
    pub fn of(store: Store, truth: &'a Truth, job: &str) -> Self {
        Self { store, truth, job: job.to_owned(), tables: TABLES.iter().map(|_| None).collect() }
    }

    /// Offsets that every table of their topic has dealt with, percent of all. A table that cannot be read just now counts
    /// as it was last.
    pub async fn percent(&mut self) -> u64 {
        for (table, known) in TABLES.iter().zip(&mut self.tables) {
            match known {
                Some(known) => {
                    known.refresh().await.ok();
                }
                None => *known = self.store.existing(table.name()).await.ok().flatten(),
            }
        }
        let (mut done, mut all) = (0, 0);
        for topic in TOPICS {
            for partition in 0..topic.partitions() {
                all += self.truth.ends[&(topic, partition)];
                let mut lowest = i64::MAX;
                for (table, known) in TABLES.iter().zip(&self.tables) {
                    if topic.feeds().contains(table) {
                        let position = match known {
                            Some(known) => known.position(&app_id(&self.job, topic, partition)).await.ok().flatten(),
                            None => None,
                        };
                        lowest = lowest.min(position.unwrap_or(0));
                    }
                }
                done += lowest;
            }
        }
        u64::try_from(done * 100 / all.max(1)).unwrap_or(0)
    }
}
