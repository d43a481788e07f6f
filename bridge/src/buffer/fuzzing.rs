//! The law of what lies on disk.

use std::path::Path;

use super::record::{self, Decoded};
use super::*;
use crate::message::Signal;

const HEADER_BYTES: usize = record::HEADER_BYTES as usize;
/// Between the bodies of records.
const SEPARATOR: u8 = 0x1e;
const LIMITS: Limits = Limits { max_bytes: 4 << 20, segment_bytes: 64 << 10 };

/// Whatever lies in a segment's file, opening keeps its records up to what is none, and cuts off the rest. What is appended
/// then is read behind them, and all of it again after the next start, in the same places.
///
/// The first byte says what follows: bit 0, records' bodies, which the law gives lengths and checksums, in place of the file
/// as it is; bit 1, before it a line that lies in the file of acknowledgements.
pub fn bridge_buffer(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let line = bytes.iter().position(|byte| *byte == b'\n').filter(|_| choice & 2 != 0);
    let (acknowledged, bytes) = line.map_or((None, bytes), |end| (Some(&bytes[..end]), &bytes[end + 1..]));
    let file = if choice & 1 != 0 { with_checksums(bytes) } else { bytes.to_vec() };

    // In memory, where there is such a folder: a disk would take most of the time.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    std::fs::write(segment::path(folder.path(), 1), &file).unwrap();
    if let Some(line) = acknowledged {
        std::fs::write(folder.path().join("acknowledged"), line).unwrap();
    }

    let (buffer, ledger) = Buffer::open(folder.path(), LIMITS).unwrap();
    let recovered = unread(&buffer);
    let has_header = file.len() >= HEADER_BYTES && file.starts_with(record::MAGIC);
    let mut kept = if has_header { file[..HEADER_BYTES].to_vec() } else { Vec::new() };
    recovered.iter().for_each(|(_, message)| record::encode(message, &mut kept));
    let cut = file.strip_prefix(&kept[..]).expect("what is kept is the file's");
    assert!(!(has_header && matches!(record::decode(cut), Decoded::Record(..))), "a record was cut off");
    let known = recovered.iter().filter(|(at, _)| ledger.has(*at)).count() as u64;
    let messages = recovered.len() as u64 - known;
    assert_eq!(buffer.found(), Found { messages, torn_bytes: cut.len() as u64 });

    let more = [more(0), more(1)];
    let appended =
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(buffer.append(more.to_vec()));
    assert_eq!(appended, Ok(()));
    let all = unread(&buffer);
    assert_eq!(all[..recovered.len()], recovered);
    assert!(all[recovered.len()..].iter().map(|(_, message)| message).eq(&more));
    assert!(all.is_sorted_by(|(before, _), (after, _)| before < after), "positions are in order");
    buffer.close();
    drop(buffer);

    let (buffer, _) = Buffer::open(folder.path(), LIMITS).unwrap();
    assert_eq!(unread(&buffer), all);
    assert_eq!(buffer.found().torn_bytes, 0);
    buffer.close();
}

fn with_checksums(bodies: &[u8]) -> Vec<u8> {
    let mut file = [&record::MAGIC[..], &[7; 8]].concat();
    for body in bodies.split(|byte| *byte == SEPARATOR) {
        record::frame(&[body], &mut file);
    }
    file
}

fn more(number: u8) -> Message {
    Message { signal: Signal::Logs, key: "more".to_owned(), payload: vec![number; 3] }
}

fn unread(buffer: &Buffer) -> Vec<(Position, Message)> {
    let mut reader = buffer.reader();
    let next = || match reader.next() {
        Read::Message(position, message) => Some((position, message)),
        Read::Nothing => None,
        Read::Lost(position, count, error) => panic!("{count} lost from {position:?}: {error}"),
    };
    std::iter::from_fn(next).collect()
}
