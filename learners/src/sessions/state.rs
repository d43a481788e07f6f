//! A turn's state as numbers: indicators only, so that logs of real traffic have few enough states for a table too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{CategoryField, Context, CountField, Feature, FeatureSpec, FlagField};

/// What is known before a turn's choice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TurnFacts {
    /// Place of the turn in its session, from 1.
    pub place: u32,
    /// Domain, where the router named one.
    pub domain: Option<String>,
    /// Tokens of the prompt before compression.
    pub prompt_tokens: Option<u32>,
    /// The model of the turn before.
    pub warm_model: Option<String>,
    /// Tokens that this model has read or written in the turn before.
    pub warm_tokens: Option<u32>,
    /// Turns that failed so far.
    pub failures: u32,
    /// Did the turn before fail?
    pub failed_last: bool,
    /// Tool calls so far.
    pub tool_calls: u32,
    /// Does the request offer tools, as far as the router tells?
    pub offers_tools: Option<bool>,
}

impl TurnFacts {
    /// The same as a router would say it to a policy. Places are from 1 and a context's turns from 0; how many tools are offered is not
    /// known here, and one stands for any.
    #[must_use]
    pub fn as_context(&self) -> Context<'_> {
        Context {
            domain: self.domain.as_deref(),
            turn: Some(self.place.saturating_sub(1)),
            prompt_tokens: self.prompt_tokens,
            warm_model: self.warm_model.as_deref(),
            warm_tokens: self.warm_tokens,
            failures: Some(self.failures),
            failed_last: Some(self.failed_last),
            tool_calls: Some(self.tool_calls),
            tools_offered: self.offers_tools.map(u32::from),
            ..Context::default()
        }
    }
}

/// Domains that have an indicator of their own; the others share one.
const DOMAINS_MAX: usize = 16;
/// Upper ends of the buckets of token counts; the last bucket has none.
const TOKENS: [u32; 4] = [1024, 4096, 16_384, 65_536];
/// Upper ends of the buckets of places.
const PLACES: [u32; 5] = [1, 2, 3, 4, 8];
/// Upper ends of the buckets of failures.
const FAILURES: [u32; 2] = [0, 1];
/// Upper ends of the buckets of tool calls.
const TOOL_CALLS: [u32; 2] = [0, 2];

/// Which numbers a state has, in which order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateLayout {
    /// Domains with an indicator, in order.
    pub domains: Vec<String>,
    /// Models with an indicator, in order: those that can be warm.
    pub models: Vec<String>,
}

impl StateLayout {
    /// The layout for these turns: their most frequent domains, and these models.
    pub fn new<'a>(turns: impl IntoIterator<Item = &'a TurnFacts>, models: Vec<String>) -> Self {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for domain in turns.into_iter().filter_map(|turn| turn.domain.as_deref()) {
            *counts.entry(domain).or_default() += 1;
        }
        let mut domains: Vec<(&str, usize)> = counts.into_iter().collect();
        domains.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        domains.truncate(DOMAINS_MAX);
        Self { domains: domains.into_iter().map(|(domain, _)| domain.to_owned()).collect(), models }
    }

    /// The same layout for the runtime: it encodes [`TurnFacts::as_context`] to the same bits as [`StateLayout::encode`] the facts.
    #[must_use]
    pub fn features(&self) -> FeatureSpec {
        let buckets = |field, ends: &[u32]| Feature::Buckets { field, ends: ends.to_vec() };
        let category = |field, values: &[String]| Feature::OneHotOrOther { field, values: values.to_vec() };
        let features = vec![
            category(CategoryField::Domain, &self.domains),
            category(CategoryField::WarmModel, &self.models),
            buckets(CountField::Turn, &PLACES.map(|place| place - 1)),
            buckets(CountField::Failures, &FAILURES),
            buckets(CountField::ToolCalls, &TOOL_CALLS),
            buckets(CountField::PromptTokens, &TOKENS),
            buckets(CountField::WarmTokens, &TOKENS),
            Feature::IsSet { field: FlagField::FailedLast },
            Feature::Above { field: CountField::ToolsOffered, bound: 0 },
        ];
        FeatureSpec { features }
    }

    /// Names of the numbers, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.domains.iter().map(|domain| format!("domain is {domain}")).collect();
        names.push("domain is another or unknown".to_owned());
        names.extend(self.models.iter().map(|model| format!("warm model is {model}")));
        names.push("warm model is another or none".to_owned());
        names.extend(bucket_names("place", &PLACES));
        names.extend(bucket_names("failures", &FAILURES));
        names.extend(bucket_names("tool calls", &TOOL_CALLS));
        for tokens in ["prompt tokens", "warm tokens"] {
            names.extend(bucket_names(tokens, &TOKENS));
        }
        names.extend(["the turn before failed".to_owned(), "tools are offered".to_owned()]);
        names
    }

    /// The state of a turn, as long as [`StateLayout::names`]. What is unknown has no indicator.
    #[must_use]
    pub fn encode(&self, turn: &TurnFacts) -> Vec<f32> {
        let mut state = Vec::new();
        let mut indicate = |of: usize, which: Option<usize>| {
            state.extend((0..of).map(|index| f32::from(u8::from(Some(index) == which))));
        };
        let place_in = |names: &[String], name: &Option<String>| {
            name.as_ref().and_then(|name| names.iter().position(|known| known == name)).unwrap_or(names.len())
        };
        indicate(self.domains.len() + 1, Some(place_in(&self.domains, &turn.domain)));
        indicate(self.models.len() + 1, Some(place_in(&self.models, &turn.warm_model)));
        indicate(PLACES.len() + 1, Some(bucket(turn.place, &PLACES)));
        indicate(FAILURES.len() + 1, Some(bucket(turn.failures, &FAILURES)));
        indicate(TOOL_CALLS.len() + 1, Some(bucket(turn.tool_calls, &TOOL_CALLS)));
        for tokens in [turn.prompt_tokens, turn.warm_tokens] {
            indicate(TOKENS.len() + 1, tokens.map(|tokens| bucket(tokens, &TOKENS)));
        }
        indicate(1, turn.failed_last.then_some(0));
        indicate(1, (turn.offers_tools == Some(true)).then_some(0));
        state
    }
}

fn bucket(count: u32, ends: &[u32]) -> usize {
    ends.iter().position(|end| count <= *end).unwrap_or(ends.len())
}

fn bucket_names(what: &str, ends: &[u32]) -> Vec<String> {
    let up_to = ends.iter().map(|end| format!("{what} up to {end}"));
    up_to.chain(ends.last().map(|end| format!("{what} above {end}"))).collect()
}
