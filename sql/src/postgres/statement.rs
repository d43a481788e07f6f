//! What a text means: a statement about the connection, or a query with its plan.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow_pg::datatypes::into_pg_type;
use async_trait::async_trait;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as Parsed;
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use pgwire::api::portal::Format;
use pgwire::api::results::FieldInfo;
use pgwire::api::stmt::QueryParser;
use pgwire::api::{ClientInfo, Type};
use pgwire::error::{PgWireError, PgWireResult};

use super::error::WireError;
use super::sessions::Sessions;
use super::settings::{self, Command};
use super::{events, rows};
use crate::query::{only_reads, plan};
use crate::{Context, SqlError, split_statements};

/// The protocol counts parameters in two bytes.
const MOST_PARAMETERS: usize = u16::MAX as usize;

/// A statement that was understood.
#[derive(Clone)]
pub(super) enum Statement {
    Command(Command),
    Query(Query),
}

/// A query, and what it was planned against.
#[derive(Clone)]
pub(super) struct Query {
    pub(super) text: String,
    pub(super) plan: LogicalPlan,
    pub(super) context: Arc<Context>,
}

impl Query {
    /// Types of `$1`, `$2`, ... as far as the query tells.
    pub(super) fn parameters(&self) -> Result<Vec<Option<DataType>>, WireError> {
        let types: HashMap<String, Option<DataType>> = self.plan.get_parameter_types().map_err(SqlError::planning)?;
        let number = |name: &str| name.trim_start_matches('$').parse::<usize>().ok();
        let most = types.keys().filter_map(|name| number(name)).max().unwrap_or(0);
        if most > MOST_PARAMETERS {
            return Err(
                SqlError::BadQuery(format!("${most} is no parameter: there are {MOST_PARAMETERS} at most")).into()
            );
        }
        let mut ordered = vec![None; most];
        for (name, kind) in types {
            let place = number(&name).and_then(|number| number.checked_sub(1));
            if let Some(slot) = place
                && let Some(parameter) = ordered.get_mut(slot)
            {
                *parameter = kind;
            }
        }
        Ok(ordered)
    }
}

/// A statement that could not even be planned is one that ended, too.
pub(super) fn unreadable(error: WireError) -> PgWireError {
    events::Statement::began().ended(error.outcome(), 0);
    error.into()
}

/// Types of the wire for types of the engine; unknown ones are left to the client.
pub(super) fn parameter_types(kinds: &[Option<DataType>]) -> PgWireResult<Vec<Type>> {
    kinds.iter().map(|kind| kind.as_ref().map_or(Ok(Type::UNKNOWN), into_pg_type)).collect()
}

/// Reads statements.
pub(super) struct Reader {
    sessions: Sessions,
    /// PostgreSQL's dialect, with the catalogue queries of well-known clients put into words that the engine takes.
    dialect: PostgresCompatibilityParser,
}

impl Reader {
    pub(super) fn new(sessions: Sessions) -> Self {
        Self { sessions, dialect: PostgresCompatibilityParser::new() }
    }

    /// One statement, planned against tables as they are.
    pub(super) async fn read(&self, text: &str) -> Result<Statement, WireError> {
        let command = settings::command(text);
        let text = match command {
            None => text.to_owned(),
            Some(Command::Show(name, value)) => format!("SELECT '{value}' AS \"{name}\""),
            Some(command) => return Ok(Statement::Command(command)),
        };
        let context = self.sessions.fresh().await?;
        let plan = self.plan(&context, &text).await?;
        Ok(Statement::Query(Query { text, plan, context }))
    }

    /// The same query against tables as they are now: a prepared statement may be hours old.
    pub(super) async fn refresh(&self, query: &Query) -> Result<Query, WireError> {
        let context = self.sessions.fresh().await?;
        if Arc::ptr_eq(&context, &query.context) {
            return Ok(query.clone());
        }
        let plan = self.plan(&context, &query.text).await?;
        let columns = |plan: &LogicalPlan| -> Vec<(String, DataType)> {
            plan.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
        };
        // The client was told of the columns when it prepared the statement.
        if columns(&plan) != columns(&query.plan) {
            return Err(WireError::OtherColumns);
        }
        Ok(Query { text: query.text.clone(), plan, context })
    }

    /// A query means here what it means to `weir sql`. Only one that the engine does not take as it is, such as psql's own
    /// about the catalogue, is read as PostgreSQL's dialect.
    async fn plan(&self, context: &Context, text: &str) -> Result<LogicalPlan, WireError> {
        let refused = match plan(context, text).await {
            Ok(plan) => return Ok(plan),
            Err(SqlError::BadQuery(said)) => SqlError::BadQuery(said),
            Err(other) => return Err(other.into()),
        };
        let mut statements = self.dialect.parse(text).unwrap_or_default();
        if statements.len() != 1 {
            return Err(refused.into());
        }
        let statement = Parsed::Statement(Box::new(statements.remove(0)));
        let Ok(plan) = context.state().statement_to_plan(statement).await else { return Err(refused.into()) };
        only_reads(&plan)?;
        Ok(plan)
    }
}

#[async_trait]
impl QueryParser for Reader {
    type Statement = Statement;

    async fn parse_sql<C>(&self, _: &C, text: &str, _: &[Option<Type>]) -> PgWireResult<Option<Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let ended = format!("{text}\n;");
        match split_statements(&ended) {
            (statements, "") if statements.len() > 1 => Err(WireError::Several.into()),
            (statements, "") => match statements.first() {
                None => Ok(None),
                Some(statement) => Ok(Some(self.read(statement).await.map_err(unreadable)?)),
            },
            // What is left open is read as it is: the parser says what is missing.
            _ => Ok(Some(self.read(text).await.map_err(unreadable)?)),
        }
    }

    fn get_parameter_types(&self, statement: &Statement) -> PgWireResult<Vec<Type>> {
        match statement {
            Statement::Command(_) => Ok(Vec::new()),
            Statement::Query(query) => parameter_types(&query.parameters()?),
        }
    }

    fn get_result_schema(&self, statement: &Statement, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match statement {
            Statement::Command(_) => Ok(Vec::new()),
            Statement::Query(query) => {
                rows::fields(query.plan.schema().as_arrow(), format.unwrap_or(&Format::UnifiedText))
            }
        }
    }
}
