//! Running statements, within limits.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use arrow_pg::datatypes::encode_recordbatch;
use async_trait::async_trait;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::LogicalPlan;
use futures::{Sink, StreamExt, stream};
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::results::{QueryResponse, Response, Tag};
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::TransactionStatus;
use tokio::task::JoinSet;

use super::error::WireError;
use super::events;
use super::rows::{fields, wire_batch};
use super::settings::Command;
use super::statement::{Query, Reader, Statement, parameter_types, unreadable};
use super::threads;
use crate::query::run;
use crate::{Context, SqlError, split_statements};

/// Where a connection keeps what it set as `statement_timeout`, ms.
const TIMEOUT: &str = "weir.statement_timeout_ms";

/// Runs the statements of all connections.
pub(super) struct Service {
    reader: Arc<Reader>,
    query_time: Duration,
    max_rows: usize,
}

/// The rows of a query, charged to the memory of queries until they are sent.
struct Rows {
    batches: Vec<RecordBatch>,
    count: usize,
    charged: MemoryReservation,
}

impl Service {
    pub(super) fn new(reader: Arc<Reader>, query_time: Duration, max_rows: usize) -> Self {
        Self { reader, query_time, max_rows }
    }

    fn query_time(&self, client: &impl ClientInfo) -> Duration {
        let asked = client.metadata().get(TIMEOUT).and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        asked.map_or(self.query_time, |asked| asked.min(self.query_time))
    }

    /// The whole result, before the first row is sent: a query that fails late, takes too long or is cancelled gives an
    /// error and not half an answer. It runs on threads of its own, and is ended when this is dropped: a step of a join may
    /// take seconds, and the client that cancels must not wait for it.
    async fn rows(&self, within: Duration, context: Arc<Context>, plan: LogicalPlan) -> Result<Rows, WireError> {
        let mut task = JoinSet::new();
        task.spawn_on(collect(context, plan, self.max_rows), threads::handle()?);
        match tokio::time::timeout(within, task.join_next()).await {
            Err(_) => Err(WireError::TooLong(within.as_millis())),
            Ok(Some(Ok(rows))) => rows,
            Ok(_) => Err(SqlError::Engine("a query's task broke".to_owned()).into()),
        }
    }

    async fn answer(
        &self,
        within: Duration,
        query: Query,
        plan: LogicalPlan,
        format: &Format,
    ) -> PgWireResult<Response> {
        let statement = events::Statement::began();
        let told = fields(query.plan.schema().as_arrow(), format)?;
        match self.rows(within, Arc::clone(&query.context), plan).await {
            Ok(rows) => {
                statement.ended("ok", rows.count);
                Ok(Response::Query(response(told, rows)))
            }
            Err(error) => {
                statement.ended(error.outcome(), 0);
                Err(error.into())
            }
        }
    }
}

async fn collect(context: Arc<Context>, plan: LogicalPlan, max_rows: usize) -> Result<Rows, WireError> {
    let mut results = run(&context, plan).await?;
    let charged = MemoryConsumer::new("result").register(&context.runtime_env().memory_pool);
    let (mut batches, mut count) = (Vec::new(), 0);
    while let Some(batch) = results.next().await {
        let batch = wire_batch(&batch.map_err(|error| SqlError::running(&error))?)?;
        charged.try_grow(batch.get_array_memory_size()).map_err(|error| SqlError::running(&error))?;
        count += batch.num_rows();
        if count > max_rows {
            return Err(WireError::TooManyRows(max_rows));
        }
        batches.push(batch);
    }
    Ok(Rows { batches, count, charged })
}

fn response(told: Vec<pgwire::api::results::FieldInfo>, rows: Rows) -> QueryResponse {
    let told = Arc::new(told);
    let Rows { batches, charged, .. } = rows;
    let columns = Arc::clone(&told);
    let encoded = batches.into_iter().flat_map(move |batch| encode_recordbatch(Arc::clone(&columns), batch));
    // The charge goes with the last row.
    let held = stream::iter(encoded).map(move |row| {
        let _held = &charged;
        row
    });
    QueryResponse::new(told, held)
}

/// In a transaction that failed nothing but its end is taken.
fn not_aborted(client: &impl ClientInfo, statement: &Statement) -> Result<(), WireError> {
    let ends = matches!(statement, Statement::Command(Command::Commit | Command::Rollback));
    if client.transaction_status() == TransactionStatus::Error && !ends { Err(WireError::Aborted) } else { Ok(()) }
}

/// Nothing here writes, so there is nothing to begin, commit or roll back: clients get the answers that they wait for.
fn command<C>(client: &mut C, command: &Command) -> PgWireResult<Response>
where
    C: ClientInfo + ClientPortalStore,
    C::PortalStore: PortalStore,
{
    let failed = client.transaction_status() == TransactionStatus::Error;
    Ok(match command {
        Command::Begin => Response::TransactionStart(Tag::new("BEGIN")),
        Command::Commit if !failed => Response::TransactionEnd(Tag::new("COMMIT")),
        Command::Commit | Command::Rollback => Response::TransactionEnd(Tag::new("ROLLBACK")),
        Command::Set | Command::Show(..) => Response::Execution(Tag::new("SET")),
        Command::Timeout(timeout) => {
            match timeout {
                Some(timeout) => client.metadata_mut().insert(TIMEOUT.to_owned(), timeout.as_millis().to_string()),
                None => client.metadata_mut().remove(TIMEOUT),
            };
            Response::Execution(Tag::new("SET"))
        }
        Command::Unsettable(name) => return Err(unreadable(WireError::Setting(name.clone()))),
        Command::Deallocate(name) => {
            if let Some(name) = name {
                client.portal_store().rm_statement(name);
            }
            Response::Execution(Tag::new("DEALLOCATE"))
        }
        Command::Discard => {
            client.metadata_mut().remove(TIMEOUT);
            Response::Execution(Tag::new("DISCARD ALL"))
        }
    })
}

#[async_trait]
impl SimpleQueryHandler for Service {
    async fn do_query<C>(&self, client: &mut C, text: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let ended = format!("{text}\n;");
        let (statements, open) = split_statements(&ended);
        // What is left open is read as it is: the parser says what is missing.
        let statements = if open.is_empty() { statements } else { vec![text] };
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let mut responses = Vec::new();
        for statement in statements {
            let statement = self.reader.read(statement).await.map_err(unreadable)?;
            not_aborted(client, &statement)?;
            responses.push(match statement {
                Statement::Command(said) => command(client, &said)?,
                Statement::Query(query) => {
                    let plan = query.plan.clone();
                    self.answer(self.query_time(client), query, plan, &Format::UnifiedText).await?
                }
            });
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Service {
    type Statement = Statement;
    type QueryParser = Reader;

    fn query_parser(&self) -> Arc<Reader> {
        Arc::clone(&self.reader)
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Statement>, _: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statement = &portal.statement.statement;
        not_aborted(client, statement)?;
        let query = match statement {
            Statement::Command(said) => return command(client, said),
            Statement::Query(query) => self.reader.refresh(query).await.map_err(unreadable)?,
        };
        let kinds = query.parameters()?;
        let types = parameter_types(&kinds)?;
        let kinds: Vec<_> = kinds.iter().map(Option::as_ref).collect();
        let types: Vec<Option<&Type>> = types.iter().map(Some).collect();
        let values = deserialize_parameters_with_server_types(portal, &kinds, &types)?;
        let plan = query.plan.clone().replace_params_with_values(&values);
        let plan = plan.map_err(|error| WireError::from(SqlError::planning(error)))?;
        self.answer(self.query_time(client), query, plan, &portal.result_column_format).await
    }
}
