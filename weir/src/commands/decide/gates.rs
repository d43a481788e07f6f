//! What the bundle's tables do to a decision: models that are known to hallucinate on a subject stay away from requests that
//! seek facts, and answers are pointed out that are worth checking.

use weir_policy_runtime::{ActionParts, KnobTable};

use super::ask::Ask;
use crate::policy_client::Loaded;

/// Table of hallucination rates by model and domain.
const REPUTATION: &str = "model_reputation";
/// Table of what checks find, by domain, complexity and model.
const CHECKS: &str = "fact_check_gates";

/// Share of answers that are checked although others are worth it more: what is never checked is never known.
const CHECKED_ANYWAY: f64 = 0.05;

/// How far the operator lets the tables act.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gates {
    /// Rate of hallucinations above which a model may not answer what seeks facts.
    pub hallucination_max: Option<f64>,
    /// Share of answers to requests that seek facts that is to be checked.
    pub check_share: Option<f64>,
}

impl Gates {
    /// May the model answer? It may not where it is shown to hallucinate more often than is allowed: the low end of its
    /// interval of 95 % lies above. Where nothing is known of it, it may: a limit that keeps the unknown away never learns.
    pub(super) fn admits(&self, ask: &Ask, loaded: &Loaded, action: &str) -> bool {
        let Some(rate_max) = self.hallucination_max.filter(|_| ask.context.fact_check == Some(true)) else {
            return true;
        };
        let low = || {
            let table = loaded.knobs.get(REPUTATION)?;
            cell(table, &[Some(ActionParts::of(action).model), ask.context.domain.as_deref()], "hallucination_rate_low")
        };
        low().is_none_or(|low| low <= rate_max)
    }

    /// Is the model's answer worth checking? `None` where nobody asked to be told, or the request seeks no facts. What nothing
    /// is known of is; of the kind at which the share is used up, and of what comes after it, some are, by `uniform`.
    pub(super) fn check(&self, ask: &Ask, loaded: &Loaded, action: &str, uniform: f64) -> Option<bool> {
        let share = self.check_share.filter(|_| ask.context.fact_check != Some(false))?;
        let context = &ask.context;
        let key = [context.domain.as_deref(), context.complexity.as_deref(), Some(ActionParts::of(action).model)];
        let value = |name| cell(loaded.knobs.get(CHECKS)?, &key, name);
        let Some((before, through)) = value("share_before").zip(value("share_through")) else { return Some(true) };
        let part = if through > before { ((share - before) / (through - before)).clamp(0.0, 1.0) } else { 1.0 };
        Some(uniform < part.max(CHECKED_ANYWAY))
    }
}

fn cell(table: &KnobTable, key: &[Option<&str>], value: &str) -> Option<f64> {
    table.get(key)?.values[table.value(value)?]
}

/// What is counted.
pub(super) mod events {
    pub(in super::super) fn kept_away(model: &str) {
        metrics::counter!("weir_decide_kept_away_total", "model" => model.to_owned()).increment(1);
        tracing::debug!(
            model,
            "kept away from a request that seeks facts: it is shown to hallucinate more than is allowed"
        );
    }
}
