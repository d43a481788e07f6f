//! From training contexts to a [`FeatureSpec`]: vocabularies, means and spreads, from training rows only.

use std::collections::BTreeMap;

use weir_policy_runtime::{CategoryField, CountField, Feature, FeatureSpec, FlagField, OwnedContext};

/// A value seen less often than this shares the column of unlisted values.
const VALUE_ROWS_MIN: usize = 5;
/// Most values of one category with a column of their own.
const VALUES_MAX: usize = 64;

/// The features that vary in `contexts`. A field that is always missing, or always the same, is left out.
pub(crate) fn fit_features(contexts: &[&OwnedContext]) -> FeatureSpec {
    let mut features = Vec::new();
    for field in [CategoryField::Domain, CategoryField::Complexity, CategoryField::Language, CategoryField::Api] {
        features.extend(category(field, contexts));
    }
    for field in [CountField::PromptTokens, CountField::Turn, CountField::MessageCount, CountField::ToolsOffered] {
        features.extend(numeric(field, contexts));
    }
    for field in [FlagField::FactCheck, FlagField::Multimodal] {
        let mut seen: Vec<Option<bool>> = contexts.iter().map(|context| field.of(&context.as_context())).collect();
        seen.sort_unstable();
        seen.dedup();
        if seen.len() > 1 {
            features.push(Feature::Flag { field });
        }
    }
    features.extend(embedding(contexts));
    if features.is_empty() {
        // A policy without context is still a policy: one constant column.
        features.push(Feature::OneHot { field: CategoryField::Domain, values: Vec::new() });
    }
    FeatureSpec { features }
}

fn category(field: CategoryField, contexts: &[&OwnedContext]) -> Option<Feature> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut missing = 0;
    for context in contexts {
        match field.of(&context.as_context()) {
            Some(value) => *counts.entry(value).or_default() += 1,
            None => missing += 1,
        }
    }
    if counts.len() + usize::from(missing > 0) < 2 {
        return None;
    }
    let mut frequent: Vec<(&str, usize)> = counts.into_iter().filter(|(_, rows)| *rows >= VALUE_ROWS_MIN).collect();
    frequent.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    frequent.truncate(VALUES_MAX);
    let mut values: Vec<String> = frequent.into_iter().map(|(value, _)| value.to_owned()).collect();
    values.sort();
    Some(Feature::OneHot { field, values })
}

fn numeric(field: CountField, contexts: &[&OwnedContext]) -> Option<Feature> {
    let logs: Vec<f64> = contexts
        .iter()
        .filter_map(|context| field.of(&context.as_context()))
        .map(|count| f64::from(count).ln_1p())
        .collect();
    let count = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / count;
    let std = (logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
    (std > 1e-6).then_some(Feature::Numeric { field, mean, std })
}

fn embedding(contexts: &[&OwnedContext]) -> Option<Feature> {
    let mut spaces: BTreeMap<(usize, Option<&String>), usize> = BTreeMap::new();
    for context in contexts {
        if let Some(vector) = &context.embedding {
            *spaces.entry((vector.len(), context.embedding_model.as_ref())).or_default() += 1;
        }
    }
    let ((dim, model), _) = spaces.into_iter().filter(|((dim, _), _)| *dim > 0).max_by_key(|(_, rows)| *rows)?;
    Some(Feature::Embedding { dim, model: model.cloned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_never_varies_is_left_out_and_rare_values_share_a_column() {
        let contexts: Vec<OwnedContext> = (0..20)
            .map(|i| OwnedContext {
                domain: Some(if i == 0 {
                    "rare".into()
                } else if i % 2 == 0 {
                    "law".into()
                } else {
                    "code".into()
                }),
                language: Some("en".into()),
                prompt_tokens: Some(10 * (i + 1)),
                ..OwnedContext::default()
            })
            .collect();
        let spec = fit_features(&contexts.iter().collect::<Vec<_>>());
        let Feature::OneHot { field: CategoryField::Domain, values } = &spec.features[0] else {
            panic!("the domain comes first: {spec:?}")
        };
        assert_eq!(values, &["code", "law"]);
        assert!(matches!(spec.features[1], Feature::Numeric { field: CountField::PromptTokens, .. }));
        assert_eq!(spec.features.len(), 2, "{spec:?}");
    }
}
