//! One output: its SQL compiled to physical expressions, and run over a batch.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, filter, filter_record_batch, prep_null_mask_filter, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::DuckDbDialect;
use datafusion::sql::sqlparser::parser::Parser;
use weir_schemas::{Contract, Requirement, contracts};

use crate::adapter::{Failed, Projected};
use crate::definition::{Definition, Output, split_personal};
use crate::error::one_line;
use crate::{AdapterError, functions, shape};

/// The one table of a projection.
const MESSAGE: &str = "message";
/// An element of the list that `each` names.
const ITEM: &str = "item";
const SHAPE: &str = "write SELECT expression AS column, ... FROM message [WHERE condition], and nothing else: no joins, \
                     groups, sorting, limits or subqueries, since a message must become the same rows whatever lies \
                     beside it";

/// A compiled output.
#[derive(Debug)]
pub(crate) struct CompiledOutput {
    adapter: String,
    pub(crate) contract: &'static Contract,
    /// The contract's columns, all nullable.
    schema: SchemaRef,
    /// Indices of the input columns that the expressions read, in the order of their schema.
    needed: Vec<usize>,
    /// Which of the needed columns is the list to go through, and the schema with its elements.
    each: Option<(usize, SchemaRef)>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// Per contract column its expression; `None` is null.
    columns: Vec<Option<Arc<dyn PhysicalExpr>>>,
}

/// What went wrong with which column (`None` is the WHERE).
type RowError = (Option<usize>, &'static str);

impl CompiledOutput {
    pub(crate) fn compile(
        state: &SessionState,
        definition: &Definition,
        input: &Schema,
        output: &Output,
    ) -> Result<Self, AdapterError> {
        Compiler { state, definition, input, output }.compile()
    }

    /// Rows of the contract for the rows of `input`, and the input rows whose values an expression does not take.
    pub(crate) fn run(&self, input: &RecordBatch) -> Result<(Projected, Vec<Failed>), ArrowError> {
        let batch = input.project(&self.needed)?;
        let rows = UInt32Array::from_iter_values(0..input.num_rows() as u32);
        let (batch, rows) = match &self.each {
            None => (batch, rows),
            Some((list, schema)) => explode(&batch, *list, schema)?,
        };
        let mut pieces = Vec::new();
        let mut failed = Vec::new();
        self.pieces(&batch, &rows, &mut pieces, &mut failed);
        let (batches, rows): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
        let batch = match <[RecordBatch; 1]>::try_from(batches) {
            Ok([batch]) => batch,
            Err(batches) => concat_batches(&self.schema, &batches)?,
        };
        Ok((Projected { contract: self.contract, batch, rows: rows.concat() }, failed))
    }

    /// Halves what fails until the rows that fail are alone.
    fn pieces(
        &self,
        batch: &RecordBatch,
        rows: &UInt32Array,
        pieces: &mut Vec<(RecordBatch, Vec<u32>)>,
        failed: &mut Vec<Failed>,
    ) {
        if rows.is_empty() {
            return;
        }
        match self.evaluate(batch, rows) {
            Ok(piece) => pieces.push(piece),
            Err((column, why)) if rows.len() == 1 => {
                let place = column.map_or("WHERE", |column| self.contract.fields[column].name);
                let reason = format!("adapter {}, {}.{place}: {why}", self.adapter, self.contract.name);
                failed.push(Failed { row: rows.value(0), reason });
            }
            Err(_) => {
                let half = rows.len() / 2;
                let rest = rows.len() - half;
                self.pieces(&batch.slice(0, half), &rows.slice(0, half), pieces, failed);
                self.pieces(&batch.slice(half, rest), &rows.slice(half, rest), pieces, failed);
            }
        }
    }

    fn evaluate(&self, batch: &RecordBatch, rows: &UInt32Array) -> Result<(RecordBatch, Vec<u32>), RowError> {
        let mut batch = batch.clone();
        let mut rows = rows.clone();
        if let Some(condition) = &self.filter {
            let keep = value(condition, &batch).map_err(|error| (None, kind_of(&error)))?;
            let keep = keep.as_boolean();
            if keep.true_count() < batch.num_rows() {
                let keep = if keep.null_count() > 0 { prep_null_mask_filter(keep) } else { keep.clone() };
                let arrow = |error: ArrowError| (None, kind_of(&error.into()));
                batch = filter_record_batch(&batch, &keep).map_err(arrow)?;
                rows = filter(&rows, &keep).map_err(arrow)?.as_primitive::<UInt32Type>().clone();
            }
        }
        let columns = self.columns.iter().zip(self.schema.fields()).enumerate();
        let columns = columns.map(|(index, (expression, field))| match expression {
            Some(expression) if batch.num_rows() > 0 => value(expression, &batch)
                .and_then(|array| Ok(shape::reshape(&array, field.data_type())?))
                .map_err(|error| (Some(index), kind_of(&error))),
            _ => Ok(new_null_array(field.data_type(), batch.num_rows())),
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>, RowError>>()?;
        let projected = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        Ok((projected.map_err(|error| (None, kind_of(&error.into())))?, rows.values().to_vec()))
    }
}

fn value(expression: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
    expression.evaluate(batch)?.into_array(batch.num_rows())
}

/// One row per element of the list, with the other columns repeated. Messages without elements have none.
fn explode(batch: &RecordBatch, list: usize, schema: &SchemaRef) -> Result<(RecordBatch, UInt32Array), ArrowError> {
    let lists = batch.column(list).as_list::<i32>();
    let mut rows = Vec::new();
    let mut elements = Vec::new();
    for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
        for element in lists.value_offsets()[row]..lists.value_offsets()[row + 1] {
            rows.push(row as u32);
            elements.push(element as u32);
        }
    }
    let rows = UInt32Array::from(rows);
    let mut columns = Vec::with_capacity(batch.num_columns() + 1);
    for column in batch.columns() {
        columns.push(take(column, &rows, None)?);
    }
    columns.push(take(lists.values(), &UInt32Array::from(elements), None)?);
    Ok((RecordBatch::try_new(Arc::clone(schema), columns)?, rows))
}

/// The kind of an error. The engine's own message may quote a value, which may be personal.
fn kind_of(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::CastError(_) | ArrowError::ParseError(_) => {
                "the value does not have the type that it is cast to; TRY_CAST gives NULL for those"
            }
            ArrowError::DivideByZero => "the value is divided by zero; NULLIF(x, 0) avoids it",
            ArrowError::ArithmeticOverflow(_) | ArrowError::ComputeError(_) => {
                "a calculation leaves the range of its type; cast to DOUBLE first"
            }
            _ => "an expression does not take the value; TRY_CAST or CASE leave such messages out",
        },
        _ => "an expression does not take the value; TRY_CAST or CASE leave such messages out",
    }
}

struct Compiler<'a> {
    state: &'a SessionState,
    definition: &'a Definition,
    input: &'a Schema,
    output: &'a Output,
}

impl Compiler<'_> {
    fn compile(&self) -> Result<CompiledOutput, AdapterError> {
        let contract =
            contracts().into_iter().find(|contract| contract.name == self.output.table).ok_or_else(|| {
                let names: Vec<&str> = contracts().iter().map(|contract| contract.name).collect();
                self.wrong(format!("there is no such table; take one of {}", names.join(", ")))
            })?;
        let (items, condition) = self.parse()?;
        // Once over everything, to learn what is read; then over that alone.
        let all = self.schema_of(&(0..self.input.fields().len()).collect::<Vec<_>>())?;
        let mut read = BTreeSet::new();
        for expression in items.iter().map(|item| &item.expr).chain(&condition) {
            let planned = self.logical(expression, &all).map_err(|problem| self.wrong(problem))?;
            read.extend(planned.column_refs().into_iter().map(|column| column.name.clone()));
        }
        read.extend(self.output.each.clone());
        let needed: Vec<usize> =
            (0..self.input.fields().len()).filter(|index| read.contains(self.input.field(*index).name())).collect();
        let schema = self.schema_of(&needed)?;

        let filter = match &condition {
            None => None,
            Some(condition) => {
                let logical = self.logical(condition, &schema).map_err(|problem| self.wrong(problem))?;
                let physical = self.physical(logical, &schema).map_err(|problem| self.wrong(problem))?;
                let found = physical.data_type(schema.as_arrow()).map_err(|error| self.wrong(one_line(&error)))?;
                if found != DataType::Boolean {
                    return Err(self.wrong(format!("WHERE needs a condition, and this one is a {found}")));
                }
                Some(physical)
            }
        };
        let mut columns: Vec<Option<Arc<dyn PhysicalExpr>>> = vec![None; contract.fields.len()];
        for item in &items {
            let (index, name) = self.target(contract, item)?;
            let wrong = |problem: String| self.wrong_column(name, problem);
            let logical = self.logical(&item.expr, &schema).map_err(wrong)?;
            if !contract.text_columns.contains(&name)
                && let Some(personal) = self.personal_in(&logical)
            {
                return Err(wrong(format!(
                    "it is made from {personal}, which holds people's text; only {} may, or what passes {}",
                    text_columns(contract),
                    functions::WITHOUT_TEXT.join(", ")
                )));
            }
            let physical = self.physical(logical, &schema).map_err(wrong)?;
            let found = physical.data_type(schema.as_arrow()).map_err(|error| wrong(one_line(&error)))?;
            let wanted = contract.fields[index].kind.arrow_type();
            if !shape::fits(&found, &wanted) {
                return Err(wrong(format!(
                    "it needs {wanted}, and the expression gives {found}; convert it, for example with TRY_CAST"
                )));
            }
            if columns[index].replace(physical).is_some() {
                return Err(wrong("it is selected twice; once is enough".to_owned()));
            }
        }
        let missing: Vec<&str> = contract
            .fields
            .iter()
            .zip(&columns)
            .filter(|(field, column)| field.requirement == Requirement::Required && column.is_none())
            .map(|(field, _)| field.name)
            .collect();
        if !missing.is_empty() {
            return Err(self.wrong(format!("every row needs {}: select them", missing.join(", "))));
        }
        let nullable: Vec<Field> =
            contract.arrow_schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let each = self.output.each.as_ref().map(|each| {
            let list = needed.iter().position(|index| self.input.field(*index).name() == each).unwrap_or_default();
            (list, Arc::clone(schema.inner()))
        });
        Ok(CompiledOutput {
            adapter: self.definition.name.clone(),
            contract,
            schema: Arc::new(Schema::new(nullable)),
            needed,
            each,
            filter,
            columns,
        })
    }

    /// The select list and the condition of the one statement that the text may hold.
    fn parse(&self) -> Result<(Vec<ast::ExprWithAlias>, Option<ast::Expr>), AdapterError> {
        let statements = Parser::parse_sql(&DuckDbDialect {}, &self.output.sql)
            .map_err(|error| self.wrong(format!("the SQL does not parse: {error}")))?;
        let shape = || self.wrong(SHAPE.to_owned());
        let [ast::Statement::Query(query)] = statements.as_slice() else { return Err(shape()) };
        let ast::SetExpr::Select(select) = query.body.as_ref() else { return Err(shape()) };
        let mut items = Vec::new();
        for item in &select.projection {
            items.push(match item {
                ast::SelectItem::ExprWithAlias { expr, alias } => {
                    ast::ExprWithAlias { expr: expr.clone(), alias: Some(alias.clone()) }
                }
                ast::SelectItem::UnnamedExpr(expr @ ast::Expr::Identifier(name)) => {
                    ast::ExprWithAlias { expr: expr.clone(), alias: Some(name.clone()) }
                }
                ast::SelectItem::UnnamedExpr(_) => {
                    return Err(self.wrong(format!("say which column `{item}` is for: {item} AS column")));
                }
                _ => return Err(self.wrong(format!("`{item}` does not say which columns: name each with AS"))),
            });
        }
        // Whatever else a query can hold shows in its text.
        let listed: Vec<String> = select.projection.iter().map(ToString::to_string).collect();
        let mut plain = format!("SELECT {} FROM {MESSAGE}", listed.join(", "));
        if let Some(condition) = &select.selection {
            plain += &format!(" WHERE {condition}");
        }
        if query.to_string() == plain { Ok((items, select.selection.clone())) } else { Err(shape()) }
    }

    /// The columns of those indices, and the element of the list that `each` names.
    fn schema_of(&self, indices: &[usize]) -> Result<DFSchema, AdapterError> {
        let mut fields: Vec<Field> = indices.iter().map(|index| self.input.field(*index).clone()).collect();
        if let Some(each) = &self.output.each {
            let list = self.input.field_with_name(each).ok().map(Field::data_type);
            let Some(DataType::List(item)) = list else {
                return Err(self.wrong(format!("each names {each}, which is not a list column: declare it as one")));
            };
            if self.input.field_with_name(ITEM).is_ok() {
                return Err(self.wrong("with each, item is the element: rename the column item".to_owned()));
            }
            fields.push(item.as_ref().clone().with_name(ITEM).with_nullable(true));
        }
        DFSchema::try_from(Schema::new(fields)).map_err(|error| self.wrong(one_line(&error)))
    }

    fn logical(&self, expression: &ast::Expr, schema: &DFSchema) -> Result<Expr, String> {
        let subquery = ast::visit_expressions(expression, |part| match part {
            ast::Expr::Subquery(_) | ast::Expr::InSubquery { .. } | ast::Expr::Exists { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        if subquery.is_break() {
            return Err(format!("`{expression}` holds a subquery: each message stands alone"));
        }
        let unnamed = ast::ExprWithAlias { expr: expression.clone(), alias: None };
        let planned = self
            .state
            .create_logical_expr_from_sql_expr(unnamed, schema)
            .map_err(|error| format!("`{expression}` cannot be planned: {}", one_line(&error)))?;
        let mut refused = None;
        let walked: Result<_, DataFusionError> = planned.apply(|node| {
            refused = refusal(node);
            Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        walked.map_err(|error| format!("`{expression}` cannot be looked through: {}", one_line(&error)))?;
        match refused {
            Some(why) => Err(format!("`{expression}` {why}")),
            None => Ok(planned),
        }
    }

    fn physical(&self, logical: Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>, String> {
        // Some functions, coalesce among them, exist only until they are simplified to others.
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(self.state.config_options()))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let coerced = simplifier.coerce(logical, schema).map_err(|error| one_line(&error))?;
        let simple = simplifier.simplify(coerced).map_err(|error| one_line(&error))?;
        self.state.create_physical_expr(simple, schema).map_err(|error| one_line(&error))
    }

    fn target(
        &self,
        contract: &'static Contract,
        item: &ast::ExprWithAlias,
    ) -> Result<(usize, &'static str), AdapterError> {
        let alias = item.alias.as_ref().map_or("", |alias| alias.value.as_str());
        let found = contract.fields.iter().position(|field| field.name == alias);
        let index = found.ok_or_else(|| {
            self.wrong_column(
                alias,
                format!("{} has no such column: docs/reference/events.md lists them", contract.name),
            )
        })?;
        Ok((index, contract.fields[index].name))
    }

    /// The first personal column that the expression lets through.
    fn personal_in(&self, expression: &Expr) -> Option<String> {
        let columns = &self.definition.columns;
        let mut entries: Vec<(&str, Option<&str>)> =
            self.definition.personal.iter().filter_map(|entry| split_personal(columns, entry)).collect();
        if let Some(each) = &self.output.each
            && entries.iter().any(|(column, _)| column == each)
        {
            entries.push((ITEM, None));
        }
        personal_in(expression, &entries)
    }

    fn wrong(&self, problem: String) -> AdapterError {
        let (adapter, table) = (self.definition.name.clone(), self.output.table.clone());
        AdapterError::Output { adapter, table, problem }
    }

    fn wrong_column(&self, column: &str, problem: String) -> AdapterError {
        let (adapter, table) = (self.definition.name.clone(), self.output.table.clone());
        AdapterError::Column { adapter, table, column: column.to_owned(), problem }
    }
}

/// Why a part of an expression may not be: it depends on more than the message.
fn refusal(node: &Expr) -> Option<String> {
    let volatile = |name: &str, volatility: Volatility| {
        (volatility != Volatility::Immutable).then(|| {
            format!("calls {name}, which says something else each time: a message must be read the same again")
        })
    };
    match node {
        Expr::ScalarFunction(call) => volatile(call.name(), call.func.signature().volatility),
        Expr::AggregateFunction(_) => Some("is an aggregate over messages: each message stands alone".to_owned()),
        Expr::WindowFunction(_) => Some("looks at other messages: each message stands alone".to_owned()),
        Expr::Unnest(_) => Some("unnests a list: name the list as `each` of the output".to_owned()),
        Expr::Placeholder(_) | Expr::ScalarVariable(..) => Some("holds a variable: write the value".to_owned()),
        _ => None,
    }
}

fn personal_in(expression: &Expr, entries: &[(&str, Option<&str>)]) -> Option<String> {
    match expression {
        Expr::IsNull(_) | Expr::IsNotNull(_) => return None,
        Expr::Column(column) => {
            return entries.iter().any(|(name, _)| *name == column.name).then(|| column.name.clone());
        }
        Expr::ScalarFunction(call) if functions::WITHOUT_TEXT.contains(&call.name()) => return None,
        Expr::ScalarFunction(call) if call.name() == "get_field" => {
            if let [Expr::Column(column), Expr::Literal(key, _), ..] = call.args.as_slice() {
                let key = key.try_as_str().flatten();
                let personal = entries.iter().any(|(name, of)| {
                    // A key that can't be told here may be any.
                    *name == column.name && (of.is_none() || key.is_none() || *of == key)
                });
                return personal.then(|| format!("{}.{}", column.name, key.unwrap_or_default()));
            }
        }
        _ => {}
    }
    let mut found = None;
    let walked: Result<_, DataFusionError> = expression.apply_children(|child| {
        found = personal_in(child, entries);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    // What cannot be looked through may hold anything.
    walked.is_err().then(|| "an expression of unknown parts".to_owned()).or(found)
}

fn text_columns(contract: &Contract) -> String {
    match contract.text_columns {
        [] => format!("no column of {}", contract.name),
        columns => columns.join(", "),
    }
}

/// Keeps the rows of a projection whose message is good.
pub(crate) fn without(projected: &mut Projected, bad: &BTreeSet<u32>) -> Result<(), ArrowError> {
    if projected.rows.iter().all(|row| !bad.contains(row)) {
        return Ok(());
    }
    let keep = projected.rows.iter().map(|row| Some(!bad.contains(row))).collect();
    projected.batch = filter_record_batch(&projected.batch, &keep)?;
    projected.rows.retain(|row| !bad.contains(row));
    Ok(())
}
