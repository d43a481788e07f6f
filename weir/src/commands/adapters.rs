//! `weir adapters`: what can be read beside Weir's own events.

use serde::Serialize;
use weir_adapters::Definition;

use super::{configuration, print_json};
use crate::adapters;
use crate::cli::{AdaptersCommand, Common};
use crate::error::Result;

#[derive(Serialize)]
struct Shown {
    name: String,
    doc: String,
    /// The fields that it reads, as column definitions.
    columns: Vec<String>,
    outputs: Vec<ShownOutput>,
}

#[derive(Serialize)]
struct ShownOutput {
    table: String,
    each: Option<String>,
    sql: String,
}

/// Runs the command. What it shows has compiled.
pub fn run(common: &Common, command: AdaptersCommand) -> Result<()> {
    let config = configuration(common)?;
    match command {
        AdaptersCommand::List => {
            let definitions = adapters::definitions(&config)?;
            definitions.iter().try_for_each(|definition| adapters::compile(definition).map(drop))?;
            if common.json {
                return print_json(&definitions.iter().map(shown).collect::<Vec<_>>());
            }
            for definition in &definitions {
                let tables: Vec<&str> = definition.outputs.iter().map(|output| output.table.as_str()).collect();
                println!("{:<20} {:<14} {}", definition.name, tables.join(", "), first_sentence(&definition.doc));
            }
        }
        AdaptersCommand::Show { name } => {
            let definition = adapters::definition(&config, &name)?;
            adapters::compile(&definition)?;
            if common.json {
                return print_json(&shown(&definition));
            }
            println!("{}", weir_adapters::describe(&definition).trim());
        }
    }
    Ok(())
}

fn shown(definition: &Definition) -> Shown {
    let output = |output: &weir_adapters::Output| ShownOutput {
        table: output.table.clone(),
        each: output.each.clone(),
        sql: output.sql.trim().to_owned(),
    };
    Shown {
        name: definition.name.clone(),
        doc: definition.doc.clone(),
        columns: definition.columns.iter().map(ToString::to_string).collect(),
        outputs: definition.outputs.iter().map(output).collect(),
    }
}

/// Up to the first full stop that ends a line or stands before a space, on one line.
fn first_sentence(doc: &str) -> String {
    let line = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    line.find(". ").map_or(line.clone(), |end| line[..=end].to_owned())
}
