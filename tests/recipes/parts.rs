//! What a recipe's test needs besides Kafka: the tool, the recipe's folder, processes that end with the test.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weir_tests::Weir;

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

/// The body of a page, by HTTP.
pub fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out above zero");
    let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers in UTF-8");
    answer
}

/// The sum of the series of a metric on a page of metrics, of those whose labels hold a text.
pub fn metric(port: u16, name: &str, labels: &str) -> f64 {
    let page = get(port, "/metrics");
    let of_name = page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let values =
        of_name.filter(|line| line.contains(labels)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// A page of metrics at a port of its own, for as long as the test process lives. What it holds depends on how often it
/// was asked for, from 1.
pub struct Exporter {
    pub port: u16,
    asked: Arc<AtomicUsize>,
}

impl Exporter {
    pub fn start(page: impl Fn(usize) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        let port = listener.local_addr().expect("it has an address").port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 4096];
                // Whoever connects and says nothing is looking whether the port is open.
                if !stream.read(&mut head).is_ok_and(|bytes| bytes > 0) {
                    continue;
                }
                let page = page(count.fetch_add(1, Ordering::Relaxed) + 1);
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    page.len()
                );
                // A scraper that goes away in the middle asks again.
                stream.write_all((head + &page).as_bytes()).ok();
            }
        });
        Self { port, asked }
    }

    /// How often the page was asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Passes connections on to a port and keeps what clients say, for as long as the test process lives.
pub struct Tap {
    pub port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        let port = listener.local_addr().expect("it has an address").port();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let ear = heard.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // With nobody behind it the connection ends at once, as without a tap.
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let pair =
                    (client.try_clone().expect("a stream can be shared"), server.try_clone().expect("and this one"));
                let ear = ear.clone();
                std::thread::spawn(move || {
                    pass(client, server, |bytes| ear.lock().expect("no thread panics").extend(bytes))
                });
                std::thread::spawn(move || pass(pair.1, pair.0, |_| ()));
            }
        });
        Self { port, heard }
    }

    /// Everything that clients said, as text.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().expect("no thread panics")).into_owned()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut hear: impl FnMut(&[u8])) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        hear(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // Either end closes both.
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
}

/// `weir bridge` at these ports, which creates its topics with one partition each.
pub fn bridge(weir: &Weir, ports: &[u16], folder: &Path) -> Running {
    let mut arguments = vec!["bridge".to_owned(), "--create-topics".to_owned(), "1".to_owned()];
    arguments.extend(ports.iter().flat_map(|port| ["--listen".to_owned(), format!("127.0.0.1:{port}")]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut bridge = Running::start("bridge", weir.command(&arguments), folder);
    let port = *ports.first().expect("a port");
    bridge.wait_for_port(port);
    // It listens before its topics are there, and answers after.
    bridge.wait_until("be ready", || get(port, "/readyz").starts_with("HTTP/1.1 200"));
    bridge
}
