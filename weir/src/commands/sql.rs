//! `weir sql`: one query, or a shell.

use std::io::{BufRead, IsTerminal, Write};

use weir_sql::Format;

use super::{configuration, existing_store};
use crate::cli::{Common, SqlArgs, TableFormat};
use crate::error::{Failure, Result};

/// Runs the query, or reads queries from standard input, each ended by a semicolon.
pub async fn run(common: &Common, args: SqlArgs) -> Result<()> {
    let config = configuration(common)?;
    let store = existing_store(&config).await?;
    let format = match (common.json, args.format) {
        (true, _) | (_, TableFormat::Json) => Format::Json,
        (_, TableFormat::Table) => Format::Table,
        (_, TableFormat::Csv) => Format::Csv,
    };
    if let Some(query) = args.query {
        let context = weir_sql::open(&store).await?;
        return print(&context, &query, format).await;
    }
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        eprintln!("tables and views: `select * from views;` - end a query with a semicolon, Ctrl-D to leave");
    }
    let mut query = String::new();
    prompt(interactive, &query);
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| Failure::outside(format!("cannot read queries: {error}")))?;
        query.push_str(&line);
        query.push('\n');
        if query.trim_end().ends_with(';') {
            // Opened anew for each query, so that a shell sees what was committed meanwhile.
            let context = weir_sql::open(&store).await?;
            match print(&context, query.trim().trim_end_matches(';'), format).await {
                Ok(()) => {}
                Err(failure) if interactive => eprintln!("weir: {failure}"),
                Err(failure) => return Err(failure),
            }
            query.clear();
        }
        prompt(interactive, &query);
    }
    if query.trim().is_empty() {
        return Ok(());
    }
    let context = weir_sql::open(&store).await?;
    print(&context, query.trim(), format).await
}

fn prompt(interactive: bool, query: &str) {
    if interactive {
        eprint!("{}", if query.is_empty() { "weir> " } else { "  ... " });
        if let Err(error) = std::io::stderr().flush() {
            tracing::debug!(%error, "the prompt could not be shown");
        }
    }
}

async fn print(context: &weir_sql::Context, query: &str, format: Format) -> Result<()> {
    let batches = weir_sql::query(context, query).await?;
    println!("{}", weir_sql::render(&batches, format)?.trim_end());
    Ok(())
}
