//! PostgreSQL's wire over a store, for psql, drivers and dashboards.
//!
//! **In:** connections of one user with one password (SCRAM-SHA-256), and statements. **Out:** rows of what
//! [`crate::open`] offers, with PostgreSQL's catalogue over it.
//!
//! Everything is read-only, each statement sees the tables as they are, and each has the memory limit of all queries, a
//! limit of time and one of rows. There is no TLS: beyond this machine that is a proxy's work.

mod error;
mod events;
mod login;
mod rows;
mod scram;
mod service;
mod sessions;
mod settings;
mod statement;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use pgwire::api::auth::StartupHandler;
use pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::{ConnectionManager, PgWireServerHandlers, RandomPidSecretKeyGenerator};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use weir_store::Store;

use self::login::{Door, Login};
use self::scram::Verifier;
use self::service::Service;
use self::sessions::Sessions;
use self::statement::Reader;
use crate::SqlError;

/// After the system gave no connection, it gets time to have one again.
const BREATH: Duration = Duration::from_millis(100);

/// Who may read, and how much.
#[derive(Clone)]
pub struct PostgresConfig {
    /// The one user.
    pub user: String,
    /// The user's password. Only what it takes to recognise it is kept.
    pub password: String,
    /// Connections at a time.
    pub max_connections: usize,
    /// How long a statement may take; a client can ask for less with `statement_timeout`.
    pub query_time: Duration,
    /// Rows of one result.
    pub max_rows: usize,
}

/// Serves until `stop` turns true; statements under way then are dropped, since they change nothing.
///
/// # Errors
/// When the catalogue cannot be built.
pub async fn serve(
    listener: TcpListener,
    store: Store,
    config: PostgresConfig,
    mut stop: watch::Receiver<bool>,
) -> Result<(), SqlError> {
    let reader = Arc::new(Reader::new(Sessions::new(store)?));
    let service = Arc::new(Service::new(reader, config.query_time, config.max_rows));
    let door = Arc::new(Door {
        verifier: Verifier::new(&config.user, &config.password),
        connections: Arc::new(ConnectionManager::new()),
        keys: RandomPidSecretKeyGenerator::default(),
        max_connections: config.max_connections,
    });
    let places = Arc::new(Semaphore::new(config.max_connections));
    events::started();
    // The guard that a wait returns must be gone before the next await.
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    tokio::pin!(stopped);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut stopped => return Ok(()),
            Some(_ended) = open.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let login = Login::new(Arc::clone(&door), Arc::clone(&places).try_acquire_owned().ok());
                    let cancel = DefaultCancelHandler::new(Arc::clone(&door.connections));
                    let connection =
                        Connection { login: Arc::new(login), service: Arc::clone(&service), cancel: Arc::new(cancel) };
                    open.spawn(connection.speak(socket));
                }
                Err(error) => {
                    events::not_accepted(&error);
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
}

/// One connection's handlers.
struct Connection {
    login: Arc<Login>,
    service: Arc<Service>,
    cancel: Arc<DefaultCancelHandler>,
}

impl Connection {
    async fn speak(self, socket: TcpStream) {
        let _open = events::Connection::opened();
        if let Err(error) = pgwire::tokio::process_socket(socket, None, Arc::new(self)).await {
            events::connection_broke(&error);
        }
    }
}

impl PgWireServerHandlers for Connection {
    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::clone(&self.login)
    }

    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.service)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::clone(&self.service)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::clone(&self.cancel)
    }
}
