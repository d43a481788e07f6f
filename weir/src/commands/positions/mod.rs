//! `weir positions`: where ingest stands, and the ways on after data loss.

mod list;

use weir_ingest::{Decided, Forgotten, Skipped};

use super::{actor, configuration, existing_store, print_json};
use crate::cli::{Common, DecidedArgs, PositionsCommand};
use crate::commands::run::ingest_config;
use crate::error::Result;

/// Runs the command.
pub async fn run(common: &Common, command: PositionsCommand) -> Result<()> {
    let config = configuration(common)?;
    let ingest = ingest_config(&config, false)?;
    match command {
        PositionsCommand::List => list::run(common, &config, &ingest).await,
        PositionsCommand::Skip { partition, to, decided } => {
            let decided = by(decided)?;
            let store = existing_store(&config).await?;
            let skipped = weir_ingest::skip(&store, &ingest, &partition, to, decided).await?;
            if common.json {
                return print_json(&skipped);
            }
            println!("{}", sentence(&skipped));
            Ok(())
        }
        PositionsCommand::Forget { topic, force, decided } => {
            let decided = by(decided)?;
            let store = existing_store(&config).await?;
            let forgotten = weir_ingest::forget(&store, &ingest, &topic, force, decided).await?;
            if common.json {
                return print_json(&forgotten);
            }
            let Forgotten { topic, source_topic, left_at } = forgotten;
            for (partition, offset) in left_at {
                println!("{topic}/{partition} of before was left at {offset}");
            }
            println!("{topic} is read from its first message; its rows name it {source_topic}");
            Ok(())
        }
    }
}

fn by(args: DecidedArgs) -> Result<Decided> {
    Ok(Decided { actor: actor(args.actor)?, reason: args.reason })
}

fn sentence(skipped: &Skipped) -> String {
    let Skipped { topic, partition, from_offset, to_offset, tables } = skipped;
    let tables = tables.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let offsets = to_offset - from_offset;
    if offsets == 0 {
        return format!("{topic}/{partition} starts at {to_offset} in {tables}; nothing was passed over");
    }
    let offsets = format!("{offsets} offset{}", if offsets == 1 { "" } else { "s" });
    format!("{topic}/{partition} goes on at {to_offset} in {tables}: {offsets} from {from_offset} on passed over")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_over_is_said_in_offsets() {
        let skipped = |from_offset, to_offset| Skipped {
            topic: "requests".to_owned(),
            partition: 0,
            from_offset,
            to_offset,
            tables: ["requests".to_owned()].into(),
        };
        assert_eq!(sentence(&skipped(7, 9)), "requests/0 goes on at 9 in requests: 2 offsets from 7 on passed over");
        assert_eq!(sentence(&skipped(9, 9)), "requests/0 starts at 9 in requests; nothing was passed over");
    }
}
