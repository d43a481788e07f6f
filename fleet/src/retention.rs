//! For how long should an engine keep a prompt's blocks after it has answered?
//!
//! **Why.** An agent's session pauses while a tool runs and then comes back with the same prompt and a little more. An engine
//! that evicts what was used least recently treats the blocks of an agent that waits three seconds for a search like those
//! of a chat that nobody goes on with. Which is which shows in the pauses of those before, by the tool that was called.
//!
//! **How.** Each class of requests (system prompt, tool, stage of the session) has a curve: the share of its sessions that
//! have gone on within a time ([`Resumption`], a survival curve that leans on coarser classes where evidence is thin). A
//! block of the class that is kept for `t` is of use with probability `R(t)` and is held for `H(t)` seconds on average. Blocks
//! to pin are a budget, and each class a choice of `t`: a knapsack, whose relaxation is solved by taking steps of the curves'
//! concave hulls by saved blocks per block-second ([`plan`]). What falls out for each class is a time to live and, step by step
//! as blocks age, a priority: the things that engines with retention directives take (TensorRT-LLM's `KvCacheRetentionConfig`
//! has a priority from 0 to 100 and a duration, after which it falls back). The order by hits per space and time is that of
//! Beckmann, Chen and Cidon, "LHD: Improving Cache Hit Rate by Maximizing Hit Density", NSDI 2018; pinning agents' blocks for a
//! time to live is Continuum's (arXiv 2511.02230), with one time for all.
//!
//! [`cache`] plays requests against a cache of a size, under this and other policies: the check on all of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub mod cache;
pub mod study;

/// Ages at which curves are kept, s: half an hour is where a session ends.
pub const AGES_S: [f64; 19] = [
    0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 1800.0,
];

/// How many sessions of a coarser class a finer one's curve is worth before it has any of its own. The views on outcomes call
/// a cell with fewer than 20 observations one without evidence.
const LEAN_SESSIONS: f64 = 20.0;

/// Priorities that a directive can have, beside 0 for blocks that are not pinned: TensorRT-LLM's.
const PRIORITIES: u8 = 100;

/// What a router knows of a request when it has been answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Class {
    /// Fingerprint of the system prompt.
    pub system_prompt_hash: Option<String>,
    /// The tool that was called last; `None` when the answer went to a person.
    pub tool: Option<String>,
    /// Place in the session: `1 to 4`, `5 to 12`, `later`.
    pub stage: String,
}

impl Class {
    /// From the finest to the coarsest class that a request is in. Which tool runs says more than whose prompt it is.
    fn ancestors(&self) -> [Key<'_>; 4] {
        let (tool, prompt) = (Some(self.tool.as_deref()), self.system_prompt_hash.as_deref());
        [
            (tool, Some(prompt), Some(&self.stage)),
            (tool, None, Some(&self.stage)),
            (tool, None, None),
            (None, None, None),
        ]
    }
}

/// A class or a coarser one: tool, system prompt, stage; the outer `None` is "any".
type Key<'a> = (Option<Option<&'a str>>, Option<Option<&'a str>>, Option<&'a str>);

/// One answered request, as far as its session's future is known.
#[derive(Debug, Clone)]
pub struct Answered {
    /// What kind of request it was.
    pub class: Class,
    /// From its end until the session went on; `None` where it has not.
    pub pause_s: Option<f64>,
    /// How long it has been watched, s: a session that has not gone on for that long may do so yet.
    pub watched_s: f64,
    /// Blocks of its prompt.
    pub blocks: f64,
}

/// How soon sessions of a class go on.
#[derive(Debug, Clone, Serialize)]
pub struct Resumption {
    /// Answered requests of the class.
    pub requests: u64,
    /// Blocks of a prompt, mean.
    pub blocks_mean: f64,
    /// For each of [`AGES_S`], the probability that the session has gone on.
    pub resumed: Vec<f64>,
    /// For each of [`AGES_S`], for how long a block kept until then is held, s: until the session goes on or the age.
    pub held_s: Vec<f64>,
}

impl Resumption {
    /// Blocks pinned on average when each is held for `held_s`: by Little's law, what arrives in a second times how long it
    /// stays.
    fn pinned_blocks(&self, span_s: f64, held_s: f64) -> f64 {
        self.requests as f64 / span_s * self.blocks_mean * held_s
    }
}

#[derive(Debug, Clone, Default)]
struct Tally {
    /// Sessions still waiting at the beginning of each interval that were watched to its end.
    at_risk: Vec<f64>,
    /// Those that went on within it.
    resumed: Vec<f64>,
    requests: u64,
    blocks: f64,
}

impl Tally {
    fn add(&mut self, answered: &Answered) {
        self.at_risk.resize(AGES_S.len(), 0.0);
        self.resumed.resize(AGES_S.len(), 0.0);
        self.requests += 1;
        self.blocks += answered.blocks;
        for (interval, &age_s) in AGES_S.iter().enumerate() {
            // Who is not watched to the interval's end says nothing of it, even having gone on: else young requests would
            // count only if they were quick.
            if answered.watched_s < age_s {
                return;
            }
            let goes_on = answered.pause_s.is_some_and(|pause_s| pause_s <= age_s);
            self.at_risk[interval] += 1.0;
            if goes_on {
                self.resumed[interval] += 1.0;
                return;
            }
        }
    }
}

/// A curve for each class that occurs. A class's chance to go on in an interval leans on that of the next coarser one, as
/// if [`LEAN_SESSIONS`] of that one's sessions had been its own. Linear in requests; memory grows with classes.
pub fn resumption(answered: &[Answered]) -> BTreeMap<Class, Resumption> {
    let mut tallies: BTreeMap<Key<'_>, Tally> = BTreeMap::new();
    for request in answered {
        for key in request.class.ancestors() {
            tallies.entry(key).or_default().add(request);
        }
    }
    let mut curves = BTreeMap::new();
    for request in answered {
        if curves.contains_key(&request.class) {
            continue;
        }
        let keys = request.class.ancestors();
        let hazards = keys.iter().rev().fold(vec![0.0; AGES_S.len()], |coarser, key| {
            let tally = &tallies[key];
            let leaned = |(i, coarser): (usize, f64)| {
                let sessions = LEAN_SESSIONS + tally.at_risk[i];
                (tally.resumed[i] + LEAN_SESSIONS * coarser) / sessions
            };
            // The coarsest has nothing to lean on.
            if *key == (None, None, None) {
                let share = |i: usize| if tally.at_risk[i] > 0.0 { tally.resumed[i] / tally.at_risk[i] } else { 0.0 };
                return (0..AGES_S.len()).map(share).collect();
            }
            coarser.into_iter().enumerate().map(leaned).collect()
        });
        let tally = &tallies[&keys[0]];
        curves.insert(request.class.clone(), curve(&hazards, tally));
    }
    curves
}

fn curve(hazards: &[f64], tally: &Tally) -> Resumption {
    let (mut waiting, mut held, mut from_s) = (1.0, 0.0, 0.0);
    let (mut resumed, mut held_s) = (Vec::with_capacity(AGES_S.len()), Vec::with_capacity(AGES_S.len()));
    for (&age_s, hazard) in AGES_S.iter().zip(hazards) {
        let left = waiting * (1.0 - hazard);
        // Those that go on within an interval do so in its middle, on average.
        held += (age_s - from_s) * (waiting + left) / 2.0;
        (waiting, from_s) = (left, age_s);
        resumed.push(1.0 - waiting);
        held_s.push(held);
    }
    let requests = tally.requests;
    Resumption { requests, blocks_mean: tally.blocks / requests.max(1) as f64, resumed, held_s }
}

/// What an engine is told of a class's blocks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Directive {
    /// For how long after the answer blocks are kept before others, s; 0: not at all.
    pub ttl_s: f64,
    /// Which are given up first when not all fit, as they age; priorities fall.
    pub steps: Vec<PriorityStep>,
    /// Probability that the session goes on within `ttl_s`.
    pub resumed: f64,
    /// Blocks pinned for the class on average.
    pub pinned_blocks: f64,
    /// Answered requests of the class that were seen.
    pub evidence: u64,
}

impl Directive {
    /// The priority with which blocks begin, for engines that take one; 0 without a time to live.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.steps.first().map_or(0, |step| step.priority)
    }
}

/// A priority, and until when blocks have it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PriorityStep {
    /// Age, s after the answer.
    pub until_s: f64,
    /// From 1, given up first, to 100.
    pub priority: u8,
    /// Sessions' going on per second that a block is held, within the step.
    pub hits_per_held_s: f64,
}

/// A step of a class's concave hull.
struct Step<'a> {
    class: &'a Class,
    hits_per_held_s: f64,
    /// Index into [`AGES_S`] where it begins; `None` for nothing held.
    from: Option<usize>,
    to: usize,
}

/// Times to live and priorities that save most prefill, with at most `pinned_blocks` pinned on average. `span_s` is the time
/// over which the classes' requests arrived.
pub fn plan(curves: &BTreeMap<Class, Resumption>, span_s: f64, pinned_blocks: f64) -> BTreeMap<Class, Directive> {
    let mut steps: Vec<Step<'_>> = curves.iter().flat_map(|(class, curve)| hull(class, curve)).collect();
    // Of one class, steps come in order: its hull is concave.
    steps.sort_by(|a, b| b.hits_per_held_s.total_cmp(&a.hits_per_held_s).then(a.to.cmp(&b.to)));
    let nothing = |curve: &Resumption| Directive { evidence: curve.requests, ..Directive::default() };
    let mut directives: BTreeMap<Class, Directive> =
        curves.iter().map(|(class, curve)| (class.clone(), nothing(curve))).collect();
    let (mut left, mut taken) = (pinned_blocks, Vec::new());
    let mut full: BTreeSet<&Class> = BTreeSet::new();
    for step in steps {
        let curve = &curves[step.class];
        let held_before_s = step.from.map_or(0.0, |from| curve.held_s[from]);
        let pinned = |to: usize| curve.pinned_blocks(span_s, curve.held_s[to] - held_before_s);
        // Of a step that does not fit whole, what does: the longest age within it.
        let fits = (step.from.map_or(0, |from| from + 1)..=step.to).rev().find(|to| pinned(*to) <= left);
        if full.contains(step.class) {
            continue;
        }
        if fits != Some(step.to) {
            full.insert(step.class);
        }
        if let (Some(to), Some(directive)) = (fits, directives.get_mut(step.class)) {
            left -= pinned(to);
            directive.ttl_s = AGES_S[to];
            directive.resumed = curve.resumed[to];
            directive.pinned_blocks += pinned(to);
            let hits_per_held_s = step.hits_per_held_s;
            directive.steps.push(PriorityStep { until_s: AGES_S[to], priority: 0, hits_per_held_s });
            taken.push((pinned(to), step.class, directive.steps.len() - 1));
        }
    }
    // Steps were taken from the best to the worst: a priority is the share of pinned blocks that are worth less.
    let all: f64 = taken.iter().map(|(pinned, ..)| pinned).sum();
    let mut above = 0.0;
    for (pinned, class, step) in taken {
        let below = 1.0 - (above + pinned / 2.0) / all;
        above += pinned;
        if let Some(step) = directives.get_mut(class).and_then(|directive| directive.steps.get_mut(step)) {
            step.priority = (1.0 + below * f64::from(PRIORITIES)).min(f64::from(PRIORITIES)) as u8;
        }
    }
    directives
}

/// Steps of the upper concave hull of (held, resumed), from nothing held.
fn hull<'a>(class: &'a Class, curve: &Resumption) -> Vec<Step<'a>> {
    let point = |end: Option<usize>| end.map_or((0.0, 0.0), |i| (curve.held_s[i], curve.resumed[i]));
    let slope = |from: Option<usize>, to: usize| {
        let ((held, resumed), (held_to, resumed_to)) = (point(from), point(Some(to)));
        (resumed_to - resumed) / (held_to - held)
    };
    let mut ends: Vec<usize> = Vec::new();
    for to in 0..AGES_S.len() {
        if curve.held_s[to] <= point(ends.last().copied()).0 {
            continue;
        }
        while let Some((&last, before)) = ends.split_last() {
            if slope(before.last().copied(), last) > slope(Some(last), to) {
                break;
            }
            ends.pop();
        }
        ends.push(to);
    }
    let mut from = None;
    let mut steps = Vec::with_capacity(ends.len());
    for to in ends {
        let hits_per_held_s = slope(from, to);
        if hits_per_held_s > 0.0 {
            steps.push(Step { class, hits_per_held_s, from, to });
        }
        from = Some(to);
    }
    steps
}

#[cfg(test)]
mod tests;
