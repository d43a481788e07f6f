//! What the end-to-end tests share: the binary under test, a real Apache Kafka, a real S3 server, the public data sets.
//!
//! A part that is missing makes a test print `skipped: <why>` and return. `WEIR_REQUIRE=kafka,s3,shared` turns such a skip
//! into a failure, so that a machine that can get the parts cannot pass without them.

mod binary;
mod kafka;
mod reference;
mod registry;
mod s3;
mod script;
mod shared;

pub use binary::{Outcome, Weir};
pub use kafka::Kafka;
pub use reference::{open_bandit, reference};
pub use registry::SchemaRegistry;
pub use s3::S3;
pub use shared::{shared, shared_data};

/// Says why a test did not run, or fails it when `WEIR_REQUIRE` names the part.
pub fn skip(part: &str, why: &str) {
    let required = std::env::var("WEIR_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name.trim() == part), "{part} is required here but missing: {why}");
    eprintln!("skipped: {why}");
}
