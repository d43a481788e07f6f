//! A compiled adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::prelude::{SessionConfig, SessionContext};
use weir_schemas::Contract;

use crate::columns::JSON_TEXT;
use crate::output::{CompiledOutput, without};
use crate::{AdapterError, Column, Definition, Input, functions, prometheus};

/// A definition, compiled: it runs over any number of batches, from any thread.
#[derive(Debug)]
pub struct Adapter {
    name: String,
    input: Input,
    schema: SchemaRef,
    outputs: Vec<CompiledOutput>,
    contracts: Vec<&'static Contract>,
}

/// Rows of one table.
#[derive(Debug, Clone)]
pub struct Projected {
    /// Whose rows they are.
    pub contract: &'static Contract,
    /// The contract's columns in their order and types, all nullable: columns that the projection leaves out are null,
    /// and whether a required one has a value is for the door to check.
    pub batch: RecordBatch,
    /// Per row of `batch` the row of the input that it came from, ascending.
    pub rows: Vec<u32>,
}

/// A row of the input with a value that an expression does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Index into the input.
    pub row: u32,
    /// Which column of which table, and how to mend it. Never quotes the message.
    pub reason: String,
}

/// What a batch of messages became.
#[derive(Debug, Clone)]
pub struct Projection {
    /// One per output of the definition, in its order. Rows that failed in one output are in none.
    pub outputs: Vec<Projected>,
    /// Rows that failed, ascending, each once.
    pub failed: Vec<Failed>,
}

impl Adapter {
    /// Compiles a definition: everything that can be wrong with it is found here, not while messages are read.
    ///
    /// # Errors
    /// With a sentence that names adapter, output and column, and says how to mend it.
    pub fn compile(definition: &Definition) -> Result<Self, AdapterError> {
        let wrong = |problem: String| AdapterError::Definition { adapter: definition.name.clone(), problem };
        let schema = input_schema(&definition.columns);
        if let Input::Prometheus { .. } = definition.input {
            prometheus::check(&schema).map_err(wrong)?;
        }
        if definition.outputs.is_empty() {
            return Err(wrong("it has no outputs: add one with table and sql".to_owned()));
        }
        // Names of columns are a message's own, with their case; text stays in the contracts' string type.
        let config = SessionConfig::new()
            .set_bool("datafusion.sql_parser.enable_ident_normalization", false)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
        let context = SessionContext::new_with_config(config);
        functions::all().into_iter().for_each(|function| context.register_udf(function));
        let state = context.state();
        let compile = |output| CompiledOutput::compile(&state, definition, &schema, output);
        let outputs = definition.outputs.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        let mut contracts: Vec<&'static Contract> = Vec::new();
        for output in &outputs {
            if !contracts.iter().any(|known| known.name == output.contract.name) {
                contracts.push(output.contract);
            }
        }
        let (name, input) = (definition.name.clone(), definition.input.clone());
        Ok(Self { name, input, schema, outputs, contracts })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How messages become rows of [`Self::input_schema`].
    #[must_use]
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// What messages are decoded into; all fields are nullable. Fields whose metadata has [`JSON_TEXT`], nested ones
    /// too, hold the raw JSON of a value.
    #[must_use]
    pub fn input_schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The tables that it can yield rows for, each once.
    #[must_use]
    pub fn outputs(&self) -> &[&'static Contract] {
        &self.contracts
    }

    /// Projects a batch of [`Self::input_schema`].
    ///
    /// # Errors
    /// [`AdapterError::Engine`] when the batch has another schema. What messages hold is in [`Projection::failed`].
    pub fn project(&self, input: &RecordBatch) -> Result<Projection, AdapterError> {
        let given = input.schema();
        let same = given.fields().len() == self.schema.fields().len()
            && given
                .fields()
                .iter()
                .zip(self.schema.fields())
                .all(|(given, ours)| given.name() == ours.name() && given.data_type() == ours.data_type());
        if !same {
            return Err(self.engine("the batch is not of its input schema"));
        }
        let mut outputs = Vec::with_capacity(self.outputs.len());
        let mut failed = BTreeMap::new();
        for output in &self.outputs {
            let (projected, rows) = output.run(input).map_err(|_| self.engine("a projection does not fit together"))?;
            for row in rows {
                failed.entry(row.row).or_insert(row.reason);
            }
            outputs.push(projected);
        }
        let bad: BTreeSet<u32> = failed.keys().copied().collect();
        if !bad.is_empty() {
            for projected in &mut outputs {
                without(projected, &bad).map_err(|_| self.engine("its rows cannot be told apart"))?;
            }
        }
        let failed = failed.into_iter().map(|(row, reason)| Failed { row, reason }).collect();
        Ok(Projection { outputs, failed })
    }

    fn engine(&self, problem: &str) -> AdapterError {
        AdapterError::Engine { adapter: self.name.clone(), problem: problem.to_owned() }
    }
}

fn input_schema(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| {
        let field = Field::new(&column.name, column.data_type.clone(), true);
        if column.json { field.with_metadata([(JSON_TEXT.to_owned(), "true".to_owned())].into()) } else { field }
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}
