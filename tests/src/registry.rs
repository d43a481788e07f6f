//! A small schema registry: what Confluent's serializers and readers ask of one, in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// A registry at a port of its own; it serves for as long as the process lives.
pub struct SchemaRegistry {
    /// `http://host:port`.
    pub url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What was registered; the id is the place, from 1.
    schemas: Vec<Value>,
    /// Subject and id; the version is the place among those of its subject, from 1.
    versions: Vec<(String, usize)>,
}

impl SchemaRegistry {
    /// Starts an empty one.
    #[must_use]
    pub fn start() -> Self {
        Self::start_for(None)
    }

    /// Starts an empty one that lets in whoever sends this `Authorization`.
    #[must_use]
    pub fn guarded(authorization: &str) -> Self {
        Self::start_for(Some(authorization.to_owned()))
    }

    fn start_for(authorization: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let state = Arc::<Mutex<State>>::default();
        let served = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in the middle is its own affair.
                serve(stream, &served, authorization.as_deref()).ok();
            }
        });
        Self { url, state }
    }

    /// Registers a schema as `POST /subjects/{subject}/versions` does; its id.
    #[must_use]
    pub fn register(&self, subject: &str, schema: Value) -> u32 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        u32::try_from(state.register(subject, schema)).expect("a test registers few schemas")
    }
}

impl State {
    fn register(&mut self, subject: &str, schema: Value) -> usize {
        let known = self.schemas.iter().position(|known| *known == schema);
        let id = 1 + known.unwrap_or_else(|| {
            self.schemas.push(schema);
            self.schemas.len() - 1
        });
        if !self.versions.iter().any(|version| *version == (subject.to_owned(), id)) {
            self.versions.push((subject.to_owned(), id));
        }
        id
    }

    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> Option<Value> {
        let parts: Vec<&str> = path.split('?').next()?.trim_matches('/').split('/').collect();
        match (method, &parts[..]) {
            ("POST", ["subjects", subject, "versions"]) => {
                let schema = serde_json::from_slice(body).ok()?;
                Some(json!({ "id": self.register(subject, schema) }))
            }
            // A GUID holds the id.
            ("GET", ["schemas", "guids", guid]) => {
                let id = usize::from_str_radix(guid.rsplit('-').next()?, 16).ok()?;
                self.schemas.get(id.checked_sub(1)?).cloned()
            }
            ("GET", ["schemas", "ids", id]) => self.schemas.get(id.parse::<usize>().ok()?.checked_sub(1)?).cloned(),
            ("GET", ["subjects", subject, "versions", version]) => {
                let of_subject: Vec<_> = self.versions.iter().filter(|(named, _)| named == subject).collect();
                let version = if *version == "latest" { of_subject.len() } else { version.parse().ok()? };
                let (_, id) = of_subject.get(version.checked_sub(1)?)?;
                let mut schema = self.schemas[id - 1].clone();
                schema["id"] = json!(id);
                schema["version"] = json!(version);
                Some(schema)
            }
            _ => None,
        }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, authorization: Option<&str>) -> std::io::Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    input.read_line(&mut first)?;
    let mut length = 0;
    let mut let_in = authorization.is_none();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        } else if name.eq_ignore_ascii_case("authorization") {
            let_in = let_in || authorization == Some(value.trim());
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = if let_in { state.answer(method, path, &body) } else { None };
    let refusal = |code: u32, message: &str| json!({ "error_code": code, "message": message }).to_string();
    let (status, text) = match answer {
        Some(answer) => ("200 OK", answer.to_string()),
        None if !let_in => ("401 Unauthorized", refusal(401, "not let in")),
        None if path.starts_with("/subjects/") => ("404 Not Found", refusal(40_401, "no such subject")),
        None => ("404 Not Found", refusal(40_403, "no such schema")),
    };
    let length = text.len();
    (&stream).write_all(
        format!("HTTP/1.1 {status}\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}").as_bytes(),
    )
}
