//! Threads that queries run on, apart from those that answer the network: one step of a join may keep a thread for seconds, and
//! then nobody could cancel it, log in, or ask for metrics.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::SqlError;

/// The threads, started with the first query. As many as the machine has cores.
pub(super) fn handle() -> Result<&'static Handle, SqlError> {
    static THREADS: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let started = THREADS.get_or_init(|| {
        let threads = Builder::new_multi_thread().thread_name("weir-query").enable_all().build();
        threads.map_err(|error| error.to_string())
    });
    match started {
        Ok(threads) => Ok(threads.handle()),
        Err(why) => Err(SqlError::Failed(format!("the threads of queries cannot be started: {why}"))),
    }
}
