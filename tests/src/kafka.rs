//! A real Apache Kafka, started and stopped by `tests/kafka/kafka.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One broker with its own folder; stopped when dropped.
pub struct Kafka {
    script: PathBuf,
    folder: PathBuf,
    /// `host:port` of the broker.
    pub brokers: String,
}

impl Kafka {
    /// Starts a broker, or says why the test is skipped.
    #[must_use]
    pub fn start(folder: &Path) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/kafka.sh");
        let folder = folder.join("kafka");
        let output = Command::new("bash")
            .arg(&script)
            .args(["start", "--dir"])
            .arg(&folder)
            .output()
            .expect("bash runs the script");
        let stdout = String::from_utf8_lossy(&output.stdout);
        if output.status.code() == Some(3) {
            crate::skip("kafka", stdout.lines().last().unwrap_or("no Kafka").trim_start_matches("skipped: "));
            return None;
        }
        assert!(output.status.success(), "Kafka did not start: {stdout}{}", String::from_utf8_lossy(&output.stderr));
        let brokers = stdout.lines().last().unwrap_or_default().trim().to_owned();
        assert!(brokers.contains(':'), "the script's last line is host:port, not {brokers:?}");
        Some(Self { script, folder, brokers })
    }

    /// Stops the broker as an operator does. Its topics stay.
    pub fn stop(&self) {
        self.script("stop");
    }

    /// Kills the broker, which cannot prepare for it. Its topics stay.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.join("pid")).expect("the broker runs");
        let killed = Command::new("bash").args(["-c", &format!("kill -9 {}", pid.trim())]).status();
        assert!(killed.is_ok_and(|status| status.success()), "the broker cannot be killed");
    }

    /// Starts a broker that was stopped or killed, at the same address, and waits until it can serve.
    pub fn start_again(&self) {
        self.script("start");
    }

    fn script(&self, command: &str) {
        let output = Command::new("bash").arg(&self.script).args([command, "--dir"]).arg(&self.folder).output();
        let output = output.expect("bash runs the script");
        assert!(output.status.success(), "kafka.sh {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let stopped = Command::new("bash").arg(&self.script).args(["stop", "--dir"]).arg(&self.folder).output();
        if let Err(error) = stopped {
            eprintln!("Kafka was not stopped: {error}");
        }
    }
}
