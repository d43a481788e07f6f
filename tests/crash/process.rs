//! One `weir run` of the group: started, hit, and read when it has ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use weir_tests::Weir;

/// How long a process may take to end after SIGTERM.
pub const STOPS_WITHIN: Duration = Duration::from_secs(120);

/// A process, and what was done to it.
pub struct Process {
    child: Child,
    log: PathBuf,
    pub hit: Hit,
}

/// What was done to a process last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    Nothing,
    Killed,
    Frozen,
    Asked { at: Instant },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself, with all its work done.
    Drained,
    /// Because it was killed or asked to.
    AsWished,
    /// By itself, with a sentence that blames something outside.
    Gave(String),
    /// In a way that it must not, and how.
    Wrong(String),
}

impl Process {
    pub fn start(weir: &Weir, log: &Path, pids: &Path) -> Self {
        let errors = File::create(log).expect("the logs' folder is writable");
        let mut command = weir.command(&["run", "--until-drained", "--no-http"]);
        command.env("WEIR_LOG", "warn,weir_store=info,weir_ingest=info").stdout(std::process::Stdio::null());
        command.env("WEIR_CRASH_FOLDER", pids.parent().expect("they are noted in a folder"));
        let child = command.stderr(errors).spawn().expect("the binary starts");
        crate::janitor::note(pids, child.id());
        Self { child, log: log.to_owned(), hit: Hit::Nothing }
    }

    pub fn runs(&self) -> bool {
        self.hit == Hit::Nothing
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("SIGKILL reaches a child");
        self.hit = Hit::Killed;
    }

    pub fn ask_to_stop(&mut self) {
        self.signal("TERM");
        self.hit = Hit::Asked { at: Instant::now() };
    }

    pub fn freeze(&mut self) {
        self.signal("STOP");
        self.hit = Hit::Frozen;
    }

    pub fn wake(&mut self) {
        self.signal("CONT");
        self.hit = Hit::Nothing;
    }

    /// Bash's own `kill`: the program of that name is not everywhere.
    fn signal(&self, name: &str) {
        let sent =
            std::process::Command::new("bash").args(["-c", &format!("kill -{name} {}", self.child.id())]).output();
        assert!(sent.is_ok(), "bash cannot be run");
    }

    /// How it ended, if it has. `excuses` are words of which one is in its sentence if that blames what was in trouble.
    pub fn ended(&mut self, excuses: &[&str]) -> Option<End> {
        let Some(status) = self.child.try_wait().expect("a child can be asked") else {
            let Hit::Asked { at } = self.hit else { return None };
            let overdue = at.elapsed() > STOPS_WITHIN;
            return overdue.then(|| End::Wrong(format!("did not stop in {} s", STOPS_WITHIN.as_secs())));
        };
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        Some(judge(self.hit, status, &text, excuses))
    }

    /// Ends it, whatever it does.
    pub fn abandon(&mut self) {
        let gone = self.child.kill().and_then(|()| self.child.wait());
        assert!(gone.is_ok(), "a child cannot be ended");
    }
}

fn judge(hit: Hit, status: ExitStatus, log: &str, excuses: &[&str]) -> End {
    use std::os::unix::process::ExitStatusExt;
    if let Some(panic) = log.lines().find(|line| line.contains("panicked at")) {
        return End::Wrong(format!("panicked: {panic}"));
    }
    let sentence = log.lines().rev().find_map(|line| line.strip_prefix("weir: ")).unwrap_or_default();
    match (hit, status.code(), status.signal()) {
        (Hit::Killed, _, Some(9)) => End::AsWished,
        // Before it listens to signals, SIGTERM ends it without a word.
        (Hit::Asked { .. }, Some(0), _) | (Hit::Asked { .. }, _, Some(15)) => End::AsWished,
        (Hit::Nothing | Hit::Killed, Some(0), _) => End::Drained,
        (_, Some(3), _) if excuses.iter().any(|words| sentence.contains(words)) => End::Gave(sentence.to_owned()),
        (_, Some(code), _) => End::Wrong(format!("ended with {code}: {sentence}")),
        (_, None, signal) => End::Wrong(format!("ended by signal {signal:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn only_what_was_wished_or_blames_what_was_in_trouble_is_well() {
        let asked = Hit::Asked { at: Instant::now() };
        assert_eq!(judge(Hit::Nothing, exit(0), "", &[]), End::Drained);
        assert_eq!(judge(asked, exit(0), "", &[]), End::AsWished);
        assert_eq!(judge(Hit::Killed, ExitStatus::from_raw(9), "", &[]), End::AsWished);
        let sentence = "{\"level\":\"WARN\"}\nweir: the disk is full\n";
        assert_eq!(judge(Hit::Nothing, exit(3), sentence, &["disk"]), End::Gave("the disk is full".to_owned()));
        for wrong in [
            judge(Hit::Nothing, exit(3), sentence, &[]),
            judge(Hit::Nothing, exit(3), sentence, &["Kafka"]),
            judge(Hit::Nothing, exit(2), sentence, &["disk"]),
            judge(Hit::Nothing, exit(3), "", &["disk"]),
            judge(Hit::Nothing, ExitStatus::from_raw(6), "", &["disk"]),
            judge(Hit::Nothing, exit(0), "thread 'main' panicked at store/src/lib.rs:1:1:\nno\n", &["no"]),
        ] {
            assert!(matches!(wrong, End::Wrong(_)), "{wrong:?}");
        }
    }
}
