//! Object stores by URL: which client a location means, and what it is configured with.
//!
//! | scheme | store | variables |
//! |---|---|---|
//! | `s3://bucket/prefix`, `s3a://` | Amazon S3 and what speaks its protocol | `AWS_*` |
//! | `gs://bucket/prefix` | Google Cloud Storage | `GOOGLE_*` |
//! | `az://container/prefix`, `azure://`, `adl://`, `abfs://`, `abfss://` | Azure Blob Storage | `AZURE_*` |
//!
//! Settings are taken from the environment, then from the credentials file (lines `NAME=value`, the same names), then from
//! the options; the later wins. Secrets are taken only from the first two, so that a configuration file can be shown.
//!
//! **Commits need a put that creates or fails.** All three stores have one (`If-None-Match: *`, or a generation match of 0),
//! and [`crate::Store::open`] tries it: a store that lets the second put through would let one commit overwrite another.

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use url::Url;

use crate::folder::Folder;
use crate::{Result, StoreError};

/// How an object store is reached, beside its URL. Nothing for a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// Settings of the client by their names in the environment, in lower case and with or without the vendor's prefix:
    /// `endpoint`, `region`, `allow_http`, `timeout`, ... No secrets.
    pub settings: BTreeMap<String, String>,
    /// A file of lines `NAME=value`, as in the environment; here secrets are welcome.
    pub credentials: Option<PathBuf>,
}

/// Parts of a setting's name that say that its value is a secret. Names of files that hold one are not.
const SECRET_PARTS: [&str; 7] = ["secret", "token", "account_key", "access_key", "customer_key", "master_key", "sas_"];
/// Names that hold such a part and are no secrets.
const NOT_SECRET: [&str; 3] = ["_file", "_id", "_url"];

/// The client for a URL that is not a folder's.
pub(crate) fn remote(url: &Url, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    let bad = |why: String| StoreError::BadLocation { place: shown(url), why };
    let named_user = !url.username().is_empty() && !url.scheme().starts_with("abfs");
    if named_user || url.password().is_some() || url.query().is_some() {
        return Err(bad("a URL with credentials or parameters in it ends up in logs".to_owned()));
    }
    for name in options.settings.keys() {
        if is_secret(name) {
            return Err(bad(format!(
                "store.options.{name} is a secret: set it in the environment or in the store.credentials file"
            )));
        }
    }
    let client: Arc<dyn ObjectStore> = match url.scheme() {
        "s3" | "s3a" => Arc::new(s3(url, options)?),
        "gs" => Arc::new(gcs(url, options)?),
        "az" | "azure" | "adl" | "abfs" | "abfss" => Arc::new(azure(url, options)?),
        other => return Err(bad(format!("no support for {other}:// in this build"))),
    };
    Ok(client)
}

/// The client for a folder of this machine.
pub(crate) fn local() -> Arc<dyn ObjectStore> {
    Arc::new(Folder::new())
}

fn s3(url: &Url, options: &StoreOptions) -> Result<object_store::aws::AmazonS3> {
    let mut builder = AmazonS3Builder::from_env().with_url(url.as_str());
    for (key, value) in settings::<AmazonS3ConfigKey>(url, options, "aws_")? {
        builder = builder.with_config(key, value);
    }
    let endpoint = builder
        .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let allowed = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    encrypted_or_allowed(url, endpoint, allowed)?;
    // Whatever the environment says: without it a commit could overwrite another.
    builder = builder.with_conditional_put(S3ConditionalPut::ETagMatch).with_retry(retries());
    builder.build().map_err(|error| unbuildable(url, &error))
}

fn gcs(url: &Url, options: &StoreOptions) -> Result<object_store::gcp::GoogleCloudStorage> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
    for (key, value) in settings::<GoogleConfigKey>(url, options, "google_")? {
        builder = builder.with_config(key, value);
    }
    builder.with_retry(retries()).build().map_err(|error| unbuildable(url, &error))
}

fn azure(url: &Url, options: &StoreOptions) -> Result<object_store::azure::MicrosoftAzure> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
    for (key, value) in settings::<AzureConfigKey>(url, options, "azure_")? {
        builder = builder.with_config(key, value);
    }
    let allowed = builder.get_config_value(&AzureConfigKey::Client(ClientConfigKey::AllowHttp));
    encrypted_or_allowed(url, builder.get_config_value(&AzureConfigKey::Endpoint), allowed)?;
    builder.with_retry(retries()).build().map_err(|error| unbuildable(url, &error))
}

/// A commit that waits longer is an unknown outcome, which its writer resolves, so the client gives up well before.
fn retries() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
    RetryConfig { backoff, max_retries: 5, retry_timeout: Duration::from_secs(25) }
}

/// The credentials file's lines, then the options; unknown names are refused in the options only, since a file of
/// variables may serve other programs too.
fn settings<K: FromStr>(url: &Url, options: &StoreOptions, prefix: &str) -> Result<Vec<(K, String)>> {
    let mut settings = Vec::new();
    if let Some(path) = &options.credentials {
        let named = read_credentials(path)?.into_iter().filter(|(name, _)| name.starts_with(prefix));
        settings.extend(named.filter_map(|(name, value)| Some((name.parse().ok()?, value))));
    }
    for (name, value) in &options.settings {
        let key = name.to_ascii_lowercase().parse().map_err(|_| StoreError::BadLocation {
            place: shown(url),
            why: format!("{}:// stores have no option {name:?} (store.options)", url.scheme()),
        })?;
        settings.push((key, value.clone()));
    }
    Ok(settings)
}

fn read_credentials(path: &FsPath) -> Result<Vec<(String, String)>> {
    let bad = |why: String| StoreError::Credentials { path: path.display().to_string(), why };
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let mut found = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let line = line.strip_prefix("export ").unwrap_or(line);
        // Never the line itself: it may be the secret.
        let (name, value) = line.split_once('=').ok_or_else(|| bad(format!("line {number} is not NAME=value")))?;
        let value = value.trim().trim_matches(['"', '\'']);
        found.push((name.trim().to_ascii_lowercase(), value.to_owned()));
    }
    Ok(found)
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part)) && !NOT_SECRET.iter().any(|end| name.ends_with(end))
}

fn encrypted_or_allowed(url: &Url, endpoint: Option<String>, allowed: Option<String>) -> Result<()> {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    if plain && !allowed.is_some_and(|allowed| allowed.eq_ignore_ascii_case("true")) {
        return Err(StoreError::BadLocation {
            place: shown(url),
            why: "its endpoint is http://, which encrypts nothing: use https://, or set allow_http = \"true\" under \
                  store.options if that is meant"
                .to_owned(),
        });
    }
    Ok(())
}

/// How a sentence begins that quotes an answer's code.
const ANSWERED: &str = "the store answered ";

/// What the store answered, without the request that it answered to: its code and sentence where there are some.
pub(crate) fn in_short(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text.push_str(&source.to_string());
        next = source.source();
    }
    let part = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside.trim().to_owned())
    };
    match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("{ANSWERED}{code}: {}", message.trim_end_matches('.')),
        (Some(code), None) => format!("{ANSWERED}{code}"),
        _ => error.to_string(),
    }
}

/// Is it the store itself that is in trouble, and not what it was asked? Refusals have names of their own, or a code that
/// says so; what is left did not come through, or was not answered in time.
pub(crate) fn is_trouble(error: &StoreError) -> bool {
    const PASSING: [&str; 3] = ["SlowDown", "InternalError", "ServiceUnavailable"];
    let generic = matches!(error, StoreError::Storage(object_store::Error::Generic { .. }));
    let text = in_short(error);
    generic && text.strip_prefix(ANSWERED).is_none_or(|code| PASSING.iter().any(|passing| code.starts_with(passing)))
}

fn unbuildable(url: &Url, error: &object_store::Error) -> StoreError {
    StoreError::BadLocation { place: shown(url), why: error.to_string() }
}

/// A URL without what may be secret in it.
fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    let keeps_user = url.scheme().starts_with("abfs") && url.password().is_none();
    if !keeps_user {
        // Fails only for URLs that cannot hold them.
        let (_, _) = (shown.set_username(""), shown.set_password(None));
    }
    shown.set_query(None);
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(settings: &[(&str, &str)]) -> StoreOptions {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        StoreOptions { settings, credentials: None }
    }

    fn client(url: &str, settings: &[(&str, &str)]) -> String {
        let url = Url::parse(url).unwrap();
        match remote(&url, &options(settings)) {
            Ok(client) => client.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_scheme_gets_its_client_for_its_bucket() {
        for url in ["s3://lake/weir", "s3a://lake/weir"] {
            assert_eq!(client(url, &[("region", "eu-central-1")]), "AmazonS3(lake)");
        }
        assert_eq!(client("gs://lake/weir", &[("skip_signature", "true")]), "GoogleCloudStorage(lake)");
        let account = [("account_name", "acme"), ("skip_signature", "true")];
        let azure = "MicrosoftAzure { account: acme, container: lake }";
        assert_eq!(client("az://lake/weir", &account), azure);
        assert_eq!(client("abfs://lake/weir", &account), azure);
        assert_eq!(
            client("abfss://lake@acme.dfs.core.windows.net/weir", &[("skip_signature", "true")]),
            azure,
            "the account is in the URL"
        );
        assert!(client("ftp://host/x", &[]).contains("no support for ftp://"));
    }

    #[test]
    fn a_misspelt_option_is_named() {
        let said = client("s3://lake/weir", &[("endpiont", "https://x")]);
        assert!(said.contains("no option \"endpiont\""), "{said}");
        let said = client("gs://lake/weir", &[("endpoint", "https://x")]);
        assert!(said.contains("no option \"endpoint\""), "{said}");
    }

    #[test]
    fn secrets_are_refused_where_they_would_be_shown_and_never_repeated() {
        let secrets = [
            ("secret_access_key", "s3://lake/weir"),
            ("aws_session_token", "s3://lake/weir"),
            ("account_key", "az://lake/weir"),
            ("access_key", "az://lake/weir"),
            ("azure_storage_sas_token", "az://lake/weir"),
            ("azure_client_secret", "az://lake/weir"),
            ("service_account_key", "gs://lake/weir"),
            ("google_service_account_key", "gs://lake/weir"),
        ];
        for (name, url) in secrets {
            let said = client(url, &[(name, "hunter2")]);
            assert!(said.contains(name) && said.contains("is a secret") && !said.contains("hunter2"), "{said}");
        }
        for url in ["s3://AKIA:hunter2@lake/weir", "s3://hunter2@lake/weir", "az://lake/weir?sig=hunter2"] {
            let said = client(url, &[]);
            assert!(said.contains("ends up in logs") && !said.contains("hunter2"), "{said}");
        }
        for name in ["access_key_id", "web_identity_token_file", "azure_federated_token_file", "aws_endpoint_url_sts"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn http_is_only_spoken_when_that_is_meant() {
        let endpoint = ("endpoint", "http://127.0.0.1:1");
        let said = client("s3://lake/weir", &[endpoint]);
        assert!(said.contains("allow_http = \"true\""), "{said}");
        assert_eq!(client("s3://lake/weir", &[endpoint, ("allow_http", "true")]), "AmazonS3(lake)");
    }

    #[test]
    fn credentials_files_are_read_as_variables_and_their_lines_stay_unsaid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        std::fs::write(&path, "# ours\nexport AWS_ACCESS_KEY_ID=weir\nAWS_SECRET_ACCESS_KEY=\"hunter2\"\n").unwrap();
        let found = read_credentials(&path).unwrap();
        let expected = [("aws_access_key_id", "weir"), ("aws_secret_access_key", "hunter2")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

        std::fs::write(&path, "AWS_ACCESS_KEY_ID=weir\nhunter2\n").unwrap();
        let said = read_credentials(&path).unwrap_err().to_string();
        assert!(said.contains("line 2") && !said.contains("hunter2"), "{said}");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read_credentials(&path), Err(StoreError::Credentials { .. })));
    }
}
