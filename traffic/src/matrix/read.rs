//! Reading LLMRouter's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::Array;

use super::{MatrixPart, MatrixQuery, ScoreMatrix, Split, estimated_cost_usd};
use crate::parquet_columns::batches;
use crate::replay::{TraceFormat, detect};
use crate::{ModelInfo, TrafficError};

/// Score and cost of a query and a model.
type Cells = BTreeMap<(String, String), (f64, Option<f64>)>;

struct Query {
    id: String,
    text: String,
    task: String,
    metric: String,
}

impl ScoreMatrix {
    /// Reads one part from the folder with the tables, or from the folder around the table that is named. Queries that
    /// not every model answered are left out.
    ///
    /// # Errors
    /// When the folder holds no score matrix, a table is damaged, or a cost or price is missing.
    pub fn open(path: &Path, part: MatrixPart) -> Result<Self, TrafficError> {
        if detect(path)? != TraceFormat::ScoreMatrix {
            let path = path.to_path_buf();
            return Err(TrafficError::WrongKind { path, found: "trace", wanted: "score matrix" });
        }
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
        let prices_file = folder.join("models.parquet");
        let (cells, queries, prices) = match part {
            MatrixPart::LlmRouter => (
                cells(&folder.join("scores.parquet"), false)?,
                queries(&folder.join("queries.parquet"), "task", Some("metric"))?,
                prices(&prices_file)?,
            ),
            MatrixPart::NaturalQuestions => (
                cells(&folder.join("nq_scores.parquet"), true)?,
                queries(&folder.join("nq_queries.parquet"), "source", None)?,
                // Its costs are per call; list prices of other years would contradict them.
                BTreeMap::new(),
            ),
        };
        let names: BTreeSet<&String> = cells.keys().map(|(_, model)| model).collect();
        let models: Vec<ModelInfo> = names
            .into_iter()
            .map(|name| {
                let price = prices.get(name);
                ModelInfo {
                    name: name.clone(),
                    input_usd_per_mtok: price.map(|(input, _)| *input),
                    output_usd_per_mtok: price.map(|(_, output)| *output),
                }
            })
            .collect();
        if part == MatrixPart::LlmRouter
            && let Some(model) = models.iter().find(|model| model.input_usd_per_mtok.is_none())
        {
            return Err(TrafficError::NoPrice { path: prices_file, model: model.name.clone() });
        }
        let queries = queries.into_iter().filter_map(|query| row(query, &models, &cells)).collect();
        Ok(Self { part, models, queries })
    }
}

fn row(query: Query, models: &[ModelInfo], cells: &Cells) -> Option<MatrixQuery> {
    let (mut scores, mut costs_usd) = (Vec::with_capacity(models.len()), Vec::with_capacity(models.len()));
    for model in models {
        let (score, cost) = cells.get(&(query.id.clone(), model.name.clone()))?;
        scores.push(*score);
        let cost = cost.or_else(|| estimated_cost_usd(&query.text, model));
        costs_usd
            .push(cost.expect("a part has a cost in every cell or prices of every model, as its tables were checked"));
    }
    let Query { id, text, task, metric } = query;
    Some(MatrixQuery { split: Split::of_text(&text), id, text, task, metric, scores, costs_usd })
}

fn cells(file: &Path, with_cost: bool) -> Result<Cells, TrafficError> {
    let columns: &[&'static str] =
        if with_cost { &["query_id", "model", "score", "cost_usd"] } else { &["query_id", "model", "score"] };
    let mut cells = Cells::new();
    for batch in batches(file, columns)? {
        let batch = batch?;
        let (queries, models, scores) = (batch.text("query_id")?, batch.text("model")?, batch.float64("score")?);
        let costs = if with_cost { Some(batch.float64("cost_usd")?) } else { None };
        for row in 0..batch.rows() {
            let score = scores.value(row);
            if scores.is_null(row) || !(0.0..=1.0).contains(&score) {
                return Err(batch.impossible(row, "score"));
            }
            let cost = costs.as_ref().map(|costs| batch.amount(costs, row, "cost_usd")).transpose()?;
            cells.insert((queries.value(row).to_owned(), models.value(row).to_owned()), (score, cost));
        }
    }
    Ok(cells)
}

fn queries(file: &Path, task: &'static str, metric: Option<&'static str>) -> Result<Vec<Query>, TrafficError> {
    let columns: Vec<&'static str> = ["query_id", "query", task].into_iter().chain(metric).collect();
    let mut read = Vec::new();
    for batch in batches(file, &columns)? {
        let batch = batch?;
        let (ids, texts, tasks) = (batch.text("query_id")?, batch.text("query")?, batch.text(task)?);
        let metrics = metric.map(|metric| batch.text(metric)).transpose()?;
        for row in 0..batch.rows() {
            read.push(Query {
                id: ids.value(row).to_owned(),
                text: texts.value(row).to_owned(),
                task: tasks.value(row).to_owned(),
                // The README: scores of the Natural Questions part are answer F1.
                metric: metrics.as_ref().map_or("f1_score", |metrics| metrics.value(row)).to_owned(),
            });
        }
    }
    Ok(read)
}

fn prices(file: &Path) -> Result<BTreeMap<String, (f64, f64)>, TrafficError> {
    let mut prices = BTreeMap::new();
    for batch in batches(file, &["model", "input_usd_per_mtok", "output_usd_per_mtok"])? {
        let batch = batch?;
        let models = batch.text("model")?;
        let (inputs, outputs) = (batch.float64("input_usd_per_mtok")?, batch.float64("output_usd_per_mtok")?);
        for row in 0..batch.rows() {
            let input = batch.amount(&inputs, row, "input_usd_per_mtok")?;
            let output = batch.amount(&outputs, row, "output_usd_per_mtok")?;
            prices.insert(models.value(row).to_owned(), (input, output));
        }
    }
    Ok(prices)
}
