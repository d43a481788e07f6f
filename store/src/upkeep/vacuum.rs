//! Files that no version needs.
//!
//! A file may be in need although the newest version does not name it: a reader that began before it was removed, a writer
//! that has not committed it yet, a follower that has not come to its version. So what stays is
//! - what the newest version names, as loaded *after* the files were listed;
//! - what is younger than the log's retention, whether it was committed or not;
//! - what any entry of the log names, as added or as removed. The log is kept for its retention (days), and longer for
//!   followers that lag, so no version that can be followed loses a file.

use std::collections::HashMap;
use std::time::Duration;

use deltalake::kernel::Action;
use deltalake::table::config::TablePropertiesExt;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::{Upkeep, Upkept};
use crate::Result;
use crate::day::now_ms;
use crate::folder;
use crate::table::Table;

/// Entries of the log that are read at a time.
const READ_AHEAD: usize = 16;

impl Table {
    pub(super) async fn vacuum(&mut self, upkeep: &Upkeep, done: &mut Upkept) -> Result<()> {
        let retention: Duration = self.head().table_properties().log_retention_duration();
        let before_ms = now_ms() - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        if !upkeep.dry_run {
            self.remove_drafts(retention, done).await?;
        }
        let mut unneeded = self.files_older_than(before_ms).await?;
        if unneeded.is_empty() {
            return Ok(());
        }
        self.refresh().await?;
        for file in self.data_files().await? {
            unneeded.remove(&file.location);
        }
        self.spare_what_the_log_names(&mut unneeded).await?;
        done.vacuumed_files += unneeded.len() as u64;
        done.vacuumed_bytes += unneeded.values().sum::<u64>();
        if !upkeep.dry_run {
            let objects = self.objects();
            for location in unneeded.keys() {
                match objects.delete(location).await {
                    // Another vacuum was quicker.
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// In a folder, what writers that were killed left half-written. Object stores keep parts of an upload where no listing
    /// shows them; there it is a rule of the bucket that removes them.
    async fn remove_drafts(&self, age: Duration, done: &mut Upkept) -> Result<()> {
        let root = self.log.root_url();
        let Some(folder) = root.to_file_path().ok().filter(|_| root.scheme() == "file") else { return Ok(()) };
        let removed = folder::remove_drafts(folder, age).await;
        let (files, bytes) = removed
            .map_err(|error| object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(error) })?;
        done.vacuumed_files += files;
        done.vacuumed_bytes += bytes;
        Ok(())
    }

    /// Data files with their bytes, by the store's own times. Folders of the log and hidden ones are not data.
    async fn files_older_than(&self, before_ms: i64) -> Result<HashMap<Path, u64>> {
        let objects = self.objects();
        let mut found = HashMap::new();
        let mut listing = objects.list(None);
        while let Some(meta) = listing.try_next().await? {
            let hidden = meta.location.parts().any(|part| part.as_ref().starts_with(['_', '.']));
            if !hidden && meta.last_modified.timestamp_millis() < before_ms {
                found.insert(meta.location, meta.size);
            }
        }
        Ok(found)
    }

    /// Walks the log back from the newest entry to the oldest that is there.
    async fn spare_what_the_log_names(&self, unneeded: &mut HashMap<Path, u64>) -> Result<()> {
        let versions = (0..=self.head().version).rev();
        let mut entries = stream::iter(versions).map(|version| self.read_commit(version)).buffered(READ_AHEAD);
        while let Some(entry) = entries.try_next().await? {
            let Some(entry) = entry else { return Ok(()) };
            for action in entry.actions() {
                let path = match action {
                    Action::Add(add) => &add.path,
                    Action::Remove(remove) => &remove.path,
                    _ => continue,
                };
                unneeded.remove(&Path::from(path.as_str()));
            }
            if unneeded.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }
}
