//! Score matrices: what each model scores (and costs) on each query, and a router that plays them.
//!
//! [`ScoreMatrix::open`] reads one, [`play`] runs several passes over its queries: a router chooses with logged
//! propensities, and the matrix answers with the score as feedback. Everything that was not chosen stays in the
//! matrix, where it can serve as the truth.

mod play;
mod read;

pub use play::{MatrixConfig, MatrixPlay, play};

use crate::ModelInfo;

/// Part of LLMRouter's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatrixPart {
    /// Nine models on 4,499 queries of 14 tasks. It has no token counts: costs are [`estimated_cost_usd`].
    LlmRouter,
    /// Six models on 382 questions of Natural Questions, at the cost that was paid.
    NaturalQuestions,
}

/// Half of a split by query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// 70 % of the queries.
    Train,
    /// The other 30 %.
    Test,
}

/// One query and what every model makes of it. Vectors are in the order of [`ScoreMatrix::models`].
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixQuery {
    /// Its id in the data.
    pub id: String,
    /// Its text.
    pub text: String,
    /// Task that it belongs to.
    pub task: String,
    /// Scoring rule.
    pub metric: String,
    /// Half that it belongs to: a function of the text, so that equal texts stay together.
    pub split: Split,
    /// Quality, 0 to 1.
    pub scores: Vec<f64>,
    /// Cost of one call, USD.
    pub costs_usd: Vec<f64>,
}

/// Models, queries, and their scores.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreMatrix {
    /// Which part it is.
    pub part: MatrixPart,
    /// The models, by name.
    pub models: Vec<ModelInfo>,
    /// The queries, in the order of the file.
    pub queries: Vec<MatrixQuery>,
}

impl Split {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }

    /// The half of a query's text: a stable hash, 70 to 30.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        if crate::hash::stable_hash(&[b"split", text.as_bytes()]) % 100 < 70 { Self::Train } else { Self::Test }
    }
}

/// A call's cost where no tokens were counted: a quarter of the query's characters as prompt tokens, and an answer of
/// the same length, at the list prices. It ranks models by price and queries by length; it is no invoice. None for a
/// model without both prices: a call of unknown cost is not a free one.
#[must_use]
pub fn estimated_cost_usd(query: &str, model: &ModelInfo) -> Option<f64> {
    let tokens = query.chars().count().div_ceil(4) as f64;
    Some(tokens * (model.input_usd_per_mtok? + model.output_usd_per_mtok?) / 1e6)
}
