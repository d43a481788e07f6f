//! How a message lies in a segment file.
//!
//! A segment is a header and records:
//!
//! ```text
//! header   8 bytes  "WEIRSEG1"
//!          8 bytes  the segment's id, random
//! record   4 bytes  length of the body, little-endian
//!          4 bytes  CRC-32C of the length's bytes and the body, little-endian
//!          body     1 byte signal, 4 bytes length of the key (little-endian), key, payload
//! ```
//!
//! A record that is cut off or does not match its checksum ends the segment: what follows was never acknowledged to a
//! sender.

use crate::message::{Message, Signal};

/// First bytes of a segment file.
pub(super) const MAGIC: &[u8; 8] = b"WEIRSEG1";
/// Bytes before the first record.
pub(super) const HEADER_BYTES: u64 = 16;
/// Bytes of a record before its body.
pub(super) const PREFIX_BYTES: usize = 8;
/// A length above this is damage: no message may be that large.
pub(super) const MAX_BODY_BYTES: usize = 64 << 20;

/// Appends the record of `message` to `out`.
pub(super) fn encode(message: &Message, out: &mut Vec<u8>) {
    let signal = [message.signal as u8];
    frame(&[&signal, &length(message.key.len()), message.key.as_bytes(), &message.payload], out);
}

/// Appends a record whose body has these parts.
pub(super) fn frame(body: &[&[u8]], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&length(body.iter().map(|part| part.len()).sum()));
    out.extend_from_slice(&[0; 4]);
    body.iter().for_each(|part| out.extend_from_slice(part));
    let checksum = checksum(&out[start..]);
    out[start + 4..start + PREFIX_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// Bytes that the record of `message` takes.
pub(super) fn encoded_bytes(message: &Message) -> u64 {
    (PREFIX_BYTES + 1 + 4 + message.key.len() + message.payload.len()) as u64
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("messages are far below 4 GiB: their size is checked at the door").to_le_bytes()
}

/// Over the length and the body of a whole record, not over the checksum between them.
fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[PREFIX_BYTES..])
}

/// What lies at the start of some bytes.
#[derive(Debug, PartialEq)]
pub(super) enum Decoded {
    /// A record of so many bytes.
    Record(Message, usize),
    /// The start of a record that needs at least so many bytes.
    Short(usize),
    /// No record of ours.
    Damaged,
}

/// Reads the record at the start of `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else { return Decoded::Short(PREFIX_BYTES) };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *prefix;
    let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if !(5..=MAX_BODY_BYTES).contains(&body_bytes) {
        return Decoded::Damaged;
    }
    let whole = PREFIX_BYTES + body_bytes;
    let Some(record) = bytes.get(..whole) else { return Decoded::Short(whole) };
    if checksum(record) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Decoded::Damaged;
    }
    let body = &record[PREFIX_BYTES..];
    let key_bytes = u32::from_le_bytes([body[1], body[2], body[3], body[4]]) as usize;
    let signal = Signal::ALL.get(usize::from(body[0]));
    let key = body.get(5..5 + key_bytes).and_then(|key| std::str::from_utf8(key).ok());
    match (signal, key) {
        (Some(signal), Some(key)) => {
            let message = Message { signal: *signal, key: key.to_owned(), payload: body[5 + key_bytes..].to_vec() };
            Decoded::Record(message, whole)
        }
        _ => Decoded::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        (0..Signal::ALL.len(), ".{0,20}", prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(signal, key, payload)| Message { signal: Signal::ALL[signal], key, payload })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(messages in prop::collection::vec(message(), 1..6)) {
            let mut bytes = Vec::new();
            messages.iter().for_each(|message| encode(message, &mut bytes));
            prop_assert_eq!(bytes.len() as u64, messages.iter().map(encoded_bytes).sum::<u64>());
            let mut rest = &bytes[..];
            for message in &messages {
                let Decoded::Record(read, used) = decode(rest) else { panic!("no record") };
                prop_assert_eq!(&read, message);
                rest = &rest[used..];
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_cut_or_changed_record_is_no_record(message in message(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            let at = at.index(bytes.len());
            prop_assert!(matches!(decode(&bytes[..at]), Decoded::Short(_)), "cut at {}", at);
            bytes[at] ^= flip;
            prop_assert!(!matches!(decode(&bytes), Decoded::Record(..)), "byte {} changed", at);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _read = decode(&bytes);
        }
    }

    #[test]
    fn the_checksum_is_crc32c() {
        // Check value of CRC-32C (iSCSI, RFC 3720): the nine digits give e3069283.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
