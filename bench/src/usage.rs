//! What this process has used, as the kernel counts it.

use std::time::{Duration, Instant};

/// Kernel ticks per second in `/proc`: 100 on every Linux that we build for (`USER_HZ`).
const TICKS_PER_S: u64 = 100;

/// A point in time and in CPU use.
pub struct Mark {
    wall: Instant,
    cpu: Duration,
}

/// What happened since a [`Mark`].
pub struct Used {
    /// Wall-clock time, s.
    pub wall_s: f64,
    /// User and system time of the whole process, s.
    pub cpu_s: f64,
}

impl Mark {
    pub fn now() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    pub fn used(&self) -> Used {
        Used { wall_s: self.wall.elapsed().as_secs_f64(), cpu_s: (cpu_time() - self.cpu).as_secs_f64() }
    }
}

/// User and system time of the process, threads that have ended included (`proc(5)`, fields 14 and 15 of stat).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_S)
}

/// Largest resident set so far, MiB (`VmHWM`).
pub fn rss_peak_mib() -> f64 {
    status_mib("VmHWM:")
}

/// Resident set, MiB (`VmRSS`).
pub fn rss_now_mib() -> f64 {
    status_mib("VmRSS:")
}

fn status_mib(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    let kib: f64 = line.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}
