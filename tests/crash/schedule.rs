//! What happens to one seed, and when: a pure function of the seed.
//!
//! A fault's moment is a share of the topics that is committed, and a wait after that. So it comes where there is work
//! to disturb, however fast the machine is.

use std::fmt;

use crate::truth::mix;

/// How long the broker keeps partitions for a member that is silent.
pub const SESSION_MS: u64 = 2_000;

/// One run of the series.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    pub seed: u64,
    /// Processes of the consumer group, before any join.
    pub members: usize,
    pub flush_rows: u64,
    pub flush_interval_ms: u64,
    /// How the group shares partitions out.
    pub assignment: &'static str,
    pub place: Place,
    /// In the order of their moments.
    pub faults: Vec<Planned>,
}

/// Where the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A folder.
    Folder,
    /// A folder on a disk of its own, which can be filled.
    SmallDisk,
    /// An S3-compatible server, behind a proxy that can misbehave.
    ObjectStore,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Share of all messages that is committed, percent.
    pub at_percent: u64,
    /// Further wait, ms.
    pub wait_ms: u64,
    pub fault: Fault,
}

/// What happens. A `target` is an index into the members that run at the moment, modulo their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; another process takes its place.
    Kill { target: u64, back_after_ms: u64 },
    /// SIGSTOP for longer than the session, then SIGCONT: a zombie that does not know that it is one.
    Freeze { target: u64, for_ms: u64 },
    /// SIGTERM in the middle of the work; another process takes its place.
    Stop { target: u64, back_after_ms: u64 },
    /// One more member, which is asked to leave later. Both take partitions away from others.
    Join { for_ms: u64 },
    /// The broker is stopped and started.
    BrokerStop { down_ms: u64 },
    /// The broker is killed and started.
    BrokerKill { down_ms: u64 },
    /// No byte is left on the disk.
    DiskFull { for_ms: u64 },
    /// The object store misbehaves.
    Store { how: Trouble, for_ms: u64 },
}

/// How an object store misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Half of the requests are answered with 503, and not looked at.
    Refuses,
    /// Half of the connections end before the request is forwarded.
    HangsUp,
    /// Half of the writes are done, and the connection ends without an answer.
    ForgetsToAnswer,
    /// Half of the writes are done, and the answer comes after the client has given up.
    AnswersTooLate,
    /// Half of the writes are done after the client has given up, when it may have tried again or gone on.
    DeliversTooLate,
    /// Every request waits.
    Crawls,
    /// Nothing is answered.
    IsGone,
}

impl Fault {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Freeze { .. } => "freeze",
            Self::Stop { .. } => "stop",
            Self::Join { .. } => "join_and_leave",
            Self::BrokerStop { .. } => "broker_stop",
            Self::BrokerKill { .. } => "broker_kill",
            Self::DiskFull { .. } => "disk_full",
            Self::Store { how, .. } => match how {
                Trouble::Refuses => "store_refuses",
                Trouble::HangsUp => "store_hangs_up",
                Trouble::ForgetsToAnswer => "store_forgets_to_answer",
                Trouble::AnswersTooLate => "store_answers_too_late",
                Trouble::DeliversTooLate => "store_delivers_too_late",
                Trouble::Crawls => "store_crawls",
                Trouble::IsGone => "store_is_gone",
            },
        }
    }

    /// Words of which one is in a sentence that blames it, where something outside of Weir is in trouble; a process may end
    /// with such a sentence. Nothing excuses an end for the other faults.
    pub fn is_blamed_by(self) -> &'static [&'static str] {
        match self {
            Self::Kill { .. } | Self::Freeze { .. } | Self::Stop { .. } | Self::Join { .. } => &[],
            Self::BrokerStop { .. } | Self::BrokerKill { .. } => &["Kafka"],
            Self::DiskFull { .. } => &["No space left on device"],
            Self::Store { .. } => &["object store", "the outcome of a commit is unknown"],
        }
    }
}

impl Schedule {
    /// The schedule of a seed.
    pub fn of(seed: u64) -> Self {
        let mut draw = Draws(mix(seed) | 1, 0);
        let place = match draw.below(10) {
            0..5 => Place::Folder,
            5..7 => Place::SmallDisk,
            _ => Place::ObjectStore,
        };
        let mut faults: Vec<Planned> = (0..draw.between(4, 7))
            .map(|_| {
                let fault = any_fault(&mut draw);
                Planned { at_percent: draw.between(3, 85), wait_ms: draw.below(150), fault }
            })
            .collect();
        // One broker restart in a third of the seeds: it is what takes longest.
        if draw.below(3) == 0 {
            let down_ms = draw.below(1_500);
            let fault = if draw.below(2) == 0 { Fault::BrokerStop { down_ms } } else { Fault::BrokerKill { down_ms } };
            faults.push(Planned { at_percent: draw.between(10, 80), wait_ms: draw.below(150), fault });
        }
        for _ in 0..2 {
            let for_ms = draw.between(200, 4_000);
            let fault = match place {
                Place::Folder => continue,
                Place::SmallDisk => Fault::DiskFull { for_ms },
                Place::ObjectStore => Fault::Store { how: any_trouble(&mut draw), for_ms },
            };
            faults.push(Planned { at_percent: draw.between(3, 85), wait_ms: draw.below(150), fault });
        }
        faults.sort_by_key(|planned| planned.at_percent);
        Self {
            seed,
            members: usize::try_from(draw.between(1, 4)).unwrap_or(1),
            flush_rows: draw.between(3_000, 25_000),
            flush_interval_ms: draw.between(100, 1_500),
            assignment: ["range", "roundrobin", "cooperative-sticky"][usize::try_from(draw.below(3)).unwrap_or(0)],
            place,
            faults,
        }
    }
}

fn any_fault(draw: &mut Draws) -> Fault {
    let target = draw.below(12);
    match draw.below(10) {
        0..4 => Fault::Kill { target, back_after_ms: draw.below(1_000) },
        4..6 => Fault::Freeze { target, for_ms: draw.between(SESSION_MS + 800, 2 * SESSION_MS + 1_500) },
        6..8 => Fault::Stop { target, back_after_ms: draw.below(1_000) },
        _ => Fault::Join { for_ms: draw.between(500, 4_000) },
    }
}

fn any_trouble(draw: &mut Draws) -> Trouble {
    use Trouble::{AnswersTooLate, Crawls, DeliversTooLate, ForgetsToAnswer, HangsUp, IsGone, Refuses};
    let all = [Refuses, HangsUp, ForgetsToAnswer, AnswersTooLate, DeliversTooLate, Crawls, IsGone];
    all[usize::try_from(draw.below(all.len() as u64)).unwrap_or(0)]
}

/// Draws that are the same on every machine and with every version of every library.
struct Draws(u64, u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.1 += 1;
        mix(self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.1) % bound
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, members, flush_rows, flush_interval_ms, assignment, place, faults } = self;
        write!(f, "seed {seed}: {members} members ({assignment}), flush at {flush_rows} rows or ")?;
        writeln!(f, "{flush_interval_ms} ms, tables in {place:?}")?;
        for Planned { at_percent, wait_ms, fault } in faults {
            writeln!(f, "  at {at_percent:>2} % + {wait_ms:>3} ms  {fault:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_seed_has_one_schedule() {
        assert_eq!(Schedule::of(17), Schedule::of(17));
        assert_ne!(Schedule::of(17).faults, Schedule::of(18).faults);
    }

    #[test]
    fn two_hundred_seeds_play_every_fault_with_every_number_of_members() {
        let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
        let mut members = BTreeMap::new();
        for schedule in (0..200).map(Schedule::of) {
            *members.entry(schedule.members).or_insert(0) += 1;
            for planned in &schedule.faults {
                *faults.entry(planned.fault.name()).or_default() += 1;
                assert!(planned.at_percent < 90, "a fault after the end disturbs nothing");
                let on_a_disk = matches!(planned.fault, Fault::DiskFull { .. });
                let in_a_store = matches!(planned.fault, Fault::Store { .. });
                assert!(!on_a_disk || schedule.place == Place::SmallDisk);
                assert!(!in_a_store || schedule.place == Place::ObjectStore);
            }
        }
        assert_eq!(members.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(faults.len(), 14, "{faults:?}");
        assert!(faults.values().all(|count| *count >= 8), "{faults:?}");
    }
}
