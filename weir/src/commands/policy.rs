//! `weir policy`: the registry.

use std::fmt::Display;
use std::path::Path;

use serde::Serialize;
use weir_policy_publisher::keys::SigningKey;
use weir_policy_publisher::{Decision, Registry, verify_path};

use super::{actor, configuration, existing_store, print_json};
use crate::cli::{Common, DecisionArgs, PolicyCommand};
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
            let id = registry.resolve(&args.policy).await?;
            show(common, &registry.approve(&id, &decision(args)?).await?)
        }
        PolicyCommand::Reject(args) => {
            let id = registry.resolve(&args.policy).await?;
            show(common, &registry.reject(&id, &decision(args)?).await?)
        }
        PolicyCommand::Rollback { reason, actor: named } => {
            let decision = Decision { actor: actor(named)?, reason: Some(reason), force: false };
            show(common, &registry.rollback(&decision).await?)
        }
        PolicyCommand::Export { policy, folder } => export(common, &registry, &policy, &folder).await,
        PolicyCommand::Keygen { .. } => unreachable!("handled above"),
    }
}

fn decision(args: DecisionArgs) -> Result<Decision> {
    Ok(Decision { actor: actor(args.actor)?, reason: args.reason, force: args.force })
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
    let public = key.write_new(file)?;
    let trusted = &config.policy.trusted_keys;
    let copy = trusted.join(format!("{}.pub", key.public().key_id()));
    std::fs::create_dir_all(trusted)
        .and_then(|()| std::fs::copy(&public, &copy))
        .map_err(|error| Failure::user(format!("cannot write the trusted key {}: {error}", copy.display())))?;
    if common.json {
        return print_json(&serde_json::json!({ "key_id": key.public().key_id(), "private": file, "trusted": copy }));
    }
    println!("private key {} (keep it secret), trusted public key {}", file.display(), copy.display());
    Ok(())
}
