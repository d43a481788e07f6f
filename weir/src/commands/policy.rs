//! `weir policy`: the registry.

use std::fmt::Display;
use std::path::Path;

use serde::Serialize;
use weir_policy_publisher::keys::SigningKey;
use weir_policy_publisher::{Decision, PublisherError, Registry, Seen, verify_path};

use super::{actor, configuration, existing_store, print_json};
use crate::cli::{ApproveArgs, Common, DecisionArgs, PolicyCommand};
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::services;

/// Runs the command.
pub async fn run(common: &Common, command: PolicyCommand) -> Result<()> {
    let config = configuration(common)?;
    // Making a key and checking a folder need no store.
    match &command {
        PolicyCommand::Keygen { file } => return keygen(common, &config, file),
        PolicyCommand::Verify { policy } if Path::new(policy).exists() => {
            return show(common, &verify_path(Path::new(policy), &services::trust(&config)?)?);
        }
        _ => {}
    }
    let registry = Registry::open(&existing_store(&config).await?, services::trust(&config)?).await?;
    match command {
        PolicyCommand::List => show(common, &registry.list().await?),
        PolicyCommand::Show { policy } => show(common, &registry.show(&policy).await?),
        PolicyCommand::Diff { left, right } => show(common, &registry.diff(&left, &right).await?),
        PolicyCommand::Verify { policy } => show(common, &registry.verify(&policy).await?),
        PolicyCommand::Approve(args) => {
            let id = registry.resolve(&args.decision.policy).await?;
            show(common, &registry.approve(&id, &approval(&registry, args).await?).await?)
        }
        PolicyCommand::Reject(args) => {
            let id = registry.resolve(&args.policy).await?;
            show(common, &registry.reject(&id, &decision(args)?).await?)
        }
        PolicyCommand::Rollback { policy, reason, actor: named } => {
            let decision = Decision { actor: actor(named)?, reason: Some(reason), ..Decision::default() };
            let from = match policy.as_deref() {
                Some(policy) => registry.resolve(policy).await?,
                None => registry.load().await?.state.active().cloned().ok_or(PublisherError::NothingActive)?,
            };
            show(common, &registry.rollback(&from, &decision).await?)
        }
        PolicyCommand::Export { policy, folder } => export(common, &registry, &policy, &folder).await,
        PolicyCommand::Keygen { .. } => unreachable!("handled above"),
    }
}

fn decision(args: DecisionArgs) -> Result<Decision> {
    Ok(Decision { actor: actor(args.actor)?, reason: args.reason, ..Decision::default() })
}

/// What `--over` names is what the approver saw in force; the answer says what the policy took the place of.
async fn approval(registry: &Registry, args: ApproveArgs) -> Result<Decision> {
    let over = match args.over.as_deref() {
        None => Seen::Unsaid,
        Some("none") => Seen::Nothing,
        Some(policy) => Seen::Policy(registry.resolve(policy).await?),
    };
    Ok(Decision { force: args.force, over, ..decision(args.decision)? })
}

fn show(common: &Common, value: &(impl Serialize + Display)) -> Result<()> {
    if common.json {
        return print_json(value);
    }
    println!("{}", value.to_string().trim_end());
    Ok(())
}

async fn export(common: &Common, registry: &Registry, policy: &str, folder: &Path) -> Result<()> {
    let id = registry.resolve(policy).await?;
    let (bundle, signature) = registry.bundle(&id).await?;
    bundle.write_dir(folder, signature.as_ref()).map_err(Failure::user)?;
    if common.json {
        return print_json(&serde_json::json!({ "policy_id": id, "folder": folder }));
    }
    println!("{id} in {}", folder.display());
    Ok(())
}

/// A new key; its public half is copied to the trusted folder, so that this installation accepts what it signs.
fn keygen(common: &Common, config: &Config, file: &Path) -> Result<()> {
    let key = SigningKey::generate();
    let trusted = &config.policy.trusted_keys;
    let copy = trusted.join(format!("{}.pub", key.public().key_id()));
    let not_trusted =
        |error: std::io::Error| Failure::user(format!("cannot write the trusted key {}: {error}", copy.display()));
    std::fs::create_dir_all(trusted).map_err(not_trusted)?;
    let public = key.write_new(file)?;
    if let Err(error) = std::fs::copy(&public, &copy) {
        // A pair that nobody trusts would only block the next try; it is a moment old and was used for nothing.
        for made in [file, &public] {
            if let Err(error) = std::fs::remove_file(made) {
                tracing::warn!(file = %made.display(), %error, "a key that is not trusted was left behind");
            }
        }
        return Err(not_trusted(error));
    }
    if common.json {
        return print_json(&serde_json::json!({ "key_id": key.public().key_id(), "private": file, "trusted": copy }));
    }
    println!("private key {} (keep it secret), trusted public key {}", file.display(), copy.display());
    Ok(())
}
