//! What can go wrong with the tables, whose fault it is, and whether trying again helps.

use deltalake::DeltaTableError;

use crate::table::storage_trouble;

/// Who can mend an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The person or configuration that called us.
    User,
    /// A disk, a network, another process.
    Outside,
    /// A bug of ours.
    Ours,
}

/// Errors of the store. Messages never hold row values.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data folder cannot be used.
    #[error("cannot write to the data folder {place}: {why}; give a place that this user may write to")]
    Unwritable {
        /// The folder or URL as given.
        place: String,
        /// The operating system's or the object store's words.
        why: String,
    },
    /// The object store cannot be reached, or is in trouble.
    #[error("the object store of {place} does not answer: {why}; check its endpoint, or try again once it is there")]
    NoAnswer {
        /// The URL as given.
        place: String,
        /// The client's or the store's words.
        why: String,
    },
    /// The location is neither a path nor a URL that this build can open.
    #[error("cannot open the data folder {place}: {why}; give a path, or a URL of a store that this build supports")]
    BadLocation {
        /// The location as given.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file that holds an object store's credentials cannot be used.
    #[error("cannot use the credentials file {path}: {why}; give lines NAME=value, as in the environment")]
    Credentials {
        /// The file.
        path: String,
        /// What is wrong with it; never what it holds.
        why: String,
    },
    /// A Delta table lies at our table's place, but Weir did not make it.
    #[error("the Delta table at {place} was not made by weir as {table:?}; point weir at another data folder")]
    NotOurs {
        /// The table that was asked for.
        table: String,
        /// Where it lies.
        place: String,
    },
    /// The table has other columns, and they cannot be had beside each other.
    #[error(
        "table {table} in {place} was made with other columns ({difference}); use the weir version that made it, or another data folder"
    )]
    OtherSchema {
        /// The table.
        table: String,
        /// Where it lies.
        place: String,
        /// The first difference found.
        difference: String,
    },
    /// A derived table was made from another table of that name.
    #[error(
        "table {follower} was made from a table {table} that is no longer there: the one that is there was made anew or restored; move the folder of {follower} and {note} away, and it is made from this one"
    )]
    OtherTable {
        /// The followed table.
        table: String,
        /// The table made from it.
        follower: String,
        /// Where it is noted which one that was.
        note: String,
    },
    /// Compare-and-set failed: another writer moved the position.
    #[error(
        "table {table}: position {app_id} is at {found:?}, not at {expected:?}: another writer has moved it; read the positions again and go on from there"
    )]
    Fenced {
        /// The table.
        table: String,
        /// The application id whose position moved.
        app_id: String,
        /// Where this writer left it.
        expected: Option<i64>,
        /// Where it is.
        found: Option<i64>,
    },
    /// The store never said whether our last write landed.
    #[error("table {table}: the outcome of a commit is unknown ({why}); read the positions again before going on")]
    OutcomeUnknown {
        /// The table.
        table: String,
        /// The last error.
        why: String,
    },
    /// Other writers won every time.
    #[error("table {table}: {attempts} commits in a row lost the race to other writers; commit less often")]
    Contended {
        /// The table.
        table: String,
        /// How often we tried.
        attempts: usize,
    },
    /// Rows waited for their commit for so long that their files may have been removed as unneeded.
    #[error(
        "table {table}: rows that were written {hours} h ago and not committed may be gone by now; read the positions again and go on from there"
    )]
    Stale {
        /// The table.
        table: String,
        /// Since they were written.
        hours: u64,
    },
    /// A plan to remove files of one version met a later version that removes files.
    #[error("table {table}: another process removed files meanwhile; nothing was changed, the next round plans anew")]
    Superseded {
        /// The table.
        table: String,
    },
    /// The log no longer holds that version.
    #[error(
        "table {table}: version {version} is no longer in the log; `weir rebuild` makes the summaries anew from the rows"
    )]
    VersionGone {
        /// The table.
        table: String,
        /// The version asked for.
        version: i64,
    },
    /// The Delta log cannot be read.
    #[error("the log of table {table} in {place} is damaged: {why}; restore its _delta_log folder from a copy")]
    DamagedLog {
        /// The table.
        table: String,
        /// Where it lies.
        place: String,
        /// The reader's words.
        why: String,
    },
    /// A batch or an advance that no table could take.
    #[error("table {table}: cannot commit: {why}")]
    BadCommit {
        /// The table.
        table: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key file cannot be made or read.
    #[error("cannot use the key file {path}: {why}; give a keys folder that only this user can read and write")]
    Key {
        /// The file or folder.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another keys folder goes with this store.
    #[error(
        "the keys in {folder} are not those that this data is pseudonymised with; let every process of a store use one keys folder, or, if the other one is lost, delete {note}: pseudonyms then begin anew"
    )]
    OtherKeys {
        /// This process's folder.
        folder: String,
        /// Where the store says which one goes with it.
        note: String,
    },
    /// Sealed bytes do not open with their day's key.
    #[error(
        "sealed bytes of {day} do not open with that day's key: they were changed, or come from another keys folder"
    )]
    NotSealedHere {
        /// The day that the bytes were sealed on.
        day: String,
    },
    /// The object store failed.
    #[error("the object store failed: {0}")]
    Storage(#[from] deltalake::ObjectStoreError),
    /// The Delta library failed in another way.
    #[error("table {table}: {source}")]
    Delta {
        /// The table.
        table: String,
        /// The library's error.
        #[source]
        source: Box<DeltaTableError>,
    },
}

impl StoreError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unwritable { .. }
            | Self::BadLocation { .. }
            | Self::Credentials { .. }
            | Self::NotOurs { .. }
            | Self::OtherSchema { .. }
            | Self::OtherTable { .. }
            | Self::VersionGone { .. }
            | Self::NotSealedHere { .. }
            | Self::OtherKeys { .. }
            | Self::Key { .. } => Fault::User,
            Self::Fenced { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Contended { .. }
            | Self::Superseded { .. }
            | Self::Stale { .. }
            | Self::DamagedLog { .. }
            | Self::NoAnswer { .. }
            | Self::Storage(_)
            | Self::Delta { .. } => Fault::Outside,
            Self::BadCommit { .. } => Fault::Ours,
        }
    }

    /// Can the same call succeed later, without anybody mending anything? After [`StoreError::Fenced`] and
    /// [`StoreError::OutcomeUnknown`] only from re-read positions, never with the same rows blindly.
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        matches!(
            self,
            Self::Fenced { .. }
                | Self::OutcomeUnknown { .. }
                | Self::Contended { .. }
                | Self::Superseded { .. }
                | Self::Stale { .. }
                | Self::NoAnswer { .. }
                | Self::Storage(_)
                | Self::Delta { .. }
        )
    }

    /// A store that fails says so, whichever library asked it.
    pub(crate) fn delta(table: &str, source: DeltaTableError) -> Self {
        match storage_trouble(source) {
            Ok(trouble) => trouble,
            Err(source) => Self::Delta { table: table.to_owned(), source: Box::new(source) },
        }
    }

    pub(crate) fn bad_commit(table: &str, why: impl std::fmt::Display) -> Self {
        Self::BadCommit { table: table.to_owned(), why: why.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use deltalake::ObjectStoreError;

    use super::*;

    #[test]
    fn a_store_that_fails_below_the_delta_library_is_the_stores_trouble() {
        let generic = || ObjectStoreError::Generic { store: "S3", source: "connection reset".into() };
        let failed = StoreError::delta("requests", DeltaTableError::ObjectStore { source: generic() });
        assert!(matches!(failed, StoreError::Storage(_)) && failed.retry_helps(), "{failed}");
        let absent = ObjectStoreError::NotFound { path: "x".to_owned(), source: "gone".into() };
        let missing = StoreError::delta("requests", DeltaTableError::ObjectStore { source: absent });
        assert!(matches!(missing, StoreError::Delta { .. }), "{missing}");
        assert!(matches!(StoreError::delta("requests", DeltaTableError::InvalidVersion(3)), StoreError::Delta { .. }));
    }
}
