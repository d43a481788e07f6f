//! The assignment as the poll thread knows it, and how far each of its partitions was read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::statistics::Partition;

use super::{Generation, PartitionKey};

/// The client reconsiders each partition at least once a second (`rkb_blocking_max_ms`), and forgets the end then.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// The assignment, and how far each partition was read.
pub(super) struct Held {
    partitions: BTreeMap<PartitionKey, Reading>,
    /// Partitions that the client holds, paused, and that are not read yet.
    parked: BTreeMap<PartitionKey, Parked>,
    /// Counts each time that a partition was parked.
    tickets: Ticket,
    /// How many parked partitions were told of last.
    told_parked: usize,
    /// False before the first assignment and while the group rebalances.
    pub(super) assigned: bool,
    pub(super) generation: Generation,
    /// The last assignment that was said to be drained.
    said_drained: Generation,
    /// When fetching was last started, paused or resumed.
    disturbed: Instant,
}

/// One time that a partition was parked. What was found out for an earlier one may be of before it was away.
pub(super) type Ticket = u64;

struct Parked {
    ticket: Ticket,
    /// The sink was asked where to start, and has not answered.
    is_asked: bool,
}

struct Reading {
    next: i64,
    /// High watermark at the assignment.
    high: i64,
    /// The end of the partition that the client met, and since when it says so; forgotten when a message comes.
    met_end: Option<(i64, Instant)>,
}

impl Held {
    pub(super) fn new() -> Self {
        Self {
            partitions: BTreeMap::new(),
            parked: BTreeMap::new(),
            tickets: 0,
            told_parked: 0,
            assigned: false,
            generation: 0,
            said_drained: 0,
            disturbed: Instant::now(),
        }
    }

    /// The partition is read from `start` on.
    pub(super) fn open(&mut self, partition: PartitionKey, start: i64, high: i64) {
        self.parked.remove(&partition);
        self.partitions.insert(partition, Reading { next: start, high, met_end: None });
    }

    /// The partition has come, and is not read yet.
    pub(super) fn park(&mut self, partition: PartitionKey) {
        self.tickets += 1;
        self.parked.insert(partition, Parked { ticket: self.tickets, is_asked: false });
    }

    /// The sink is asked about a parked partition.
    pub(super) fn ask(&mut self, partition: PartitionKey) -> Option<Ticket> {
        let parked = self.parked.get_mut(&partition)?;
        parked.is_asked = true;
        Some(parked.ticket)
    }

    /// The sink did not say where to start, or reading there could not begin: the partition stays parked.
    pub(super) fn decline(&mut self, partition: PartitionKey, ticket: Ticket) {
        if let Some(parked) = self.parked.get_mut(&partition).filter(|parked| parked.ticket == ticket) {
            parked.is_asked = false;
        }
    }

    /// Has it been parked ever since it got that ticket?
    pub(super) fn is_parked(&self, partition: PartitionKey, ticket: Ticket) -> bool {
        self.parked.get(&partition).is_some_and(|parked| parked.ticket == ticket)
    }

    /// Parked partitions that the sink is not asked about.
    pub(super) fn unasked(&self) -> Vec<(PartitionKey, Ticket)> {
        let unasked = self.parked.iter().filter(|(_, parked)| !parked.is_asked);
        unasked.map(|(partition, parked)| (*partition, parked.ticket)).collect()
    }

    /// Those of the partitions that are parked.
    pub(super) fn unopened(&self, partitions: &[PartitionKey]) -> Vec<PartitionKey> {
        partitions.iter().filter(|partition| self.parked.contains_key(partition)).copied().collect()
    }

    /// How many partitions are parked, if that is news.
    pub(super) fn parked_news(&mut self) -> Option<usize> {
        let parked = self.parked.len();
        (std::mem::replace(&mut self.told_parked, parked) != parked).then_some(parked)
    }

    /// Those that are read.
    pub(super) fn open_partitions(&self) -> impl Iterator<Item = PartitionKey> {
        self.partitions.keys().copied()
    }

    pub(super) fn remove(&mut self, partition: PartitionKey) {
        self.partitions.remove(&partition);
        self.parked.remove(&partition);
    }

    /// Does the client hold nothing?
    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty() && self.parked.is_empty()
    }

    /// Fetching was started, paused or resumed, by us or by the client, which does it for the time of a cooperative
    /// rebalance. It throws away then what it has fetched and not handed over, and fetches it again: that it had met an end
    /// says no longer that we have all before it.
    pub(super) fn disturb(&mut self) {
        self.disturbed = Instant::now();
        self.partitions.values_mut().for_each(|reading| reading.met_end = None);
    }

    /// Notes a message; false when its partition is not read, so that the message is nobody's.
    pub(super) fn read(&mut self, partition: PartitionKey, offset: i64) -> bool {
        let Some(reading) = self.partitions.get_mut(&partition) else { return false };
        reading.next = offset + 1;
        reading.met_end = None;
        true
    }

    /// Each partition with the next offset to read.
    pub(super) fn next_offsets(&self) -> impl Iterator<Item = (PartitionKey, i64)> {
        self.partitions.iter().map(|(partition, reading)| (*partition, reading.next))
    }

    /// What the client's statistics say of a partition: has it fetched all there is?
    pub(super) fn observe(&mut self, partition: PartitionKey, seen: &Partition) {
        let settled = self.disturbed.elapsed() >= SETTLED_AFTER;
        let Some(reading) = self.partitions.get_mut(&partition) else { return };
        let end = seen.eof_offset.min(seen.next_offset);
        let at_end = settled && seen.fetch_state == "active" && end >= reading.next;
        reading.met_end = match reading.met_end {
            _ if !at_end => None,
            Some((known, since)) if known == end => Some((end, since)),
            _ => Some((end, Instant::now())),
        };
    }

    /// Ends that are proved now: a whole poll interval, which `began` after the client had met them, brought nothing. So
    /// what lies between the last message and the end is a gap. Only ends that lie beyond the last message.
    pub(super) fn prove_ends(&mut self, began: Instant) -> Vec<(PartitionKey, i64)> {
        let mut proved = Vec::new();
        for (partition, reading) in &mut self.partitions {
            if let Some((end, since)) = reading.met_end
                && since <= began
                && end > reading.next
            {
                reading.next = end;
                proved.push((*partition, end));
            }
        }
        proved
    }

    /// The assignment when it is drained: every partition is read to the high watermark that it had at the assignment.
    /// Said once for each. What is parked is not counted (the sink waits for it as for partitions of others), unless the
    /// sink is asked about it: it takes that for held, and would not wait for it.
    pub(super) fn drained(&mut self) -> Option<Generation> {
        let is_growing = self.parked.values().any(|parked| parked.is_asked);
        let news = self.assigned && self.said_drained < self.generation && !is_growing;
        if !news || !self.partitions.values().all(|reading| reading.next >= reading.high) {
            return None;
        }
        self.said_drained = self.generation;
        Some(self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One assigned partition of which offsets 0..10 are there, left alone for long enough.
    fn held() -> Held {
        let mut held = Held::new();
        (held.assigned, held.generation) = (true, 1);
        held.open((0, 0), 0, 10);
        held.disturbed = Instant::now().checked_sub(SETTLED_AFTER * 2).expect("the machine is up for four seconds");
        held
    }

    fn statistics(state: &str, next: i64, eof: i64) -> Partition {
        Partition { fetch_state: state.to_owned(), next_offset: next, eof_offset: eof, ..Partition::default() }
    }

    #[test]
    fn the_last_message_proves_the_end_however_busy_the_topic_is() {
        let mut held = held();
        held.read((0, 0), 8);
        assert_eq!(held.drained(), None);
        held.read((0, 0), 9);
        assert_eq!(held.drained(), Some(1));
        held.read((0, 0), 10);
        assert_eq!(held.drained(), None, "said once");
    }

    #[test]
    fn a_gap_before_the_end_is_proved_by_statistics_and_a_poll_interval_after_them() {
        let mut held = held();
        held.read((0, 0), 7);
        let before = Instant::now();
        held.observe((0, 0), &statistics("active", 10, 10));
        assert_eq!(held.prove_ends(before), [], "what the client had met may have been on its way to us");
        assert_eq!(held.prove_ends(Instant::now()), [((0, 0), 10)]);
        assert_eq!(held.drained(), Some(1));
        assert_eq!(held.prove_ends(Instant::now()), [], "proved once");

        // A later transaction ends in a marker too, long after the assignment.
        held.read((0, 0), 20);
        held.observe((0, 0), &statistics("active", 22, 22));
        assert_eq!(held.prove_ends(Instant::now()), [((0, 0), 22)]);
    }

    #[test]
    fn partitions_that_leave_one_by_one_keep_nobody_from_being_drained() {
        let mut held = held();
        held.open((0, 1), 0, 10);
        held.park((0, 2));
        held.read((0, 0), 9);
        assert_eq!(held.drained(), None, "partition 1 is not read");
        held.remove((0, 1));
        assert_eq!(held.drained(), Some(1), "it is another member's to read");
        held.remove((0, 0));
        assert!(!held.is_empty(), "a parked partition is still the client's");
        held.remove((0, 2));
        assert!(held.is_empty());
    }

    #[test]
    fn an_assignment_that_the_sink_is_asked_about_is_not_drained_before_it_is_read() {
        let mut held = held();
        held.read((0, 0), 9);
        held.park((0, 1));
        let ticket = held.ask((0, 1)).unwrap();
        assert_eq!(held.drained(), None, "the sink takes partition 1 for held");
        assert!(!held.read((0, 1), 3), "a message of a parked partition is nobody's");
        held.open((0, 1), 4, 6);
        assert!(!held.is_parked((0, 1), ticket) && held.unasked().is_empty());
        assert_eq!(held.drained(), None);
        assert!(held.read((0, 1), 4) && held.read((0, 1), 5));
        assert_eq!(held.drained(), Some(1));
    }

    #[test]
    fn what_was_found_out_before_a_partition_was_away_is_not_believed() {
        let mut held = held();
        held.park((0, 1));
        assert_eq!((held.parked_news(), held.parked_news()), (Some(1), None), "told once");
        let [(_, before)] = held.unasked()[..] else { panic!("one is parked") };
        held.remove((0, 1));
        assert!(!held.is_parked((0, 1), before));
        held.park((0, 1));
        assert!(!held.is_parked((0, 1), before), "it is back, and somebody else may have read it meanwhile");
        let now = held.ask((0, 1)).unwrap();
        held.decline((0, 1), before);
        assert!(held.unasked().is_empty(), "an old answer");
        held.decline((0, 1), now);
        assert_eq!(held.unasked(), [((0, 1), now)]);
    }

    #[test]
    fn statistics_that_prove_nothing_are_not_believed() {
        let mut held = held();
        held.read((0, 0), 7);
        for (state, next, eof) in [("active", 9, -1001), ("stopped", 10, 10), ("active", 10, 6)] {
            held.observe((0, 0), &statistics(state, next, eof));
            assert_eq!(held.prove_ends(Instant::now()), [], "{state} {next} {eof}");
        }
        held.observe((0, 0), &statistics("active", 10, 10));
        held.read((0, 0), 8);
        assert_eq!(held.prove_ends(Instant::now()), [], "a message came since");
        held.observe((0, 0), &statistics("active", 10, 10));
        held.disturb();
        assert_eq!(held.prove_ends(Instant::now()), [], "what was fetched may have been thrown away");
        held.observe((0, 0), &statistics("active", 10, 10));
        assert_eq!(held.prove_ends(Instant::now()), [], "stale for a moment after a pause");
    }
}
