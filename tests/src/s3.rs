//! A real S3 server, started and stopped by `tests/s3/s3.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One server with its own folder; stopped when dropped.
pub struct S3 {
    script: PathBuf,
    folder: PathBuf,
    /// `http://host:port` of the server.
    pub endpoint: String,
    /// What its clients need in their environment.
    pub environment: Vec<(String, String)>,
}

impl S3 {
    /// Starts a server, or says why the test is skipped.
    #[must_use]
    pub fn start(folder: &Path) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("s3/s3.sh");
        let folder = folder.join("s3");
        let output = Command::new("bash")
            .arg(&script)
            .args(["start", "--dir"])
            .arg(&folder)
            .output()
            .expect("bash runs the script");
        let stdout = String::from_utf8_lossy(&output.stdout);
        if output.status.code() == Some(3) {
            crate::skip("s3", stdout.lines().last().unwrap_or("no S3 server").trim_start_matches("skipped: "));
            return None;
        }
        assert!(output.status.success(), "S3 did not start: {stdout}{}", String::from_utf8_lossy(&output.stderr));
        let endpoint = stdout.lines().last().unwrap_or_default().trim().to_owned();
        assert!(endpoint.starts_with("http://"), "the script's last line is the endpoint, not {endpoint:?}");
        let environment = stdout.lines().filter_map(|line| line.split_once('='));
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Self { script, folder, endpoint, environment })
    }

    /// A place below the bucket that commands and stores may be given.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://weir/{prefix}")
    }

    /// Where the server keeps the bucket's objects, as files.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.folder.join("objects/weir")
    }

    /// The environment as a file, for `store.credentials`.
    #[must_use]
    pub fn credentials(&self) -> PathBuf {
        let path = self.folder.join("credentials");
        let lines: String = self.environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        std::fs::write(&path, lines).expect("the test folder is writable");
        path
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let stopped = Command::new("bash").arg(&self.script).args(["stop", "--dir"]).arg(&self.folder).output();
        if let Err(error) = stopped {
            eprintln!("the S3 server was not stopped: {error}");
        }
    }
}
