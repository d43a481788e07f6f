//! Which model each session was given, and with what probability.

use std::collections::{BTreeSet, HashMap};

use weir_policy_runtime::Action;

use super::Candidate;

/// Sessions whose model is remembered; the older half goes when there are more.
const SESSIONS_MAX: usize = 200_000;

/// A session's first draw.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assignment {
    pub model: String,
    pub propensity: f64,
    pub policy_id: String,
    /// What it was drawn from.
    pub candidates: Vec<Candidate>,
    /// What each request drawn so is expected to cost, in units of utility.
    pub expected_loss: f64,
    /// The model was drawn to learn something, or could have been another for that.
    pub explored: bool,
    pub since_ms: i64,
}

/// Assignments by session.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    assignments: HashMap<String, Assignment>,
    /// Policies that were rolled back or rejected: what they assigned holds no longer.
    withdrawn: BTreeSet<String>,
}

impl Sessions {
    /// The session's assignment, if it still holds: its policy was not withdrawn, and its model is still one that the
    /// policy in force can choose.
    pub(super) fn kept(&self, session: &str, actions: &[Action]) -> Option<&Assignment> {
        self.assignments.get(session).filter(|assignment| {
            !self.withdrawn.contains(&assignment.policy_id)
                && actions.iter().any(|action| action.model == assignment.model)
        })
    }

    /// Keeps a session's draw.
    pub(super) fn keep(&mut self, session: String, drawn: Assignment) {
        if self.assignments.len() >= SESSIONS_MAX {
            let mut ages: Vec<i64> = self.assignments.values().map(|assignment| assignment.since_ms).collect();
            let middle = ages.len() / 2;
            let median = *ages.select_nth_unstable(middle).1;
            self.assignments.retain(|_, assignment| assignment.since_ms > median);
        }
        self.assignments.insert(session, drawn);
    }

    /// Takes note of the policies that are withdrawn now, all of them.
    pub(super) fn withdraw(&mut self, policies: BTreeSet<String>) {
        self.withdrawn = policies;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(model: &str, policy_id: &str) -> Assignment {
        Assignment {
            model: model.into(),
            propensity: 0.5,
            policy_id: policy_id.into(),
            candidates: Vec::new(),
            expected_loss: 0.0,
            explored: false,
            since_ms: 0,
        }
    }

    fn actions(models: &[&str]) -> Vec<Action> {
        let action =
            |model: &&str| Action { model: (*model).to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None };
        models.iter().map(action).collect()
    }

    #[test]
    fn a_rollback_reaches_the_sessions_of_the_policy_and_no_others() {
        let mut sessions = Sessions::default();
        sessions.keep("before".into(), assignment("small", "sha256:good"));
        sessions.keep("during".into(), assignment("large", "sha256:bad"));
        let models = actions(&["small", "large"]);
        assert!(sessions.kept("during", &models).is_some());
        sessions.withdraw(BTreeSet::from(["sha256:bad".to_owned()]));
        assert!(sessions.kept("during", &models).is_none());
        assert!(sessions.kept("before", &models).is_some(), "a policy that was only superseded keeps its sessions");
    }

    #[test]
    fn a_model_that_the_policy_in_force_lacks_is_not_served_any_more() {
        let mut sessions = Sessions::default();
        sessions.keep("s".into(), assignment("retired", "sha256:old"));
        assert!(sessions.kept("s", &actions(&["small", "large"])).is_none());
    }
}
