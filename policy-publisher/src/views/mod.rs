//! What the registry tells people and programs: every answer serialises for `--json` and displays as text.

mod detail;
mod diff;
mod list;

use std::fmt;

use chrono::DateTime;
use serde::Serialize;
use weir_policy_runtime::{Bundle, PolicyId, Standing};

pub use detail::{PolicyDetail, SignatureView};
pub use diff::{Difference, PolicyDiff};
pub use list::{PolicyList, PolicyRow};

use crate::registry::Verdict;

/// Answer to a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proposed {
    /// The policy.
    pub id: PolicyId,
    /// Its name.
    pub name: String,
    /// What its report says.
    pub verdict: Verdict,
    /// False when the registry knew it already.
    pub new: bool,
}

impl fmt::Display for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, verdict, new } = self;
        let what = if *new { "proposed" } else { "was known already" };
        writeln!(f, "policy {id} ({name}) {what}, verdict: {verdict}")
    }
}

/// Answer to an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approved {
    /// The policy, now in force.
    pub id: PolicyId,
    /// What was in force before.
    pub previous: Option<PolicyId>,
    /// Was a verdict or an earlier withdrawal overridden?
    pub forced: bool,
    /// Who signed it.
    pub standing: Standing,
}

impl fmt::Display for Approved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {} is active now, {}", self.id, standing_words(&self.standing))?;
        match &self.previous {
            Some(previous) => write!(f, ", in place of {}", previous.short())?,
            None => write!(f, "; none was before")?,
        }
        writeln!(f, "{}", if self.forced { " (forced)" } else { "" })
    }
}

/// Answer to a rejection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// The policy.
    pub id: PolicyId,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy {} is rejected", self.id)
    }
}

/// Answer to a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RolledBack {
    /// The policy that was withdrawn.
    pub from: PolicyId,
    /// The policy in force now, if any.
    pub to: Option<PolicyId>,
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {} is withdrawn, ", self.from.short())?;
        match &self.to {
            Some(to) => writeln!(f, "{to} is active again"),
            None => writeln!(f, "no policy is active now"),
        }
    }
}

/// Answer to a check of content and signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// The policy.
    pub id: PolicyId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Number of files, manifest included.
    pub files: usize,
    /// All files together, bytes.
    pub bytes: u64,
    /// Who signed it.
    pub standing: Standing,
}

impl Verification {
    pub(crate) fn new(bundle: &Bundle, standing: Standing) -> Self {
        let (files, bytes) =
            bundle.entries().fold((0, 0), |(n, sum), (_, content)| (n + 1, sum + content.len() as u64));
        let (name, kind) = (bundle.manifest.name.clone(), bundle.manifest.kind.clone());
        Self { id: bundle.id.clone(), name, kind, files, bytes, standing }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, kind, files, bytes, standing } = self;
        writeln!(f, "{id}")?;
        writeln!(f, "{name} ({kind}): {files} files, {bytes} bytes, every hash right; {}", standing_words(standing))
    }
}

fn standing_words(standing: &Standing) -> String {
    match standing {
        Standing::SignedBy(key_id) => format!("signed by trusted key {key_id}"),
        Standing::Unsigned => "signature not checked".to_owned(),
    }
}

/// Minutes are enough for people; `--json` has the milliseconds.
fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| format!("{ms} ms"), |t| t.format("%Y-%m-%d %H:%M UTC").to_string())
}
