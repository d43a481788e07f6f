//! Statements about the connection and not about data. They change nothing that a query gives: drivers and pools send them
//! as a matter of course, so the harmless ones are answered.

use std::time::Duration;

/// Clients take their queries of the catalogue from the number in front.
pub(super) const SERVER_VERSION: &str = concat!("16.6 (Weir ", env!("CARGO_PKG_VERSION"), ")");

/// What `SHOW` and `current_setting` say.
const VALUES: &[(&str, &str)] = &[
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("search_path", "public"),
    ("timezone", "UTC"),
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "postgres"),
    ("standard_conforming_strings", "on"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "read committed"),
    ("is_superuser", "off"),
    ("max_identifier_length", "63"),
];

/// The value of a setting.
pub(super) fn value(name: &str) -> Option<&'static str> {
    VALUES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// A statement about the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Begin,
    Commit,
    Rollback,
    /// A setting that makes no difference here, or the value that it has anyway.
    Set,
    /// `statement_timeout`; None takes it back.
    Timeout(Option<Duration>),
    /// A setting to another value than the one that it has.
    Unsettable(String),
    Show(&'static str, &'static str),
    /// Forget a prepared statement, or all.
    Deallocate(Option<String>),
    Discard,
}

/// None when the statement is not about the connection.
pub(super) fn command(statement: &str) -> Option<Command> {
    let words: Vec<String> = words(statement);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["begin", ..] | ["start", "transaction", ..] => Some(Command::Begin),
        ["commit" | "end", ..] => Some(Command::Commit),
        // Back to a savepoint is something else: there are none.
        ["rollback" | "abort"] | ["rollback" | "abort", "work" | "transaction"] => Some(Command::Rollback),
        ["deallocate", "prepare", name] | ["deallocate", name] => {
            Some(Command::Deallocate((*name != "all").then(|| (*name).to_owned())))
        }
        ["discard", ..] => Some(Command::Discard),
        ["reset", "statement_timeout"] => Some(Command::Timeout(None)),
        ["reset", _] => Some(Command::Set),
        ["show", "transaction", "isolation", "level"] => show("transaction_isolation"),
        ["show", "time", "zone"] => show("timezone"),
        ["show", name] => show(name),
        ["set", "session", "characteristics", "as", "transaction", modes @ ..] | ["set", "transaction", modes @ ..] => {
            Some(if modes.contains(&"write") {
                Command::Unsettable("transaction_read_only".into())
            } else {
                Command::Set
            })
        }
        ["set", "time", "zone", value @ ..] => Some(set("timezone", value)),
        ["set", "session" | "local", name, "=" | "to", value @ ..] | ["set", name, "=" | "to", value @ ..] => {
            // Settings of the query engine are no settings of a connection.
            (!name.contains('.')).then(|| set(name, value))
        }
        _ => None,
    }
}

fn show(name: &str) -> Option<Command> {
    VALUES.iter().find(|(known, _)| *known == name).map(|(name, value)| Command::Show(name, value))
}

fn set(name: &str, value: &[&str]) -> Command {
    let value = value.concat();
    match name {
        "statement_timeout" if value == "default" => Command::Timeout(None),
        "statement_timeout" => timeout(&value).map_or_else(|| Command::Unsettable(name.to_owned()), Command::Timeout),
        // How values look, how they are labelled, or what may be written: all have one value.
        "timezone" => one_of(name, &value, &["utc", "gmt", "etc/utc", "default"]),
        "client_encoding" | "names" => one_of(name, &value, &["utf8", "utf-8", "unicode", "default"]),
        "datestyle" => one_of(name, &value, &["iso", "iso,ymd", "iso,mdy", "iso,dmy", "default"]),
        "intervalstyle" => one_of(name, &value, &["postgres", "default"]),
        "bytea_output" => one_of(name, &value, &["hex", "default"]),
        "standard_conforming_strings" | "transaction_read_only" | "default_transaction_read_only" => {
            one_of(name, &value, &["on", "true", "1", "default"])
        }
        "search_path" => one_of(name, &value, &["public", "\"$user\",public", "$user,public", "default"]),
        "application_name"
        | "extra_float_digits"
        | "client_min_messages"
        | "lock_timeout"
        | "idle_in_transaction_session_timeout"
        | "default_transaction_isolation" => Command::Set,
        _ => Command::Unsettable(name.to_owned()),
    }
}

fn one_of(name: &str, value: &str, same: &[&str]) -> Command {
    if same.contains(&value) { Command::Set } else { Command::Unsettable(name.to_owned()) }
}

/// PostgreSQL's milliseconds, or a number with a unit; 0 is none.
fn timeout(value: &str) -> Option<Option<Duration>> {
    let digits = value.find(|character: char| !character.is_ascii_digit()).unwrap_or(value.len());
    let number: u64 = value[..digits].parse().ok()?;
    let ms = match value[digits..].trim() {
        "" | "ms" => number,
        "s" => number.checked_mul(1_000)?,
        "min" => number.checked_mul(60_000)?,
        _ => return None,
    };
    Some((ms > 0).then(|| Duration::from_millis(ms)))
}

/// Words in small letters, without quotes; `=` is one of its own.
fn words(statement: &str) -> Vec<String> {
    // More words than this is no statement about a connection, and may be megabytes.
    const MOST: usize = 400;
    if statement.len() > MOST {
        return Vec::new();
    }
    let spaced = statement.trim().trim_end_matches(';').replace('=', " = ").replace(',', " , ");
    spaced
        .split_whitespace()
        .map(|word| word.trim_matches(['\'', '"']).to_lowercase())
        .filter(|w| !w.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drivers_send_of_their_own_accord_is_answered() {
        assert_eq!(command("BEGIN"), Some(Command::Begin));
        assert_eq!(command("BEGIN ISOLATION LEVEL READ COMMITTED"), Some(Command::Begin));
        assert_eq!(command("COMMIT;"), Some(Command::Commit));
        assert_eq!(command("ROLLBACK"), Some(Command::Rollback));
        assert_eq!(command("SET extra_float_digits = 3"), Some(Command::Set));
        assert_eq!(command("SET application_name = 'psql'"), Some(Command::Set));
        assert_eq!(command("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"), Some(Command::Set));
        assert_eq!(command("SET datestyle TO ISO, MDY"), Some(Command::Set));
        assert_eq!(command("set client_encoding to 'UTF8'"), Some(Command::Set));
        assert_eq!(command("SHOW search_path"), Some(Command::Show("search_path", "public")));
        assert_eq!(command("DEALLOCATE ALL"), Some(Command::Deallocate(None)));
        assert_eq!(command("DISCARD ALL"), Some(Command::Discard));
    }

    #[test]
    fn a_timeout_is_read_with_its_unit() {
        let ms = |ms| Some(Command::Timeout(Some(Duration::from_millis(ms))));
        assert_eq!(command("SET statement_timeout = 50"), ms(50));
        assert_eq!(command("SET statement_timeout TO '2s'"), ms(2_000));
        assert_eq!(command("SET statement_timeout = 0"), Some(Command::Timeout(None)));
        assert!(matches!(command("SET statement_timeout = soon"), Some(Command::Unsettable(_))));
    }

    #[test]
    fn another_value_than_the_one_there_is_would_be_a_lie() {
        for statement in ["SET TIME ZONE 'Europe/Berlin'", "SET TRANSACTION READ WRITE", "SET work_mem = '1GB'"] {
            assert!(matches!(command(statement), Some(Command::Unsettable(_))), "{statement}");
        }
    }

    #[test]
    fn queries_are_none_of_its_business() {
        for statement in ["SELECT 1", "SHOW TABLES", "EXPLAIN SELECT 1", "SET datafusion.execution.batch_size = 1", ""]
        {
            assert_eq!(command(statement), None, "{statement}");
        }
    }
}
