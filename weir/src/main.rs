//! The one binary: commands, configuration, wiring.
//!
//! Libraries decide; this crate reads the command line and the configuration, opens the store, connects the parts, and
//! reports one sentence and an exit code when it cannot.

mod adapters;
mod capacity;
mod cli;
mod commands;
mod config;
mod energy;
mod error;
mod http;
mod knobs;
mod lines;
mod outcome;
mod pipeline;
mod policy_client;
mod postgres;
mod produce;
mod progress;
mod retention;
mod services;
mod training;
mod upkeep;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use cli::Cli;

/// Memory stays flat over months of commits: decision 0008.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    report_panics();
    start_logging();
    let json = cli.common.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(8 << 20).build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error::Failure::outside(format!("cannot start threads: {error}")), json),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(()) => {
            // A command that has ended well has waited for what matters; work that it cut off must not keep the process.
            runtime.shutdown_background();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            report(&failure, json);
            // Whatever still runs is cut off here and not unwound: commits land whole or not at all, and a runtime that is
            // torn down under working tasks would only add noise to the one sentence.
            std::process::exit(i32::from(failure.exit_code()))
        }
    }
}

/// What is said of a panic. Two of them are failures like any other:
///
/// - The standard library panics when standard output cannot be written. After `weir sql ... | head` that is the reader's
///   way of saying "enough"; a full disk is told in a sentence.
/// - When the last step of an upload fails, as on a full disk, the Delta library tries to abort the upload; the object
///   store's client panics at that, and the library catches it. The failure itself comes back as an error.
fn report_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let aborts_an_upload = panic.payload().downcast_ref::<&str>() == Some(&"Already shut down")
            && panic.location().is_some_and(|location| location.file().ends_with("buffered.rs"));
        if aborts_an_upload {
            return;
        }
        let message = panic.payload().downcast_ref::<String>().map(String::as_str).unwrap_or_default();
        let Some(reason) = message.strip_prefix("failed printing to stdout: ") else { return report(panic) };
        if reason.starts_with("Broken pipe") {
            std::process::exit(0);
        }
        let failure = error::Failure::outside(format!("cannot write to standard output: {reason}"));
        eprintln!("weir: {failure}");
        std::process::exit(i32::from(failure.exit_code()));
    }));
}

/// Logs go to standard error, as text on a terminal and as JSON lines elsewhere; `WEIR_LOG` sets the level.
fn start_logging() {
    let filter = EnvFilter::try_from_env("WEIR_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,weir=info,weir_ingest=info,weir_features=info,weir_bridge=info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        builder.with_target(false).compact().init();
    } else {
        builder.json().init();
    }
}

/// The one place where a failure is shown.
fn report(failure: &error::Failure, json: bool) -> ExitCode {
    if json {
        println!("{}", failure.json());
    }
    eprintln!("weir: {failure}");
    ExitCode::from(failure.exit_code())
}
