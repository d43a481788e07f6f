//! A real part of the tests that a script starts and stops: one server with a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A server that runs until this is dropped.
pub(crate) struct Script {
    script: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Script {
    /// Runs `<script> start`, the script given by its path below this crate, for a server called `part` in `WEIR_REQUIRE`.
    /// What it printed; `None` after saying why tests are skipped.
    pub(crate) fn start(part: &str, script: &str, folder: &Path) -> Option<(Self, String)> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let started = Self { script, folder: folder.join(part) };
        let output = started.output("start");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() == Some(3) {
            crate::skip(part, stdout.lines().last().unwrap_or("no server").trim_start_matches("skipped: "));
            return None;
        }
        assert!(output.status.success(), "{part} did not start: {stdout}{}", String::from_utf8_lossy(&output.stderr));
        Some((started, stdout))
    }

    /// Runs another command of the script on this server.
    pub(crate) fn run(&self, command: &str) {
        let output = self.output(command);
        let (script, stderr) = (self.script.display(), String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "{script} {command}: {stderr}");
    }

    fn output(&self, command: &str) -> Output {
        let output = Command::new("bash").arg(&self.script).args([command, "--dir"]).arg(&self.folder).output();
        output.expect("bash runs the script")
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.output("stop");
    }
}
