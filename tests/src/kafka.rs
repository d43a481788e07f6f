//! A real Apache Kafka, started and stopped by `tests/kafka/kafka.sh`.

use std::path::Path;
use std::process::Command;

use crate::script::Script;

/// One broker with its own folder; stopped when dropped.
pub struct Kafka {
    script: Script,
    /// `host:port` of the broker.
    pub brokers: String,
}

impl Kafka {
    /// Starts a broker, or says why the test is skipped.
    #[must_use]
    pub fn start(folder: &Path) -> Option<Self> {
        let (script, stdout) = Script::start("kafka", "kafka/kafka.sh", folder)?;
        let brokers = stdout.lines().last().unwrap_or_default().trim().to_owned();
        assert!(brokers.contains(':'), "the script's last line is host:port, not {brokers:?}");
        Some(Self { script, brokers })
    }

    /// Stops the broker as an operator does. Its topics stay.
    pub fn stop(&self) {
        self.script.run("stop");
    }

    /// Kills the broker, which cannot prepare for it. Its topics stay.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.script.folder.join("pid")).expect("the broker runs");
        let killed = Command::new("bash").args(["-c", &format!("kill -9 {}", pid.trim())]).status();
        assert!(killed.is_ok_and(|status| status.success()), "the broker cannot be killed");
    }

    /// Starts a broker that was stopped or killed, at the same address, and waits until it can serve.
    pub fn start_again(&self) {
        self.script.run("start");
    }
}
