//! Housekeeping off the hot path: checkpoints, so that loading stays short, and log clean-up behind them.

use deltalake::checkpoints::{cleanup_metadata, create_checkpoint};
use object_store::ObjectStoreExt;

use crate::table::Table;
use crate::{Result, StoreError};

/// Versions between checkpoints.
const CHECKPOINT_EVERY: i64 = 100;

/// What one round of maintenance did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// The version that a checkpoint was written for.
    pub checkpoint: Option<i64>,
    /// Expired log files that were removed.
    pub log_files_removed: usize,
}

impl Table {
    /// Writes a checkpoint when the newest version is 100 or more past the last one, then removes log files that are
    /// both older than the log's retention and covered by a checkpoint. Safe beside writers and beside itself.
    ///
    /// # Errors
    /// [`StoreError::Delta`]; no rows are at risk and the next round tries again.
    pub async fn maintain(&mut self) -> Result<Maintained> {
        self.refresh().await?;
        if self.version() - self.last_checkpoint().await? < CHECKPOINT_EVERY {
            return Ok(Maintained::default());
        }
        let failed = |error| StoreError::delta(&self.name, error);
        create_checkpoint(&self.delta, None).await.map_err(failed)?;
        let log_files_removed = cleanup_metadata(&self.delta, None).await.map_err(failed)?;
        metrics::counter!("weir_store_checkpoints_total", "table" => self.name.clone()).increment(1);
        tracing::info!(table = self.name, version = self.version(), log_files_removed, "checkpoint written");
        Ok(Maintained { checkpoint: Some(self.version()), log_files_removed })
    }

    /// The version named by `_last_checkpoint`; 0, the table's creation, when there is none or it cannot be read (a
    /// hint that is wrong costs one checkpoint, no more).
    async fn last_checkpoint(&self) -> Result<i64> {
        let log = self.delta.log_store();
        let path = log.log_path().clone().join("_last_checkpoint");
        match self.delta.object_store().get(&path).await {
            Ok(found) => {
                let hint: Option<serde_json::Value> = serde_json::from_slice(&found.bytes().await?).ok();
                Ok(hint.and_then(|hint| hint.get("version")?.as_i64()).unwrap_or(0))
            }
            Err(deltalake::ObjectStoreError::NotFound { .. }) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}
