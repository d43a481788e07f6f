//! The edge: whatever went wrong becomes one sentence, a fault and an exit code.

use std::fmt;

/// Whose fault a failure is, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The command, the configuration or the input is wrong. Exit code 2.
    User,
    /// Something that Weir depends on failed. Exit code 3.
    Outside,
    /// Weir is wrong. Exit code 4.
    Ours,
    /// Nobody's: a signal ended the command before its work was done. Exit code 130, as shells have it.
    Stopped,
}

/// One clear sentence, whose fault it is, and whether trying again can help.
#[derive(Debug)]
pub struct Failure {
    sentence: String,
    fault: Fault,
    retry_helps: bool,
    /// What the command found out all the same, for `--json`.
    report: Option<Box<serde_json::Value>>,
}

/// What commands return.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// The caller must change something.
    pub fn user(sentence: impl fmt::Display) -> Self {
        Self { sentence: sentence.to_string(), fault: Fault::User, retry_helps: false, report: None }
    }

    /// Something outside failed; the same call may pass later.
    pub fn outside(sentence: impl fmt::Display) -> Self {
        Self { sentence: sentence.to_string(), fault: Fault::Outside, retry_helps: true, report: None }
    }

    /// A defect of ours.
    pub fn ours(sentence: impl fmt::Display) -> Self {
        Self { sentence: sentence.to_string(), fault: Fault::Ours, retry_helps: false, report: None }
    }

    /// A signal came first.
    pub fn stopped(sentence: impl fmt::Display) -> Self {
        Self { sentence: sentence.to_string(), fault: Fault::Stopped, retry_helps: true, report: None }
    }

    /// The same failure with an object of what was found out, which then goes into the one JSON object.
    pub fn with_report(self, report: serde_json::Value) -> Self {
        Self { report: Some(Box::new(report)), ..self }
    }

    /// Must the caller change something?
    pub fn is_users(&self) -> bool {
        self.fault == Fault::User
    }

    /// The process's exit code: 2 user, 3 outside, 4 ours, 130 stopped by a signal.
    pub fn exit_code(&self) -> u8 {
        match self.fault {
            Fault::User => 2,
            Fault::Outside => 3,
            Fault::Ours => 4,
            Fault::Stopped => 130,
        }
    }

    /// The failure as one JSON object, for `--json`.
    pub fn json(&self) -> serde_json::Value {
        let fault = match self.fault {
            Fault::User => "user",
            Fault::Outside => "outside",
            Fault::Ours => "ours",
            Fault::Stopped => "stopped",
        };
        let mut object = self.report.as_deref().cloned().unwrap_or_else(|| serde_json::json!({}));
        object["error"] = self.to_string().into();
        object["fault"] = fault.into();
        object["retry_helps"] = self.retry_helps.into();
        object
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A sentence is one line: causes that span lines are joined, so that logs and terminals show it whole.
        let mut lines = self.sentence.lines().map(str::trim).filter(|line| !line.is_empty());
        if let Some(first) = lines.next() {
            f.write_str(first)?;
        }
        for line in lines {
            write!(f, "; {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Maps a library's error to a failure, with the fault and the advice on retrying that the library states.
macro_rules! from_library {
    ($error:ty, $fault:path) => {
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                use $fault as Stated;
                let fault = match error.fault() {
                    Stated::User => Fault::User,
                    Stated::Outside => Fault::Outside,
                    Stated::Ours => Fault::Ours,
                };
                let retry_helps = error.retry_helps();
                Self { sentence: with_advice(error.to_string()), fault, retry_helps, report: None }
            }
        }
    };
}

/// A full disk is named by the operating system, and what to do about it by nobody.
fn with_advice(sentence: String) -> String {
    const FULL: &str = "No space left on device";
    if sentence.contains(FULL) { format!("{sentence}; make room there, then run it again") } else { sentence }
}

from_library!(weir_store::StoreError, weir_store::Fault);
from_library!(weir_ingest::IngestError, weir_store::Fault);
from_library!(weir_features::FeaturesError, weir_store::Fault);
from_library!(weir_sql::SqlError, weir_store::Fault);
from_library!(weir_learners::LearnError, weir_store::Fault);
from_library!(weir_policy_publisher::PublisherError, weir_store::Fault);
from_library!(weir_bridge::BridgeError, weir_bridge::Fault);

impl From<weir_traffic::TrafficError> for Failure {
    fn from(error: weir_traffic::TrafficError) -> Self {
        let fault = match error.fault() {
            weir_traffic::Fault::User => Fault::User,
            weir_traffic::Fault::Outside => Fault::Outside,
        };
        Self { sentence: error.to_string(), fault, retry_helps: error.retry_helps(), report: None }
    }
}
