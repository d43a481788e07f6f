//! Schemas from a registry that speaks Confluent's HTTP interface.
//!
//! An id's schema never changes, so what was read once is kept for as long as the process lives. A registry that does not
//! answer is asked again for a while; then the run ends with the error, and another run goes on from the positions in the
//! tables. A registry that says that it has no such schema is asked again for a moment, since a schema may be registered
//! just after the first message that names it; then that is the answer (see `answers`). The token or password stands in a
//! file, read anew for every question, and is never said.

mod answers;
mod check;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use weir_decode::{RegisteredSchema, SchemaAnswer, SchemaId, SchemaLanguage, SchemaSource, SchemaTrouble};

use self::answers::{Answers, Patience};
use crate::{IngestError, Result, events};

pub use check::{LatestSchema, TopicSchema, probe_schemas};

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Pauses between attempts: an outage of some seconds is waited out.
const PAUSES_MS: [u64; 5] = [100, 300, 1_000, 3_000, 5_000];
/// Pauses before an unknown id is asked for again: producers register before they send, but a registry has replicas.
const GRACE_MS: [u64; 3] = [100, 400, 1_500];
/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// References of a schema, direct and indirect: more is a circle or a mistake.
const REFERENCES_MAX: usize = 256;
/// What a registry adds to status 404 when it knows no such subject, or no version of it. Without one of these codes the 404
/// may be of a server that is no registry at all.
const NO_SUBJECT: [i64; 2] = [40_401, 40_402];
/// The same for an id.
const NO_SCHEMA: i64 = 40_403;
/// No schema has this id, and every registry can be asked for it.
const NO_ID: &str = "/schemas/ids/0";

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
    answers: Answers,
    pauses: Vec<Duration>,
    grace: Vec<Duration>,
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
    /// There is no such schema, or not yet.
    NoSchema(String),
    /// Status 404, and nothing that only a registry says.
    NotFound(String),
    /// What is there leads to no schema that can be read with.
    Unusable(&'static str),
}

impl From<Failed> for SchemaTrouble {
    fn from(failed: Failed) -> Self {
        Self(match failed {
            Failed::Passing(why)
            | Failed::Lasting(why)
            | Failed::NoSubject(why)
            | Failed::NoSchema(why)
            | Failed::NotFound(why) => why,
            Failed::Unusable(why) => why.to_owned(),
        })
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
            answers: Answers::default(),
            pauses: PAUSES_MS.map(Duration::from_millis).to_vec(),
            grace: GRACE_MS.map(Duration::from_millis).to_vec(),
        })
    }

    fn fetch(&self, id: SchemaId) -> std::result::Result<RegisteredSchema, Failed> {
        let by = match id {
            SchemaId::Number(_) => "ids",
            SchemaId::Guid(_) => "guids",
        };
        let answer = match self.get(&format!("/schemas/{by}/{id}"), &format!("schema {id}")) {
            // Registries before GUIDs have no such path, and no schema that goes by one; a server that is no registry has
            // none either.
            Err(Failed::NotFound(why)) if by == "guids" => {
                return Err(match self.get(NO_ID, "schema 0") {
                    Ok(_) | Err(Failed::NoSchema(_)) => Failed::NoSchema(why),
                    Err(_) => Failed::NotFound(why),
                });
            }
            answer => answer?,
        };
        self.with_references(answer)
    }

    /// Asks until there is an answer, or for as long as an outage is waited out. Blocks.
    fn ask(&self, id: SchemaId, patience: Patience) -> std::result::Result<SchemaAnswer, SchemaTrouble> {
        let mut pauses = self.pauses.iter();
        let mut grace = match patience {
            Patience::Wait => self.grace.iter(),
            Patience::Once => [].iter(),
        };
        loop {
            let (why, pause) = match self.fetch(id) {
                Ok(schema) => {
                    events::schema_read(id);
                    return Ok(SchemaAnswer::Schema(Arc::new(schema)));
                }
                Err(Failed::Unusable(why)) => return Ok(SchemaAnswer::Unusable(why)),
                // What a schema refers to is a part of it.
                Err(Failed::NoSchema(why) | Failed::NoSubject(why)) => match grace.next() {
                    Some(pause) => (why, pause),
                    None => {
                        events::schema_unknown(id, patience == Patience::Wait, &why);
                        return Ok(SchemaAnswer::Unknown);
                    }
                },
                Err(Failed::Passing(why) | Failed::NotFound(why)) => match pauses.next() {
                    Some(pause) => (why, pause),
                    None => return Err(SchemaTrouble(why)),
                },
                Err(Failed::Lasting(why)) => return Err(SchemaTrouble(why)),
            };
            events::registry_trouble(id, &why);
            std::thread::sleep(*pause);
        }
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
                return Err(Failed::Unusable("it refers to more than 256 others"));
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
                return Err(match said.map(|said| said.error_code) {
                    Some(NO_SCHEMA) => Failed::NoSchema(why),
                    Some(code) if NO_SUBJECT.contains(&code) => Failed::NoSubject(why),
                    _ => Failed::NotFound(why),
                });
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
    fn schema(&self, id: SchemaId) -> std::result::Result<SchemaAnswer, SchemaTrouble> {
        // Registries count in 32 bits with a sign. Of more some say that the path does not exist, as servers do that are
        // no registries.
        if matches!(id, SchemaId::Number(number) if i32::try_from(number).is_err()) {
            return Ok(SchemaAnswer::Unknown);
        }
        self.answers.of(id, |patience| self.ask(id, patience))
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
mod tests;
