//! How much memory queries may use: all sessions of a process together, so that a heavy query fails or spills to disk and
//! the stream beside it goes on.

use std::sync::{Arc, LazyLock};

use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

use crate::FeaturesError;

const MIB: u64 = 1 << 20;
/// More than this helps few queries, and hides the ones that should aggregate first.
const MOST: u64 = 8_192 * MIB;
/// Less than this fails queries that are no trouble.
const LEAST: u64 = 256 * MIB;
/// Where the kernel tells how much memory there is.
const MACHINE: &str = "/proc/meminfo";
const CONTAINER: &str = "/sys/fs/cgroup/memory.max";

/// One pool for the process. Operators that can spill get equal parts of it.
static POOL: LazyLock<Arc<dyn MemoryPool>> = LazyLock::new(|| {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let limit = limit_bytes(&read(MACHINE), &read(CONTAINER));
    tracing::debug!(limit_mib = limit / MIB, "queries share this much memory");
    Arc::new(FairSpillPool::new(usize::try_from(limit).unwrap_or(usize::MAX)))
});

/// A runtime for one session: the process's memory, object stores of its own, and a folder for what does not fit, in the
/// system's temporary folder, gone with the session.
pub(crate) fn runtime() -> Result<Arc<RuntimeEnv>, FeaturesError> {
    Ok(RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&POOL)).build_arc()?)
}

/// Half of the machine's memory, or of the container's if that is less, between [`LEAST`] and [`MOST`].
fn limit_bytes(meminfo: &str, memory_max: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let machine =
        total.and_then(|kib| kib.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).map(|kib| kib * 1024);
    let container = memory_max.trim().parse::<u64>().ok();
    let memory = [machine, container].into_iter().flatten().min().unwrap_or(4 * LEAST);
    (memory / 2).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR_GIB: &str = "MemTotal:        4194304 kB\nMemFree:          200000 kB\n";

    #[test]
    fn half_of_what_there_is_and_of_the_container_if_that_is_less() {
        assert_eq!(limit_bytes(FOUR_GIB, "max\n"), 2_048 * MIB);
        assert_eq!(limit_bytes(FOUR_GIB, "1073741824\n"), 512 * MIB);
        assert_eq!(limit_bytes("", ""), 512 * MIB, "a system that does not tell");
        assert_eq!(limit_bytes("MemTotal: 999999999 kB", ""), MOST);
        assert_eq!(limit_bytes("MemTotal: 1000 kB", ""), LEAST);
    }
}
