//! Runs the `weir` binary as its users do.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// The binary, with a data folder of its own.
pub struct Weir {
    program: PathBuf,
    folder: PathBuf,
}

/// What a finished command left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// The last line of standard output, as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}\nstderr: {}", self.stderr))
    }

    /// The outcome itself, if the command exited with 0; panics with what it printed otherwise.
    #[expect(clippy::must_use_candidate, reason = "the check is the point; the value is for whoever wants to look on")]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "exit code {}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr);
        self
    }

    /// The one sentence on standard error.
    #[must_use]
    pub fn sentence(&self) -> &str {
        self.stderr.lines().find_map(|line| line.strip_prefix("weir: ")).unwrap_or_default()
    }
}

impl Weir {
    /// The binary that was built with these tests; tables and keys go below `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let mut target = std::env::current_exe().expect("a test has a path");
        target.pop(); // deps
        target.pop(); // profile
        let program = target.join("weir");
        assert!(program.is_file(), "{} is missing: run `cargo build -p weir` first", program.display());
        Self { program, folder: folder.to_owned() }
    }

    /// Another build of the binary; everything goes below `folder`, where `weir.toml` is the caller's to write.
    #[must_use]
    pub fn of_program(program: &Path, folder: &Path) -> Self {
        Self { program: program.to_owned(), folder: folder.to_owned() }
    }

    /// The binary itself.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The same with a folder of its own below `folder`, for tests that compare two.
    #[must_use]
    pub fn in_subfolder(folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("the test folder is writable");
        Self::new(&folder)
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Writes `weir.toml` into the folder; every later command reads it.
    pub fn configure(&self, toml: &str) {
        let head = format!(
            "[store]\nurl = \"{}\"\n[keys]\npath = \"{}\"\n",
            self.data().display(),
            self.folder.join("keys").display()
        );
        std::fs::write(self.folder.join("weir.toml"), head + toml).expect("the test folder is writable");
    }

    /// The command with these arguments, not yet started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).args(arguments).stdin(Stdio::null()).env("WEIR_LOG", "warn");
        command
    }

    /// Runs a command to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let output = self.command(arguments).output().expect("the binary starts");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a command and leaves it running.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts")
    }

    /// Starts a command that reads a topic, and waits until it has committed so many versions to `table`.
    #[must_use]
    pub fn start_until_committed(&self, arguments: &[&str], table: &str, commits: usize) -> Child {
        let enough = self.versions(table) + commits;
        let mut child = self.start(arguments);
        for _ in 0..6_000 {
            if self.versions(table) >= enough {
                return child;
            }
            let ended = child.try_wait().expect("a child can be asked");
            assert!(
                ended.is_none(),
                "{arguments:?} ended ({ended:?}) before it had committed {commits} versions to {table}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{arguments:?} has not committed {commits} versions to {table} in a minute");
    }

    /// Versions in the log of a table, its creation included; 0 when there is no table yet.
    #[must_use]
    pub fn versions(&self, table: &str) -> usize {
        let log = self.data().join("tables").join(table).join("_delta_log");
        let Ok(entries) = std::fs::read_dir(log) else { return 0 };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.len() == 25 && name.ends_with(".json")).count()
    }

    /// Rows of a query, as JSON objects.
    #[must_use]
    pub fn sql(&self, query: &str) -> Vec<Value> {
        let outcome = self.run(&["sql", "--format", "json", query]).ok();
        serde_json::from_str(outcome.stdout.trim())
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", outcome.stdout))
    }

    /// The one number that a query returns.
    #[must_use]
    pub fn number(&self, query: &str) -> f64 {
        let rows = self.sql(query);
        let row = rows.first().and_then(Value::as_object).unwrap_or_else(|| panic!("no row from {query}"));
        row.values().next().and_then(Value::as_f64).unwrap_or_else(|| panic!("no number from {query}: {row:?}"))
    }
}
