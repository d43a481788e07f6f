//! Where a reader that has no position yet can start.

use weir_store::{StoreError, Table};

/// The oldest version whose log entry is still there; the version after the newest one when none is.
///
/// Log retention removes entries from the oldest on, so the entries that are gone are a prefix, and bisection finds its
/// end in about `log2(versions)` reads.
///
/// # Errors
/// When the log cannot be read.
pub async fn oldest_version(table: &Table) -> Result<i64, StoreError> {
    let (mut gone_below, mut kept_from) = (0, table.version() + 1);
    let mut probe = 0;
    while gone_below < kept_from {
        match table.committed_ms(probe).await {
            Ok(_) => kept_from = probe,
            Err(StoreError::VersionGone { .. }) => gone_below = probe + 1,
            Err(error) => return Err(error),
        }
        probe = gone_below + (kept_from - gone_below) / 2;
    }
    Ok(kept_from)
}
