//! Directives learned from the first part of a period, and what they and others find in the rest of it.

use std::fmt::Write as _;

use serde::Serialize;

use super::cache::{Call, Outcome, Policy, Size, answered, simulate};
use super::{Budget, Class, Directive, plan, resumption};

/// Times to live that are tried for all alike, s; the best is shown, which nobody can know beforehand.
const FIXED_S: [f64; 8] = [5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

/// What to try.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Config {
    /// Blocks of the cache.
    pub blocks: usize,
    /// Share of them that may be pinned.
    pub pinned_share: f64,
    /// Share of the period, by time, from which is learned.
    pub learn_share: f64,
}

/// How a policy fared.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// `lru`, `fixed ttl`, `fixed ttl after tools`, `directives`, `clairvoyant`.
    pub policy: &'static str,
    /// Of a fixed time to live, the one that found most, s.
    pub ttl_s: Option<f64>,
    /// Share of blocks of resumed prompts that were held, of those that could be.
    pub resume_hit_rate: f64,
    /// Share of all blocks that were held.
    pub block_hit_rate: f64,
    /// Counts behind them.
    pub outcome: Outcome,
}

/// A class and what it was given.
#[derive(Debug, Clone, Serialize)]
pub struct Directed {
    /// The class.
    #[serde(flatten)]
    pub class: Class,
    /// Its directive.
    #[serde(flatten)]
    pub directive: Directive,
}

/// All of it. It is plain data, and prints itself as Markdown.
#[derive(Debug, Clone, Serialize)]
pub struct Study {
    /// What was tried.
    pub config: Config,
    /// Requests learned from.
    pub learned_from: u64,
    /// From here on requests count, ms since the Unix epoch.
    pub from_ms: i64,
    /// The clairvoyant policy is a ceiling.
    pub trials: Vec<Trial>,
    /// Those with a time to live, highest priority first; then the others.
    pub directives: Vec<Directed>,
}

/// Learns and tries. The calls are in the order of arrival; `None` when no session goes on in the part that counts.
pub fn study(calls: &[Call], config: Config) -> Option<Study> {
    let (first_ms, last_ms) = (calls.first()?.arrival_ms, calls.last()?.arrival_ms);
    let from_ms = first_ms + ((last_ms - first_ms) as f64 * config.learn_share) as i64;
    let size = Size { blocks: config.blocks, pinned_blocks: (config.blocks as f64 * config.pinned_share) as usize };
    let known = answered(calls, from_ms);
    let span_s = (from_ms - first_ms) as f64 / 1e3;
    let (pinned_blocks, blocks) = (size.pinned_blocks as f64, config.blocks as f64);
    let budget = Budget { pinned_blocks, other_blocks: blocks - pinned_blocks, span_s };
    let directives = plan(&resumption(&known), budget);
    let of = |policy: &Policy| simulate(calls, size, policy, from_ms);
    let lru = of(&Policy::Lru);
    if lru.resume_seen_blocks == 0 {
        return None;
    }
    let trials = vec![
        trial("lru", None, lru),
        fixed("fixed ttl", false, &of),
        fixed("fixed ttl after tools", true, &of),
        trial("directives", None, of(&Policy::Directives(directives.clone()))),
        trial("clairvoyant", None, of(&Policy::Clairvoyant)),
    ];
    let mut directives: Vec<Directed> =
        directives.into_iter().map(|(class, directive)| Directed { class, directive }).collect();
    directives.sort_by(|a, b| {
        let rank = |d: &Directive| (d.priority(), d.ttl_s, d.evidence);
        rank(&b.directive).partial_cmp(&rank(&a.directive)).unwrap_or(std::cmp::Ordering::Equal)
    });
    Some(Study { config, learned_from: known.len() as u64, from_ms, trials, directives })
}

fn trial(policy: &'static str, ttl_s: Option<f64>, outcome: Outcome) -> Trial {
    let (resume_hit_rate, block_hit_rate) = (outcome.resume_hit_rate(), outcome.block_hit_rate());
    Trial { policy, ttl_s, resume_hit_rate, block_hit_rate, outcome }
}

fn fixed(policy: &'static str, tools_only: bool, of: &impl Fn(&Policy) -> Outcome) -> Trial {
    let mut best: Option<Trial> = None;
    for ttl_s in FIXED_S {
        let tried = trial(policy, Some(ttl_s), of(&Policy::FixedTtl { ttl_s, tools_only }));
        if best.as_ref().is_none_or(|best| tried.outcome.resume_hit_blocks > best.outcome.resume_hit_blocks) {
            best = Some(tried);
        }
    }
    best.unwrap_or_else(|| trial(policy, None, Outcome::default()))
}

impl Study {
    /// The trial of a policy.
    #[must_use]
    pub fn trial(&self, policy: &str) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.policy == policy)
    }

    /// A page of Markdown: what was found under each policy, then the directives.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut page = String::new();
        // Writing to a String can't fail.
        self.write_page(&mut page).unwrap_or_default();
        page
    }

    fn write_page(&self, page: &mut String) -> std::fmt::Result {
        let Config { blocks, pinned_share, learn_share } = self.config;
        writeln!(page, "# KV retention: a cache of {blocks} blocks\n")?;
        writeln!(
            page,
            "Directives were learned from {} requests, the first {:.0} % of the time, and tried on the rest; at most {:.0} % of \
             the blocks are pinned. {}\n",
            self.learned_from,
            100.0 * learn_share,
            100.0 * pinned_share,
            self.verdict()
        )?;
        writeln!(
            page,
            "| policy | found of what resumed prompts could | found whole | found of all blocks |\n|---|---:|---:|---:|"
        )?;
        for trial in &self.trials {
            let ttl =
                trial.ttl_s.map_or(String::new(), |ttl_s| format!(", {ttl_s:.0} s (the best of {})", FIXED_S.len()));
            writeln!(
                page,
                "| {}{ttl} | {:.1} % | {:.1} % | {:.1} % |",
                trial.policy,
                100.0 * trial.resume_hit_rate,
                100.0 * trial.outcome.resumes_whole as f64 / trial.outcome.resumes as f64,
                100.0 * trial.block_hit_rate
            )?;
        }
        writeln!(page, "\nThe last sees the future: what a cache of this size could have found.\n")?;
        writeln!(
            page,
            "| system prompt | tool | place | keep for, s | priority by age | go on within | requests seen |\n|---|---|---|---:|---|---:|---:|"
        )?;
        for Directed { class, directive } in &self.directives {
            writeln!(
                page,
                "| {} | {} | {} | {} | {} | {:.0} % | {} |",
                name(class.system_prompt_hash.as_deref()),
                name(class.tool.as_deref()),
                class.stage,
                directive.ttl_s,
                priorities(directive),
                100.0 * directive.resumed,
                directive.evidence
            )?;
        }
        Ok(())
    }

    /// Is it better than what engines do, and than one time for all?
    fn verdict(&self) -> String {
        let rate = |policy: &str| self.trial(policy).map_or(f64::NAN, |trial| trial.resume_hit_rate);
        let ours = rate("directives");
        let others = ["lru", "fixed ttl", "fixed ttl after tools"];
        let beaten: Vec<&str> = others.into_iter().filter(|other| ours > rate(other)).collect();
        if beaten.len() == others.len() {
            return "They find more than least recently used and than the best of the fixed times to live.".to_owned();
        }
        let missed: Vec<&str> = others.into_iter().filter(|other| ours <= rate(other)).collect();
        format!("They don't find more than: {}.", missed.join(", "))
    }
}

/// How a directive's priority changes, `100 to 5 s, 40 to 60 s`. Steps within ten of each other are one, by the mean.
fn priorities(directive: &Directive) -> String {
    let mut runs: Vec<(f64, Vec<u8>)> = Vec::new();
    for step in &directive.steps {
        match runs.last_mut().filter(|(_, run)| run[0].abs_diff(step.priority) < 10) {
            Some((until_s, run)) => {
                *until_s = step.until_s;
                run.push(step.priority);
            }
            None => runs.push((step.until_s, vec![step.priority])),
        }
    }
    let mean = |run: &[u8]| run.iter().map(|priority| f64::from(*priority)).sum::<f64>() / run.len() as f64;
    runs.iter().map(|(until_s, run)| format!("{:.0} to {until_s} s", mean(run))).collect::<Vec<_>>().join(", ")
}

/// A name in a table of Markdown.
fn name(name: Option<&str>) -> String {
    name.map_or_else(|| "-".to_owned(), |name| name.replace('|', "\\|").replace('<', "&lt;"))
}
