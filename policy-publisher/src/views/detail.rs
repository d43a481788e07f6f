//! One policy: where it comes from, what was found out about it, what was decided.

use std::fmt;

use serde::Serialize;
use weir_policy_runtime::{Bundle, Manifest, PolicyId, REPORT_MARKDOWN_FILE, Signature, SignatureError, Standing};

use super::diff::flatten;
use super::{standing_words, time};
use crate::registry::{Loaded, RegistryEvent, Status, Verdict};

/// A policy's signature, and whether it counts here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignatureView {
    /// Key named by the signature; none when unsigned.
    pub key_id: Option<String>,
    /// Does it hold here?
    pub trusted: bool,
    /// One sentence.
    pub note: String,
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyDetail {
    /// Its id.
    pub id: PolicyId,
    /// Where it stands.
    pub status: Status,
    /// What its report says.
    pub verdict: Verdict,
    /// Its manifest: name, kind, lineage, metrics, files.
    pub manifest: Manifest,
    /// Who signed it.
    pub signature: SignatureView,
    /// Its events, oldest first.
    pub history: Vec<RegistryEvent>,
    /// Its report for people.
    pub report: Option<String>,
}

impl PolicyDetail {
    pub(crate) fn new(
        loaded: &Loaded,
        bundle: &Bundle,
        signature: Option<&Signature>,
        standing: Result<Standing, SignatureError>,
    ) -> Self {
        let state = loaded.state.policies.get(&bundle.id);
        let report = bundle.files.get(REPORT_MARKDOWN_FILE).map(|text| String::from_utf8_lossy(text).into_owned());
        let (trusted, note) = match &standing {
            Ok(standing) => (matches!(standing, Standing::SignedBy(_)), standing_words(standing)),
            Err(error) => (false, error.to_string()),
        };
        Self {
            id: bundle.id.clone(),
            status: state.map_or(Status::Proposed, |state| state.status),
            verdict: state.map_or_else(|| Verdict::of_report(None), |state| state.verdict.clone()),
            manifest: bundle.manifest.clone(),
            signature: SignatureView { key_id: signature.map(|s| s.key_id.clone()), trusted, note },
            history: loaded.events.iter().filter(|event| event.policy_id == bundle.id).cloned().collect(),
            report,
        }
    }
}

impl fmt::Display for PolicyDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = &self.manifest;
        writeln!(f, "# {}\n", manifest.name)?;
        writeln!(f, "- id: {}", self.id)?;
        writeln!(f, "- kind: {}", manifest.kind)?;
        writeln!(f, "- status: {}, verdict: {}", self.status, self.verdict)?;
        writeln!(
            f,
            "- made: {} by weir {}, seed {}",
            time(manifest.created_ms),
            manifest.lineage.code_version,
            manifest.lineage.seed
        )?;
        for (table, version) in &manifest.lineage.tables {
            writeln!(f, "- from table {table}, version {version}")?;
        }
        for (name, version) in &manifest.lineage.data {
            writeln!(f, "- from data {name}: {version}")?;
        }
        writeln!(f, "- signature: {}", self.signature.note)?;
        writeln!(f, "\n## Metrics\n")?;
        for (name, value) in flatten("", &manifest.metrics) {
            writeln!(f, "- {name}: {value}")?;
        }
        writeln!(f, "\n## Files\n")?;
        for (path, file) in &manifest.files {
            writeln!(f, "- {path}: {} bytes, sha256 {}", file.bytes, file.sha256)?;
        }
        writeln!(f, "\n## History\n")?;
        for event in &self.history {
            let forced = if event.forced { " (forced)" } else { "" };
            write!(
                f,
                "- {}: {}{forced} by {}",
                time(event.event_ms),
                event.event.name().replace('_', " "),
                event.actor
            )?;
            match &event.reason {
                Some(reason) => writeln!(f, ": {reason}")?,
                None => writeln!(f)?,
            }
        }
        if let Some(report) = &self.report {
            writeln!(f, "\n{}", report.trim_end())?;
        }
        Ok(())
    }
}
