//! Which public score matrices there are, and what each can say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::data::{Matrix, load_llmdrift, load_llmrouter, load_llmrouter_nq, load_routerarena, load_swebench_agents};
use super::measures::Measure;
use super::pairs::load_pairs;
use crate::error::{LearnError, Result};

/// What is known of the cost of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Costs {
    /// What each call cost.
    Recorded,
    /// Each model's price, for calls of equal lengths.
    ListPrices,
    /// Nothing.
    None,
}

/// A score matrix, and what it can say.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSet {
    /// The scores.
    pub matrix: Matrix,
    /// What its costs are.
    pub costs: Costs,
    /// What to know when reading its figures.
    pub note: &'static str,
}

impl MatrixSet {
    /// Why it is no pair of a weak and a strong model; none where it is one, the weak one first.
    #[must_use]
    pub fn no_pair(&self) -> Option<String> {
        let matrix = &self.matrix;
        if matrix.models.len() != 2 {
            return Some(format!("{} models, not two", matrix.models.len()));
        }
        let all: Vec<usize> = (0..matrix.queries.len()).collect();
        let (costs, quality) = (matrix.mean_costs(&all), matrix.means(&matrix.quality, &all));
        let (cheap, dear) = if costs[0] <= costs[1] { (0, 1) } else { (1, 0) };
        if quality[dear] <= quality[cheap] {
            return Some("the dearer model is the worse one: there is no gap to recover".to_owned());
        }
        (cheap != 0).then(|| "the weak model does not come first".to_owned())
    }

    /// Figures that it cannot give, and why.
    #[must_use]
    pub fn unsupported(&self) -> BTreeMap<Measure, String> {
        let no_pair = self.no_pair();
        let why = |measure: Measure| {
            let no_costs = || (self.costs == Costs::None).then(|| "no costs in the data".to_owned());
            match measure {
                measure if measure.needs_costs() => no_costs(),
                measure if measure.is_about_two_models() => no_pair.clone(),
                _ => None,
            }
        };
        Measure::ALL.into_iter().filter_map(|measure| Some((measure, why(measure)?))).collect()
    }
}

/// Folders that hold a matrix, by name.
const FOLDERS: [&str; 5] =
    ["routing_llmrouter", "routing_swebench_agents_nc", "routing_routerarena", "routing_llmdrift", "routing_routellm"];

/// The folders of score matrices that lie in `folder`.
#[must_use]
pub fn matrix_folders(folder: &Path) -> Vec<PathBuf> {
    FOLDERS.iter().map(|name| folder.join(name)).filter(|path| path.is_dir()).collect()
}

/// The matrices of one such folder.
///
/// # Errors
/// [`LearnError::Unreadable`] when the folder is not one that is known, or one of its files or columns is missing.
pub async fn load_matrix_sets(folder: &Path) -> Result<Vec<MatrixSet>> {
    let recorded = |matrix: Matrix, note: &'static str| MatrixSet { matrix, costs: Costs::Recorded, note };
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let sets = match name {
        "routing_llmrouter" => {
            let nine = load_llmrouter(folder).await?;
            let note = "prices per token, no lengths: costs are those of equal lengths";
            let questions = recorded(load_llmrouter_nq(folder).await?, "one domain, few questions");
            vec![MatrixSet { matrix: nine, costs: Costs::ListPrices, note }, questions]
        }
        "routing_swebench_agents_nc" => {
            vec![recorded(load_swebench_agents(folder).await?, "no text: only an issue's repository is known")]
        }
        "routing_routerarena" => {
            vec![recorded(load_routerarena(folder).await?, "the cheaper model is the better one on average")]
        }
        "routing_llmdrift" => {
            vec![recorded(
                load_llmdrift(folder).await?,
                "four question templates; primes and composites are one domain",
            )]
        }
        "routing_routellm" => {
            let set = |matrix| MatrixSet { matrix, costs: Costs::None, note: "two models; a call's cost is not known" };
            load_pairs(folder).await?.into_iter().map(set).collect()
        }
        _ => {
            return Err(LearnError::Unreadable {
                what: folder.display().to_string(),
                why: format!("no score matrix of that name is known; known are {}", FOLDERS.join(", ")),
            });
        }
    };
    Ok(sets)
}
