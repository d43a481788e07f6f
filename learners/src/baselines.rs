//! Policies to stand beside a candidate: simple enough that a candidate which cannot beat them is not worth its keep.

use std::collections::BTreeMap;

use weir_policy_runtime::{Action, Policy, Scratch};

use crate::error::{LearnError, Result};
use crate::ope::{TableRow, cross_fitted_table};
use crate::outcome::Outcome;
use crate::training_set::Sample;

/// Something that gives every action a probability.
pub(crate) enum Target<'a> {
    /// A learned policy, and where each of its models stands among the actions; none where no log names it.
    Learned { policy: &'a Policy, place: Vec<Option<usize>> },
    /// Every allowed action alike.
    Uniform,
    /// Always the first allowed action of a ranking.
    Ranking(Vec<usize>),
    /// What a router takes by a selector of its own: its choice among the actions, and where that is not allowed, or is none of them,
    /// the first that is.
    Selected(&'a dyn Fn(&Sample) -> Option<usize>),
    /// By domain, the first allowed action of the domain's ranking; elsewhere of the general one.
    RankingByDomain { domains: BTreeMap<String, Vec<usize>>, elsewhere: Vec<usize> },
}

impl<'a> Target<'a> {
    /// A learned policy that is to choose among `actions`, which may be more, fewer or others than it knows.
    pub(crate) fn learned(policy: &'a Policy, actions: &[Action]) -> Self {
        let place = |own: &Action| actions.iter().position(|action| action.model == own.model);
        Self::Learned { policy, place: policy.actions().iter().map(place).collect() }
    }

    /// Writes the probability of every action for one decision. They sum to less than 1 where a learned policy would
    /// choose a model that is not among the actions, or knows none of those allowed.
    pub(crate) fn probabilities(
        &self,
        sample: &Sample,
        allowed: Option<&[bool]>,
        scratch: &mut Scratch,
        out: &mut [f64],
    ) -> Result<()> {
        if let Self::Learned { policy, place } = self {
            out.fill(0.0);
            // A model on probation that no log names yet is left out: the rest of the policy is what can be judged.
            let on_probation = |own: &Action| policy.spec().probation.iter().any(|entry| entry.model == own.model);
            let may = |(place, own): (&Option<usize>, &Action)| match place {
                Some(action) => allowed.is_none_or(|flags| flags[*action]),
                None => allowed.is_none() && !on_probation(own),
            };
            let own: Vec<bool> = place.iter().zip(policy.actions()).map(may).collect();
            if own.contains(&true) {
                let probabilities = policy
                    .propensities(&sample.context.as_context(), &own, scratch)
                    .map_err(|error| LearnError::Artefact(error.to_string()))?;
                let known = place.iter().zip(probabilities).filter_map(|(place, p)| place.map(|place| (place, *p)));
                known.for_each(|(place, probability)| out[place] = probability);
            }
            return Ok(());
        }
        let everything = vec![true; out.len()];
        let allowed = allowed.unwrap_or(&everything);
        match self {
            Self::Learned { .. } => {}
            Self::Uniform => {
                let count = allowed.iter().filter(|flag| **flag).count() as f64;
                out.iter_mut().zip(allowed).for_each(|(p, flag)| *p = if *flag { 1.0 / count } else { 0.0 });
            }
            Self::Ranking(ranking) => choose(ranking, allowed, out),
            Self::Selected(select) => {
                let first = (0..out.len()).collect::<Vec<_>>();
                match select(sample).filter(|action| allowed[*action]) {
                    Some(action) => choose(&[action], allowed, out),
                    None => choose(&first, allowed, out),
                }
            }
            Self::RankingByDomain { domains, elsewhere } => {
                let ranking = sample.context.domain.as_ref().and_then(|domain| domains.get(domain));
                choose(ranking.unwrap_or(elsewhere), allowed, out);
            }
        }
        Ok(())
    }
}

fn choose(ranking: &[usize], allowed: &[bool], out: &mut [f64]) {
    out.fill(0.0);
    if let Some(&action) = ranking.iter().find(|&&action| allowed[action]) {
        out[action] = 1.0;
    }
}

/// Domains as dense indices; `None` is the last one.
pub(crate) struct Domains {
    names: BTreeMap<String, usize>,
}

impl Domains {
    pub(crate) fn new(samples: &[Sample]) -> Self {
        let mut names: BTreeMap<String, usize> =
            samples.iter().filter_map(|sample| sample.context.domain.clone()).map(|name| (name, 0)).collect();
        names.values_mut().enumerate().for_each(|(index, slot)| *slot = index);
        Self { names }
    }

    pub(crate) fn count(&self) -> usize {
        self.names.len() + 1
    }

    pub(crate) fn cell(&self, sample: &Sample) -> usize {
        let known = sample.context.domain.as_ref().and_then(|name| self.names.get(name));
        known.copied().unwrap_or(self.names.len())
    }
}

/// The best single model and the best model of each domain, chosen on the samples at `train` by shrunken mean utility.
///
/// Plain means: where the logging policy favoured a model on easy requests, they favour it too.
pub(crate) fn best_models<'a>(
    samples: &[Sample],
    train: &[usize],
    actions: usize,
    outcome: &Outcome,
) -> (Target<'a>, Target<'a>) {
    let domains = Domains::new(samples);
    let row = |cell: usize, sample: &Sample| TableRow {
        cell,
        action: sample.action,
        reward: outcome.value(sample),
        cluster: 0,
        weight: 1.0,
    };
    let ranked = |means: &[f64]| {
        let mut ranking: Vec<usize> = (0..actions).collect();
        ranking.sort_by(|a, b| means[*b].total_cmp(&means[*a]).then(a.cmp(b)));
        ranking
    };
    let single_rows: Vec<TableRow> = train.iter().map(|&index| row(0, &samples[index])).collect();
    let single = ranked(&cross_fitted_table(&single_rows, 1, actions, 1)[0]);
    let domain_rows: Vec<TableRow> =
        train.iter().map(|&index| row(domains.cell(&samples[index]), &samples[index])).collect();
    let table = &cross_fitted_table(&domain_rows, domains.count(), actions, 1)[0];
    let by_domain = domains
        .names
        .iter()
        .map(|(name, cell)| (name.clone(), ranked(&table[cell * actions..(cell + 1) * actions])))
        .collect();
    (Target::Ranking(single.clone()), Target::RankingByDomain { domains: by_domain, elsewhere: single })
}
