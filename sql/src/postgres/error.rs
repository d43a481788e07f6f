//! What a client of the wire is told: a sentence, and the five characters of SQLSTATE that its program looks at.

use pgwire::error::{ErrorInfo, PgWireError};

use crate::SqlError;

/// Errors of this listener. None holds a value of a row, nor a password.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error("canceling statement due to statement timeout: a query may take {0} ms here")]
    TooLong(u128),
    #[error("the result has more than {0} rows, the most that one query may give here; add a LIMIT or an aggregate")]
    TooManyRows(usize),
    #[error("current transaction is aborted, commands ignored until end of transaction block")]
    Aborted,
    #[error("the setting {0} has one value here; leave it out")]
    Setting(String),
    #[error("cached plan must not change result type: the table has other columns now; prepare the statement again")]
    OtherColumns,
    #[error("the text holds several statements; a prepared statement is one")]
    Several,
    #[error("too many connections: {0} are open, the most that postgres.max_connections allows")]
    TooManyConnections(usize),
    #[error("password authentication failed for user \"{0}\"")]
    WrongPassword(String),
    #[error("the client's login is not valid: {0}")]
    Login(&'static str),
}

impl WireError {
    /// As PostgreSQL's own errors, by the appendix "PostgreSQL Error Codes" of its manual.
    fn sqlstate(&self) -> &'static str {
        match self {
            Self::Sql(error) => sqlstate(error),
            Self::TooLong(_) => "57014",
            Self::TooManyRows(_) => "54000",
            Self::Aborted => "25P02",
            Self::Setting(_) => "22023",
            Self::OtherColumns => "0A000",
            Self::Several => "42601",
            Self::TooManyConnections(_) => "53300",
            Self::WrongPassword(_) => "28P01",
            Self::Login(_) => "08P01",
        }
    }

    /// Ends the connection too?
    fn severity(&self) -> &'static str {
        match self {
            Self::TooManyConnections(_) | Self::WrongPassword(_) | Self::Login(_) => "FATAL",
            _ => "ERROR",
        }
    }

    /// The word for counters.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Sql(SqlError::ReadOnly) => "refused",
            Self::Sql(SqlError::BadQuery(_)) | Self::Several | Self::Setting(_) => "bad_query",
            Self::TooLong(_) => "timeout",
            Self::TooManyRows(_) => "too_many_rows",
            _ => "failed",
        }
    }
}

impl From<WireError> for PgWireError {
    fn from(error: WireError) -> Self {
        let (severity, code) = (error.severity().to_owned(), error.sqlstate().to_owned());
        PgWireError::UserError(Box::new(ErrorInfo::new(severity, code, error.to_string())))
    }
}

fn sqlstate(error: &SqlError) -> &'static str {
    match error {
        SqlError::ReadOnly => "25006",
        SqlError::BadQuery(said) => bad_query(said),
        SqlError::BadValue(_) => "22000",
        SqlError::TooMuchMemory => "53200",
        SqlError::Features(_) | SqlError::Failed(_) | SqlError::Output(_) | SqlError::File { .. } => "58000",
        SqlError::Engine(_) | SqlError::Unwritable(_) => "XX000",
    }
}

/// The engine's errors carry no code, only words.
fn bad_query(said: &str) -> &'static str {
    let has = |words: &str| said.contains(words);
    if has("ParserError") || has("TokenizerError") {
        "42601"
    } else if has("No field named") {
        "42703"
    } else if has("table '") && has("not found") {
        "42P01"
    } else if has("Invalid function") {
        "42883"
    } else {
        "42000"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_can_tell_errors_apart() {
        let state = |said: &str| WireError::Sql(SqlError::BadQuery(said.into())).sqlstate();
        assert_eq!(state("SQL error: ParserError(\"Expected: an expression\")"), "42601");
        assert_eq!(state("Error during planning: table 'datafusion.public.x' not found"), "42P01");
        assert_eq!(state("Schema error: No field named x."), "42703");
        assert_eq!(state("Error during planning: Invalid function 'x'."), "42883");
        assert_eq!(state("Error during planning: something else"), "42000");
        assert_eq!(WireError::from(SqlError::ReadOnly).sqlstate(), "25006");
    }
}
