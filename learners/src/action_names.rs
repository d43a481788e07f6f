//! From the names of a log to actions: what was chosen, what answered, and whether the probabilities are about these.
//!
//! A router that knows of [parts](weir_policy_runtime::ActionParts) names whole actions in its draws; one that does not names models, and
//! says beside it with which provider and mode a call was made. Without parts asked for, all names are models.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{ActionParts, Policy};

/// A part of an action beside its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionPart {
    /// Who served the call: `provider`.
    Provider,
    /// Reasoning effort, or mode where no effort is logged: `reasoning_effort`, `reasoning_mode`.
    Reasoning,
}

impl ActionPart {
    /// Both, in the order of a name.
    pub const ALL: [Self; 2] = [Self::Provider, Self::Reasoning];

    /// What the actions of a policy are beside their models.
    #[must_use]
    pub fn of_policy(policy: &Policy) -> BTreeSet<Self> {
        let parts: Vec<ActionParts<'_>> =
            policy.actions().iter().map(|action| ActionParts::of(&action.model)).collect();
        let has = |part: &Self| match part {
            Self::Provider => parts.iter().any(|parts| parts.provider.is_some()),
            Self::Reasoning => parts.iter().any(|parts| parts.reasoning.is_some()),
        };
        Self::ALL.into_iter().filter(has).collect()
    }
}

/// What a row of a log says of its choice.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LoggedNames<'a> {
    pub executed: &'a str,
    pub intended: Option<&'a str>,
    pub provider: Option<&'a str>,
    pub reasoning: Option<&'a str>,
    /// Does a candidate's name say more than a model?
    pub candidates_have_parts: bool,
}

/// The same as actions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NamedChoice<'a> {
    /// What answered.
    pub executed: Cow<'a, str>,
    /// What was chosen; none where that is not known.
    pub intended: Option<Cow<'a, str>>,
    pub executed_as_intended: bool,
    /// Are the logged probabilities those of the actions? A draw among models is none among their modes.
    pub is_draw_of_actions: bool,
    /// Was an action drawn where models are asked for? Its probability is then not yet its model's.
    pub sums_to_model: bool,
}

/// Which names a log's names become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActionNames<'a> {
    pub parts: &'a BTreeSet<ActionPart>,
}

impl ActionNames<'_> {
    /// A candidate's name.
    pub(crate) fn candidate<'n>(&self, name: &'n str) -> &'n str {
        if self.parts.is_empty() { ActionParts::of(name).model } else { name }
    }

    pub(crate) fn choice<'n>(&self, logged: LoggedNames<'n>) -> NamedChoice<'n> {
        let (ran, chosen) = (ActionParts::of(logged.executed), logged.intended.map(ActionParts::of));
        let is_same_model = chosen.is_some_and(|chosen| chosen.model == ran.model);
        if self.parts.is_empty() {
            return NamedChoice {
                executed: ran.model.into(),
                intended: chosen.map(|chosen| chosen.model.into()),
                executed_as_intended: is_same_model,
                is_draw_of_actions: true,
                sums_to_model: chosen.is_some_and(|chosen| !chosen.is_model_alone()),
            };
        }
        let names_actions = logged.candidates_have_parts || chosen.is_some_and(|chosen| !chosen.is_model_alone());
        let said = |part, own: Option<&'n str>, beside: Option<&'n str>| {
            own.or_else(|| beside.filter(|_| self.parts.contains(&part)))
        };
        let answered = ActionParts {
            model: ran.model,
            provider: said(ActionPart::Provider, ran.provider, logged.provider),
            reasoning: said(ActionPart::Reasoning, ran.reasoning, logged.reasoning),
        };
        match (chosen, logged.intended) {
            (Some(chosen), Some(intended)) if names_actions => {
                // What a log does not say was not done otherwise.
                let keeps = |drawn: Option<&str>, own: Option<&str>, beside: Option<&str>| {
                    drawn.is_none_or(|drawn| own.or(beside).is_none_or(|found| found == drawn))
                };
                let is_carried_out = is_same_model
                    && keeps(chosen.provider, ran.provider, logged.provider)
                    && keeps(chosen.reasoning, ran.reasoning, logged.reasoning);
                NamedChoice {
                    executed: if is_carried_out { intended.into() } else { answered.to_string().into() },
                    intended: Some(intended.into()),
                    executed_as_intended: is_carried_out,
                    is_draw_of_actions: true,
                    sums_to_model: false,
                }
            }
            // With which mode a model would have been called that another one stood in for, nobody knows.
            _ => NamedChoice {
                executed: answered.to_string().into(),
                intended: is_same_model.then(|| answered.to_string().into()),
                executed_as_intended: is_same_model,
                is_draw_of_actions: answered.is_model_alone(),
                sums_to_model: false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice<'n>(parts: &[ActionPart], logged: LoggedNames<'n>) -> NamedChoice<'n> {
        let parts = parts.iter().copied().collect();
        ActionNames { parts: &parts }.choice(logged)
    }

    fn named<'n>(executed: &'n str, intended: Option<&'n str>, as_intended: bool, is_draw: bool) -> NamedChoice<'n> {
        NamedChoice {
            executed: executed.into(),
            intended: intended.map(Cow::from),
            executed_as_intended: as_intended,
            is_draw_of_actions: is_draw,
            sums_to_model: false,
        }
    }

    const DRAWN: &str = "b;provider=own;reasoning=high";

    #[test]
    fn without_parts_every_name_is_a_models() {
        let logged = LoggedNames {
            executed: "b",
            intended: Some(DRAWN),
            provider: Some("own"),
            reasoning: Some("low"),
            candidates_have_parts: false,
        };
        let summed = |choice| NamedChoice { sums_to_model: true, ..choice };
        assert_eq!(choice(&[], logged), summed(named("b", Some("b"), true, true)));
        let fallback = LoggedNames { executed: "a", ..logged };
        assert_eq!(choice(&[], fallback), summed(named("a", Some("b"), false, true)));
        let plain = LoggedNames { intended: Some("b"), ..logged };
        assert_eq!(choice(&[], plain), named("b", Some("b"), true, true));
    }

    #[test]
    fn a_draw_of_actions_was_carried_out_unless_the_log_says_otherwise() {
        let all = &ActionPart::ALL;
        let logged = LoggedNames { executed: "b", intended: Some(DRAWN), ..LoggedNames::default() };
        let carried_out = named(DRAWN, Some(DRAWN), true, true);
        assert_eq!(choice(all, logged), carried_out, "nothing is said of how");
        let as_drawn = LoggedNames { provider: Some("own"), reasoning: Some("high"), ..logged };
        assert_eq!(choice(all, as_drawn), carried_out);
        // Whichever parts are asked for now: the draw was made.
        assert_eq!(choice(&[ActionPart::Reasoning], as_drawn), carried_out);
        let otherwise = LoggedNames { reasoning: Some("low"), ..as_drawn };
        assert_eq!(choice(all, otherwise), named("b;provider=own;reasoning=low", Some(DRAWN), false, true));
        let elsewhere = LoggedNames { executed: "a", ..as_drawn };
        assert_eq!(choice(all, elsewhere), named("a;provider=own;reasoning=high", Some(DRAWN), false, true));
        // The model alone is an action too, beside others of it.
        let alone = LoggedNames { intended: Some("b"), provider: Some("own"), candidates_have_parts: true, ..logged };
        assert_eq!(choice(all, alone), named("b", Some("b"), true, true));
    }

    #[test]
    fn a_draw_of_models_says_nothing_of_their_modes() {
        let logged = LoggedNames {
            executed: "b",
            intended: Some("b"),
            provider: Some("own"),
            reasoning: Some("on"),
            candidates_have_parts: false,
        };
        let found = |parts: &[ActionPart]| choice(parts, logged);
        assert_eq!(
            found(&ActionPart::ALL),
            named("b;provider=own;reasoning=on", Some("b;provider=own;reasoning=on"), true, false)
        );
        assert_eq!(found(&[ActionPart::Provider]), named("b;provider=own", Some("b;provider=own"), true, false));
        let plain = LoggedNames { provider: None, reasoning: None, ..logged };
        assert_eq!(choice(&ActionPart::ALL, plain), named("b", Some("b"), true, true), "there is one way to call it");
        let fallback = LoggedNames { executed: "a", ..logged };
        assert_eq!(choice(&[ActionPart::Reasoning], fallback), named("a;reasoning=on", None, false, false));
    }
}
