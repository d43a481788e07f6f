//! The PostgreSQL listener of `weir serve`.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_sql::SqlError;
use weir_sql::postgres::{PostgresConfig, serve};
use weir_store::Store;

use crate::config::Config;
use crate::error::{Failure, Result};

/// A bound listener, so that a port in use or a file that is not there is an error before anything else starts.
pub struct Postgres {
    listener: TcpListener,
    address: SocketAddr,
    config: PostgresConfig,
}

impl Postgres {
    /// None when the configuration names no listener.
    ///
    /// # Errors
    /// When the address is not one or is in use, or the password cannot be read.
    pub async fn bind(config: &Config) -> Result<Option<Self>> {
        let section = &config.postgres;
        let (Some(listen), Some(password_file)) = (&section.listen, &section.password_file) else { return Ok(None) };
        let config = PostgresConfig {
            user: section.user.clone(),
            password: password(password_file)?,
            max_connections: section.max_connections,
            query_time: Duration::from_millis(section.query_timeout_ms),
            max_rows: section.max_rows,
        };
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::InvalidInput => {
                Failure::user(format!("{listen} is not a listener: write HOST:PORT, for example 127.0.0.1:5432"))
            }
            _ => Failure::user(format!("cannot listen on {listen}: {error}; choose another port with postgres.listen")),
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "PostgreSQL's wire can be reached from other machines, and what it sends is not encrypted: let only a private \
                 network or a proxy with TLS reach it"
            );
        }
        Ok(Some(Self { listener, address, config }))
    }

    /// Where it listens, with the port that the system chose when the port was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` turns true.
    pub fn start(self, store: Store, stop: watch::Receiver<bool>) -> Running {
        tokio::spawn(serve(self.listener, store, self.config, stop))
    }
}

/// The listener at work.
pub type Running = JoinHandle<std::result::Result<(), SqlError>>;

/// Why it ended. Comes back only when it failed: not when there is none, nor when it was told to stop.
pub async fn ended(running: &mut Option<Running>) -> Failure {
    let outcome = match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    };
    match outcome {
        Ok(Ok(())) => std::future::pending().await,
        Ok(Err(error)) => error.into(),
        Err(error) => Failure::ours(format!("the PostgreSQL listener stopped: {error}")),
    }
}

/// SCRAM compares passwords after a preparation of their letters (SASLprep) that leaves printable ASCII as it is. Other
/// passwords are refused, so that none works with one client and not with another.
fn password(path: &Path) -> Result<String> {
    let read = std::fs::read_to_string(path).map_err(|error| {
        Failure::user(format!("cannot read the password of postgres from {}: {}", path.display(), error.kind()))
    })?;
    // Editors and `echo` end a file with a line break.
    let password = read.trim_end_matches(['\r', '\n']);
    if password.is_empty() || !password.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Failure::user(format!(
            "the password of postgres in {} is empty or has letters beyond ASCII: write one line, for example of \
             `openssl rand -base64 24`",
            path.display()
        )));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_of_ascii_and_is_never_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let said = password(&path).unwrap_err().to_string();
        assert!(said.contains("cannot read the password of postgres"), "{said}");
        std::fs::write(&path, "correct horse\n").unwrap();
        assert_eq!(password(&path).unwrap(), "correct horse");
        for wrong in ["", "\n", "hunter\u{e9}\n", "hunter2\nhunter3\n"] {
            std::fs::write(&path, wrong).unwrap();
            let said = password(&path).unwrap_err().to_string();
            assert!(said.contains("write one line") && !said.contains("hunter"), "{said}");
        }
    }
}
