//! Progress of a command that takes more than a moment.
//!
//! It is for a person who watches: on standard error, only where that is a terminal, never with `--json`, and only once
//! the command has run for [`SHOWN_AFTER`], so that quick ones stay quiet. It clears itself away when it is dropped.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const SHOWN_AFTER: Duration = Duration::from_secs(2);
const REDRAWN_EVERY: Duration = Duration::from_millis(200);

/// Where a command stands.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Progress of `doing`, counted in `unit`; a bar where the `total` is known.
    pub fn start(doing: &'static str, unit: &'static str, total: Option<u64>, json: bool) -> Self {
        if json || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let template = match total {
            Some(_) => format!("{{spinner}} {doing} {{bar:24}} {{pos}}/{{len}} {unit}, {{eta}} left"),
            None => format!("{{spinner}} {doing} {{pos}} {unit}, {{elapsed}}"),
        };
        Self::shown_later(&template, total)
    }

    /// The same for work that cannot say how far it is.
    pub fn wait(doing: &'static str, json: bool) -> Self {
        if json || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        Self::shown_later(&format!("{{spinner}} {doing}, {{elapsed}}"), None)
    }

    fn shown_later(template: &str, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        std::thread::spawn({
            let bar = bar.clone();
            move || {
                std::thread::sleep(SHOWN_AFTER);
                if !bar.is_finished() {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(REDRAWN_EVERY);
                }
            }
        });
        Self(Some(bar))
    }

    /// So much is done.
    pub fn at(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    /// Runs `work`, and shows meanwhile what `done` says.
    pub async fn during<T>(self, done: impl Fn() -> u64, work: impl Future<Output = T>) -> T {
        let follow = async {
            loop {
                self.at(done());
                tokio::time::sleep(REDRAWN_EVERY).await;
            }
        };
        tokio::select! {
            value = work => value,
            () = follow => unreachable!("it follows for ever"),
        }
    }

    /// One more is done.
    pub fn one_more(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
