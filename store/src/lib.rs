//! Delta tables and small objects in one data folder (or object store), with a commit that happens once or not at all.
//!
//! **In:** record batches, and a compare-and-set on named positions ([`Advance`]). **Out:** table versions that hold
//! both or neither ([`Table::commit`]), the rows that a version added ([`Table::appended`]) or that the table holds
//! ([`Table::live_rows`]), create-only objects ([`Store::put_new`]), and the keys that pseudonyms and dead letters are made with ([`Keyring`]).
//!
//! ```text
//! <root>/tables/<name>/            one Delta table each
//! <root>/upkeep/<name>/            which rounds of upkeep are taken
//! <root>/followers/<name>/         who follows that table's versions, so that its log is kept for them
//! <root>/sources/, policies/, ...  objects of the crates above
//! <root>/keys/folder               which keys folder goes with this store
//! <keys>/tenants/<hash>.key        a tenant's pseudonym key: shred it and the pseudonyms mean nothing
//! <keys>/deadletters/<day>.key     a day's dead-letter key: shred it and the bytes are gone
//! ```
//!
//! **Refuses to know:** Kafka, SQL, and what the rows mean.

mod appended;
mod backend;
mod columns;
mod commit;
mod day;
mod error;
mod folder;
mod head;
mod keyring;
mod live;
mod maintain;
mod store;
mod table;
mod upkeep;
mod write;

pub use backend::StoreOptions;
pub use commit::{Advance, Committed};
pub use day::UtcDay;
pub use error::{Fault, StoreError};
pub use keyring::Keyring;
pub use live::LiveFile;
pub use maintain::{Follower, Maintained};
pub use store::{PutNew, Store};
pub use table::{Table, TableSpec};
pub use upkeep::{Upkeep, Upkept};
pub use write::{RowsWriter, Written, writer_properties};

/// What this crate's functions return.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
