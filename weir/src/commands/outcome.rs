//! `weir outcome`: what an outcome is worth here, and who says so.

use serde_json::json;
use weir_learners::{Outcome, Part};
use weir_policy_publisher::keys::SigningKey;

use super::{configuration, print_json};
use crate::cli::{Common, OutcomeCommand};
use crate::error::Result;
use crate::outcome::{self, Source};

/// Runs the command.
pub fn run(common: &Common, command: OutcomeCommand) -> Result<()> {
    match command {
        OutcomeCommand::Sign { file, key } => {
            let (outcome, signature) = outcome::sign(&file, &SigningKey::read(&key)?)?;
            if common.json {
                return print_json(&json!({ "signature": signature, "outcome": outcome }));
            }
            print!("{}", sentences(&outcome));
            println!("signed in {}", signature.display());
        }
        OutcomeCommand::Show { file } => {
            let (outcome, Source { signed_by, .. }) = outcome::read(&file, &configuration(common)?)?;
            if common.json {
                return print_json(&json!({ "standing": { "signed_by": signed_by }, "outcome": outcome }));
            }
            print!("{}", sentences(&outcome));
            println!("signed by {signed_by}");
        }
    }
    Ok(())
}

fn sentences(outcome: &Outcome) -> String {
    let mut said = String::new();
    for part in Part::ALL {
        let weight = outcome.weight(part);
        if weight > 0.0 {
            let is = if part.sign() > 0.0 { "is worth" } else { "costs" };
            said.push_str(&format!("a unit of {} {is} {weight}\n", part.in_words()));
        }
    }
    for (part, limit) in &outcome.guardrails {
        said.push_str(&format!("{} may become worse by {limit}\n", part.in_words()));
    }
    said.push_str(&format!("a policy has to gain more than {}\n", outcome.margin));
    said
}
