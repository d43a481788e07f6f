//! What was known before a turn's choice: what the turn itself asked, and what turns had shown that had ended when it arrived.
//!
//! Calls of one session may overlap. What a call that still runs brings, a choice cannot know.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::state::TurnFacts;

/// A turn as it was logged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LoggedTurn {
    pub place: u32,
    pub arrival_ms: i64,
    /// When it ended; its arrival where its duration was not logged.
    pub end_ms: i64,
    pub domain: Option<String>,
    pub offers_tools: Option<bool>,
    /// Tokens of its prompt, before compression where that was counted. A call that fails often reports none.
    pub prompt_tokens: Option<u32>,
    /// The model that answered.
    pub model: Option<String>,
    /// Tokens that this model has read and written.
    pub held_tokens: Option<u32>,
    pub is_failed: bool,
    pub tool_calls: u32,
}

/// What the choices of a session knew, turn by turn; turns are in order of arrival.
///
/// A turn whose prompt was not counted has the last count that was known: a failed call often reports none, and a state that shows
/// this would tell the outcome of its own choice.
pub(super) fn known(turns: &[&LoggedTurn]) -> Vec<TurnFacts> {
    // Turns that still run, the first to end on top.
    let mut running: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
    let mut ended = Ended::default();
    let of = |(at, turn): (usize, &&LoggedTurn)| {
        while let Some(Reverse((_, place))) = running.peek().filter(|Reverse((end_ms, _))| *end_ms <= turn.arrival_ms) {
            ended.add(*place, turns[*place]);
            running.pop();
        }
        running.push(Reverse((turn.end_ms, at)));
        let last = ended.last.map(|place| turns[place]);
        TurnFacts {
            place: turn.place,
            domain: turn.domain.clone(),
            prompt_tokens: turn.prompt_tokens.or_else(|| turns[ended.last_counted?].prompt_tokens),
            warm_model: last.and_then(|last| last.model.clone()),
            warm_tokens: last.and_then(|last| last.held_tokens),
            failures: ended.failures,
            failed_last: last.is_some_and(|last| last.is_failed),
            tool_calls: ended.tool_calls,
            offers_tools: turn.offers_tools,
        }
    };
    turns.iter().enumerate().map(of).collect()
}

/// What turns that have ended have shown.
#[derive(Default)]
struct Ended {
    /// Place of the last one to arrive, and of the last whose prompt was counted.
    last: Option<usize>,
    last_counted: Option<usize>,
    failures: u32,
    tool_calls: u32,
}

impl Ended {
    fn add(&mut self, place: usize, turn: &LoggedTurn) {
        self.last = self.last.max(Some(place));
        if turn.prompt_tokens.is_some() {
            self.last_counted = self.last_counted.max(Some(place));
        }
        self.failures += u32::from(turn.is_failed);
        self.tool_calls = self.tool_calls.saturating_add(turn.tool_calls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(place: u32, arrival_ms: i64, end_ms: i64) -> LoggedTurn {
        LoggedTurn { place, arrival_ms, end_ms, prompt_tokens: Some(100 * place), ..LoggedTurn::default() }
    }

    #[test]
    fn a_call_that_still_runs_has_shown_nothing() {
        let slow = LoggedTurn { is_failed: true, tool_calls: 3, model: Some("slow".into()), ..turn(1, 0, 50) };
        let quick = LoggedTurn { tool_calls: 1, model: Some("quick".into()), held_tokens: Some(7), ..turn(2, 10, 20) };
        let (meanwhile, after) = (turn(3, 30, 40), turn(4, 50, 60));
        let facts = known(&[&slow, &quick, &meanwhile, &after]);
        let told = |at: usize| (facts[at].failures, facts[at].tool_calls, facts[at].warm_model.as_deref());
        assert_eq!(told(1), (0, 0, None));
        assert_eq!((told(2), facts[2].warm_tokens), ((0, 1, Some("quick")), Some(7)));
        // The slow call has ended by then; the turn before is the third, which names no model.
        assert_eq!(told(3), (1, 4, None));
    }

    #[test]
    fn a_prompt_that_was_not_counted_has_the_last_count_that_was_known() {
        let failed = LoggedTurn { prompt_tokens: None, ..turn(3, 30, 40) };
        let (first, running) = (turn(1, 0, 10), turn(2, 20, 90));
        assert_eq!(known(&[&first, &running, &failed])[2].prompt_tokens, Some(100));
        let alone = LoggedTurn { prompt_tokens: None, ..turn(1, 0, 10) };
        assert_eq!(known(&[&alone])[0].prompt_tokens, None);
    }
}
