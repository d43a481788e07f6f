//! `weir deadletters show`: one letter, and its message when that is asked for.

use std::io::Write;

use serde_json::json;
use weir_ingest::{DeadLetters, FoundLetter, LetterId, LetterPayload};

use super::{keys_to_read, moment};
use crate::cli::Common;
use crate::commands::{configuration, print_json, store_to_read};
use crate::config::Config;
use crate::error::{Failure, Result};

/// Shows it.
pub async fn run(common: &Common, id: &LetterId, payload: bool, raw: bool) -> Result<()> {
    let config = configuration(common)?;
    let store = store_to_read(&config)?;
    let letters = DeadLetters::open(&store, &config.kafka.job, config.ingest.dead_letter_days).await?;
    let Some(letter) = letters.find(id).await? else {
        return Err(Failure::user(format!(
            "there is no dead letter {id}: the message was stored, or was not read; `weir deadletters list` says what there is"
        )));
    };
    let message = if payload { Some(open(&config, &letter)?) } else { None };
    match message {
        Some(message) if raw => {
            let mut out = std::io::stdout().lock();
            let written = out.write_all(&message.payload).and_then(|()| out.flush());
            written.map_err(|error| Failure::outside(format!("cannot write to standard output: {error}")))
        }
        message if common.json => print_json(&as_json(&letter, message.as_ref())),
        message => {
            print(&letter, message.as_ref());
            Ok(())
        }
    }
}

struct Message {
    payload: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
}

fn open(config: &Config, letter: &FoundLetter) -> Result<Message> {
    let keys = keys_to_read(config)?;
    match letter.payload(&keys)? {
        LetterPayload::Message { payload, headers } => Ok(Message { payload, headers }),
        LetterPayload::Expired => Err(Failure::user(format!(
            "the bytes of {} have expired: the key of {} is gone, or the letter is older than the {} days of \
             ingest.dead_letter_days; while Kafka retains the message, read it there",
            letter.id,
            letter.day(),
            config.ingest.dead_letter_days
        ))),
        LetterPayload::Foreign => Err(Failure::user(format!(
            "the bytes of {} do not open with the key of {} in {}: name the keys folder that they were sealed with under \
             [keys] path",
            letter.id,
            letter.day(),
            config.keys.path.display()
        ))),
    }
}

fn as_json(letter: &FoundLetter, message: Option<&Message>) -> serde_json::Value {
    let mut object = json!({
        "topic": letter.id.topic,
        "partition": letter.id.partition,
        "offset": letter.id.offset,
        "reason_class": letter.reason_class,
        "reason": letter.reason,
        "observed_ms": letter.observed_ms,
        "payload_bytes": letter.payload_bytes,
        "replay": letter.replay,
    });
    if let Some(Message { payload, headers }) = message {
        object["payload_escaped"] = escaped(payload).into();
        let headers = headers.iter().map(|(name, value)| (name.clone(), escaped(value).into()));
        object["headers_escaped"] = headers.collect::<serde_json::Map<_, _>>().into();
    }
    object
}

fn print(letter: &FoundLetter, message: Option<&Message>) {
    println!("letter   {}", letter.id);
    println!("class    {}", letter.reason_class);
    println!("reason   {}", letter.reason);
    println!("seen     {} UTC", moment(letter.observed_ms));
    println!("length   {} bytes", letter.payload_bytes);
    match &letter.replay {
        None => println!("replay   pending, not tried yet"),
        Some(replay) => {
            let when = moment(replay.replayed_ms);
            match (replay.outcome, &replay.reason) {
                ("rejected", Some(reason)) => println!("replay   pending, turned down again at {when} UTC: {reason}"),
                ("already_stored", _) => println!("replay   found stored by ingest at {when} UTC"),
                _ => println!("replay   stored at {when} UTC: {}", super::count(replay.rows.unsigned_abs(), "row")),
            }
        }
    }
    match message {
        Some(Message { payload, headers }) => {
            for (name, value) in headers {
                println!("header   {}: {}", escaped(name.as_bytes()), escaped(value));
            }
            println!("message  {}", escaped(payload));
        }
        None => println!("message  not shown: --payload prints it, and it may hold personal data"),
    }
}

/// Text as it is, and everything that a terminal would obey, or that is not UTF-8, as an escape.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                character if character.is_control() => text.extend(character.escape_default()),
                character => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_message_cannot_command_the_terminal() {
        assert_eq!(escaped("{\"a\": \"é\"}".as_bytes()), "{\"a\": \"é\"}");
        assert_eq!(escaped(b"\x1b[31m\n\xff\\"), "\\u{1b}[31m\\n\\xff\\\\");
    }
}
