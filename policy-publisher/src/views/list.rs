//! Every policy, one line each.

use std::fmt;

use serde::Serialize;
use weir_policy_runtime::PolicyId;

use super::time;
use crate::registry::{PolicyState, RegistryState};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyRow {
    /// Its id.
    pub id: PolicyId,
    /// Where it stands.
    #[serde(flatten)]
    pub state: PolicyState,
}

/// Every policy: the active one first, then the latest proposals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyList {
    /// The policy in force.
    pub active: Option<PolicyId>,
    /// What a rollback would put in force.
    pub rollback_target: Option<PolicyId>,
    /// One row a policy.
    pub policies: Vec<PolicyRow>,
}

impl PolicyList {
    pub(crate) fn new(state: &RegistryState) -> Self {
        let mut policies: Vec<PolicyRow> =
            state.policies.iter().map(|(id, policy)| PolicyRow { id: id.clone(), state: policy.clone() }).collect();
        policies.sort_by_key(|row| (state.active() != Some(&row.id), -row.state.proposed_ms));
        Self { active: state.active().cloned(), rollback_target: state.rollback_target().cloned(), policies }
    }
}

impl fmt::Display for PolicyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.policies.is_empty() {
            return writeln!(f, "no policy yet: weir learn policy makes one");
        }
        let name_width = self.policies.iter().map(|row| row.state.name.chars().count()).max().unwrap_or(0).max(4);
        let header = ("policy", "name", "status", "verdict", "proposed");
        writeln!(
            f,
            "  {:12}  {:name_width$}  {:11}  {:20}  {:20}  last changed by",
            header.0, header.1, header.2, header.3, header.4
        )?;
        for row in &self.policies {
            let mark = if self.active.as_ref() == Some(&row.id) { '*' } else { ' ' };
            let PolicyState { name, status, verdict, proposed_ms, changed_by, .. } = &row.state;
            let (id, proposed) = (row.id.short(), time(*proposed_ms));
            writeln!(f, "{mark} {id}  {name:name_width$}  {status:11}  {verdict:20}  {proposed:20}  {changed_by}")?;
        }
        match &self.rollback_target {
            Some(target) => writeln!(f, "a rollback would go back to {}", target.short()),
            None if self.active.is_some() => writeln!(f, "a rollback would leave no policy active"),
            None => writeln!(f, "no policy is active"),
        }
    }
}
