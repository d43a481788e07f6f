//! One file a command. Each opens what it needs, calls a library, and prints: text for people, one JSON object with
//! `--json`.

mod check;
mod decide;
mod demo;
mod estimate;
mod evaluate;
mod fleet;
mod learn;
mod policy;
mod replay;
mod run;
mod serve;
mod simulate;
mod sql;

use serde::Serialize;
use tokio::sync::watch;
use weir_store::{Keyring, Store};

use crate::cli::{Cli, Command, Common};
use crate::config::Config;
use crate::error::{Failure, Result};

/// Runs the command.
pub async fn run(cli: Cli) -> Result<()> {
    let common = cli.common;
    match cli.command {
        Command::Demo(args) => demo::run(&common, args).await,
        Command::Run(args) => run::run(&common, args).await,
        Command::Serve(args) => serve::run(&common, args).await,
        Command::Simulate(args) => simulate::run(&common, args).await,
        Command::Replay(args) => replay::run(&common, args).await,
        Command::Sql(args) => sql::run(&common, args).await,
        Command::Learn(args) => learn::run(&common, args).await,
        Command::Evaluate(args) => evaluate::run(&common, args).await,
        Command::Estimate(args) => estimate::run(&common, args).await,
        Command::Decide(args) => decide::run(&common, args).await,
        Command::Policy { command } => policy::run(&common, command).await,
        Command::Fleet { command } => fleet::run(&common, command).await,
        Command::Check => check::run(&common).await,
    }
}

/// The configuration, with the command line's overrides.
fn configuration(common: &Common) -> Result<Config> {
    let mut config = Config::load(common.config.as_deref())?;
    if let Some(data) = &common.data {
        config.store.url.clone_from(data);
    }
    Ok(config)
}

/// The store of a command that reads: a folder that is not there is a mistake, not an empty store.
async fn existing_store(config: &Config) -> Result<Store> {
    let path = std::path::Path::new(config.store.url.trim_start_matches("file://"));
    if !config.store.url.contains("://") && !path.is_dir() {
        return Err(Failure::user(format!(
            "there is no data folder {}: name it with --data, or fill it with `weir run`",
            path.display()
        )));
    }
    Ok(Store::open(&config.store.url).await?)
}

/// Store and keys of a command that writes.
async fn store_and_keys(config: &Config) -> Result<(Store, Keyring)> {
    Ok((Store::open(&config.store.url).await?, Keyring::open(&config.keys.path)?))
}

/// Turns true on the first Ctrl-C or SIGTERM; the second ends the process at once.
fn stop_on_signal() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        wait_for_signal().await;
        eprintln!("weir: stopping: flush, commit, exit (again to stop at once; nothing is lost either way)");
        sender.send_replace(true);
        wait_for_signal().await;
        std::process::exit(130);
    });
    receiver
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _interrupted = tokio::signal::ctrl_c().await;
        }
    }
}

/// Prints the one JSON object of `--json`.
fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Failure::ours(format!("cannot print JSON: {error}")))?;
    println!("{text}");
    Ok(())
}

/// Who is at the keyboard, for the registry's history.
fn actor(named: Option<String>) -> Result<String> {
    named
        .or_else(|| std::env::var("USER").ok())
        .filter(|name| !name.trim().is_empty())
        .ok_or_else(|| Failure::user("say who decides: --actor NAME (the registry keeps it, and $USER is not set)"))
}
