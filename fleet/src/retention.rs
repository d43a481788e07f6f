//! For how long should an engine keep a prompt's blocks after it has answered?
//!
//! **Why.** An agent's session pauses while a tool runs and then comes back with the same prompt and a little more. An engine
//! that evicts what was used least recently treats the blocks of an agent that waits three seconds for a search like those
//! of a chat that nobody goes on with. Which is which shows in the pauses of those before, by the tool that was called.
//!
//! **How.** Each class of requests (system prompt, tool, stage of the session) has a curve: the share of its sessions that
//! have gone on within a time ([`Resumption`], a survival curve that leans on coarser classes where evidence is thin). A
//! block of the class that is kept for `t` is of use with probability `R(t)` and is held for `H(t)` seconds on average. What is
//! not pinned is evicted by last use, which keeps every block for a while: only what is found after that is won. Blocks to
//! pin are a budget, and each class a choice of `t`: a knapsack, whose relaxation is solved by taking steps of the curves'
//! concave hulls by saved blocks per block-second ([`plan`]). What falls out for each class is a time to live and, step by step
//! as blocks age, a priority: the things that engines with retention directives take (TensorRT-LLM's `KvCacheRetentionConfig`
//! has a priority from 0 to 100 and a duration, after which it falls back). The order by hits per space and time is that of
//! Beckmann, Chen and Cidon, "LHD: Improving Cache Hit Rate by Maximizing Hit Density", NSDI 2018; pinning agents' blocks for a
//! time to live is Continuum's (arXiv 2511.02230), with one time for all.
//!
//! [`cache`] plays requests against a cache of a size, under this and other policies: the check on all of it.

use std::collections::BTreeMap;

use serde::Serialize;

pub mod cache;
pub mod study;

/// Ages at which curves are kept, s. Some sessions go on at once, which takes no keeping; half an hour is where one ends.
pub const AGES_S: [f64; 20] = [
    0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1200.0,
    1800.0,
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
    /// Blocks held on average when each is for `held_s`: by Little's law, what arrives in a second times how long it
    /// stays.
    fn held_blocks(&self, span_s: f64, held_s: f64) -> f64 {
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
/// if twenty of that one's sessions had been its own. Linear in requests; memory grows with classes.
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
    /// Share of the class's requests for which there is room to the end of it, on average; below 1 for the class that fills
    /// the budget.
    pub share: f64,
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
    /// Within the step blocks are worth more as they age, since most sessions go on near its end: of equal priorities those
    /// that came last are given up first. Else those that were used least recently are.
    pub rises: bool,
}

/// A step of a class's concave hull.
struct Step<'a> {
    class: &'a Class,
    hits_per_held_s: f64,
    /// Indices into [`AGES_S`] where it begins and ends.
    from: usize,
    to: usize,
}

/// What there is to give away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Blocks that may be pinned on average.
    pub pinned_blocks: f64,
    /// The others, which are evicted by last use.
    pub other_blocks: f64,
    /// Time over which the classes' requests arrived, s.
    pub span_s: f64,
}

/// Times to live and priorities that save most prefill within a budget. An engine whose pins are full leaves the newest of the
/// least priority without one.
pub fn plan(curves: &BTreeMap<Class, Resumption>, budget: Budget) -> BTreeMap<Class, Directive> {
    let kept_anyway = kept_anyway(curves, budget);
    let mut steps: Vec<Step<'_>> = curves.iter().flat_map(|(class, curve)| hull(class, curve, kept_anyway)).collect();
    // Of one class, steps come in order: its hull is concave.
    steps.sort_by(|a, b| b.hits_per_held_s.total_cmp(&a.hits_per_held_s).then(a.to.cmp(&b.to)));
    let nothing = |curve: &Resumption| Directive { evidence: curve.requests, ..Directive::default() };
    let mut directives: BTreeMap<Class, Directive> =
        curves.iter().map(|(class, curve)| (class.clone(), nothing(curve))).collect();
    let mut left = budget.pinned_blocks;
    for step in steps {
        let curve = &curves[step.class];
        let whole = curve.held_blocks(budget.span_s, curve.held_s[step.to] - curve.held_s[step.from]);
        // Of the last step there is room for some of the class's requests, to its end: half of the way is worth less than
        // half of it.
        let share = (left / whole).min(1.0);
        let Some(directive) = directives.get_mut(step.class).filter(|_| share > 0.0) else { break };
        left -= share * whole;
        directive.ttl_s = AGES_S[step.to];
        directive.share = share;
        directive.resumed = curve.resumed[step.to];
        directive.pinned_blocks += share * whole;
        if share < 1.0 {
            break;
        }
    }
    prioritise(&mut directives, curves, budget.span_s);
    directives
}

/// Priorities by what blocks of each class and age are worth from then on, whether a pin is what keeps them or not: in a rush
/// nothing is kept anyway.
fn prioritise(directives: &mut BTreeMap<Class, Directive>, curves: &BTreeMap<Class, Resumption>, span_s: f64) {
    let mut steps: Vec<(Step<'_>, f64)> = Vec::new();
    for (class, curve) in curves {
        let ttl = AGES_S.iter().position(|age_s| *age_s == directives[class].ttl_s).unwrap_or(0);
        for step in hull(class, curve, 0).into_iter().filter(|step| step.from < ttl) {
            let to = step.to.min(ttl);
            let held = curve.held_blocks(span_s, curve.held_s[to] - curve.held_s[step.from]);
            steps.push((Step { to, ..step }, held));
        }
    }
    steps.sort_by(|(a, _), (b, _)| b.hits_per_held_s.total_cmp(&a.hits_per_held_s).then(a.to.cmp(&b.to)));
    // A priority is the share of pinned blocks that are worth less.
    let all: f64 = steps.iter().map(|(_, held)| held).sum();
    let mut above = 0.0;
    for (step, held) in steps {
        let below = 1.0 - (above + held / 2.0) / all;
        above += held;
        let priority = (1.0 + below * f64::from(PRIORITIES)).min(f64::from(PRIORITIES)) as u8;
        if let Some(directive) = directives.get_mut(step.class) {
            directive.steps.push(PriorityStep {
                until_s: AGES_S[step.to],
                priority,
                hits_per_held_s: step.hits_per_held_s,
                // A step over several ages is one because what it waits for comes late in it.
                rises: step.to > step.from + 1,
            });
        }
    }
}

/// The longest of [`AGES_S`] that blocks reach without a pin: were all evicted at that age, they would fill what is not pinned.
fn kept_anyway(curves: &BTreeMap<Class, Resumption>, budget: Budget) -> usize {
    let filled =
        |age: usize| -> f64 { curves.values().map(|curve| curve.held_blocks(budget.span_s, curve.held_s[age])).sum() };
    (0..AGES_S.len()).take_while(|age| filled(*age) <= budget.other_blocks).last().unwrap_or(0)
}

/// Steps of the upper concave hull of (held, resumed), from nothing held, when what goes on by the age `kept_anyway` does so
/// without a pin.
fn hull<'a>(class: &'a Class, curve: &Resumption, kept_anyway: usize) -> Vec<Step<'a>> {
    // The beginning is no age, unless it is 0: nothing is held, and what is kept anyway has gone on.
    let point = |end: usize| (if end == 0 { 0.0 } else { curve.held_s[end] }, curve.resumed[end.max(kept_anyway)]);
    let slope = |from: usize, to: usize| {
        let ((held, resumed), (held_to, resumed_to)) = (point(from), point(to));
        (resumed_to - resumed) / (held_to - held)
    };
    let mut ends = vec![0];
    for to in kept_anyway + 1..AGES_S.len() {
        if curve.held_s[to] <= point(ends[ends.len() - 1]).0 {
            continue;
        }
        while let [.., before, last] = ends[..] {
            if slope(before, last) > slope(last, to) {
                break;
            }
            ends.pop();
        }
        ends.push(to);
    }
    let step = |two: &[usize]| Step { class, hits_per_held_s: slope(two[0], two[1]), from: two[0], to: two[1] };
    ends.windows(2).map(step).filter(|step| step.hits_per_held_s > 0.0).collect()
}

#[cfg(test)]
mod tests;
