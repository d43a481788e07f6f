//! A real S3 server, started and stopped by `tests/s3/s3.sh`.

use std::path::{Path, PathBuf};

use crate::script::Script;

/// One server with its own folder; stopped when dropped.
pub struct S3 {
    script: Script,
    /// `http://host:port` of the server.
    pub endpoint: String,
    /// What its clients need in their environment.
    pub environment: Vec<(String, String)>,
}

impl S3 {
    /// Starts a server, or says why the test is skipped.
    #[must_use]
    pub fn start(folder: &Path) -> Option<Self> {
        let (script, stdout) = Script::start("s3", "s3/s3.sh", folder)?;
        let endpoint = stdout.lines().last().unwrap_or_default().trim().to_owned();
        assert!(endpoint.starts_with("http://"), "the script's last line is the endpoint, not {endpoint:?}");
        let environment = stdout.lines().filter_map(|line| line.split_once('='));
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Self { script, endpoint, environment })
    }

    /// A place below the bucket that commands and stores may be given.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://weir/{prefix}")
    }

    /// Where the server keeps the bucket's objects, as files.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.script.folder.join("objects/weir")
    }

    /// The environment as a file, for `store.credentials`.
    #[must_use]
    pub fn credentials(&self) -> PathBuf {
        let path = self.script.folder.join("credentials");
        let lines: String = self.environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        std::fs::write(&path, lines).expect("the test folder is writable");
        path
    }
}
