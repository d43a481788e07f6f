//! An HTTP proxy in front of an object store that misbehaves on demand: for a while it refuses, hangs up, forgets or
//! delays answers, or delivers a write after its sender has given up.
//!
//! It speaks as much HTTP/1.1 as clients of an object store do: bodies with a length, one request after the other on a
//! connection. To the server it says `Connection: close`, so an answer ends where the connection does.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::schedule::Trouble;
use crate::truth::mix;

/// How long clients wait for an answer; what is late is later than that.
pub const CLIENT_WAITS_S: u64 = 3;
const TOO_LATE: Duration = Duration::from_millis(CLIENT_WAITS_S * 1_000 + 700);
const CRAWL: Duration = Duration::from_millis(250);
const REFUSAL: &[u8] = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The proxy; it ends with the harness.
pub struct Proxy {
    /// `http://host:port` of it.
    pub endpoint: String,
    state: Arc<State>,
}

struct State {
    upstream: String,
    trouble: Mutex<Option<Trouble>>,
    requests: AtomicU64,
    disturbed: AtomicU64,
}

impl Proxy {
    /// A proxy for `http://host:port`, well until told otherwise.
    pub fn start(endpoint: &str) -> Self {
        let upstream = endpoint.strip_prefix("http://").expect("a plain endpoint").to_owned();
        let state = Arc::new(State {
            upstream,
            trouble: Mutex::new(None),
            requests: AtomicU64::new(0),
            disturbed: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it has an address"));
        let serving = state.clone();
        std::thread::spawn(move || runtime.block_on(serve(listener, serving)));
        Self { endpoint, state }
    }

    /// From now on it misbehaves in this way, or in none.
    pub fn misbehave(&self, how: Option<Trouble>) {
        *self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner) = how;
    }

    /// Requests that were disturbed so far.
    pub fn disturbed(&self) -> u64 {
        self.state.disturbed.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        let state = state.clone();
        // A connection that fails is one that somebody has left.
        tokio::spawn(async move { relay(client, &state).await.ok() });
    }
}

async fn relay(mut client: TcpStream, state: &State) -> io::Result<()> {
    client.set_nodelay(true)?;
    let Some(request) = read_request(&mut client).await? else { return Ok(()) };
    let how = state.draw(&request);
    if how.is_some() {
        state.disturbed.fetch_add(1, Ordering::SeqCst);
    }
    match how {
        Some(Trouble::IsGone | Trouble::HangsUp) => return Ok(()),
        Some(Trouble::Refuses) => return client.write_all(REFUSAL).await,
        Some(Trouble::Crawls) => tokio::time::sleep(CRAWL).await,
        Some(Trouble::DeliversTooLate) => tokio::time::sleep(TOO_LATE).await,
        _ => {}
    }
    let answer = forward(&state.upstream, &request).await?;
    match how {
        Some(Trouble::ForgetsToAnswer | Trouble::DeliversTooLate) => return Ok(()),
        Some(Trouble::AnswersTooLate) => tokio::time::sleep(TOO_LATE).await,
        _ => {}
    }
    client.write_all(&answer).await?;
    // The answer says `Connection: close`, as we asked the server to.
    client.shutdown().await
}

impl State {
    /// What is done to this request.
    fn draw(&self, request: &[u8]) -> Option<Trouble> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let trouble = (*self.trouble.lock().unwrap_or_else(PoisonError::into_inner))?;
        let writes = !(request.starts_with(b"GET ") || request.starts_with(b"HEAD "));
        let half = mix(number).is_multiple_of(2);
        let hit = match trouble {
            Trouble::Crawls | Trouble::IsGone => true,
            Trouble::Refuses | Trouble::HangsUp => half,
            Trouble::ForgetsToAnswer | Trouble::AnswersTooLate | Trouble::DeliversTooLate => writes && half,
        };
        hit.then_some(trouble)
    }
}

/// One request, head and body; `None` when the client has no more.
async fn read_request(client: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    let body_at = loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    };
    let length = content_length(&request[..body_at]);
    while request.len() < body_at + length {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(request))
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

async fn forward(upstream: &str, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream).await?;
    let first_line = request.windows(2).position(|window| window == b"\r\n").map_or(request.len(), |end| end + 2);
    server.write_all(&request[..first_line]).await?;
    server.write_all(b"connection: close\r\n").await?;
    server.write_all(&request[first_line..]).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// A server that answers every request with the number of requests that it has seen.
    fn server() -> (String, Arc<AtomicU64>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(AtomicU64::new(0));
        let counter = seen.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let mut request = String::new();
                while !(request.ends_with("body") || request.starts_with("GET") && request.ends_with("\r\n\r\n")) {
                    let mut some = [0; 512];
                    let read = client.read(&mut some).unwrap();
                    request.push_str(std::str::from_utf8(&some[..read]).unwrap());
                }
                assert!(request.contains("connection: close"));
                counter.fetch_add(1, Ordering::SeqCst);
                client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").unwrap();
            }
        });
        (endpoint, seen)
    }

    fn ask(proxy: &Proxy, request: &str) -> String {
        let mut client = std::net::TcpStream::connect(proxy.endpoint.strip_prefix("http://").unwrap()).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).ok();
        answer
    }

    #[test]
    fn each_trouble_is_what_it_says() {
        let (endpoint, seen) = server();
        let proxy = Proxy::start(&endpoint);
        let put = "PUT /a HTTP/1.1\r\ncontent-length: 4\r\nhost: x\r\n\r\nbody";
        assert!(ask(&proxy, put).ends_with("ok"));
        assert_eq!((seen.load(Ordering::SeqCst), proxy.disturbed()), (1, 0));

        // Half of them are hit: of twenty some are and some are not.
        for (how, hit, is_delivered) in [
            (Trouble::Refuses, "HTTP/1.1 503", false),
            (Trouble::HangsUp, "", false),
            (Trouble::ForgetsToAnswer, "", true),
        ] {
            let (before, disturbed) = (seen.load(Ordering::SeqCst), proxy.disturbed());
            proxy.misbehave(Some(how));
            let answers: Vec<String> = (0..20).map(|_| ask(&proxy, put)).collect();
            let well = answers.iter().filter(|answer| answer.ends_with("ok")).count() as u64;
            let hits = proxy.disturbed() - disturbed;
            assert!(well > 0 && hits > 0 && well + hits == 20, "{how:?}: {well} well, {hits} hit");
            assert!(answers.iter().filter(|answer| !answer.ends_with("ok")).all(|answer| answer.starts_with(hit)));
            let delivered = seen.load(Ordering::SeqCst) - before;
            assert_eq!(delivered, if is_delivered { 20 } else { well }, "{how:?}");
        }
        let reads = "GET /a HTTP/1.1\r\nhost: x\r\n\r\n";
        assert!((0..10).all(|_| ask(&proxy, reads).ends_with("ok")), "only answers to writes are forgotten");
        proxy.misbehave(Some(Trouble::IsGone));
        assert_eq!(ask(&proxy, reads), "");
        proxy.misbehave(None);
        assert!(ask(&proxy, reads).ends_with("ok"));
    }
}
