//! What a recipe's test needs besides Kafka: the tool, the recipe's folder, processes that end with the test.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a JVM or a Python to start on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The folder of a tool of `tool.sh`, or `None` after saying why the test is skipped.
pub fn tool(name: &str) -> Option<PathBuf> {
    let output = Command::new("bash").arg(here("tool.sh")).arg(name).output().expect("bash runs the script");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    if output.status.code() == Some(3) {
        weir_tests::skip("recipes", last.trim_start_matches("skipped: "));
        return None;
    }
    assert!(output.status.success(), "tool.sh {name}: {}", String::from_utf8_lossy(&output.stderr));
    Some(PathBuf::from(last))
}

/// A file beside these tests.
pub fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(name)
}

/// A folder of `deploy/recipes`.
pub fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/recipes").join(name)
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
    listener.local_addr().expect("it has an address").port()
}

/// A process that is asked to end, and waited for, when the test is over. Its output goes to a file.
pub struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
    removes: Option<PathBuf>,
}

impl Running {
    /// Starts a command; its output goes to `NAME.log` in `folder`.
    pub fn start(name: &'static str, mut command: Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).expect("the test folder is writable");
        let err = out.try_clone().expect("a file can be shared");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        Self { name, child: child.unwrap_or_else(|error| panic!("{name} does not start: {error}")), log, removes: None }
    }

    /// Takes a folder away when the process has ended.
    pub fn removes(&mut self, folder: PathBuf) {
        self.removes = Some(folder);
    }

    /// Waits until `ready` says so, as long as the process runs.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let began = Instant::now();
        while !ready() {
            let ended = self.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "{} ended before {what}: {}", self.name, self.said());
            assert!(began.elapsed() < PATIENCE, "{} took too long to {what}: {}", self.name, self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until something listens on a port.
    pub fn wait_for_port(&mut self, port: u16) {
        self.wait_until("listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    /// Asks it to end as an operator does, and waits until it has.
    pub fn stop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "{} cannot be asked to end", self.name);
        let began = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if began.elapsed() > Duration::from_secs(30) {
                self.child.kill().expect("a child can be killed");
                self.child.wait().expect("it is gone");
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything that it printed.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(folder) = &self.removes {
            drop(std::fs::remove_dir_all(folder));
        }
    }
}

/// A standard input that holds a text.
pub fn holding(text: &str) -> Stdio {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it can be written to");
    file.rewind().expect("and read from its beginning");
    file.into()
}

/// Sends JSON by HTTP; returns the status and the body.
pub fn post(port: u16, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out above zero");
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers in UTF-8");
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or_else(|| panic!("no HTTP: {answer}")), answer)
}
