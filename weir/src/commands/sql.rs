//! `weir sql`: one query, or a shell.

use std::io::{BufRead, BufWriter, IsTerminal, Write};

use weir_sql::Format;

use super::{configuration, store_to_read};
use crate::cli::{Common, SqlArgs, TableFormat};
use crate::error::{Failure, Result};

/// Runs the query, or reads queries from standard input, each ended by a semicolon.
pub async fn run(common: &Common, args: SqlArgs) -> Result<()> {
    let config = configuration(common)?;
    let store = store_to_read(&config)?;
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
    let mut text = String::new();
    prompt(interactive, &text);
    for line in std::io::stdin().lock().lines() {
        text.push_str(&line.map_err(|error| Failure::outside(format!("cannot read queries: {error}")))?);
        text.push('\n');
        let (queries, rest) = weir_sql::split_statements(&text);
        for query in queries {
            // Opened anew for each query, so that a shell sees what was committed meanwhile.
            let context = weir_sql::open(&store).await?;
            match print(&context, query, format).await {
                Ok(()) => {}
                Err(failure) if interactive => eprintln!("weir: {failure}"),
                Err(failure) => return Err(failure),
            }
        }
        text = rest.trim_start().to_owned();
        prompt(interactive, &text);
    }
    // The last query needs no semicolon. What is left open is run as it is: the parser says what is missing.
    let ended = format!("{text}\n;");
    let (queries, open) = weir_sql::split_statements(&ended);
    for query in if open.is_empty() { queries } else { vec![text.trim()] } {
        print(&weir_sql::open(&store).await?, query, format).await?;
    }
    Ok(())
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
    let mut out = BufWriter::new(std::io::stdout().lock());
    Ok(weir_sql::write(context, query, format, &mut out).await?)
}
