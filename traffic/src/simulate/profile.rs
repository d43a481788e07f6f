//! What people and agents do: the habits of each kind of session.

use super::config::Profile;

/// Kind of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Rag,
    Agent,
}

/// Habits of one kind. Lengths and pauses are log-normal: median and sigma of the logarithm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    pub kind: Kind,
    pub application: &'static str,
    /// Probability of one more turn after each.
    pub continues: f64,
    pub turns_max: u32,
    pub pause_ms: (f64, f64),
    pub system_tokens: u32,
    pub user_tokens: (f64, f64),
    pub completion_tokens: (f64, f64),
    /// Weights of the domains, in the world's order.
    pub domains: [f64; 6],
    pub mean_difficulty: f64,
}

const CHAT: Habits = Habits {
    kind: Kind::Chat,
    application: "assistant",
    continues: 0.75,
    turns_max: 24,
    pause_ms: (12_000.0, 0.8),
    system_tokens: 320,
    user_tokens: (90.0, 1.0),
    completion_tokens: (220.0, 0.8),
    domains: [0.15, 0.10, 0.10, 0.10, 0.20, 0.35],
    mean_difficulty: 0.42,
};

const RAG: Habits = Habits {
    kind: Kind::Rag,
    application: "handbook-search",
    continues: 0.45,
    turns_max: 8,
    pause_ms: (25_000.0, 0.7),
    system_tokens: 480,
    user_tokens: (2_600.0, 0.5),
    completion_tokens: (140.0, 0.6),
    domains: [0.05, 0.02, 0.35, 0.25, 0.33, 0.0],
    mean_difficulty: 0.48,
};

const AGENT: Habits = Habits {
    kind: Kind::Agent,
    application: "repair-agent",
    continues: 0.88,
    turns_max: 40,
    pause_ms: (700.0, 0.9),
    system_tokens: 2_400,
    user_tokens: (420.0, 1.1),
    completion_tokens: (170.0, 0.7),
    domains: [0.70, 0.10, 0.0, 0.0, 0.20, 0.0],
    mean_difficulty: 0.55,
};

/// Each kind of session with its share of the sessions.
pub(super) fn mix(profile: Profile) -> Vec<(f64, Habits)> {
    match profile {
        Profile::Chat => vec![(1.0, CHAT)],
        Profile::Rag => vec![(1.0, RAG)],
        Profile::Agent => vec![(1.0, AGENT)],
        Profile::Mixed => vec![(0.5, CHAT), (0.25, RAG), (0.25, AGENT)],
    }
}

impl Habits {
    /// Mean number of turns: a geometric law cut at the maximum, (1 - p^max) / (1 - p).
    pub(super) fn mean_turns(&self) -> f64 {
        (1.0 - self.continues.powi(self.turns_max as i32)) / (1.0 - self.continues)
    }
}
