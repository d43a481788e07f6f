//! A checker that cannot find damage proves nothing: each kind of it is made, in tables that are well otherwise.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, StringArray};

use super::*;
use crate::digest::Row;

/// Rows of one partition of crash.feedback, with numbers as offsets.
const SOURCE: Partition = (Topic::Feedback, 1);

fn truth_of(offsets: &[i64]) -> Truth {
    let expected = offsets.iter().map(|offset| {
        let mut row = Row::default();
        row.text("feedback_id", &format!("f-{offset}"));
        Expected { offset: *offset, digest: row.digest(), number: offset.unsigned_abs() }
    });
    Truth {
        events: 0,
        rows: BTreeMap::from([((Table::Feedback, SOURCE), expected.collect())]),
        dead: BTreeMap::new(),
        ends: BTreeMap::new(),
    }
}

fn sources(offsets: &[i64], topic: &str) -> [(&'static str, ArrayRef); 3] {
    [
        ("source_topic", Arc::new(StringArray::from_iter_values(offsets.iter().map(|_| topic)))),
        ("source_partition", Arc::new(Int32Array::from_iter_values(offsets.iter().map(|_| SOURCE.1)))),
        ("source_offset", Arc::new(Int64Array::from_iter_values(offsets.iter().copied()))),
    ]
}

/// What the tables hold: rows of a message each, its offset and its id.
fn stored(rows: &[(i64, &str)], topic: &str) -> RecordBatch {
    let offsets: Vec<i64> = rows.iter().map(|(offset, _)| *offset).collect();
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, id)| id)));
    RecordBatch::try_from_iter(sources(&offsets, topic).into_iter().chain([("feedback_id", ids)])).unwrap()
}

fn judge(truth: &Truth, batches: &[RecordBatch]) -> Damage {
    let sessions = Sessions(Vec::new());
    let (mut rows, mut damage) = (Rows::new(Table::Feedback, truth, &sessions), Damage::default());
    batches.iter().for_each(|batch| rows.take(batch, &mut damage));
    rows.finish(&read_to_the_end(), &mut damage);
    damage
}

/// Positions that are past every offset of these tests.
fn read_to_the_end() -> Positions {
    Positions::from([((Table::Feedback, SOURCE), 100)])
}

fn counts(damage: &Damage) -> [u64; 4] {
    [damage.lost, damage.doubled, damage.altered, damage.foreign]
}

#[test]
fn rows_in_any_order_and_number_of_files_are_well() {
    let name = Topic::Feedback.name();
    let truth = truth_of(&[3, 5, 9]);
    let damage = judge(&truth, &[stored(&[(9, "f-9")], name), stored(&[(3, "f-3"), (5, "f-5")], name)]);
    assert!(damage.is_none(), "{damage:?}");
}

#[test]
fn a_lost_row_is_found() {
    let damage = judge(&truth_of(&[3, 5]), &[stored(&[(3, "f-3")], Topic::Feedback.name())]);
    assert_eq!(counts(&damage), [1, 0, 0, 0]);
    assert_eq!(damage.findings, ["feedback: crash.feedback/1 offset 5 is not there"]);
}

#[test]
fn what_nobody_has_read_is_not_lost() {
    let (truth, sessions) = (truth_of(&[3, 5, 7]), Sessions(Vec::new()));
    let (mut rows, mut damage) = (Rows::new(Table::Feedback, &truth, &sessions), Damage::default());
    rows.take(&stored(&[(3, "f-3")], Topic::Feedback.name()), &mut damage);
    rows.finish(&Positions::from([((Table::Feedback, SOURCE), 6)]), &mut damage);
    assert_eq!((damage.lost, damage.unread), (1, 1), "the position is past 5 and not past 7");
    assert!(!damage.is_none());
}

#[test]
fn a_doubled_row_is_found() {
    let name = Topic::Feedback.name();
    let damage = judge(&truth_of(&[3, 5]), &[stored(&[(3, "f-3"), (5, "f-5")], name), stored(&[(5, "f-5")], name)]);
    assert_eq!(counts(&damage), [0, 1, 0, 0]);
}

#[test]
fn an_altered_row_is_found_and_does_not_stand_for_the_one_that_was_sent() {
    let damage = judge(&truth_of(&[3, 5]), &[stored(&[(3, "f-3"), (5, "f-6")], Topic::Feedback.name())]);
    assert_eq!(counts(&damage), [1, 0, 1, 0]);
}

#[test]
fn rows_that_no_message_explains_are_found() {
    let name = Topic::Feedback.name();
    let truth = truth_of(&[3]);
    let gap = judge(&truth, &[stored(&[(3, "f-3"), (4, "f-4")], name)]);
    assert_eq!(counts(&gap), [0, 0, 0, 1], "an offset of an aborted transaction");
    let other = judge(&truth, &[stored(&[(3, "f-3")], name), stored(&[(3, "f-3")], Topic::GpuTelemetry.name())]);
    assert_eq!(counts(&other), [0, 0, 0, 1], "a topic that does not feed this table");
}

#[test]
fn two_rows_of_one_message_are_told_apart_by_content() {
    let mut truth = truth_of(&[3]);
    let mut second = Row::default();
    second.text("feedback_id", "f-3b");
    let rows = truth.rows.get_mut(&(Table::Feedback, SOURCE)).unwrap();
    rows.push(Expected { offset: 3, digest: second.digest(), number: 3 });
    let name = Topic::Feedback.name();
    assert_eq!(counts(&judge(&truth, &[stored(&[(3, "f-3"), (3, "f-3b")], name)])), [0, 0, 0, 0]);
    assert_eq!(counts(&judge(&truth, &[stored(&[(3, "f-3"), (3, "f-3")], name)])), [1, 1, 0, 0]);
}

#[test]
fn dead_letters_are_compared_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = Keyring::open(folder.path()).unwrap();
    let number = (0..).find(|n| truth::message(Topic::Feedback, *n).fate == truth::Fate::DeadLetter).unwrap();
    let payload = truth::message(Topic::Feedback, number).payload.unwrap();
    let mut truth = truth_of(&[]);
    truth.dead.insert(SOURCE, vec![(7, number)]);

    let now = UtcDay::of_ms(1_711_929_000_000);
    let letters = |payloads: &[&[u8]]| {
        let offsets: Vec<i64> = payloads.iter().map(|_| 7).collect();
        let sealed: Vec<_> = payloads.iter().map(|payload| keyring.seal(now, payload).unwrap()).collect();
        let columns: [(&str, ArrayRef); 2] = [
            ("observed_ms", Arc::new(Int64Array::from_iter_values(payloads.iter().map(|_| 1_711_929_000_000)))),
            ("sealed_payload", Arc::new(BinaryArray::from_iter_values(sealed))),
        ];
        let columns = sources(&offsets, Topic::Feedback.name()).into_iter().chain(columns);
        let (mut letters, mut damage) = (Letters::new(&truth, &keyring), Damage::default());
        letters.take(&RecordBatch::try_from_iter(columns).unwrap(), &mut damage);
        letters.finish(&read_to_the_end(), &mut damage);
        counts(&damage)
    };
    assert_eq!(letters(&[&payload]), [0, 0, 0, 0]);
    assert_eq!(letters(&[]), [1, 0, 0, 0]);
    assert_eq!(letters(&[&payload, &payload]), [0, 1, 0, 0]);
    assert_eq!(letters(&[b"something else"]), [1, 0, 1, 0]);
}
