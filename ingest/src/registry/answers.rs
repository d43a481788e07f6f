//! What the registry has answered. It is asked by whoever needs an id first; others who need the same one wait for that
//! answer, and those who need another do not wait at all.
//!
//! That an id is unknown is remembered for a while only, since it may be registered yet, and of so many ids only: bytes that
//! were never framed look like ids too, a new one in each message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use weir_decode::{SchemaAnswer, SchemaId, SchemaTrouble};

/// For how long an id is taken to be as unknown as it was.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
/// Unknown ids that are remembered; of more, the oldest is forgotten.
const UNKNOWN_MAX: usize = 1_024;
/// So many ids that were unknown just now are no schemas that are about to be registered: nobody waits for the next one.
const CROWD: usize = 16;

pub(super) type Outcome = Result<SchemaAnswer, SchemaTrouble>;

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Again after a moment, if the id is unknown: it may be on its way.
    Wait,
    /// Once.
    Once,
}

/// Answers that are remembered, and questions that are under way.
#[derive(Debug)]
pub(super) struct Answers {
    state: Mutex<State>,
    pub(super) unknown_for: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// For ever.
    known: HashMap<SchemaId, SchemaAnswer>,
    /// When the registry said so.
    unknown: HashMap<SchemaId, Instant>,
    asking: HashMap<SchemaId, Arc<OnceLock<Outcome>>>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { state: Mutex::default(), unknown_for: UNKNOWN_FOR }
    }
}

impl Answers {
    /// The answer for that id: as it is remembered, or as `ask` gets it. Nothing is locked while it asks.
    pub(super) fn of(&self, id: SchemaId, ask: impl FnOnce(Patience) -> Outcome) -> Outcome {
        let (question, patience) = {
            let mut state = self.state();
            if let Some(answer) = state.known.get(&id) {
                return Ok(answer.clone());
            }
            if state.unknown.get(&id).is_some_and(|since| since.elapsed() < self.unknown_for) {
                return Ok(SchemaAnswer::Unknown);
            }
            let patience = state.patience(id, self.unknown_for);
            (state.asking.entry(id).or_default().clone(), patience)
        };
        let outcome = question.get_or_init(|| ask(patience)).clone();
        let mut state = self.state();
        // Whoever comes back first writes it down.
        if state.asking.get(&id).is_some_and(|asked| Arc::ptr_eq(asked, &question)) {
            state.asking.remove(&id);
            state.remember(id, &outcome);
        }
        outcome
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn patience(&self, id: SchemaId, unknown_for: Duration) -> Patience {
        let is_fresh = |since: &&Instant| since.elapsed() < unknown_for;
        let was_waited_for = self.unknown.contains_key(&id);
        if was_waited_for || self.unknown.values().filter(is_fresh).count() >= CROWD {
            Patience::Once
        } else {
            Patience::Wait
        }
    }

    fn remember(&mut self, id: SchemaId, outcome: &Outcome) {
        match outcome {
            Ok(SchemaAnswer::Unknown) => {
                if self.unknown.len() >= UNKNOWN_MAX
                    && let Some(oldest) = self.unknown.iter().min_by_key(|(_, since)| **since).map(|(id, _)| *id)
                {
                    self.unknown.remove(&oldest);
                }
                self.unknown.insert(id, Instant::now());
            }
            Ok(answer) => {
                self.unknown.remove(&id);
                self.known.insert(id, answer.clone());
            }
            // Whoever needs it next asks anew.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const UNKNOWN: Outcome = Ok(SchemaAnswer::Unknown);

    #[test]
    fn an_id_that_is_asked_for_holds_up_only_those_who_need_the_same() {
        let answers = Answers::default();
        let asked = AtomicUsize::new(0);
        let (answer, answered) = mpsc::channel::<()>();
        let (begin, began) = mpsc::channel();
        std::thread::scope(|scope| {
            let (answers, asked) = (&answers, &asked);
            let first = scope.spawn(move || {
                answers.of(SchemaId::Number(1), |_| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    begin.send(()).unwrap();
                    answered.recv().unwrap();
                    Ok(SchemaAnswer::Unusable("first"))
                })
            });
            began.recv().unwrap();
            let same = scope.spawn(move || {
                answers.of(SchemaId::Number(1), |_| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    UNKNOWN
                })
            });
            assert_eq!(answers.of(SchemaId::Number(2), |_| UNKNOWN), UNKNOWN, "the first has no answer yet");
            answer.send(()).unwrap();
            assert_eq!(first.join().unwrap(), Ok(SchemaAnswer::Unusable("first")));
            assert_eq!(same.join().unwrap(), Ok(SchemaAnswer::Unusable("first")));
        });
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn unknown_ids_cost_one_question_a_while_and_a_crowd_of_them_no_patience_and_no_memory() {
        let mut answers = Answers::default();
        let ask = |answers: &Answers, id| {
            let mut asked = None;
            let outcome = answers.of(SchemaId::Number(id), |patience| {
                asked = Some(patience);
                UNKNOWN
            });
            assert_eq!(outcome, UNKNOWN);
            asked
        };
        for id in 0..2 * UNKNOWN_MAX {
            let patience = if id < CROWD { Patience::Wait } else { Patience::Once };
            assert_eq!(ask(&answers, u32::try_from(id).unwrap()), Some(patience), "id {id}");
            assert_eq!(ask(&answers, u32::try_from(id).unwrap()), None, "id {id}");
        }
        assert_eq!(answers.state().unknown.len(), UNKNOWN_MAX);
        assert!(answers.state().asking.is_empty());

        answers.unknown_for = Duration::ZERO;
        let last = u32::try_from(2 * UNKNOWN_MAX - 1).unwrap();
        assert_eq!(ask(&answers, last), Some(Patience::Once), "it was waited for before");
        assert_eq!(ask(&answers, 0), Some(Patience::Wait), "the crowd has gone, and this one is forgotten");
    }

    #[test]
    fn an_outage_is_not_remembered_and_an_unknown_id_may_become_known() {
        let answers = Answers { unknown_for: Duration::ZERO, ..Answers::default() };
        let id = SchemaId::Number(1);
        let outage = Err(SchemaTrouble("nobody answers".to_owned()));
        assert_eq!(answers.of(id, |_| outage.clone()), outage);
        assert_eq!(answers.of(id, |_| UNKNOWN), UNKNOWN);
        let known = Ok(SchemaAnswer::Unusable("known"));
        assert_eq!(answers.of(id, |_| known.clone()), known);
        assert_eq!(answers.of(id, |_| outage.clone()), known);
        assert!(answers.state().unknown.is_empty());
    }
}
