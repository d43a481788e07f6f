//! From the names of a log to actions: what was chosen, what answered, and whether the probabilities are about these.
//!
//! A router that knows of [parts](weir_policy_runtime::ActionParts) names whole actions in its draws; one that does not names models, and
//! says beside it with which provider and mode a call was made. Every name is cut down to the parts that are asked for, so that without any
//! all names are models.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{Action, ActionParts};

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

    /// What these actions are beside their models.
    #[must_use]
    pub fn of_actions(actions: &[Action]) -> BTreeSet<Self> {
        let is_named = |part: &Self| actions.iter().any(|action| part.of(&ActionParts::of(&action.model)).is_some());
        Self::ALL.into_iter().filter(is_named).collect()
    }

    /// This part of a name.
    pub(crate) fn of<'a>(self, parts: &ActionParts<'a>) -> Option<&'a str> {
        match self {
            Self::Provider => parts.provider,
            Self::Reasoning => parts.reasoning,
        }
    }
}

/// What a row of a log says of its choice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedNames<'a> {
    pub executed: ActionParts<'a>,
    pub intended: Option<ActionParts<'a>>,
    pub provider: Option<&'a str>,
    pub reasoning: Option<&'a str>,
    /// Which parts a candidate's name says.
    pub of_candidates: [bool; 2],
}

impl<'a> LoggedNames<'a> {
    /// How the call was made, by the name of what ran, or by what is logged beside it.
    pub(crate) fn made_with(&self, part: ActionPart) -> Option<&'a str> {
        let beside = match part {
            ActionPart::Provider => self.provider,
            ActionPart::Reasoning => self.reasoning,
        };
        part.of(&self.executed).or(beside)
    }

    /// Does the draw say this part of its actions?
    fn draw_says(&self, part: ActionPart) -> bool {
        self.of_candidates[part as usize] || self.intended.is_some_and(|intended| part.of(&intended).is_some())
    }
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
}

/// Which names a log's names become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActionNames<'a> {
    pub parts: &'a BTreeSet<ActionPart>,
    /// Models of which the log says, beside their names, with which part calls were made.
    pub described: &'a BTreeMap<ActionPart, BTreeSet<String>>,
}

impl ActionNames<'_> {
    /// A name cut down to the parts that are asked for.
    pub(crate) fn cut<'n>(&self, parts: ActionParts<'n>) -> ActionParts<'n> {
        let kept = |part: ActionPart| part.of(&parts).filter(|_| self.parts.contains(&part));
        ActionParts { model: parts.model, provider: kept(ActionPart::Provider), reasoning: kept(ActionPart::Reasoning) }
    }

    /// The same as a name: the logged one itself where it says no more than is asked for.
    pub(crate) fn cut_name<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let parts = ActionParts::of(name);
        let cut = self.cut(parts);
        if cut == parts { name.into() } else { cut.to_string().into() }
    }

    /// Does a draw that does not say this part of `model` leave it open which of several actions that is?
    pub(crate) fn is_described(&self, part: ActionPart, model: &str) -> bool {
        self.described.get(&part).is_some_and(|models| models.contains(model))
    }

    /// The choice of a row. `models` are those of its candidates.
    pub(crate) fn choice<'n>(
        &self,
        logged: LoggedNames<'n>,
        mut models: impl Iterator<Item = &'n str>,
    ) -> NamedChoice<'n> {
        let (ran, chosen) = (logged.executed, logged.intended);
        let is_same_model = chosen.is_some_and(|chosen| chosen.model == ran.model);
        let said: Vec<ActionPart> = self.parts.iter().copied().filter(|part| logged.draw_says(*part)).collect();
        // What a log does not say was not done otherwise.
        let as_drawn = |part: &ActionPart| {
            let drawn = chosen.and_then(|chosen| part.of(&chosen));
            drawn.is_none_or(|drawn| logged.made_with(*part).is_none_or(|made| made == drawn))
        };
        let is_carried_out = is_same_model && said.iter().all(as_drawn);
        let part = |part: ActionPart| {
            let of_draw = is_carried_out && said.contains(&part);
            let found = if of_draw { chosen.and_then(|chosen| part.of(&chosen)) } else { logged.made_with(part) };
            found.filter(|_| self.parts.contains(&part))
        };
        let answered = ActionParts {
            model: ran.model,
            provider: part(ActionPart::Provider),
            reasoning: part(ActionPart::Reasoning),
        };
        let unsaid: Vec<ActionPart> = self.parts.iter().copied().filter(|part| !said.contains(part)).collect();
        let leaves_open = |model: &str| unsaid.iter().any(|part| self.is_described(*part, model));
        let is_open =
            !unsaid.is_empty() && (chosen.is_some_and(|chosen| leaves_open(chosen.model)) || models.any(leaves_open));
        let name = |parts: ActionParts<'n>| -> Cow<'n, str> {
            if parts.is_model_alone() { parts.model.into() } else { parts.to_string().into() }
        };
        let executed = name(answered);
        let intended = match chosen {
            _ if is_carried_out => Some(executed.clone()),
            // With which mode a model would have been called that another one stood in for, nobody knows.
            Some(chosen) if !leaves_open(chosen.model) => Some(name(self.cut(chosen))),
            _ => None,
        };
        NamedChoice { executed, intended, executed_as_intended: is_carried_out, is_draw_of_actions: !is_open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWN: &str = "b;provider=own;reasoning=high";
    const BOTH: &[ActionPart] = &ActionPart::ALL;
    const REASONING: &[ActionPart] = &[ActionPart::Reasoning];

    /// A row of a log that also has calls of `b` with every part said beside the name.
    #[derive(Clone, Copy, Default)]
    struct Row<'a> {
        executed: &'a str,
        intended: Option<&'a str>,
        provider: Option<&'a str>,
        reasoning: Option<&'a str>,
        candidates: &'a [&'a str],
    }

    /// Executed, intended, as intended, a draw of actions.
    type Found = (String, Option<String>, bool, bool);

    fn choice(parts: &[ActionPart], row: Row<'_>) -> Found {
        let parts: BTreeSet<ActionPart> = parts.iter().copied().collect();
        let described = parts.iter().map(|part| (*part, BTreeSet::from(["b".to_owned()]))).collect();
        let names = ActionNames { parts: &parts, described: &described };
        let candidates: Vec<ActionParts<'_>> = row.candidates.iter().map(|name| ActionParts::of(name)).collect();
        let logged = LoggedNames {
            executed: ActionParts::of(row.executed),
            intended: row.intended.map(ActionParts::of),
            provider: row.provider,
            reasoning: row.reasoning,
            of_candidates: ActionPart::ALL.map(|part| candidates.iter().any(|name| part.of(name).is_some())),
        };
        let found = names.choice(logged, candidates.iter().map(|name| name.model));
        (found.executed.into(), found.intended.map(Cow::into), found.executed_as_intended, found.is_draw_of_actions)
    }

    fn found(executed: &str, intended: Option<&str>, as_intended: bool, is_draw: bool) -> Found {
        (executed.to_owned(), intended.map(str::to_owned), as_intended, is_draw)
    }

    #[test]
    fn names_are_cut_to_the_parts_that_are_asked_for() {
        let row = Row { executed: "b", intended: Some(DRAWN), provider: Some("own"), ..Row::default() };
        let low = Row { reasoning: Some("low"), ..row };
        assert_eq!(choice(&[], low), found("b", Some("b"), true, true), "without parts every name is a model's");
        let fallback = Row { executed: "a", ..low };
        assert_eq!(choice(&[], fallback), found("a", Some("b"), false, true));
        let high = "b;reasoning=high";
        assert_eq!(choice(REASONING, row), found(high, Some(high), true, true));
        assert_eq!(choice(REASONING, low), found("b;reasoning=low", Some(high), false, true));
    }

    #[test]
    fn a_draw_of_actions_was_carried_out_unless_the_log_says_otherwise() {
        let row = Row { executed: "b", intended: Some(DRAWN), ..Row::default() };
        let carried_out = found(DRAWN, Some(DRAWN), true, true);
        assert_eq!(choice(BOTH, row), carried_out, "nothing is said of how");
        let as_drawn = Row { provider: Some("own"), reasoning: Some("high"), ..row };
        assert_eq!(choice(BOTH, as_drawn), carried_out);
        let otherwise = Row { reasoning: Some("low"), ..as_drawn };
        assert_eq!(choice(BOTH, otherwise), found("b;provider=own;reasoning=low", Some(DRAWN), false, true));
        let elsewhere = Row { executed: "a", ..as_drawn };
        assert_eq!(choice(BOTH, elsewhere), found("a;provider=own;reasoning=high", Some(DRAWN), false, true));
        // The model alone is an action too, beside others of it.
        let alone = Row { intended: Some("b"), provider: Some("own"), candidates: &["b", DRAWN], ..row };
        assert_eq!(choice(BOTH, alone), found("b", Some("b"), true, true));
        // Candidates alone tell what was drawn among.
        let unnamed = Row { intended: None, candidates: &["a", DRAWN], ..as_drawn };
        assert_eq!(choice(BOTH, unnamed), found(DRAWN, None, false, true));
    }

    #[test]
    fn a_draw_that_leaves_a_part_open_says_nothing_of_it() {
        let row = Row {
            executed: "b",
            intended: Some("b"),
            provider: Some("own"),
            reasoning: Some("on"),
            candidates: &["a", "b"],
        };
        let called = "b;provider=own;reasoning=on";
        assert_eq!(choice(BOTH, row), found(called, Some(called), true, false));
        assert_eq!(choice(REASONING, row), found("b;reasoning=on", Some("b;reasoning=on"), true, false));
        // Of a model whose calls are all alike nothing is open; but one that could have been drawn in its place was not alike.
        let plain = Row { executed: "a", intended: Some("a"), candidates: &["a", "c"], ..Row::default() };
        assert_eq!(choice(BOTH, plain), found("a", Some("a"), true, true));
        assert_eq!(choice(BOTH, Row { candidates: &["a", "b"], ..plain }), found("a", Some("a"), true, false));
        let fallback = Row { executed: "a", ..row };
        assert_eq!(choice(REASONING, fallback), found("a;reasoning=on", None, false, false));
        // A draw of modes among providers that it does not name.
        let high = Row { intended: Some("b;reasoning=high"), reasoning: Some("high"), candidates: &[], ..row };
        let whole = "b;provider=own;reasoning=high";
        assert_eq!(choice(BOTH, high), found(whole, Some(whole), true, false));
        assert_eq!(choice(REASONING, high), found("b;reasoning=high", Some("b;reasoning=high"), true, true));
    }
}
