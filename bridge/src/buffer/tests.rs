//! The buffer against the failures that it is for.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::message::Signal;

const SMALL: Limits = Limits { max_bytes: 64 << 10, segment_bytes: 4 << 10 };

fn message(n: u64) -> Message {
    Message {
        signal: Signal::Metrics,
        key: format!("gpu-{}", n % 3),
        payload: format!("{{\"n\":{n:0>100}}}").into_bytes(),
    }
}

/// What the reader gives until it has nothing.
fn unread(reader: &mut Reader) -> Vec<(Position, Message)> {
    let mut found = Vec::new();
    loop {
        match reader.next() {
            Read::Message(position, message) => found.push((position, message)),
            Read::Nothing => return found,
            Read::Lost(position, count, error) => panic!("{count} lost from {position:?}: {error}"),
        }
    }
}

fn payloads(found: &[(Position, Message)]) -> Vec<Message> {
    found.iter().map(|(_, message)| message.clone()).collect()
}

#[tokio::test]
async fn messages_come_back_in_order_over_segments_and_restarts_with_the_same_positions() {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<Message> = (0..200).map(message).collect();
    let (buffer, _) = Buffer::open(folder.path(), SMALL).unwrap();
    for group in all.chunks(7) {
        buffer.append(group.to_vec()).await.unwrap();
    }
    let first = unread(&mut buffer.reader());
    assert_eq!(payloads(&first), all);
    assert!(first.last().unwrap().0.number > 3, "one segment held everything: nothing was tested");
    buffer.close();
    drop(buffer);

    let (buffer, _) = Buffer::open(folder.path(), SMALL).unwrap();
    assert_eq!(buffer.found(), Found { messages: 200, torn_bytes: 0 });
    assert_eq!(unread(&mut buffer.reader()), first);
    let mode = std::fs::metadata(segment::path(folder.path(), 1)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others may not read what senders sent");
    buffer.close();
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_wherever_the_crash_came_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (buffer, _) = Buffer::open(folder.path(), SMALL).unwrap();
    buffer.append((0..5).map(message).collect()).await.unwrap();
    buffer.close();
    drop(buffer);
    let path = segment::path(folder.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let record_bytes = usize::try_from(record::encoded_bytes(&message(0))).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (buffer, _) = Buffer::open(folder.path(), SMALL).unwrap();
        let left = cut.saturating_sub(16) / record_bytes;
        let torn = if cut < 16 { cut } else { cut - 16 - left * record_bytes };
        assert_eq!(buffer.found(), Found { messages: left as u64, torn_bytes: torn as u64 }, "cut at {cut}");
        assert_eq!(payloads(&unread(&mut buffer.reader())), (0..left as u64).map(message).collect::<Vec<_>>());
        buffer.close();
    }
}

#[tokio::test]
async fn a_full_buffer_refuses_and_takes_again_once_kafka_has_a_segment() {
    let folder = tempfile::tempdir().unwrap();
    let (buffer, mut ledger) = Buffer::open(folder.path(), SMALL).unwrap();
    let mut taken = 0;
    let refused = loop {
        match buffer.append(vec![message(taken)]).await {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
        assert!(taken < 10_000, "the buffer grows without end");
    };
    assert_eq!(refused, NotTaken::Full);
    assert!(buffer.is_full());
    let on_disk: u64 =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(on_disk <= SMALL.max_bytes + 16, "{on_disk} bytes on disk");

    let found = unread(&mut buffer.reader());
    assert_eq!(found.len() as u64, taken);
    // All of the first segment but one message: it stays.
    let of_first: Vec<Position> = found.iter().map(|(at, _)| *at).filter(|at| at.number == 1).collect();
    for position in &of_first[1..] {
        ledger.acknowledge(*position);
    }
    buffer.remove_finished(&mut ledger);
    assert_eq!(buffer.append(vec![message(0)]).await, Err(NotTaken::Full));
    ledger.acknowledge(of_first[0]);
    buffer.remove_finished(&mut ledger);
    assert!(!segment::path(folder.path(), 1).exists());
    assert_eq!(buffer.unacknowledged(&ledger), taken - of_first.len() as u64);
    buffer.append(vec![message(0)]).await.unwrap();
    assert!(!buffer.is_full());
    buffer.close();
}

#[tokio::test]
async fn what_kafka_acknowledged_in_order_is_not_delivered_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (buffer, mut ledger) = Buffer::open(folder.path(), SMALL).unwrap();
    buffer.append((0..10).map(message).collect()).await.unwrap();
    let found = unread(&mut buffer.reader());
    for index in [0, 1, 2, 3, 7] {
        ledger.acknowledge(found[index].0);
    }
    buffer.save(&mut ledger).unwrap();
    buffer.close();
    drop(buffer);

    let (buffer, ledger) = Buffer::open(folder.path(), SMALL).unwrap();
    assert_eq!(buffer.found().messages, 6);
    let again: Vec<u64> =
        unread(&mut buffer.reader()).iter().filter(|(at, _)| !ledger.has(*at)).map(|(at, _)| at.index).collect();
    assert_eq!(again, [4, 5, 6, 7, 8, 9]);
    buffer.close();
}

#[tokio::test]
async fn a_disk_that_refuses_is_said_and_the_next_request_passes_once_it_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("buffer");
    let (buffer, _) = Buffer::open(&inner, SMALL).unwrap();
    std::fs::remove_dir_all(&inner).unwrap();
    assert!(matches!(buffer.append(vec![message(0)]).await, Err(NotTaken::Disk(_))));
    std::fs::create_dir(&inner).unwrap();
    buffer.append(vec![message(1)]).await.unwrap();
    assert_eq!(payloads(&unread(&mut buffer.reader())), [message(1)]);
    buffer.close();
}

#[tokio::test]
async fn a_segment_that_rots_is_reported_and_what_lies_behind_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (buffer, _) = Buffer::open(folder.path(), SMALL).unwrap();
    for n in 0..100 {
        buffer.append(vec![message(n)]).await.unwrap();
    }
    let before = unread(&mut buffer.reader());
    let of_first = before.iter().filter(|(at, _)| at.number == 1).count() as u64;
    let path = segment::path(folder.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let third = 16 + 2 * usize::try_from(record::encoded_bytes(&message(0))).unwrap();
    bytes[third + 30] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let (mut reader, mut read, mut lost) = (buffer.reader(), 0, 0);
    loop {
        match reader.next() {
            Read::Message(..) => read += 1,
            Read::Lost(from, count, _) => {
                assert_eq!((from.number, from.index), (1, 2));
                lost += count;
            }
            Read::Nothing => break,
        }
    }
    assert_eq!((read, lost), (100 - (of_first - 2), of_first - 2));
    buffer.close();
}

#[tokio::test]
async fn two_bridges_cannot_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (buffer, _) = Buffer::open(folder.path(), SMALL).unwrap();
    let said = Buffer::open(folder.path(), SMALL).err().unwrap().to_string();
    assert!(said.contains("another process"), "{said}");
    buffer.close();
}
