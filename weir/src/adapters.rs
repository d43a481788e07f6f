//! Adapters: those that come with Weir, and those that the configuration defines beside them.

use weir_adapters::{Adapter, Definition};

use crate::config::Config;
use crate::error::{Failure, Result};

/// Every adapter that a topic can name, those that come with Weir first.
///
/// # Errors
/// When the configuration's do not read, or take a name that is taken.
pub fn definitions(config: &Config) -> Result<Vec<Definition>> {
    let mut definitions: Vec<Definition> =
        Definition::built_in_names().into_iter().filter_map(Definition::built_in).collect();
    for text in &config.adapters {
        let definition = text.read(sql_file).map_err(|error| Failure::user(error.to_string()))?;
        if definitions.iter().any(|known| known.name == definition.name) {
            return Err(Failure::user(format!(
                "there is an adapter {} already: give it another name",
                definition.name
            )));
        }
        definitions.push(definition);
    }
    Ok(definitions)
}

/// The adapter of that name.
///
/// # Errors
/// As [`definitions`], and when there is none of that name.
pub fn definition(config: &Config, name: &str) -> Result<Definition> {
    let definitions = definitions(config)?;
    let names: Vec<String> = definitions.iter().map(|definition| definition.name.clone()).collect();
    definitions.into_iter().find(|definition| definition.name == name).ok_or_else(|| {
        let names = names.join(", ");
        Failure::user(format!("there is no adapter {name}: take one of {names}, or define it under [[adapters]]"))
    })
}

/// Compiles one.
///
/// # Errors
/// When its SQL is not such a projection; the sentence names output and column.
pub fn compile(definition: &Definition) -> Result<Adapter> {
    Adapter::compile(definition).map_err(|error| Failure::user(error.to_string()))
}

fn sql_file(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}
