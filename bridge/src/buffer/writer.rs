//! The one thread that writes: all requests that wait become durable together.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use tokio::sync::oneshot;

use super::segment::{self, Segment};
use super::{Job, NotTaken, Shared, record};
use crate::Result;
use crate::events;
use crate::message::Message;

/// Bytes that are made durable together at most, the last request's apart: an answer must not wait for a whole backlog.
const GROUP_BYTES: usize = 4 << 20;

/// The segment that is written to.
struct Open {
    file: File,
    number: u64,
}

/// Those that wait for one `fdatasync`.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    records: u64,
    waiting: Vec<oneshot::Sender<Result<(), NotTaken>>>,
}

pub(super) fn run(shared: &Shared, jobs: &Receiver<Job>) {
    let mut open = None;
    let mut closing = false;
    while !closing {
        let Ok(mut job) = jobs.recv() else { break };
        let mut group = Group::default();
        loop {
            match job {
                Job::Append(messages, done) => join(shared, &mut group, &messages, done),
                Job::Close => closing = true,
            }
            if closing || group.bytes.len() >= GROUP_BYTES {
                break;
            }
            match jobs.try_recv() {
                Ok(next) => job = next,
                Err(_) => break,
            }
        }
        commit(shared, &mut open, group);
    }
    seal(shared);
    shared.state().closed = true;
    shared.changed.notify_all();
}

/// Adds a request to the group, if there is room for it.
fn join(shared: &Shared, group: &mut Group, messages: &[Message], done: oneshot::Sender<Result<(), NotTaken>>) {
    let needed: u64 = messages.iter().map(record::encoded_bytes).sum();
    {
        let mut state = shared.state();
        if state.bytes + group.bytes.len() as u64 + needed > shared.limits.max_bytes {
            state.full = true;
            drop(state);
            // A sender that has gone away is not told.
            done.send(Err(NotTaken::Full)).ok();
            return;
        }
    }
    for message in messages {
        record::encode(message, &mut group.bytes);
    }
    group.records += messages.len() as u64;
    group.waiting.push(done);
}

/// Writes, syncs, tells the reader, and only then the senders.
fn commit(shared: &Shared, open: &mut Option<Open>, group: Group) {
    if group.waiting.is_empty() {
        return;
    }
    let began = Instant::now();
    let outcome = write(shared, open, &group);
    let answer = match &outcome {
        Ok(()) => {
            events::synced(group.bytes.len(), began.elapsed());
            Ok(())
        }
        Err(error) => {
            events::not_written(error);
            // After a failed write or sync nobody knows what the file holds beyond its last durable record: it is cut
            // there, and the next group begins another one.
            if let Some(open) = open.take() {
                abandon(shared, &open);
            }
            Err(NotTaken::Disk(error.kind().to_string()))
        }
    };
    for done in group.waiting {
        done.send(answer.clone()).ok();
    }
}

fn write(shared: &Shared, open: &mut Option<Open>, group: &Group) -> io::Result<()> {
    let at_limit = shared.state().segments.back().is_some_and(|last| last.durable_bytes >= shared.limits.segment_bytes);
    if open.is_none() || at_limit {
        *open = Some(begin(shared)?);
    }
    let Some(Open { file, .. }) = open else { return Ok(()) };
    file.write_all(&group.bytes)?;
    file.sync_data()?;
    let mut state = shared.state();
    let added = group.bytes.len() as u64;
    state.bytes += added;
    state.full = false;
    events::buffer_bytes(state.bytes);
    if let Some(last) = state.segments.back_mut() {
        last.durable_bytes += added;
        last.records += group.records;
    }
    drop(state);
    shared.changed.notify_all();
    Ok(())
}

/// Seals the last segment and begins the next.
fn begin(shared: &Shared) -> io::Result<Open> {
    seal(shared);
    let number = shared.state().segments.back().map_or(1, |last: &Segment| last.number + 1);
    // A number whose file could not be removed, or was left half made, is passed over.
    let free = (number..).find(|number| !segment::path(&shared.folder, *number).exists()).unwrap_or(number);
    let (file, segment) = segment::create(&shared.folder, free)?;
    let mut state = shared.state();
    state.bytes += segment.durable_bytes;
    state.segments.push_back(segment);
    Ok(Open { file, number: free })
}

fn seal(shared: &Shared) {
    if let Some(last) = shared.state().segments.back_mut() {
        last.sealed = true;
    }
}

/// Cuts a segment after its last durable record, as far as the disk lets us. What stays beyond it would be delivered
/// after a restart although its sender was told "no": a duplicate, since the sender tries again.
fn abandon(shared: &Shared, open: &Open) {
    let mut state = shared.state();
    if let Some(last) = state.segments.back_mut().filter(|last| last.number == open.number) {
        last.sealed = true;
        open.file.set_len(last.durable_bytes).and_then(|()| open.file.sync_all()).ok();
    }
}
