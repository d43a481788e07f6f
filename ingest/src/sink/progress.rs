//! How far one topic-partition is, in memory and in each table that it feeds. Pure arithmetic on offsets.

use std::ops::Range;

use crate::Start;
use crate::sink::judged::{Added, Before};
use crate::source::Watermarks;

/// Is a partition that is not assigned to us read to the end it had, going by the positions in its tables?
pub(crate) fn is_read_elsewhere(had: &Watermarks, tables: &[Option<i64>]) -> bool {
    let is_past_end = |position: &Option<i64>| position.is_some_and(|position| position >= had.high);
    had.low == had.high || tables.iter().all(is_past_end)
}

/// Progress of one assigned partition. Offsets are "next": everything below is dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The next offset to read.
    next: i64,
    /// Where the buffers start: offsets `from..next` are read and not yet durable everywhere.
    from: i64,
    /// Position in each fed table, as we left it.
    tables: Vec<Option<i64>>,
    /// Position in `dead_letters`.
    dead: Option<i64>,
    /// What was said of messages below it that are read again.
    before: Option<Before>,
    /// Record the start even before a message has come.
    record_start: bool,
    /// Moved since it was last shown in Kafka.
    moved: bool,
}

impl Progress {
    /// Where to go on, from what the tables say and what Kafka holds.
    ///
    /// A table without a position starts where the policy says. For [`Start::Latest`] that is where the other tables
    /// of the partition are, if any has a position: the choice was made then. A partition that was added to the topic
    /// `later` than the choice starts at its first message: all of them came after it.
    ///
    /// # Errors
    /// The position that Kafka does not hold.
    pub(crate) fn resume(
        tables: Vec<Option<i64>>,
        dead: Option<i64>,
        kafka: &Watermarks,
        start: Start,
        later: bool,
    ) -> Result<Self, i64> {
        let start = if later { Start::Earliest } else { start };
        for position in tables.iter().flatten() {
            // `high` itself is fine: everything has been read.
            if !(kafka.low..=kafka.high).contains(position) {
                return Err(*position);
            }
        }
        let known = tables.iter().flatten().min().copied();
        let is_new = tables.contains(&None);
        let next = match (known, start) {
            (Some(known), _) if !is_new => known,
            (_, Start::Earliest) => kafka.low,
            (Some(known), Start::Latest) => known,
            (None, Start::Latest) => kafka.high,
        };
        let record_start = is_new && start == Start::Latest;
        Ok(Self { next, from: next, tables, dead, before: None, record_start, moved: false })
    }

    /// Must the start be committed although no message has come?
    pub(crate) fn must_record_start(&self) -> bool {
        self.record_start && self.tables.contains(&None)
    }

    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// Offsets that are read again although dead letters were stored up to their end.
    pub(crate) fn read_again(&self) -> Option<Range<i64>> {
        self.dead.filter(|dead| *dead > self.next).map(|dead| self.next..dead)
    }

    /// Notes which of them have a letter.
    pub(crate) fn judged_before(&mut self, before: Before) {
        self.before = Some(before);
    }

    /// Is the offset one that dead letters were stored beyond?
    pub(crate) fn is_below_dead(&self, offset: i64) -> bool {
        self.dead.is_some_and(|dead| offset < dead)
    }

    /// Has the message, which is bad, no letter yet?
    pub(crate) fn lacks_letter(&self, offset: i64) -> bool {
        !self.is_below_dead(offset) || self.before.as_ref().is_some_and(|before| !before.has_letter(offset))
    }

    /// How a commit of letters moves the position in `dead_letters`, if it does.
    pub(crate) fn letters_step(&self) -> Option<(Option<i64>, i64)> {
        self.dead.is_none_or(|dead| self.next > dead).then_some((self.dead, self.next))
    }

    /// What a commit with letters below that position counts.
    pub(crate) fn letters_added(&self, below: bool) -> Option<Added> {
        self.before.as_ref().filter(|_| below).map(Before::added)
    }

    /// Notes a message; false when it was seen before. Gaps are normal (compaction, transaction markers).
    pub(crate) fn see(&mut self, offset: i64) -> bool {
        if offset < self.next {
            return false;
        }
        self.next = offset + 1;
        true
    }

    /// Notes that nothing is left below `end`: what lies between is gaps. True when that is news.
    pub(crate) fn see_end(&mut self, end: i64) -> bool {
        let is_news = end > self.next;
        self.next = self.next.max(end);
        is_news
    }

    /// The compare-and-set that a flush makes in one fed table, if it has to.
    pub(crate) fn step(&self, feed: usize) -> Option<(Option<i64>, i64)> {
        let expected = self.tables[feed];
        let forward = match expected {
            Some(position) => self.next > position,
            None => self.next > self.from || self.record_start,
        };
        forward.then_some((expected, self.next))
    }

    /// The table's position, when some buffered rows are below it.
    pub(crate) fn already_in(&self, feed: usize) -> Option<i64> {
        self.tables[feed].filter(|position| *position > self.from)
    }

    pub(crate) fn table_committed(&mut self, feed: usize) {
        if let Some((_, next)) = self.step(feed) {
            self.tables[feed] = Some(next);
            self.moved = true;
        }
    }

    pub(crate) fn dead_letters_committed(&mut self, below: bool) {
        self.dead = self.dead.max(Some(self.next));
        if let Some(before) = self.before.as_mut().filter(|_| below) {
            before.committed();
        }
    }

    /// Everything buffered is durable; true when that moved a position.
    pub(crate) fn flushed(&mut self) -> bool {
        self.from = self.next;
        if self.read_again().is_none() {
            self.before = None;
        }
        std::mem::take(&mut self.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka(low: i64, high: i64) -> Watermarks {
        Watermarks { partition: (0, 0), low, high }
    }

    #[test]
    fn the_lowest_table_decides_where_reading_goes_on() {
        let progress = Progress::resume(vec![Some(9), Some(5)], None, &kafka(0, 20), Start::Latest, false).unwrap();
        assert_eq!(progress.next(), 5);
        assert_eq!(progress.already_in(0), Some(9), "rows below 9 are in the first table already");
        assert_eq!(progress.already_in(1), None);
    }

    #[test]
    fn a_table_ahead_waits_and_the_other_catches_up() {
        let mut progress =
            Progress::resume(vec![Some(9), Some(5)], None, &kafka(0, 20), Start::Earliest, false).unwrap();
        (5..8).for_each(|offset| assert!(progress.see(offset)));
        assert_eq!(progress.step(0), None, "a position never moves back");
        assert_eq!(progress.step(1), Some((Some(5), 8)));
    }

    #[test]
    fn positions_that_kafka_does_not_hold_are_errors() {
        for (position, low, high) in [(4, 5, 9), (10, 5, 9), (1, 0, 0)] {
            let resumed = Progress::resume(vec![Some(position)], None, &kafka(low, high), Start::Earliest, false);
            assert_eq!(resumed, Err(position));
        }
        assert!(
            Progress::resume(vec![Some(5)], None, &kafka(5, 5), Start::Earliest, false).is_ok(),
            "retention took all"
        );
        let one_gone = Progress::resume(vec![Some(3), Some(7)], None, &kafka(5, 9), Start::Earliest, false);
        assert_eq!(one_gone, Err(3), "each table counts, not only the lowest start");
    }

    #[test]
    fn absent_is_not_zero() {
        let fresh = Progress::resume(vec![None], None, &kafka(3, 8), Start::Earliest, false).unwrap();
        assert_eq!((fresh.next(), fresh.step(0)), (3, None), "nothing read, nothing to record");
        let latest = Progress::resume(vec![None], None, &kafka(3, 8), Start::Latest, false).unwrap();
        assert_eq!((latest.next(), latest.step(0)), (8, Some((None, 8))), "the choice itself is recorded");
        let chosen_before = Progress::resume(vec![Some(4), None], None, &kafka(0, 8), Start::Latest, false).unwrap();
        assert_eq!(chosen_before.next(), 4, "latest is chosen once");
        let added = Progress::resume(vec![None], None, &kafka(3, 8), Start::Latest, true).unwrap();
        assert_eq!(added.next(), 3, "a partition that was added later has nothing older than the choice");
        let zero = Progress::resume(vec![Some(0)], None, &kafka(0, 8), Start::Latest, false).unwrap();
        assert_eq!(zero.next(), 0);
    }

    #[test]
    fn a_partition_of_another_member_is_read_when_all_its_tables_are_past_the_end_it_had() {
        let cases: [(&[Option<i64>], bool); 6] = [
            (&[Some(20)], true),
            (&[Some(21), Some(20)], true),
            (&[Some(19)], false),
            (&[Some(20), Some(19)], false),
            (&[Some(20), None], false),
            (&[None], false),
        ];
        for (tables, read) in cases {
            assert_eq!(is_read_elsewhere(&kafka(3, 20), tables), read, "{tables:?}");
        }
        assert!(is_read_elsewhere(&kafka(20, 20), &[None]), "nothing in it, nothing to wait for");
    }

    #[test]
    fn a_proved_end_moves_the_position_over_the_gap_before_it() {
        let mut markers = Progress::resume(vec![Some(5)], None, &kafka(0, 20), Start::Earliest, false).unwrap();
        assert!(markers.see(8));
        assert!(markers.see_end(20));
        assert_eq!(markers.step(0), Some((Some(5), 20)));
        assert!(!markers.see_end(12));
        assert_eq!(markers.next(), 20, "never back: a later assignment may know more");
        let mut empty = Progress::resume(vec![None], None, &kafka(3, 3), Start::Earliest, false).unwrap();
        assert!(!empty.see_end(3));
        assert_eq!(empty.step(0), None, "nothing was there, nothing to record");
    }

    #[test]
    fn letters_below_the_position_are_those_that_were_found_there() {
        let resume = |dead| Progress::resume(vec![Some(5)], dead, &kafka(0, 20), Start::Earliest, false).unwrap();
        let mut ahead = resume(Some(9));
        assert_eq!((ahead.read_again(), ahead.is_below_dead(8), ahead.is_below_dead(9)), (Some(5..9), true, false));
        ahead.judged_before(Before::new([6]));
        assert_eq!([5, 6, 8, 9].map(|offset| ahead.lacks_letter(offset)), [true, false, true, true]);
        // Some of it is read: the position stays, and what counts is the count.
        assert!(ahead.see(5));
        assert_eq!((ahead.letters_step(), ahead.letters_added(false)), (None, None));
        let first = ahead.letters_added(true).unwrap();
        ahead.dead_letters_committed(true);
        assert_ne!(ahead.letters_added(true), Some(first));
        ahead.flushed();
        assert!(ahead.lacks_letter(8), "still below the position");
        // All of it, and more.
        assert!(ahead.see(10));
        assert_eq!(ahead.letters_step(), Some((Some(9), 11)));
        assert!(ahead.letters_added(true).is_some());
        ahead.dead_letters_committed(true);
        ahead.flushed();
        assert_eq!((ahead.read_again(), ahead.letters_added(true), ahead.letters_step()), (None, None, None));

        for behind in [None, Some(3), Some(5)] {
            let mut behind = resume(behind);
            assert_eq!((behind.read_again(), behind.lacks_letter(5)), (None, true));
            assert!(behind.see(5) && behind.letters_step().is_some());
        }
    }

    #[test]
    fn messages_seen_before_are_passed_over_and_gaps_are_not() {
        let mut progress = Progress::resume(vec![Some(5)], None, &kafka(0, 20), Start::Earliest, false).unwrap();
        assert!(!progress.see(4));
        assert!(progress.see(5));
        assert!(!progress.see(5));
        assert!(progress.see(9));
        assert_eq!(progress.step(0), Some((Some(5), 10)));
        progress.table_committed(0);
        assert!(progress.flushed());
        assert!(!progress.flushed());
        assert_eq!(progress.step(0), None);
    }
}
