//! Cleans up when the harness is gone, however it went: a shell that waits for the end of a pipe from it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ends the noted processes that are still ours, the broker, the object store, and the folder with what is mounted in it.
///
/// A process that was started a moment ago may still be in `exec`, where it has no environment yet; one that is over has
/// no executable. So a running process without an environment is looked at again, for a second.
const CLEAN_UP: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
is_ours() {
    local environment tries
    for tries in {1..100}; do
        environment=$(tr '\0' '\n' <"/proc/$1/environ")
        [[ -z $environment && -e /proc/$1/exe ]] || break
        sleep 0.01
    done
    [[ $environment == *"$FOLDER"* ]]
}
while read -r pid; do
    is_ours "$pid" && kill -9 "$pid"
done 2>/dev/null <"$FOLDER/pids"
bash "$SCRIPTS/kafka/kafka.sh" stop --dir "$FOLDER/kafka" >/dev/null 2>&1
bash "$SCRIPTS/s3/s3.sh" stop --dir "$FOLDER/s3" >/dev/null 2>&1
grep -F " $FOLDER/" /proc/self/mounts | cut -d' ' -f2 | while read -r mounted; do umount --lazy "$mounted"; done
rm -rf -- "$FOLDER"
"#;

/// The shell; it starts to clean up when this is dropped, and is waited for.
pub struct Janitor {
    shell: Child,
    /// Where processes are noted.
    pub pids: PathBuf,
}

impl Janitor {
    /// Watches over a folder, in whose `kafka` and `s3` servers may run.
    pub fn of(folder: &Path) -> Self {
        let pids = folder.join("pids");
        std::fs::write(&pids, "").expect("the folder is writable");
        let shell = Command::new("bash")
            .args(["-c", CLEAN_UP])
            .env("FOLDER", folder)
            .env("SCRIPTS", env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::piped())
            .spawn()
            .expect("bash can be run");
        Self { shell, pids }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        if let Err(error) = self.shell.wait() {
            eprintln!("not cleaned up: {error}");
        }
    }
}

/// Notes a process that is ours. It must have the folder's name in its environment.
pub fn note(pids: &Path, pid: u32) {
    let noted = OpenOptions::new().append(true).open(pids).and_then(|mut file| writeln!(file, "{pid}"));
    noted.expect("a process can be noted");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_ends_and_the_folder_goes() {
        let folder = tempfile::tempdir().unwrap().keep();
        let janitor = Janitor::of(&folder);
        let mut ours = Command::new("sleep").arg("60").env("WEIR_CRASH_FOLDER", &folder).spawn().unwrap();
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        // As a process in `exec` looks, only for longer.
        let mut without_an_environment_yet = Command::new("bash")
            .args(["-c", "sleep 0.3; WEIR_CRASH_FOLDER=$0 exec sleep 60"])
            .arg(&folder)
            .env_clear()
            .spawn()
            .unwrap();
        for child in [&ours, &other, &without_an_environment_yet] {
            note(&janitor.pids, child.id());
        }
        drop(janitor);
        assert!(!ours.wait().unwrap().success());
        assert!(!without_an_environment_yet.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "a process that is not ours was ended");
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!folder.exists());
    }
}
