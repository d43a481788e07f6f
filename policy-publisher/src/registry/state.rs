//! The registry's state: a pure fold over its events, and the rules of what may be decided next.
//!
//! | step | from | rule |
//! |---|---|---|
//! | propose | unknown, rejected | otherwise nothing happens: the registry knows it, and what was withdrawn stays so |
//! | approve | proposed, superseded, rolled back | verdict `better` and not withdrawn, or `force` and a reason |
//! | reject | proposed, superseded, rolled back | it can't be gone back to either |
//! | roll back | active | to the policy that was active before it and was not withdrawn since, or to none |
//!
//! A withdrawal outlives a rejection and a new proposal; only an approval by force lifts it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use weir_policy_runtime::PolicyId;

use super::event::{EventKind, RegistryEvent, Verdict};
use crate::error::{ACTIVE, ID_DIGITS_MIN};
use crate::{PublisherError, Result};

/// Where a policy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for a decision.
    Proposed,
    /// In force.
    Active,
    /// Was in force until another was approved.
    Superseded,
    /// Was in force and withdrawn.
    RolledBack,
    /// Turned down.
    Rejected,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Proposed => "proposed",
            Self::Active => "active",
            Self::Superseded => "superseded",
            Self::RolledBack => "rolled back",
            Self::Rejected => "rejected",
        })
    }
}

/// One policy, as the events tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyState {
    /// Its name for people.
    pub name: String,
    /// Where it stands.
    pub status: Status,
    /// Was it in force and rolled back, and not approved by force since?
    pub withdrawn: bool,
    /// What its report says.
    pub verdict: Verdict,
    /// When it was last proposed, ms since the Unix epoch.
    pub proposed_ms: i64,
    /// When it last changed, ms since the Unix epoch.
    pub changed_ms: i64,
    /// Who changed it last.
    pub changed_by: String,
}

/// What a person saw in force when they decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seen {
    /// They did not say: whatever is in force when the decision arrives.
    #[default]
    Unsaid,
    /// No policy.
    Nothing,
    /// This one.
    Policy(PolicyId),
}

/// A person's decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// Override the verdict, or an earlier withdrawal; needs a reason.
    pub force: bool,
    /// An approval holds only while this is in force; a rollback names its policy itself.
    pub over: Seen,
}

impl Decision {
    fn has_reason(&self) -> bool {
        self.reason.as_ref().is_some_and(|reason| !reason.trim().is_empty())
    }
}

/// What is to be recorded, if the registry does not move first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    pub policy_id: PolicyId,
    pub policy_name: String,
    pub event: EventKind,
    pub previous: Option<PolicyId>,
    pub verdict: Verdict,
    pub forced: bool,
}

/// All policies, and which one is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RegistryState {
    /// Sequence number of the last event; `None` before the first.
    pub sequence: Option<i64>,
    /// Every policy that was ever proposed.
    pub policies: BTreeMap<PolicyId, PolicyState>,
    /// Policies that were in force and not withdrawn, oldest first; the last one is in force.
    in_force: Vec<PolicyId>,
}

impl RegistryState {
    /// The state after these events.
    ///
    /// # Errors
    /// [`PublisherError::Damaged`] at the first event that cannot follow the ones before it.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a RegistryEvent>) -> Result<Self> {
        let mut state = Self::default();
        for event in events {
            state.apply(event)?;
        }
        Ok(state)
    }

    /// Moves on by one event.
    ///
    /// # Errors
    /// [`PublisherError::Damaged`] when the event cannot follow this state.
    pub fn apply(&mut self, event: &RegistryEvent) -> Result<()> {
        let damaged = |why: &str| PublisherError::Damaged { why: format!("event {} {why}", event.sequence) };
        if event.sequence != self.next_sequence() {
            return Err(damaged("does not follow the one before it"));
        }
        if event.event != EventKind::Proposed && !self.policies.contains_key(&event.policy_id) {
            return Err(damaged("is about a policy that was never proposed"));
        }
        match event.event {
            EventKind::Proposed => {
                if self.active() == Some(&event.policy_id) {
                    return Err(damaged("proposes the active policy"));
                }
                let withdrawn = self.policies.get(&event.policy_id).is_some_and(|known| known.withdrawn);
                let state = PolicyState {
                    name: event.policy_name.clone(),
                    status: Status::Proposed,
                    withdrawn,
                    verdict: event.verdict.clone(),
                    proposed_ms: event.event_ms,
                    changed_ms: event.event_ms,
                    changed_by: event.actor.clone(),
                };
                self.policies.insert(event.policy_id.clone(), state);
            }
            EventKind::Approved => {
                if event.previous.as_ref() != self.active() || self.active() == Some(&event.policy_id) {
                    return Err(damaged("approves over another policy than the active one"));
                }
                if let Some(previous) = self.active().cloned() {
                    self.set_status(&previous, Status::Superseded);
                }
                self.in_force.push(event.policy_id.clone());
                self.changed(event, Status::Active);
                self.set_withdrawn(&event.policy_id, false);
            }
            EventKind::Rejected => {
                if self.active() == Some(&event.policy_id) {
                    return Err(damaged("rejects the active policy"));
                }
                self.withdraw(&event.policy_id);
                self.changed(event, Status::Rejected);
            }
            EventKind::RolledBack => {
                if self.active() != Some(&event.policy_id) || self.rollback_target() != event.previous.as_ref() {
                    return Err(damaged("rolls back between other policies than the last two"));
                }
                self.withdraw(&event.policy_id);
                self.changed(event, Status::RolledBack);
                self.set_withdrawn(&event.policy_id, true);
                if let Some(back) = self.active().cloned() {
                    self.set_status(&back, Status::Active);
                }
            }
        }
        self.sequence = Some(event.sequence);
        Ok(())
    }

    /// Sequence number of the event to come.
    #[must_use]
    pub fn next_sequence(&self) -> i64 {
        self.sequence.map_or(0, |last| last + 1)
    }

    /// The policy in force.
    #[must_use]
    pub fn active(&self) -> Option<&PolicyId> {
        self.in_force.last()
    }

    /// The policy that a rollback would put in force.
    #[must_use]
    pub fn rollback_target(&self) -> Option<&PolicyId> {
        let active = self.active()?;
        self.in_force.iter().rev().find(|id| *id != active)
    }

    /// One policy.
    ///
    /// # Errors
    /// [`PublisherError::Unknown`].
    pub fn policy(&self, id: &PolicyId) -> Result<&PolicyState> {
        self.policies.get(id).ok_or_else(|| PublisherError::Unknown { text: id.to_string() })
    }

    /// Finds a policy by what a person types: `active`, a whole id, or at least 6 of its first digits.
    ///
    /// # Errors
    /// [`PublisherError::Unknown`] and [`PublisherError::Ambiguous`].
    pub fn resolve(&self, text: &str) -> Result<PolicyId> {
        let unknown = || PublisherError::Unknown { text: text.to_owned() };
        if text == ACTIVE {
            return self.active().cloned().ok_or_else(unknown);
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.len() < ID_DIGITS_MIN {
            return Err(unknown());
        }
        let mut found = self.policies.keys().filter(|id| id.hex().starts_with(digits));
        match (found.next(), found.count()) {
            (None, _) => Err(unknown()),
            (Some(id), 0) => Ok(id.clone()),
            (Some(_), others) => Err(PublisherError::Ambiguous { text: text.to_owned(), matches: others + 1 }),
        }
    }

    /// What a maker of a decision sees who looks now.
    pub(super) fn seen(&self) -> Seen {
        self.active().map_or(Seen::Nothing, |id| Seen::Policy(id.clone()))
    }

    /// A decision about what is in force holds only for the policy that its maker saw in force.
    pub(super) fn expect(&self, seen: &Seen) -> Result<()> {
        if *seen == Seen::Unsaid || *seen == self.seen() {
            return Ok(());
        }
        let now = self.active().map_or_else(|| "none".to_owned(), |id| id.short().to_owned());
        Err(PublisherError::Overtaken { now })
    }

    pub(super) fn propose(&self, id: &PolicyId, name: &str, verdict: &Verdict) -> Option<Draft> {
        let status = self.policies.get(id).map(|policy| policy.status);
        if !matches!(status, None | Some(Status::Rejected)) {
            return None;
        }
        let (policy_name, verdict) = (name.to_owned(), verdict.clone());
        let event = EventKind::Proposed;
        Some(Draft { policy_id: id.clone(), policy_name, event, previous: None, verdict, forced: false })
    }

    pub(super) fn approve(&self, id: &PolicyId, decision: &Decision) -> Result<Draft> {
        let policy = self.policy(id)?;
        match policy.status {
            Status::Active => return Err(PublisherError::AlreadyActive { id: id.clone() }),
            Status::Rejected => return Err(PublisherError::NotApprovable { id: id.clone(), status: policy.status }),
            Status::RolledBack | Status::Proposed | Status::Superseded => {}
        }
        self.expect(&decision.over)?;
        let overrides = policy.withdrawn || !policy.verdict.is_better();
        if overrides && !decision.force {
            return Err(if policy.withdrawn {
                PublisherError::WasRolledBack { id: id.clone() }
            } else {
                PublisherError::NotBetter { id: id.clone(), verdict: policy.verdict.clone() }
            });
        }
        if overrides && !decision.has_reason() {
            return Err(PublisherError::NeedsReason);
        }
        Ok(self.draft(id, policy, EventKind::Approved, self.active().cloned(), overrides))
    }

    pub(super) fn reject(&self, id: &PolicyId) -> Result<Draft> {
        let policy = self.policy(id)?;
        match policy.status {
            Status::Active => Err(PublisherError::RejectActive { id: id.clone() }),
            Status::Rejected => Err(PublisherError::AlreadyRejected { id: id.clone() }),
            _ => Ok(self.draft(id, policy, EventKind::Rejected, None, false)),
        }
    }

    /// `from` is the policy that its maker wants gone: said twice, it is still one step back.
    pub(super) fn rollback(&self, from: &PolicyId, decision: &Decision) -> Result<Draft> {
        let id = self.active().ok_or(PublisherError::NothingActive)?;
        self.expect(&Seen::Policy(from.clone()))?;
        if !decision.has_reason() {
            return Err(PublisherError::NeedsReason);
        }
        Ok(self.draft(id, self.policy(id)?, EventKind::RolledBack, self.rollback_target().cloned(), false))
    }

    fn draft(
        &self,
        id: &PolicyId,
        policy: &PolicyState,
        event: EventKind,
        previous: Option<PolicyId>,
        forced: bool,
    ) -> Draft {
        let (policy_name, verdict) = (policy.name.clone(), policy.verdict.clone());
        Draft { policy_id: id.clone(), policy_name, event, previous, verdict, forced }
    }

    /// Takes a policy out of the line of those that can be gone back to.
    fn withdraw(&mut self, id: &PolicyId) {
        self.in_force.retain(|other| other != id);
        self.in_force.dedup();
    }

    fn set_status(&mut self, id: &PolicyId, status: Status) {
        if let Some(policy) = self.policies.get_mut(id) {
            policy.status = status;
        }
    }

    fn set_withdrawn(&mut self, id: &PolicyId, withdrawn: bool) {
        if let Some(policy) = self.policies.get_mut(id) {
            policy.withdrawn = withdrawn;
        }
    }

    fn changed(&mut self, event: &RegistryEvent, status: Status) {
        if let Some(policy) = self.policies.get_mut(&event.policy_id) {
            policy.status = status;
            policy.changed_ms = event.event_ms;
            policy.changed_by.clone_from(&event.actor);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> PolicyId {
        PolicyId::of_manifest(&[n])
    }

    fn decision() -> Decision {
        Decision { actor: "alice".to_owned(), reason: Some("because".to_owned()), force: true, over: Seen::Unsaid }
    }

    fn event(state: &RegistryState, draft: Draft) -> RegistryEvent {
        let sequence = state.next_sequence();
        RegistryEvent {
            sequence,
            event_id: sequence.to_string(),
            event_ms: sequence,
            policy_id: draft.policy_id,
            policy_name: draft.policy_name,
            event: draft.event,
            actor: "alice".to_owned(),
            reason: None,
            previous: draft.previous,
            verdict: draft.verdict,
            forced: draft.forced,
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Propose(u8),
        Approve(u8),
        Reject(u8),
        RollBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..5).prop_map(Step::Propose),
            (0u8..5).prop_map(Step::Approve),
            (0u8..5).prop_map(Step::Approve),
            (0u8..5).prop_map(Step::Reject),
            Just(Step::RollBack),
        ]
    }

    /// Takes the steps that the rules allow; returns the events and the state after each.
    fn play(steps: &[Step]) -> (Vec<RegistryEvent>, Vec<RegistryState>) {
        let (mut events, mut states) = (Vec::new(), vec![RegistryState::default()]);
        for step in steps {
            let state = states.last().cloned().unwrap_or_default();
            let draft = match step {
                Step::Propose(n) => state.propose(&id(*n), "demo", &Verdict::of_report(None)),
                Step::Approve(n) => state.approve(&id(*n), &decision()).ok(),
                Step::Reject(n) => state.reject(&id(*n)).ok(),
                Step::RollBack => state.active().and_then(|active| state.rollback(active, &decision()).ok()),
            };
            if let Some(draft) = draft {
                let event = event(&state, draft);
                let mut next = state;
                next.apply(&event).expect("a step that the rules allow can be folded");
                events.push(event);
                states.push(next);
            }
        }
        (events, states)
    }

    /// Policies whose last approval was neither rolled back nor rejected since, the latest approval first: the rule as a
    /// person would say it, against which the fold is held.
    fn standing_approvals(events: &[RegistryEvent]) -> impl Iterator<Item = &PolicyId> {
        events.iter().enumerate().rev().filter_map(|(n, event)| {
            let undone = |later: &RegistryEvent| {
                later.policy_id == event.policy_id && matches!(later.event, EventKind::RolledBack | EventKind::Rejected)
            };
            (event.event == EventKind::Approved && !events[n..].iter().any(undone)).then_some(&event.policy_id)
        })
    }

    proptest! {
        #[test]
        fn what_is_in_force_and_what_is_withdrawn_follow_from_the_events_alone(steps in prop::collection::vec(step(), 0..60)) {
            let (events, states) = play(&steps);
            for (n, state) in states.iter().enumerate() {
                let events = &events[..n];
                let mut standing = standing_approvals(events);
                prop_assert_eq!(state.active(), standing.next());
                let active = state.active();
                prop_assert_eq!(state.rollback_target(), standing.find(|id| Some(*id) != active));
                for (id, policy) in &state.policies {
                    let last = events.iter().rfind(|event| {
                        event.policy_id == *id && matches!(event.event, EventKind::Approved | EventKind::RolledBack)
                    });
                    let withdrawn = last.is_some_and(|event| event.event == EventKind::RolledBack);
                    prop_assert_eq!(policy.withdrawn, withdrawn);
                }
            }
        }

        #[test]
        fn a_withdrawn_policy_comes_back_by_force_only(steps in prop::collection::vec(step(), 0..60)) {
            let gently = Decision { force: false, ..decision() };
            for state in play(&steps).1 {
                for (id, policy) in &state.policies {
                    if policy.withdrawn {
                        prop_assert!(state.approve(id, &gently).is_err());
                        prop_assert!(policy.status == Status::Rejected || state.approve(id, &decision()).unwrap().forced);
                    }
                }
            }
        }

        #[test]
        fn at_most_one_policy_is_active_and_it_is_the_one_in_force(steps in prop::collection::vec(step(), 0..60)) {
            for state in play(&steps).1 {
                let active: Vec<&PolicyId> =
                    state.policies.iter().filter(|(_, p)| p.status == Status::Active).map(|(id, _)| id).collect();
                prop_assert_eq!(active, state.active().into_iter().collect::<Vec<_>>());
            }
        }

        #[test]
        fn a_rollback_never_goes_to_a_policy_that_was_withdrawn(steps in prop::collection::vec(step(), 0..60)) {
            for state in play(&steps).1 {
                if let Some(target) = state.rollback_target() {
                    let status = state.policies[target].status;
                    prop_assert_eq!(status, Status::Superseded);
                }
            }
        }

        #[test]
        fn a_lost_or_doubled_event_is_noticed(steps in prop::collection::vec(step(), 2..40), at in any::<prop::sample::Index>()) {
            let events = play(&steps).0;
            if events.len() >= 2 {
                let at = at.index(events.len() - 1);
                let mut lost = events.clone();
                lost.remove(at);
                prop_assert!(RegistryState::fold(&lost).is_err());
                let mut doubled = events.clone();
                doubled.insert(at, events[at].clone());
                prop_assert!(RegistryState::fold(&doubled).is_err());
            }
        }
    }

    #[test]
    fn ids_are_found_by_their_first_digits() {
        let steps: Vec<Step> = (0..5).map(Step::Propose).collect();
        let state = play(&steps).1.pop().unwrap();
        assert_eq!(state.resolve(id(3).as_str()).unwrap(), id(3));
        assert_eq!(state.resolve(id(3).short()).unwrap(), id(3));
        for (text, mended_by) in
            [("active", "none is active"), (&id(3).hex()[..5], "at least six digits"), ("zzzzzz", "shows all")]
        {
            let error = state.resolve(text).unwrap_err();
            assert!(
                matches!(error, PublisherError::Unknown { .. }) && error.to_string().contains(mended_by),
                "{error}"
            );
        }
    }
}
