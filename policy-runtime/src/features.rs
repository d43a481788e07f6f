//! From a [`Context`] to the network's input, in a layout that is a function of the [`FeatureSpec`] alone.

use serde::{Deserialize, Serialize};

use crate::context::Context;

/// Standardised numbers are cut off here, so that one absurd count cannot drown the other features.
pub const NUMERIC_CLIP: f32 = 8.0;

/// A text field of [`Context`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CategoryField {
    /// [`Context::domain`].
    Domain,
    /// [`Context::complexity`].
    Complexity,
    /// [`Context::language`].
    Language,
    /// [`Context::api`].
    Api,
    /// [`Context::warm_model`].
    WarmModel,
}

impl CategoryField {
    /// The field's value.
    #[must_use]
    pub fn of<'a>(self, context: &Context<'a>) -> Option<&'a str> {
        match self {
            Self::Domain => context.domain,
            Self::Complexity => context.complexity,
            Self::Language => context.language,
            Self::Api => context.api,
            Self::WarmModel => context.warm_model,
        }
    }
}

/// A counting field of [`Context`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountField {
    /// [`Context::prompt_tokens`].
    PromptTokens,
    /// [`Context::turn`].
    Turn,
    /// [`Context::message_count`].
    MessageCount,
    /// [`Context::tools_offered`].
    ToolsOffered,
    /// [`Context::warm_tokens`].
    WarmTokens,
    /// [`Context::failures`].
    Failures,
    /// [`Context::tool_calls`].
    ToolCalls,
}

impl CountField {
    /// The field's value.
    #[must_use]
    pub fn of(self, context: &Context<'_>) -> Option<u32> {
        match self {
            Self::PromptTokens => context.prompt_tokens,
            Self::Turn => context.turn,
            Self::MessageCount => context.message_count,
            Self::ToolsOffered => context.tools_offered,
            Self::WarmTokens => context.warm_tokens,
            Self::Failures => context.failures,
            Self::ToolCalls => context.tool_calls,
        }
    }
}

/// A yes-or-no field of [`Context`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlagField {
    /// [`Context::fact_check`].
    FactCheck,
    /// [`Context::multimodal`].
    Multimodal,
    /// [`Context::failed_last`].
    FailedLast,
}

impl FlagField {
    /// The field's value.
    #[must_use]
    pub fn of(self, context: &Context<'_>) -> Option<bool> {
        match self {
            Self::FactCheck => context.fact_check,
            Self::Multimodal => context.multimodal,
            Self::FailedLast => context.failed_last,
        }
    }
}

/// One input of the network, one to many columns wide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Feature {
    /// A category: one column a value, one for values that are not listed, one for missing.
    OneHot {
        /// Which field.
        field: CategoryField,
        /// Values with a column of their own.
        values: Vec<String>,
    },
    /// A count x, standardised on the scale ln(1 + x); and missing.
    Numeric {
        /// Which field.
        field: CountField,
        /// Mean of ln(1 + x) in training.
        mean: f64,
        /// Standard deviation of ln(1 + x) in training, above zero.
        std: f64,
    },
    /// A flag; and missing.
    Flag {
        /// Which field.
        field: FlagField,
    },
    /// The request's embedding as it is; and missing.
    Embedding {
        /// Number of dimensions.
        dim: usize,
        /// Name of the model whose vectors the policy was trained on; without one, any vector of that length counts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// A category: one column a value, and one for all else, which a missing one is too.
    OneHotOrOther {
        /// Which field.
        field: CategoryField,
        /// Values with a column of their own.
        values: Vec<String>,
    },
    /// A count by size: one column a bucket; none is set where it is missing.
    Buckets {
        /// Which field.
        field: CountField,
        /// Largest count of each bucket but the last, which has no end; increasing.
        ends: Vec<u32>,
    },
    /// Is a count above a bound? One column; 0 where it is missing.
    Above {
        /// Which field.
        field: CountField,
        /// The bound.
        bound: u32,
    },
    /// Is a flag set? One column; 0 where it is missing.
    IsSet {
        /// Which field.
        field: FlagField,
    },
}

impl Feature {
    /// Number of columns.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Self::OneHot { values, .. } => values.len() + 2,
            Self::Numeric { .. } | Self::Flag { .. } => 2,
            Self::Embedding { dim, .. } => dim + 1,
            Self::OneHotOrOther { values, .. } => values.len() + 1,
            Self::Buckets { ends, .. } => ends.len() + 1,
            Self::Above { .. } | Self::IsSet { .. } => 1,
        }
    }

    /// Writes the columns; `out` has [`Feature::width`] elements, all zero.
    fn encode(&self, context: &Context<'_>, out: &mut [f32]) {
        let missing = out.len() - 1;
        match self {
            Self::OneHot { field, values } => {
                let column = match field.of(context) {
                    Some(value) => values.iter().position(|listed| listed == value).unwrap_or(values.len()),
                    None => missing,
                };
                out[column] = 1.0;
            }
            Self::Numeric { field, mean, std } => match field.of(context) {
                Some(count) => {
                    let standardised = ((f64::from(count).ln_1p() - mean) / std) as f32;
                    out[0] = standardised.clamp(-NUMERIC_CLIP, NUMERIC_CLIP);
                }
                None => out[missing] = 1.0,
            },
            Self::Flag { field } => match field.of(context) {
                Some(flag) => out[0] = f32::from(u8::from(flag)),
                None => out[missing] = 1.0,
            },
            Self::Embedding { dim, model } => {
                let same_space = model.is_none() || model.as_deref() == context.embedding_model;
                match context.embedding {
                    Some(vector) if same_space && vector.len() == *dim && all_within_range(vector) => {
                        out[..*dim].copy_from_slice(vector);
                    }
                    _ => out[missing] = 1.0,
                }
            }
            Self::OneHotOrOther { field, values } => {
                let listed = field.of(context).and_then(|value| values.iter().position(|listed| listed == value));
                out[listed.unwrap_or(values.len())] = 1.0;
            }
            Self::Buckets { field, ends } => {
                if let Some(count) = field.of(context) {
                    out[ends.iter().position(|end| count <= *end).unwrap_or(ends.len())] = 1.0;
                }
            }
            Self::Above { field, bound } => {
                out[0] = f32::from(u8::from(field.of(context).is_some_and(|count| count > *bound)));
            }
            Self::IsSet { field } => out[0] = f32::from(u8::from(field.of(context) == Some(true))),
        }
    }

    fn problem(&self) -> Option<String> {
        match self {
            Self::OneHot { field, values } | Self::OneHotOrOther { field, values } => {
                let mut sorted: Vec<&String> = values.iter().collect();
                sorted.sort();
                sorted.dedup();
                (sorted.len() != values.len()).then(|| format!("one-hot feature {field:?} lists a value twice"))
            }
            Self::Numeric { field, mean, std } => (!mean.is_finite() || !std.is_finite() || *std <= 0.0)
                .then(|| format!("numeric feature {field:?} needs a finite mean and a std above zero")),
            Self::Buckets { field, ends } => (ends.is_empty() || !ends.is_sorted_by(|a, b| a < b))
                .then(|| format!("buckets of {field:?} need ends that increase")),
            Self::Flag { .. } | Self::Above { .. } | Self::IsSet { .. } => None,
            Self::Embedding { dim, .. } => (*dim == 0).then(|| "embedding feature has no dimensions".to_owned()),
        }
    }
}

/// The network's whole input, in order.
///
/// Features lie one after the other in the order of the list:
///
/// | feature | columns | present | missing |
/// |---|---|---|---|
/// | one-hot, n values | n + 2 | 1 at its value, or at column n if the value is not listed | 1 at column n + 1 |
/// | numeric | 2 | z = clip((ln(1 + x) - mean) / std, ±[`NUMERIC_CLIP`]), 0 | 0, 1 |
/// | flag | 2 | 0 or 1, 0 | 0, 1 |
/// | embedding, d dimensions | d + 1 | the vector, 0 | 0 .. 0, 1 |
/// | one-hot or other, n values | n + 1 | 1 at its value, or at column n if the value is not listed | 1 at column n |
/// | buckets, n ends | n + 1 | 1 at the first end that is not below it, or at column n | 0 .. 0 |
/// | above | 1 | 1 if it is above the bound | 0 |
/// | is set | 1 | 1 if it is true | 0 |
///
/// The last four are the states of session policies, in which a log of few sessions must find the same state often.
///
/// An embedding by another model, of another length, or with a number in it that is none or lies beyond ±10^6, is missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    /// Features, left to right.
    pub features: Vec<Feature>,
}

/// No encoder of texts makes larger numbers, and squares of sums of larger ones would leave the range of f32: one broken
/// embedding must not undo a training.
const EMBEDDING_MAX: f32 = 1e6;

/// Looks at every number: to stop at the first one that is not would keep the compiler from vector instructions, and cost
/// more of a linear decision than all but the products. A NaN is within nothing.
fn all_within_range(numbers: &[f32]) -> bool {
    numbers.iter().fold(true, |all, x| all & (x.abs() <= EMBEDDING_MAX))
}

impl FeatureSpec {
    /// Number of columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.features.iter().map(Feature::width).sum()
    }

    /// Writes the input of one request. Never writes a NaN or an infinity, whatever the context holds.
    ///
    /// # Panics
    /// When `out` is not [`FeatureSpec::width`] long.
    pub fn encode(&self, context: &Context<'_>, out: &mut [f32]) {
        assert_eq!(out.len(), self.width(), "the output slice must be as wide as the features");
        out.fill(0.0);
        let mut rest = out;
        for feature in &self.features {
            let (columns, after) = rest.split_at_mut(feature.width());
            feature.encode(context, columns);
            rest = after;
        }
    }

    /// What is wrong with the spec, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.features.is_empty() {
            return Some("there are no features".to_owned());
        }
        self.features.iter().find_map(Feature::problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> FeatureSpec {
        FeatureSpec {
            features: vec![
                Feature::OneHot { field: CategoryField::Domain, values: vec!["law".into(), "math".into()] },
                Feature::Numeric { field: CountField::PromptTokens, mean: 2.0, std: 0.5 },
                Feature::Flag { field: FlagField::FactCheck },
                Feature::Embedding { dim: 2, model: Some("encoder-1".into()) },
            ],
        }
    }

    fn encode(context: &Context<'_>) -> Vec<f32> {
        let mut out = vec![f32::NAN; spec().width()];
        spec().encode(context, &mut out);
        out
    }

    #[test]
    fn a_full_context_fills_the_documented_columns() {
        let embedding = [0.25, -0.5];
        let context = Context {
            domain: Some("math"),
            prompt_tokens: Some(19), // ln(20) = 2.995732..., (ln 20 - 2) / 0.5 = 1.9914645
            fact_check: Some(true),
            embedding: Some(&embedding),
            embedding_model: Some("encoder-1"),
            ..Context::default()
        };
        let out = encode(&context);
        assert_eq!(out[..4], [0.0, 1.0, 0.0, 0.0]);
        assert!((out[4] - 1.991_464_5).abs() < 1e-6);
        assert_eq!(out[5..], [0.0, 1.0, 0.0, 0.25, -0.5, 0.0]);
    }

    #[test]
    fn an_empty_context_sets_every_missing_column_and_nothing_else() {
        assert_eq!(encode(&Context::default()), [0., 0., 0., 1., 0., 1., 0., 1., 0., 0., 1.]);
    }

    #[test]
    fn an_unlisted_value_is_not_a_missing_one() {
        let out = encode(&Context { domain: Some("poetry"), ..Context::default() });
        assert_eq!(out[..4], [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn a_non_finite_huge_or_foreign_embedding_is_missing() {
        for bad in [&[f32::NAN, 0.0][..], &[0.0, f32::INFINITY], &[0.0, -1e38], &[1.0], &[1.0, 2.0, 3.0]] {
            let context = Context { embedding: Some(bad), embedding_model: Some("encoder-1"), ..Context::default() };
            assert_eq!(encode(&context)[8..], [0.0, 0.0, 1.0], "{bad:?}");
        }
    }

    #[test]
    fn an_embedding_by_another_model_is_missing() {
        let vector = [1.0, 2.0];
        let by = |model| encode(&Context { embedding: Some(&vector), embedding_model: model, ..Context::default() });
        assert_eq!(by(Some("encoder-1"))[8..], [1.0, 2.0, 0.0]);
        assert_eq!(by(Some("encoder-2"))[8..], [0.0, 0.0, 1.0]);
        assert_eq!(by(None)[8..], [0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_policy_without_the_name_takes_any_vector_and_keeps_its_bytes() {
        let json = r#"{"kind":"embedding","dim":2}"#;
        let feature: Feature = serde_json::from_str(json).unwrap();
        assert_eq!(feature, Feature::Embedding { dim: 2, model: None });
        assert_eq!(serde_json::to_string(&feature).unwrap(), json);
        let mut out = [0.0; 3];
        feature.encode(&Context { embedding: Some(&[1.0, 2.0]), ..Context::default() }, &mut out);
        assert_eq!(out, [1.0, 2.0, 0.0]);
    }

    #[test]
    fn an_absurd_count_is_clipped() {
        let narrow = FeatureSpec { features: vec![Feature::Numeric { field: CountField::Turn, mean: 0.0, std: 1e-9 }] };
        let mut out = [0.0; 2];
        narrow.encode(&Context { turn: Some(u32::MAX), ..Context::default() }, &mut out);
        assert_eq!(out, [NUMERIC_CLIP, 0.0]);
    }

    #[test]
    fn states_have_no_column_for_what_is_missing() {
        let spec = FeatureSpec {
            features: vec![
                Feature::OneHotOrOther { field: CategoryField::WarmModel, values: vec!["a".into(), "b".into()] },
                Feature::Buckets { field: CountField::WarmTokens, ends: vec![0, 10] },
                Feature::Above { field: CountField::ToolsOffered, bound: 0 },
                Feature::IsSet { field: FlagField::FailedLast },
            ],
        };
        let encode = |context: &Context<'_>| {
            let mut out = vec![f32::NAN; spec.width()];
            spec.encode(context, &mut out);
            out
        };
        assert_eq!(encode(&Context::default()), [0., 0., 1., 0., 0., 0., 0., 0.]);
        let known = Context {
            warm_model: Some("b"),
            warm_tokens: Some(10),
            tools_offered: Some(1),
            failed_last: Some(true),
            ..Context::default()
        };
        assert_eq!(encode(&known), [0., 1., 0., 0., 1., 0., 1., 1.]);
        let other = Context { warm_model: Some("c"), warm_tokens: Some(11), tools_offered: Some(0), ..known };
        assert_eq!(encode(&other), [0., 0., 1., 0., 0., 1., 0., 1.]);
    }

    #[test]
    fn illegal_specs_are_named() {
        let zero = Feature::Numeric { field: CountField::Turn, mean: 0.0, std: 0.0 };
        let twice = Feature::OneHot { field: CategoryField::Api, values: vec!["a".into(), "a".into()] };
        let buckets = |ends: &[u32]| Feature::Buckets { field: CountField::Failures, ends: ends.to_vec() };
        for bad in [zero, twice, Feature::Embedding { dim: 0, model: None }, buckets(&[]), buckets(&[2, 2])] {
            assert!(FeatureSpec { features: vec![bad] }.problem().is_some());
        }
        assert!(spec().problem().is_none());
    }
}
