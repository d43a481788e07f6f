//! Schemas from a registry that speaks Confluent's HTTP interface.
//!
//! An id's schema never changes, so what was read once is kept for as long as the process lives. A registry that does not
//! answer, or does not know an id yet, is asked again for a while; then the run ends with the error, and another run goes
//! on from the positions in the tables. The token or password stands in a file, read anew when access is refused, and is
//! never said.

mod check;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use weir_decode::{RegisteredSchema, SchemaId, SchemaLanguage, SchemaSource, SchemaTrouble};

use crate::{IngestError, Result, events};

pub use check::{LatestSchema, TopicSchema, probe_schemas};

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Pauses between attempts: an outage of some seconds is waited out.
const PAUSES_MS: [u64; 5] = [100, 300, 1_000, 3_000, 5_000];
/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// References of a schema, direct and indirect: more is a circle or a mistake.
const REFERENCES_MAX: usize = 256;
/// What a registry adds to status 404 when it knows no such subject, or no version of it. Without one of them the 404 may
/// be of a server that is no registry at all.
const NO_SUBJECT: [i64; 2] = [40_401, 40_402];

/// A schema registry, and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// `http://host:port` or `https://host`, with a path where it has one.
    pub url: String,
    /// How to be let in.
    pub access: RegistryAccess,
}

/// How a registry lets us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryAccess {
    /// It lets anybody in.
    Open,
    /// File whose first line is `user:password`.
    Basic(PathBuf),
    /// File whose first line is a bearer token.
    Bearer(PathBuf),
}

impl RegistryConfig {
    pub(crate) fn check(&self) -> Result<()> {
        let address: Option<ureq::http::Uri> = self.url.parse().ok();
        let scheme = address.as_ref().and_then(|address| address.scheme_str());
        let has_user =
            address.as_ref().and_then(|address| address.authority()).is_some_and(|at| at.as_str().contains('@'));
        if has_user {
            // It may hold a password, so it is not said.
            return Err(IngestError::Config {
                setting: "the schema registry's url",
                value: "an address with a user in it".to_owned(),
                mend: "put user:password into a file and name it as basic_auth_file",
            });
        }
        if !matches!(scheme, Some("http" | "https")) {
            return Err(IngestError::Config {
                setting: "the schema registry's url",
                value: self.url.clone(),
                mend: "write http://HOST:PORT or https://HOST",
            });
        }
        self.authorization().map(|_| ())
    }

    /// The header that lets us in.
    fn authorization(&self) -> Result<Option<String>> {
        let first_line = |path: &PathBuf| -> Result<String> {
            let text = std::fs::read_to_string(path).map_err(|error| IngestError::Config {
                setting: "the schema registry's credentials file",
                value: format!("{}, which cannot be read ({error})", path.display()),
                mend: "name a file that this user can read",
            })?;
            Ok(text.lines().next().unwrap_or_default().trim().to_owned())
        };
        Ok(match &self.access {
            RegistryAccess::Open => None,
            RegistryAccess::Basic(path) => Some(format!("Basic {}", STANDARD.encode(first_line(path)?))),
            RegistryAccess::Bearer(path) => Some(format!("Bearer {}", first_line(path)?)),
        })
    }
}

/// A registry's client. Blocking; many threads share one.
#[derive(Debug)]
pub struct Registry {
    config: RegistryConfig,
    base_url: String,
    agent: ureq::Agent,
    known: Mutex<HashMap<SchemaId, Arc<RegisteredSchema>>>,
    pauses: Vec<Duration>,
}

/// `GET /schemas/ids/{id}`, `GET /schemas/guids/{guid}` and `GET /subjects/{subject}/versions/{version}`, as far as we need them.
#[derive(Deserialize)]
struct Answer {
    schema: String,
    /// Avro, where it is left out.
    #[serde(default, rename = "schemaType")]
    language: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
    /// Where a subject was asked for.
    #[serde(default)]
    version: i64,
}

/// What a registry says beside a status that is no success.
#[derive(Deserialize)]
struct Refusal {
    error_code: i64,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i64,
}

/// Why an attempt failed.
enum Failed {
    /// Another may not.
    Passing(String),
    /// So will the next.
    Lasting(String),
    /// There is no such subject, or not yet.
    NoSubject(String),
}

impl From<Failed> for SchemaTrouble {
    fn from(failed: Failed) -> Self {
        let (Failed::Passing(why) | Failed::Lasting(why) | Failed::NoSubject(why)) = failed;
        Self(why)
    }
}

impl Registry {
    /// A client of the registry.
    ///
    /// # Errors
    /// When the configuration names no address, or a file that cannot be read.
    pub fn new(config: &RegistryConfig) -> Result<Self> {
        config.check()?;
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .build();
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_WITHIN))
            .http_status_as_error(false)
            .tls_config(tls)
            .build();
        Ok(Self {
            config: config.clone(),
            base_url: config.url.trim_end_matches('/').to_owned(),
            agent: agent.into(),
            known: Mutex::default(),
            pauses: PAUSES_MS.map(Duration::from_millis).to_vec(),
        })
    }

    fn fetch(&self, id: SchemaId) -> std::result::Result<RegisteredSchema, Failed> {
        let by = match id {
            SchemaId::Number(_) => "ids",
            SchemaId::Guid(_) => "guids",
        };
        self.with_references(self.get(&format!("/schemas/{by}/{id}"), &format!("schema {id}"))?)
    }

    /// Version and schema of the latest that a subject has; none, when there is no such subject. Asks once: whoever wants to
    /// know that does not wait for an outage to end.
    fn latest(&self, subject: &str) -> std::result::Result<Option<(i64, RegisteredSchema)>, SchemaTrouble> {
        let path = format!("/subjects/{}/versions/latest", percent_encoded(subject));
        let answer = match self.get(&path, &format!("the latest version of {subject}")) {
            Err(Failed::NoSubject(_)) => return Ok(None),
            answer => answer?,
        };
        Ok(Some((answer.version, self.with_references(answer)?)))
    }

    fn with_references(&self, answer: Answer) -> std::result::Result<RegisteredSchema, Failed> {
        let mut references = Vec::new();
        self.follow(answer.references, &mut references, &mut HashSet::new())?;
        let language = match answer.language.as_deref() {
            None | Some("AVRO") => SchemaLanguage::Avro,
            Some("PROTOBUF") => SchemaLanguage::Protobuf,
            Some(_) => SchemaLanguage::Other,
        };
        Ok(RegisteredSchema { language, text: answer.schema, references })
    }

    /// Reads what is referred to, each after what it refers to itself.
    fn follow(
        &self,
        wanted: Vec<Reference>,
        found: &mut Vec<(String, String)>,
        seen: &mut HashSet<String>,
    ) -> std::result::Result<(), Failed> {
        for Reference { name, subject, version } in wanted {
            if !seen.insert(name.clone()) {
                continue;
            }
            if seen.len() > REFERENCES_MAX {
                return Err(Failed::Lasting(format!("its schema refers to more than {REFERENCES_MAX} others")));
            }
            let path = format!("/subjects/{}/versions/{version}", percent_encoded(&subject));
            let answer = self.get(&path, &format!("version {version} of {subject}"))?;
            self.follow(answer.references, found, seen)?;
            found.push((name, answer.schema));
        }
        Ok(())
    }

    fn get(&self, path: &str, what: &str) -> std::result::Result<Answer, Failed> {
        let mut request = self.agent.get(format!("{}{path}", self.base_url));
        let authorization = self.config.authorization().map_err(|error| Failed::Lasting(error.to_string()))?;
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        let registry = &self.base_url;
        let mut response = request.call().map_err(|error| {
            Failed::Passing(format!("the schema registry {registry} did not answer ({error}); check that it is up"))
        })?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => {
                let mend = match self.config.access {
                    RegistryAccess::Open => "name a file with credentials, as basic_auth_file or bearer_token_file",
                    RegistryAccess::Basic(_) | RegistryAccess::Bearer(_) => {
                        "correct the credentials file, or the rights of its user"
                    }
                };
                return Err(Failed::Lasting(format!(
                    "the schema registry {registry} refused access to {what}; {mend}"
                )));
            }
            404 => {
                let why = format!(
                    "the schema registry {registry} does not know {what}; check that it is the one that the producers use"
                );
                let said: Option<Refusal> = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json().ok();
                let no_subject = said.is_some_and(|said| NO_SUBJECT.contains(&said.error_code));
                return Err(if no_subject { Failed::NoSubject(why) } else { Failed::Passing(why) });
            }
            status => {
                return Err(Failed::Passing(format!("the schema registry {registry} answered with status {status}")));
            }
        }
        response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json().map_err(|_| {
            Failed::Passing(format!("the answer of {registry} is no schema; check that it is a schema registry"))
        })
    }
}

impl SchemaSource for Registry {
    fn schema(&self, id: SchemaId) -> std::result::Result<Arc<RegisteredSchema>, SchemaTrouble> {
        // Threads that need the same schema wait for the one that reads it.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(schema) = known.get(&id) {
            return Ok(schema.clone());
        }
        let mut pauses = self.pauses.iter();
        loop {
            let why = match self.fetch(id) {
                Ok(schema) => {
                    let schema = Arc::new(schema);
                    known.insert(id, schema.clone());
                    events::schema_read(id);
                    return Ok(schema);
                }
                Err(Failed::Lasting(why)) => return Err(SchemaTrouble(why)),
                Err(Failed::Passing(why) | Failed::NoSubject(why)) => why,
            };
            let Some(pause) = pauses.next() else { return Err(SchemaTrouble(why)) };
            events::registry_trouble(id, &why);
            std::thread::sleep(*pause);
        }
    }
}

/// A subject as one part of a path.
fn percent_encoded(subject: &str) -> String {
    let mut encoded = String::with_capacity(subject.len());
    for byte in subject.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    /// Paths that were asked for, each with its `Authorization`.
    type Asked = Vec<(String, Option<String>)>;

    /// Answers one request after the other, and says what each asked for and how it was let in.
    fn registry(answers: Vec<(u16, String)>) -> (String, std::thread::JoinHandle<Asked>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let asked = std::thread::spawn(move || {
            answers
                .into_iter()
                .map(|(status, body)| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(std::result::Result::ok);
                    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                    let length = body.len();
                    write!(
                        stream,
                        "HTTP/1.1 {status} .\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                    )
                    .unwrap();
                    let path = head[0].split(' ').nth(1).unwrap().to_owned();
                    let authorization = head.iter().find_map(|line| {
                        let (name, value) = line.split_once(": ")?;
                        name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
                    });
                    (path, authorization)
                })
                .collect()
        });
        (url, asked)
    }

    fn client(url: &str, access: RegistryAccess) -> Registry {
        let mut client = Registry::new(&RegistryConfig { url: url.to_owned(), access }).unwrap();
        client.pauses = vec![Duration::ZERO; 2];
        client
    }

    #[test]
    fn a_schema_is_read_once_with_what_it_refers_to_and_passing_trouble_is_waited_out() {
        let reference = |name: &str| format!(r#"{{"name":"{name}","subject":"a/{name}","version":3}}"#);
        let (url, asked) = registry(vec![
            (500, String::new()),
            (200, format!(r#"{{"schema":"top","schemaType":"PROTOBUF","references":[{}]}}"#, reference("b"))),
            (200, format!(r#"{{"schema":"middle","references":[{}]}}"#, reference("c"))),
            (200, r#"{"schema":"bottom"}"#.to_owned()),
        ]);
        let client = client(&url, RegistryAccess::Open);
        let schema = client.schema(SchemaId::Number(7)).unwrap();
        assert_eq!((schema.language, schema.text.as_str()), (SchemaLanguage::Protobuf, "top"));
        let named = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(schema.references, [named("c", "bottom"), named("b", "middle")]);
        assert_eq!(client.schema(SchemaId::Number(7)).unwrap(), schema, "nobody is there to answer a second time");
        let paths: Vec<String> = asked.join().unwrap().into_iter().map(|(path, _)| path).collect();
        let expected = ["/schemas/ids/7", "/schemas/ids/7", "/subjects/a%2Fb/versions/3", "/subjects/a%2Fc/versions/3"];
        assert_eq!(paths, expected);
    }

    #[test]
    fn credentials_come_from_a_file_and_a_refusal_is_final() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registry");
        std::fs::write(&file, "Aladdin:open sesame\n").unwrap();
        // RFC 7617, section 2: the example of the Basic scheme.
        for (access, header) in [
            (RegistryAccess::Basic(file.clone()), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            (RegistryAccess::Bearer(file.clone()), "Bearer Aladdin:open sesame"),
        ] {
            let (url, asked) = registry(vec![(401, String::new())]);
            let said = client(&url, access).schema(SchemaId::Number(1)).unwrap_err().to_string();
            assert!(said.contains("refused access to schema 1") && !said.contains("sesame"), "{said}");
            assert_eq!(asked.join().unwrap()[0].1.as_deref(), Some(header));
        }
    }

    #[test]
    fn an_unknown_id_is_trouble_to_be_tried_again_and_not_a_verdict() {
        let (url, asked) = registry(vec![(404, String::new()); 3]);
        let error = IngestError::from(client(&url, RegistryAccess::Open).schema(SchemaId::Number(9)).unwrap_err());
        assert!(error.to_string().contains("does not know schema 9"), "{error}");
        assert!(error.retry_helps() && error.fault() == weir_store::Fault::Outside);
        assert_eq!(asked.join().unwrap().len(), 3);
    }

    #[test]
    fn the_latest_of_a_subject_comes_with_what_it_refers_to_and_a_missing_subject_is_no_trouble() {
        let missing = |code: u32| (404, format!(r#"{{"error_code":{code},"message":"not found"}}"#));
        let reference = r#"{"name":"n","subject":"b","version":1}"#;
        let latest = (200, format!(r#"{{"schema":"top","version":4,"references":[{reference}]}}"#));
        let below = (200, r#"{"schema":"below"}"#.to_owned());
        let (url, asked) = registry(vec![
            latest.clone(),
            below,
            missing(40_401),
            // A server that is no registry, and a subject that is only referred to.
            missing(404),
            (404, "<html>".to_owned()),
            latest,
            missing(40_401),
        ]);
        let client = client(&url, RegistryAccess::Open);
        let (version, schema) = client.latest("a/b-value").unwrap().unwrap();
        assert_eq!((version, schema.text.as_str(), schema.references.len()), (4, "top", 1));
        assert_eq!(client.latest("a").unwrap(), None);
        for _ in 0..2 {
            let said = client.latest("a").unwrap_err().0;
            assert!(said.contains("does not know the latest version of a;"), "{said}");
        }
        let said = client.latest("a").unwrap_err().0;
        assert!(said.contains("does not know version 1 of b;"), "{said}");
        assert_eq!(asked.join().unwrap()[0].0, "/subjects/a%2Fb-value/versions/latest");
    }

    #[test]
    fn addresses_that_are_none_and_passwords_in_them_are_refused() {
        for (url, mend) in
            [("registry:8081", "http://HOST"), ("ftp://r", "http://HOST"), ("http://u:hunter2@r", "a file")]
        {
            let config = RegistryConfig { url: url.to_owned(), access: RegistryAccess::Open };
            let said = Registry::new(&config).unwrap_err().to_string();
            assert!(said.contains(mend) && !said.contains("hunter2"), "{said}");
        }
    }
}
