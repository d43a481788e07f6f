//! A prefix cache of a size, under a policy that says what to give up first.
//!
//! The cache holds blocks by their hash. A request finds the blocks at the beginning of its prompt that are held, computes
//! the rest, and holds all of them until it ends; from then on they can be evicted, the last ones of a prompt first, as vLLM
//! frees them. A block that several prompts share is that of the request which used it last; where an earlier one's was
//! pinned higher, it keeps that pin. Where everything held is in use, a new block is not kept.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};

use serde::Serialize;

use super::{Answered, Class, Directive};

/// One request. They come in the order of arrival.
#[derive(Debug, Clone)]
pub struct Call {
    /// Arrival, ms since the Unix epoch.
    pub arrival_ms: i64,
    /// Last token, ms since the Unix epoch.
    pub end_ms: i64,
    /// What kind of request it is.
    pub class: Class,
    /// The session's request before it, as an index; `None` for the first of a session.
    pub previous: Option<usize>,
    /// Hashes of the prompt's blocks; each covers all before it.
    pub blocks: Vec<i64>,
}

/// What decides which blocks go.
#[derive(Debug, Clone)]
pub enum Policy {
    /// What was used least recently goes first.
    Lru,
    /// Blocks of requests that called a tool, or of all, stay for a time; then what was used least recently.
    FixedTtl {
        /// The time, s.
        ttl_s: f64,
        /// Only where a tool was called.
        tools_only: bool,
    },
    /// As the directive of each request's class says; what has none, or has outlived it, by last use.
    Directives(BTreeMap<Class, Directive>),
    /// What is used again last goes first (Belady 1966): no policy that cannot see the future does better.
    Clairvoyant,
}

/// The size of the cache, and what of it may be pinned.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Blocks that it holds.
    pub blocks: usize,
    /// At most so many are kept by a time to live: those of the least priority lose theirs, and are kept by last
    /// use.
    pub pinned_blocks: usize,
}

/// What was found, over the requests that count where nothing else is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Requests that count.
    pub requests: u64,
    /// Blocks of their prompts.
    pub blocks: u64,
    /// Those that a cache without an end would have held.
    pub seen_blocks: u64,
    /// Those that were held.
    pub hit_blocks: u64,
    /// Requests that go on with a session.
    pub resumes: u64,
    /// Of those requests, blocks that a cache without an end would have held.
    pub resume_seen_blocks: u64,
    /// Of those, the ones that were held.
    pub resume_hit_blocks: u64,
    /// Requests that go on with a session, of which everything that could be was held.
    pub resumes_whole: u64,
    /// Prompts whose blocks lost their pin before its time, because the pinned part was full; those before count too.
    pub pins_lost: u64,
    /// The most blocks pinned at a time, from the beginning on.
    pub pinned_blocks_max: u64,
}

impl Outcome {
    /// Share of blocks of resumed prompts that were held, of those that could be.
    #[must_use]
    pub fn resume_hit_rate(&self) -> f64 {
        self.resume_hit_blocks as f64 / self.resume_seen_blocks as f64
    }

    /// Share of all prompts' blocks that were held.
    #[must_use]
    pub fn block_hit_rate(&self) -> f64 {
        self.hit_blocks as f64 / self.blocks as f64
    }
}

/// Which request goes on with which, where nobody says: the one that used the last known block of the prompt last, if all of
/// its own prompt but the last block, which may have been filled up since, is the beginning of this one. A beginning that
/// is shared by many, like a system prompt, makes no session.
pub fn chain(prompts: &[Vec<i64>]) -> Vec<Option<usize>> {
    let mut last_use: HashMap<i64, usize> = HashMap::new();
    let mut previous = Vec::with_capacity(prompts.len());
    for (index, blocks) in prompts.iter().enumerate() {
        let seen = blocks.iter().take_while(|block| last_use.contains_key(block)).count();
        let before = seen.checked_sub(1).map(|deepest| last_use[&blocks[deepest]]);
        // A last block that has been filled up since is another now. One block before it could be anybody's system prompt.
        let goes_on = |before: usize| seen == prompts[before].len() || (seen > 1 && seen + 1 == prompts[before].len());
        previous.push(before.filter(|&before| goes_on(before)));
        for block in blocks {
            last_use.insert(*block, index);
        }
    }
    previous
}

/// What each request's session did after it, as far as `until_ms` tells, for [`super::resumption`].
pub fn answered(calls: &[Call], until_ms: i64) -> Vec<Answered> {
    let mut next: Vec<Option<i64>> = vec![None; calls.len()];
    for call in calls.iter().filter(|call| call.arrival_ms <= until_ms) {
        if let Some(previous) = call.previous {
            next[previous].get_or_insert(call.arrival_ms);
        }
    }
    let seconds = |ms: i64| ms as f64 / 1e3;
    calls
        .iter()
        .zip(next)
        .filter(|(call, _)| call.end_ms <= until_ms)
        .map(|(call, next_ms)| Answered {
            class: call.class.clone(),
            pause_s: next_ms.map(|next_ms| seconds((next_ms - call.end_ms).max(0))),
            watched_s: seconds(until_ms - call.end_ms),
            blocks: call.blocks.len() as f64,
        })
        .collect()
}

/// Plays the calls against a cache that begins empty. Those that arrive before `from_ms` fill it, and don't count.
/// Linear in blocks, with a logarithm of the requests that hold some.
pub fn simulate(calls: &[Call], size: Size, policy: &Policy, from_ms: i64) -> Outcome {
    let mut cache = Cache::new(calls, size, policy);
    let mut outcome = Outcome::default();
    let mut seen: HashSet<i64> = HashSet::new();
    for (index, call) in calls.iter().enumerate() {
        cache.pass(call.arrival_ms);
        let hits = call.blocks.iter().take_while(|block| cache.owners.contains_key(block)).count() as u64;
        let known = call.blocks.iter().take_while(|block| seen.contains(block)).count() as u64;
        if call.arrival_ms >= from_ms {
            outcome.requests += 1;
            outcome.blocks += call.blocks.len() as u64;
            outcome.seen_blocks += known;
            outcome.hit_blocks += hits;
            if call.previous.is_some() {
                outcome.resumes += 1;
                outcome.resume_seen_blocks += known;
                outcome.resume_hit_blocks += hits;
                outcome.resumes_whole += u64::from(hits == known);
            }
        }
        seen.extend(&call.blocks);
        cache.serve(index);
    }
    Outcome { pins_lost: cache.pins_lost, pinned_blocks_max: cache.pinned_max as u64, ..outcome }
}

/// Blocks that go together: a run of a prompt's blocks, from `from`, of which those at the end go first.
#[derive(Debug, Clone, Copy)]
struct Lease {
    call: usize,
    from: usize,
    /// Blocks from here on are gone.
    to: usize,
    /// How many of them are still its own.
    held: usize,
    rank: Option<Rank>,
    is_pinned: bool,
    /// When it ended, ms.
    ended_ms: i64,
    /// A pin that its blocks had from another prompt: priority, and until when.
    inherited: Option<(u8, i64)>,
}

impl Lease {
    fn rank_at(&self, priority: u8, rises: bool) -> Rank {
        (priority, if rises { -self.ended_ms } else { self.ended_ms })
    }
}

/// What goes first is least: priority, then an order of times.
type Rank = (u8, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Ends,
    /// A step of its directive is over.
    Ages,
}

struct Cache<'a> {
    calls: &'a [Call],
    size: Size,
    policy: &'a Policy,
    /// The lease of each block that is held.
    owners: HashMap<i64, u32>,
    leases: Vec<Lease>,
    /// Leases that can be evicted.
    idle: BTreeSet<(Rank, u32)>,
    /// What happens to leases later: time, what, lease.
    later: BinaryHeap<Reverse<(i64, Happens, u32)>>,
    /// For who sees the future: the arrival at which each block of each call is asked for again.
    next_use_ms: Vec<Vec<i64>>,
    pinned: usize,
    pinned_max: usize,
    pins_lost: u64,
}

impl<'a> Cache<'a> {
    fn new(calls: &'a [Call], size: Size, policy: &'a Policy) -> Self {
        let next_use_ms = if matches!(policy, Policy::Clairvoyant) { next_uses(calls) } else { Vec::new() };
        Self {
            calls,
            size,
            policy,
            owners: HashMap::new(),
            leases: Vec::new(),
            idle: BTreeSet::new(),
            later: BinaryHeap::new(),
            next_use_ms,
            pinned: 0,
            pinned_max: 0,
            pins_lost: 0,
        }
    }

    /// Lets everything happen that does before `now_ms`.
    fn pass(&mut self, now_ms: i64) {
        while let Some(&Reverse((at_ms, happens, lease))) = self.later.peek().filter(|event| event.0.0 <= now_ms) {
            self.later.pop();
            match happens {
                Happens::Ends => self.end(lease, at_ms),
                Happens::Ages => self.age(lease, at_ms),
            }
        }
    }

    /// The request has been answered: what it used can go.
    fn end(&mut self, id: u32, at_ms: i64) {
        let lease = &mut self.leases[id as usize];
        let rank = match self.policy {
            // Negated: what is used again last is the least.
            Policy::Clairvoyant => (0, -self.next_use_ms[lease.call][lease.from]),
            _ => lease.rank_at(0, false),
        };
        lease.rank = Some(rank);
        if lease.held > 0 {
            self.idle.insert((rank, id));
        }
        self.age(id, at_ms);
    }

    /// Gives a lease the priority of its age.
    fn age(&mut self, id: u32, now_ms: i64) {
        let lease = self.leases[id as usize];
        let Some((priority, rises, until_ms)) = self.step(&lease, now_ms) else {
            if lease.is_pinned {
                self.unpin(id);
            }
            return;
        };
        if lease.held == 0 || (lease.rank.is_some_and(|rank| rank.0 == 0) && now_ms > lease.ended_ms) {
            // Nothing is left of it, or it has lost its pin.
            return;
        }
        self.later.push(Reverse((until_ms, Happens::Ages, id)));
        self.rerank(id, priority, rises);
        if !lease.is_pinned {
            self.leases[id as usize].is_pinned = true;
            self.pinned += lease.held;
        }
        while self.pinned > self.size.pinned_blocks {
            let Some(&(_, least)) = self.idle.range(((1, i64::MIN), 0)..).next() else { break };
            self.unpin(least);
            self.pins_lost += 1;
        }
        self.pinned_max = self.pinned_max.max(self.pinned);
    }

    /// The priority of a lease at its age, whether it rises, and until when it has it; `None` when it has none. Before its end
    /// a lease is of age 0.
    fn step(&self, lease: &Lease, now_ms: i64) -> Option<(u8, bool, i64)> {
        let class = &self.calls[lease.call].class;
        let at_ms = |until_s: f64| lease.ended_ms + (until_s * 1e3) as i64;
        let own = match self.policy {
            Policy::Lru | Policy::Clairvoyant => None,
            Policy::FixedTtl { ttl_s, tools_only } => {
                let is_kept = !tools_only || class.tool.is_some();
                // Who came first keeps what it has.
                (is_kept && now_ms < at_ms(*ttl_s)).then(|| (1, true, at_ms(*ttl_s)))
            }
            Policy::Directives(directives) => directives.get(class).and_then(|directive| {
                let step = directive.steps.iter().find(|step| now_ms < at_ms(step.until_s))?;
                Some((step.priority, step.rises, at_ms(step.until_s)))
            }),
        };
        let inherited = lease.inherited.filter(|(_, until_ms)| now_ms < *until_ms).map(|(p, until)| (p, false, until));
        match (own, inherited) {
            (Some(own), Some(other)) if other.0 > own.0 => Some(other),
            (own, inherited) => own.or(inherited),
        }
    }

    fn unpin(&mut self, id: u32) {
        self.rerank(id, 0, false);
        let lease = &mut self.leases[id as usize];
        if lease.is_pinned {
            lease.is_pinned = false;
            self.pinned -= lease.held;
        }
    }

    fn rerank(&mut self, id: u32, priority: u8, rises: bool) {
        let lease = &mut self.leases[id as usize];
        let Some(before) = lease.rank else { return };
        let rank = lease.rank_at(priority, rises);
        lease.rank = Some(rank);
        if self.idle.remove(&(before, id)) {
            self.idle.insert((rank, id));
        }
    }

    /// A block of a lease is another's now, or gone.
    fn release(&mut self, id: u32) {
        let lease = &mut self.leases[id as usize];
        lease.held -= 1;
        if lease.is_pinned {
            self.pinned -= 1;
        }
        if let Some(rank) = lease.rank.filter(|_| lease.held == 0) {
            self.idle.remove(&(rank, id));
        }
    }

    fn serve(&mut self, index: usize) {
        let call = &self.calls[index];
        let mut from = 0;
        while from < call.blocks.len() {
            // Who sees the future keeps apart what is used again at different times.
            let to = match self.next_use_ms.get(index) {
                Some(next) => from + next[from..].iter().take_while(|at| **at == next[from]).count(),
                None => call.blocks.len(),
            };
            self.lease(index, from, to);
            from = to;
        }
    }

    fn lease(&mut self, index: usize, from: usize, to: usize) {
        let call = &self.calls[index];
        let own = self.begin(index, (from, to), None);
        let priority = self.step(&self.leases[own as usize], call.arrival_ms).map_or(0, |step| step.0);
        // What another prompt's blocks are pinned higher by stays with them, in a lease apart for each of those.
        let mut heirs: Vec<(u32, u32)> = Vec::new();
        for block in &call.blocks[from..to] {
            let mut lease = own;
            match self.owners.get(block).copied() {
                Some(owner) => {
                    let before = self.leases[owner as usize];
                    if before.rank.is_some_and(|rank| rank.0 > priority) {
                        lease = match heirs.iter().find(|(from, _)| *from == owner) {
                            Some((_, heir)) => *heir,
                            None => {
                                let pin =
                                    self.step(&before, call.arrival_ms).map(|(priority, _, until)| (priority, until));
                                let heir = self.begin(index, (from, to), pin);
                                heirs.push((owner, heir));
                                heir
                            }
                        };
                    }
                    self.release(owner);
                }
                None if self.owners.len() >= self.size.blocks && !self.evict() => continue,
                None => {}
            }
            self.owners.insert(*block, lease);
            self.leases[lease as usize].held += 1;
        }
    }

    /// A lease without blocks yet, in use until its request ends.
    fn begin(&mut self, call: usize, (from, to): (usize, usize), inherited: Option<(u8, i64)>) -> u32 {
        let id = self.leases.len() as u32;
        let served = &self.calls[call];
        let ended_ms = served.end_ms.max(served.arrival_ms);
        self.leases.push(Lease { call, from, to, held: 0, rank: None, is_pinned: false, ended_ms, inherited });
        self.later.push(Reverse((ended_ms, Happens::Ends, id)));
        id
    }

    /// Gives up the block that goes first; `false` when all are in use.
    fn evict(&mut self) -> bool {
        while let Some(&(rank, id)) = self.idle.first() {
            let lease = &mut self.leases[id as usize];
            let calls = self.calls;
            let blocks = &calls[lease.call].blocks;
            while lease.to > lease.from {
                lease.to -= 1;
                let block = blocks[lease.to];
                if self.owners.get(&block) == Some(&id) {
                    self.owners.remove(&block);
                    self.release(id);
                    return true;
                }
            }
            self.idle.remove(&(rank, id));
        }
        false
    }
}

/// For each block of each call, the arrival of the next call that has it.
fn next_uses(calls: &[Call]) -> Vec<Vec<i64>> {
    let mut next: HashMap<i64, i64> = HashMap::new();
    let mut uses: Vec<Vec<i64>> = Vec::with_capacity(calls.len());
    for call in calls.iter().rev() {
        // Negated as a rank; the far future must not overflow.
        uses.push(call.blocks.iter().map(|block| next.get(block).copied().unwrap_or(i64::MAX)).collect());
        next.extend(call.blocks.iter().map(|block| (*block, call.arrival_ms)));
    }
    uses.reverse();
    uses
}

#[cfg(test)]
mod tests;
