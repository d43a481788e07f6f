//! Reading public score matrices (Parquet), one dense array each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::SessionContext;
use weir_policy_runtime::Action;
use weir_policy_runtime::hash_embedding::{hash_embedding, hash_embedding_model};

use super::encoder::Encoded;
use crate::error::{LearnError, Result};
use crate::parquet_table::register_parquet;

/// A query of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixQuery {
    /// Its id.
    pub id: String,
    /// Its text.
    pub text: String,
    /// The task that it belongs to.
    pub domain: String,
}

/// Quality and cost of every model on every query.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Which matrix.
    pub name: String,
    /// Queries, sorted by id; equal texts occur once.
    pub queries: Vec<MatrixQuery>,
    /// Models, sorted by name.
    pub models: Vec<Action>,
    /// Quality in [0, 1], shape `[queries, models]`, row-major.
    pub quality: Vec<f64>,
    /// Cost in USD, shape `[queries, models]`, row-major.
    pub cost_usd: Vec<f64>,
    /// What the costs are.
    pub cost_note: String,
    /// Length of each answer, characters, shape `[queries, models]`, row-major; none where the data has no texts of answers.
    pub answer_chars: Option<Vec<f64>>,
    /// Vectors of the texts, where a program made them; hashed n-grams stand in for them where none did.
    pub encoded: Option<Encoded>,
}

impl Matrix {
    /// Takes up the lengths of answers, if there is one for every cell.
    pub(super) fn with_answer_chars(mut self, lengths: &AnswerLengths) -> Self {
        let cells = self.queries.iter().flat_map(|query| self.models.iter().map(move |model| (query, model)));
        self.answer_chars =
            cells.map(|(query, model)| lengths.get(&(query.id.clone(), model.model.clone())).copied()).collect();
        self
    }

    /// Whether queries have texts; where they have none, the domain is all that is known of a query.
    #[must_use]
    pub fn has_texts(&self) -> bool {
        self.queries.iter().any(|query| !query.text.is_empty())
    }

    /// What is known of each query's text: its vector by the program, if one made them, else hashed n-grams, of its domain's name where
    /// there are no texts, shape `[queries][dim]`.
    pub(super) fn embeddings(&self, dim: usize) -> Vec<Vec<f32>> {
        if let Some(encoded) = &self.encoded {
            return encoded.vectors.clone();
        }
        let has_texts = self.has_texts();
        let known = |query: &MatrixQuery| hash_embedding(if has_texts { &query.text } else { &query.domain }, dim);
        self.queries.iter().map(known).collect()
    }

    /// Which embedding [`Self::embeddings`] gives.
    pub(super) fn embedding_model(&self, dim: usize) -> String {
        self.encoded.as_ref().map_or_else(|| hash_embedding_model(dim), |encoded| encoded.by.clone())
    }

    /// Index of a cell.
    #[must_use]
    pub fn cell(&self, query: usize, model: usize) -> usize {
        query * self.models.len() + model
    }

    /// Mean cost of each model over `queries`.
    #[must_use]
    pub fn mean_costs(&self, queries: &[usize]) -> Vec<f64> {
        self.means(&self.cost_usd, queries)
    }

    pub(super) fn means(&self, plane: &[f64], queries: &[usize]) -> Vec<f64> {
        let sum = |model| queries.iter().map(|&query| plane[self.cell(query, model)]).sum::<f64>();
        (0..self.models.len()).map(|model| sum(model) / queries.len().max(1) as f64).collect()
    }
}

const NINE_SQL: &str = include_str!("../sql/matrix_llmrouter.sql");
const NQ_SQL: &str = include_str!("../sql/matrix_llmrouter_nq.sql");
const LENGTHS_SQL: &str = include_str!("../sql/matrix_llmrouter_lengths.sql");
const SWEBENCH_AGENTS_SQL: &str = include_str!("../sql/matrix_swebench_agents.sql");
const ROUTERARENA_SQL: &str = include_str!("../sql/matrix_routerarena.sql");
const LLMDRIFT_SQL: &str = include_str!("../sql/matrix_llmdrift.sql");

/// Tokens per call that stand in for the nine-model part's missing token counts. Prompt and completion prices are equal
/// for each of its models, so only "all models use as many tokens" is assumed; the number itself is a unit.
const TOKENS_PER_CALL: f64 = 500.0;

/// The nine-model part: 14 tasks, prices per token as constants of each model.
///
/// # Errors
/// [`LearnError::Unreadable`] when a file or a column of it is missing, or no query has a score of every model.
pub async fn load_llmrouter(folder: &Path) -> Result<Matrix> {
    let files = [
        File { table: "queries", name: "queries.parquet", columns: &["query_id", "query", "task"] },
        File { table: "scores", name: "scores.parquet", columns: &["query_id", "model", "score"] },
        File {
            table: "models",
            name: "models.parquet",
            columns: &["model", "input_usd_per_mtok", "output_usd_per_mtok"],
        },
    ];
    let note = format!(
        "list price per token x {TOKENS_PER_CALL} tokens for every call: lengths are not in the data, and are assumed \
         equal for all models"
    );
    load("llmrouter", folder, &files, NINE_SQL, note).await
}

/// The Natural Questions part: six models, cost of each call as recorded.
///
/// # Errors
/// [`LearnError::Unreadable`] when a file or a column of it is missing, or no query has a score of every model.
pub async fn load_llmrouter_nq(folder: &Path) -> Result<Matrix> {
    let files = [
        File { table: "queries", name: "nq_queries.parquet", columns: &["query_id", "query"] },
        File { table: "scores", name: "nq_scores.parquet", columns: &["query_id", "model", "score", "cost_usd"] },
    ];
    load("llmrouter-nq", folder, &files, NQ_SQL, "recorded cost of each call".to_owned()).await
}

/// Coding agents on SWE-bench Verified: 24 models, cost of the whole run. Issues have no text, only a repository.
///
/// # Errors
/// [`LearnError::Unreadable`] when the file or a column of it is missing, or no issue has a run of every model.
pub async fn load_swebench_agents(folder: &Path) -> Result<Matrix> {
    let columns = &["query_id", "model", "score", "cost_usd", "repo"];
    let files = [File { table: "scores", name: "runs.parquet", columns }];
    load("swebench-agents", folder, &files, SWEBENCH_AGENTS_SQL, "recorded cost of each run".to_owned()).await
}

/// `RouterArena`'s cached results: two models, cost of each call. The domain of a query is the data set that it is from.
///
/// # Errors
/// [`LearnError::Unreadable`] when a file or a column of it is missing, or no query has a score of both models.
pub async fn load_routerarena(folder: &Path) -> Result<Matrix> {
    let files = [
        File { table: "queries", name: "queries.parquet", columns: &["query_id", "query", "dataset"] },
        File {
            table: "scores",
            name: "scores.parquet",
            columns: &["query_id", "model", "score", "cost_usd", "success"],
        },
    ];
    load("routerarena", folder, &files, ROUTERARENA_SQL, "recorded cost of each call".to_owned()).await
}

/// `LLMDrift`: the March and June 2023 versions of GPT-3.5 and GPT-4, cost of each call. Opinion polls have no score and stay out, and so
/// do offensive requests, whose score says whether they were answered; primes and composites are one domain, since either name gives the
/// answer away.
///
/// # Errors
/// [`LearnError::Unreadable`] when the file or a column of it is missing, or no query has a score of every model.
pub async fn load_llmdrift(folder: &Path) -> Result<Matrix> {
    let columns = &["model", "dataset", "id", "query", "score", "cost_usd"];
    let files = [File { table: "scores", name: "answers.parquet", columns }];
    load("llmdrift", folder, &files, LLMDRIFT_SQL, "recorded cost of each call".to_owned()).await
}

/// Characters of answers by query's id and model.
pub(super) type AnswerLengths = BTreeMap<(String, String), f64>;

/// Lengths of the answers that `sql` finds: id, model and characters, by position. None where `table` lacks a column that it needs:
/// the texts of answers are an extra.
pub(super) async fn answer_lengths(
    session: &SessionContext,
    table: &str,
    needs: &[&str],
    sql: &str,
) -> Result<AnswerLengths> {
    let mut lengths = AnswerLengths::new();
    let found = session.table(table).await?;
    if !needs.iter().all(|column| found.schema().has_column_with_unqualified_name(column)) {
        return Ok(lengths);
    }
    for batch in session.sql(sql).await?.collect().await? {
        let [id, model] = [0, 1].map(|index| cast(batch.column(index), &DataType::Utf8));
        let (id, model, length) = (id?, model?, cast(batch.column(2), &DataType::Float64)?);
        for row in 0..batch.num_rows() {
            lengths.extend(number(&length, row).map(|length| ((string(&id, row), string(&model, row)), length)));
        }
    }
    Ok(lengths)
}

/// A file of a matrix.
struct File {
    table: &'static str,
    name: &'static str,
    columns: &'static [&'static str],
}

/// One row of a matrix query.
struct Cell {
    query: MatrixQuery,
    model: Action,
    quality: f64,
    cost_usd: Option<f64>,
}

async fn load(name: &str, folder: &Path, files: &[File], sql: &str, cost_note: String) -> Result<Matrix> {
    let session = SessionContext::new();
    let absent: Vec<&str> = files.iter().map(|file| file.name).filter(|name| !folder.join(name).is_file()).collect();
    if !absent.is_empty() {
        return Err(LearnError::Unreadable {
            what: format!("the score matrix {name} in {}", folder.display()),
            why: format!("there is no {} in that folder", absent.join(", no ")),
        });
    }
    for file in files {
        register_parquet(&session, file.table, &folder.join(file.name), file.columns).await?;
    }
    let mut cells = Vec::new();
    for batch in session.sql(sql).await?.collect().await? {
        let columns = [0, 1, 2, 3].map(|index| cast(batch.column(index), &DataType::Utf8));
        let [id, text, domain, model] = columns;
        let (id, text, domain, model) = (id?, text?, domain?, model?);
        let numbers = [4, 5, 6, 7].map(|index| cast(batch.column(index), &DataType::Float64));
        let [quality, cost, input, output] = numbers;
        let (quality, cost, input, output) = (quality?, cost?, input?, output?);
        for row in 0..batch.num_rows() {
            let (input_usd_per_mtok, output_usd_per_mtok) = (number(&input, row), number(&output, row));
            let prices = input_usd_per_mtok.zip(output_usd_per_mtok);
            let list_price = prices.map(|(input, output)| f64::midpoint(input, output) * TOKENS_PER_CALL / 1e6);
            cells.push(Cell {
                query: MatrixQuery { id: string(&id, row), text: string(&text, row), domain: string(&domain, row) },
                model: Action { model: string(&model, row), input_usd_per_mtok, output_usd_per_mtok },
                quality: number(&quality, row).unwrap_or(f64::NAN),
                cost_usd: number(&cost, row).or(list_price),
            });
        }
    }
    let lengths = answer_lengths(&session, "scores", &["response"], LENGTHS_SQL).await?;
    Ok(dense(name, cells, cost_note)?.with_answer_chars(&lengths))
}

/// Quality and cost by model, where both are known.
type Row = Vec<Option<(f64, f64)>>;

/// A dense matrix of the cells. A query with a missing cell is left out: a hole is not a zero.
fn dense(name: &str, cells: Vec<Cell>, cost_note: String) -> Result<Matrix> {
    let models: BTreeMap<String, Action> =
        cells.iter().map(|cell| (cell.model.model.clone(), cell.model.clone())).collect();
    let column: BTreeMap<&String, usize> = models.keys().enumerate().map(|(index, name)| (name, index)).collect();
    let mut rows: BTreeMap<&str, (&MatrixQuery, Row)> = BTreeMap::new();
    for cell in &cells {
        let entry = rows.entry(&cell.query.id).or_insert_with(|| (&cell.query, vec![None; models.len()]));
        let complete = cell.cost_usd.filter(|_| cell.quality.is_finite()).map(|cost| (cell.quality, cost));
        entry.1[column[&cell.model.model]] = complete;
    }
    let mut seen_texts = BTreeSet::new();
    let mut matrix = Matrix {
        name: name.to_owned(),
        queries: Vec::new(),
        models: models.values().cloned().collect(),
        quality: Vec::new(),
        cost_usd: Vec::new(),
        cost_note,
        answer_chars: None,
        encoded: None,
    };
    for (query, row) in rows.into_values() {
        let Some(row) = row.into_iter().collect::<Option<Vec<_>>>() else { continue };
        // Without texts nothing says that two queries are the same.
        if query.text.is_empty() || seen_texts.insert(query.text.trim().to_lowercase()) {
            matrix.queries.push(query.clone());
            matrix.quality.extend(row.iter().map(|(quality, _)| quality));
            matrix.cost_usd.extend(row.iter().map(|(_, cost)| cost));
        }
    }
    if matrix.queries.is_empty() || matrix.models.len() < 2 {
        return Err(LearnError::Unreadable {
            what: format!("the score matrix {name}"),
            why: "no query has a score of every model".to_owned(),
        });
    }
    Ok(matrix)
}

fn string(column: &ArrayRef, row: usize) -> String {
    if column.is_valid(row) { column.as_string::<i32>().value(row).to_owned() } else { String::new() }
}

fn number(column: &ArrayRef, row: usize) -> Option<f64> {
    column.is_valid(row).then(|| column.as_primitive::<Float64Type>().value(row)).filter(|number| number.is_finite())
}
