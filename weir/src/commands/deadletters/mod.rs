//! `weir deadletters`: messages that could not be read.

mod list;
mod replay;
mod show;

use std::time::{SystemTime, UNIX_EPOCH};

use weir_ingest::LetterFilter;
use weir_store::{Keyring, UtcDay};

use crate::cli::{Common, DeadlettersCommand, LettersArgs, Since};
use crate::config::Config;
use crate::error::{Failure, Result};

/// Runs the command.
pub async fn run(common: &Common, command: DeadlettersCommand) -> Result<()> {
    match command {
        DeadlettersCommand::List { filter, pending } => list::run(common, filter, pending).await,
        DeadlettersCommand::Show { letter, payload, raw } => show::run(common, &letter, payload, raw).await,
        DeadlettersCommand::Replay { filter, dry_run } => replay::run(common, filter, dry_run).await,
    }
}

fn filter(args: LettersArgs) -> LetterFilter {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let since_ms = args.since.map(|since| match since {
        Since::At(ms) => ms,
        Since::Ago(ms) => i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_sub(ms),
    });
    LetterFilter { topic: args.topic, partition: args.partition, reason_class: args.class, since_ms }
}

/// The keys folder, which must be there: an empty one would make every letter look expired.
fn keys_folder(config: &Config) -> Result<&std::path::Path> {
    let folder = config.keys.path.as_path();
    // Asked of what letters need: a folder that this user may not look into is as good as none.
    match std::fs::read_dir(folder.join("deadletters")) {
        Ok(_) => Ok(folder),
        Err(error) => Err(Failure::user(format!(
            "cannot look into the keys folder {}: {error}; the bytes of dead letters open with its keys only: name it \
             under [keys] path, and run as the user that owns it",
            folder.display()
        ))),
    }
}

fn keys_to_read(config: &Config) -> Result<Keyring> {
    Ok(Keyring::reading(keys_folder(config)?))
}

/// A moment in UTC, to the second.
fn moment(ms: i64) -> String {
    let seconds = ms.div_euclid(1_000).rem_euclid(86_400);
    format!("{} {:02}:{:02}:{:02}", UtcDay::of_ms(ms), seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// "1 letter", "2 letters".
fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_utc_to_the_second() {
        // `date -u -d @1700000000` says 2023-11-14 22:13:20.
        assert_eq!(moment(1_700_000_000_999), "2023-11-14 22:13:20");
        assert_eq!(moment(-1), "1969-12-31 23:59:59");
    }
}
