//! The policy in force on logged sessions, so that a new one is held against it and not only against what was logged.

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{Policy, Scratch};

use super::judge::{SessionJudgeConfig, SessionJudgement, SessionVerdict, Weighed, differences, judged, weighed};
use super::state::TurnFacts;
use super::trajectory::SessionLog;
use crate::error::{LearnError, Result};
use crate::ope::{Estimate, SessionEstimates, Verdict, rounding};

/// A policy of whole sessions that decides now.
#[derive(Debug, Clone, Copy)]
pub struct SessionsInForce<'a> {
    /// Its id.
    pub id: &'a str,
    /// What it decides by; must be one that draws at every turn.
    pub policy: &'a Policy,
}

/// What held-out sessions say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredHeld {
    /// Its id.
    pub policy_id: String,
    /// What it is worth.
    pub judgement: SessionJudgement,
    /// Worth of a session under the candidate less that under this one, weighted doubly robust, over the same sessions; none where the
    /// logs cannot judge both.
    pub difference: Option<Estimate>,
    /// The same of the share of sessions that end with the task done.
    pub completion_difference: Option<Estimate>,
}

impl SessionsInForce<'_> {
    /// Judges it on the sessions that the candidate was judged on, `facts` of which are what was known at every turn. Where a turn allows
    /// none of its models, it cannot be judged.
    ///
    /// # Errors
    /// As [`super::judge_sessions`].
    pub(super) fn held(
        &self,
        log: &SessionLog,
        facts: &[Vec<TurnFacts>],
        (candidate, its_judgement): (&Weighed, &SessionJudgement),
        config: &SessionJudgeConfig,
    ) -> Result<StoredHeld> {
        let (own, unknown) = self.on(log, facts)?;
        let own = weighed(log, &own, config)?;
        let mut judgement = judged(log, &own, config)?;
        let limit = config.evaluation.limits.unsupported_mass_max;
        if unknown as f64 > limit * log.turns() as f64 {
            let reason = format!("{unknown} of {} turns chose among models of which it knows none", log.turns());
            match &mut judgement.verdict {
                SessionVerdict::InsufficientSupport { reasons } => reasons.push(reason),
                verdict => *verdict = SessionVerdict::InsufficientSupport { reasons: vec![reason] },
            }
        }
        let can_be_judged =
            |judgement: &SessionJudgement| !matches!(judgement.verdict, SessionVerdict::InsufficientSupport { .. });
        let both = can_be_judged(its_judgement) && can_be_judged(&judgement);
        let found = both.then(|| differences(candidate, &own, config)).transpose()?;
        Ok(StoredHeld {
            policy_id: self.id.to_owned(),
            judgement,
            difference: found.map(|found| found.0),
            completion_difference: found.map(|found| found.1),
        })
    }

    /// Its probabilities of the log's actions at every turn, as [`super::SessionPolicy::on`] gives a learned one's, and how many turns
    /// chose among models of which it knows none: there it would draw nothing, and every model is as likely.
    fn on(&self, log: &SessionLog, facts: &[Vec<TurnFacts>]) -> Result<(Vec<Vec<f64>>, usize)> {
        let actions = self.policy.actions();
        let places: Vec<Option<usize>> =
            actions.iter().map(|action| log.actions().iter().position(|name| *name == action.model)).collect();
        let mut scratch = Scratch::default();
        let (mut found, mut unknown) = (Vec::with_capacity(log.trajectories().len()), 0);
        for (trajectory, facts) in log.trajectories().iter().zip(facts) {
            let mut probabilities = vec![0.0; trajectory.turns.len() * log.actions().len()];
            let rows = probabilities.chunks_exact_mut(log.actions().len());
            for ((turn, facts), row) in trajectory.turns.iter().zip(facts).zip(rows) {
                let allowed: Vec<bool> =
                    places.iter().map(|place| place.is_some_and(|place| turn.allowed[place])).collect();
                let possible = turn.allowed.iter().filter(|allowed| **allowed).count();
                if !allowed.contains(&true) {
                    // Where one model is all that is allowed, such as one that an earlier turn drew, nobody chooses.
                    unknown += usize::from(possible > 1);
                    let alike =
                        |(p, allowed): (&mut f64, &bool)| *p = if *allowed { 1.0 / possible as f64 } else { 0.0 };
                    row.iter_mut().zip(&turn.allowed).for_each(alike);
                    continue;
                }
                let own = self
                    .policy
                    .propensities(&facts.as_context(), &allowed, &mut scratch)
                    .map_err(|error| LearnError::Artefact(error.to_string()))?;
                for (place, p) in places.iter().zip(own) {
                    if let Some(place) = place {
                        row[*place] = *p;
                    }
                }
            }
            found.push(probabilities);
        }
        Ok((found, unknown))
    }
}

impl StoredHeld {
    /// The verdict on a candidate that held-out sessions call `alone` beside what was logged: `better` then needs more worth than this one's
    /// by more than the margin too, and completion lost by no more than its own; logs that cannot judge the policy in force cannot say that another is better.
    #[must_use]
    pub fn verdict(&self, alone: Verdict, config: &SessionJudgeConfig) -> Verdict {
        if matches!(alone, Verdict::InsufficientSupport { .. }) {
            return alone;
        }
        if let SessionVerdict::InsufficientSupport { reasons } = &self.judgement.verdict {
            let reasons = reasons.iter().map(|reason| format!("the policy in force cannot be judged: {reason}"));
            return Verdict::InsufficientSupport { reasons: reasons.collect() };
        }
        let (Some(value), Some(completion)) = (&self.difference, &self.completion_difference) else {
            return Verdict::NotShown;
        };
        let SessionEstimates { weighted_doubly_robust, logging, .. } = self.judgement.value;
        let margin = config.evaluation.margin + rounding(&[weighted_doubly_robust, logging]);
        let is_better = value.low > margin && completion.low > -config.completion_margin;
        let is_worse = value.high < -margin || completion.high < -config.completion_margin;
        match alone {
            Verdict::Worse => Verdict::Worse,
            _ if is_worse => Verdict::Worse,
            Verdict::Better if is_better => Verdict::Better,
            _ => Verdict::NotShown,
        }
    }
}
