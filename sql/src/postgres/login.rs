//! Letting a client in: one user, one password, SCRAM.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{Sink, SinkExt};
use pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::{
    ClientInfo, ConnectionGuard, ConnectionHandle, ConnectionManager, METADATA_USER, PgWireConnectionState,
    PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::startup::Authentication;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::error::WireError;
use super::events;
use super::scram::{MECHANISM, Pending, Refusal, Verifier};

/// What all connections share.
pub(super) struct Door {
    pub(super) verifier: Verifier,
    pub(super) connections: Arc<ConnectionManager>,
    pub(super) keys: RandomPidSecretKeyGenerator,
    pub(super) max_connections: usize,
}

/// One connection at the door.
pub(super) struct Login {
    door: Arc<Door>,
    /// None when all places are taken: the client is told so once it says who it is. A request to cancel needs no place.
    place: Option<OwnedSemaphorePermit>,
    pending: Mutex<Option<Pending>>,
}

impl Login {
    pub(super) fn new(door: Arc<Door>, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { door, place, pending: Mutex::new(None) }
    }
}

#[async_trait]
impl StartupHandler for Login {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match message {
            PgWireFrontendMessage::Startup(startup) => {
                if self.place.is_none() {
                    events::login_refused("too_many", &client.socket_addr().ip());
                    return Err(WireError::TooManyConnections(self.door.max_connections).into());
                }
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                let mechanisms = Authentication::SASL(vec![MECHANISM.to_owned()]);
                client.send(PgWireBackendMessage::Authentication(mechanisms)).await?;
                Ok(())
            }
            PgWireFrontendMessage::PasswordMessageFamily(message) => {
                let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
                let mut pending = self.pending.lock().await;
                let refused = |refusal| refuse(client, &user, refusal);
                let Some(exchange) = pending.take() else {
                    let message = message.into_sasl_initial_response()?;
                    if message.auth_method != MECHANISM {
                        return Err(refused(Refusal::Malformed("SCRAM-SHA-256 is the only way in")));
                    }
                    let data = message.data.unwrap_or_default();
                    let said = text(&data).and_then(|said| self.door.verifier.first(&user, said)).map_err(refused)?;
                    *pending = Some(said.1);
                    let answer = Authentication::SASLContinue(said.0.into());
                    client.send(PgWireBackendMessage::Authentication(answer)).await?;
                    return Ok(());
                };
                let message = message.into_sasl_response()?;
                let answer =
                    text(&message.data).and_then(|said| self.door.verifier.last(&exchange, said)).map_err(refused)?;
                let answer = Authentication::SASLFinal(answer.into());
                client.send(PgWireBackendMessage::Authentication(answer)).await?;
                self.let_in(client).await
            }
            _ => Ok(()),
        }
    }
}

impl Login {
    async fn let_in<C>(&self, client: &mut C) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // A request to cancel comes over another connection and names this one by these two.
        let (process, key) = self.door.keys.generate(client);
        client.set_pid_and_secret_key(process, key.clone());
        let (handle, guard) = self.door.connections.register(process, key);
        client.session_extensions().insert::<Arc<ConnectionHandle>>(handle);
        client.session_extensions().insert::<ConnectionGuard>(guard);
        finish_authentication(client, &parameters()).await
    }
}

/// What clients are told of the server. They choose their queries by the version.
fn parameters() -> DefaultServerParameterProvider {
    let mut parameters = DefaultServerParameterProvider::default();
    parameters.server_version = super::settings::SERVER_VERSION.to_owned();
    parameters.is_superuser = false;
    parameters.default_transaction_read_only = true;
    parameters.time_zone = "UTC".to_owned();
    parameters
}

fn text(data: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(data).map_err(|_| Refusal::Malformed("a message is not UTF-8"))
}

fn refuse(client: &impl ClientInfo, user: &str, refusal: Refusal) -> PgWireError {
    let from = client.socket_addr().ip();
    match refusal {
        Refusal::Malformed(why) => {
            events::login_refused("protocol", &from);
            WireError::Login(why).into()
        }
        Refusal::WrongPassword => {
            events::login_refused("password", &from);
            WireError::WrongPassword(user.to_owned()).into()
        }
    }
}
