//! One file a command. Each opens what it needs, calls a library, and prints: text for people, one JSON object with
//! `--json`.

mod adapters;
mod bridge;
mod check;
mod compact;
mod deadletters;
mod decide;
mod demo;
mod estimate;
mod evaluate;
mod features;
mod fleet;
mod learn;
mod learn_sessions;
mod outcome;
mod policy;
mod positions;
mod rebuild;
mod replay;
mod report;
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
        Command::Bridge(args) => bridge::run(&common, args).await,
        Command::Simulate(args) => simulate::run(&common, args).await,
        Command::Replay(args) => replay::run(&common, args).await,
        Command::Sql(args) => sql::run(&common, args).await,
        Command::Rebuild => rebuild::run(&common).await,
        Command::Compact(args) => compact::run(&common, args).await,
        Command::Deadletters { command } => deadletters::run(&common, command).await,
        Command::Positions { command } => positions::run(&common, command).await,
        Command::Learn(args) => learn::run(&common, args).await,
        Command::Evaluate(args) => evaluate::run(&common, args).await,
        Command::Estimate(args) => estimate::run(&common, args).await,
        Command::Decide(args) => decide::run(&common, args).await,
        Command::Outcome { command } => outcome::run(&common, command),
        Command::Policy { command } => policy::run(&common, command).await,
        Command::Features { command } => features::run(&common, command).await,
        Command::Report { command } => report::run(&common, command).await,
        Command::Fleet { command } => fleet::run(&common, command).await,
        Command::Adapters { command } => adapters::run(&common, command),
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

/// For a command that reads no configuration: an option that would be ignored is refused, so that nobody believes that it
/// counted.
fn no_configuration(common: &Common, command: &str) -> Result<()> {
    match &common.config {
        None => Ok(()),
        Some(_) => Err(Failure::user(format!("weir {command} reads no configuration: leave --config out"))),
    }
}

/// The same for a command that opens no data folder; `instead` says what there is.
fn no_data_folder(common: &Common, command: &str, instead: &str) -> Result<()> {
    match &common.data {
        None => Ok(()),
        Some(_) => {
            Err(Failure::user(format!("weir {command} does not use the data folder: leave --data out; {instead}")))
        }
    }
}

/// The store of a command that works on what is there: a folder that is not there is a mistake, not an empty store.
async fn existing_store(config: &Config) -> Result<Store> {
    is_there(config)?;
    Ok(Store::open_with(&config.store.url, &config.store.client_options()).await?)
}

/// The same for a command that only reads: it leaves no trace, and the folder may be mounted read-only.
fn store_to_read(config: &Config) -> Result<Store> {
    is_there(config)?;
    Ok(Store::open_to_read_with(&config.store.url, &config.store.client_options())?)
}

fn is_there(config: &Config) -> Result<()> {
    let url = &config.store.url;
    let path = std::path::Path::new(url.strip_prefix("file://").unwrap_or(url));
    if (url.starts_with("file://") || !url.contains("://")) && !path.is_dir() {
        return Err(Failure::user(format!(
            "there is no data folder {}: name it with --data, or fill it with `weir run`",
            path.display()
        )));
    }
    Ok(())
}

/// Store and keys of a command that writes.
async fn store_and_keys(config: &Config) -> Result<(Store, Keyring)> {
    let store = Store::open_with(&config.store.url, &config.store.client_options()).await?;
    let keyring = Keyring::open(&config.keys.path)?;
    keyring.belongs_to(&store).await?;
    Ok((store, keyring))
}

/// Turns true on the first Ctrl-C or SIGTERM; the second ends the process at once.
fn stop_on_signal() -> watch::Receiver<bool> {
    stop_on_signal_saying("stopping: flush, commit, exit (again to stop at once; nothing is lost either way)")
}

/// The same with another sentence on what happens now.
fn stop_on_signal_saying(sentence: &'static str) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        wait_for_signal().await;
        eprintln!("weir: {sentence}");
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

/// Who is at the keyboard, for what is kept of decisions.
fn actor(named: Option<String>) -> Result<String> {
    named
        .or_else(|| std::env::var("USER").ok())
        .filter(|name| !name.trim().is_empty())
        .ok_or_else(|| Failure::user("say who decides: --actor NAME (it is kept, and $USER is not set)"))
}
