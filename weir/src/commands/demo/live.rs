//! What a person sees while the demo runs: a progress line, and now and then the workload mix.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use weir_store::Store;

use crate::error::Result;

/// The mix, in one row.
const MIX_SQL: &str = include_str!("../../../sql/demo_mix.sql");

/// Progress on standard error: a bar on a terminal, lines elsewhere, nothing with `--json`.
pub struct Live {
    bar: Option<ProgressBar>,
    lines: bool,
}

impl Live {
    /// Starts.
    pub fn start(seconds: u64, json: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !json).then(|| {
            let bar = ProgressBar::new(seconds);
            let style = ProgressStyle::with_template("{bar:24} {pos:>3}/{len} s  {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, lines: !json }
    }

    /// A sentence that stays.
    pub fn say(&self, sentence: &str) {
        match &self.bar {
            Some(bar) => bar.println(sentence),
            None if self.lines => eprintln!("{sentence}"),
            None => {}
        }
    }

    /// Where we are.
    pub fn at(&self, elapsed: Duration, doing: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(elapsed.as_secs());
            bar.set_message(doing.to_owned());
        }
    }

    /// The workload mix so far, from the same view that `weir sql` shows.
    pub async fn mix(&self, store: &Store) -> Result<()> {
        if self.bar.is_none() && !self.lines {
            return Ok(());
        }
        let session = weir_sql::open(store).await?;
        let json = weir_sql::render(&weir_sql::query(&session, MIX_SQL).await?, weir_sql::Format::Json)?;
        let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap_or_default();
        let Some(row) = rows.first() else { return Ok(()) };
        let percent = |name: &str| row[name].as_f64().map_or("?".to_owned(), |share| format!("{:.0} %", share * 100.0));
        self.say(&format!(
            "  workload: {} requests; agent {}, multi-turn {}, warm {} (by tokens {}), prefill-heavy {}, errors {}",
            row["requests"].as_u64().unwrap_or(0),
            percent("agent_share"),
            percent("multi_turn_share"),
            percent("warm_share"),
            percent("warm_token_share"),
            percent("prefill_heavy_share"),
            percent("error_share"),
        ));
        Ok(())
    }

    /// Ends the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
