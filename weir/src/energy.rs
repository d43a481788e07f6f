//! Energy of requests whose router does not report it: from the fleet's model of the GPUs that serve the model.

use std::collections::BTreeMap;

use weir_fleet::GpuProfile;
use weir_learners::TrainingSet;
use weir_policy_runtime::ActionParts;

use crate::capacity;
use crate::config::EnergySection;
use crate::error::{Failure, Result};

/// The GPUs behind each model, and the sequences that an instance of them decodes at once.
///
/// # Errors
/// One sentence where a profile is not known, or a number of sequences is none.
pub fn profiles(sections: &BTreeMap<String, EnergySection>) -> Result<BTreeMap<&str, (GpuProfile, f64)>> {
    let profile = |(name, section): (&'_ String, &EnergySection)| {
        if !(section.sequences.is_finite() && section.sequences >= 1.0) {
            return Err(Failure::user(format!(
                "energy.{name}.sequences is {}: give how many sequences an instance decodes at once, from 1",
                section.sequences
            )));
        }
        Ok((capacity::profile(&section.profile)?, section.sequences))
    };
    sections.iter().map(|entry| Ok((entry.0.as_str(), profile(entry)?))).collect()
}

/// Fills in the energy of decisions that lack it, where the model's GPUs are known and the tokens are; returns how many.
pub fn fill(set: &mut TrainingSet, sections: &BTreeMap<String, EnergySection>) -> Result<usize> {
    let known = profiles(sections)?;
    let profiles: Vec<_> = set.actions.iter().map(|action| known.get(ActionParts::of(&action.model).model)).collect();
    let mut filled = 0;
    for sample in set.samples.iter_mut().filter(|sample| sample.energy_wh.is_none()) {
        let tokens = sample.context.prompt_tokens.zip(sample.completion_tokens);
        let Some(((prompt, completion), (profile, sequences))) = tokens.zip(profiles[sample.action]) else {
            continue;
        };
        sample.energy_wh = Some(profile.request_wh(f64::from(prompt), f64::from(completion), *sequences));
        filled += 1;
    }
    if filled > 0 {
        tracing::info!(decisions = filled, "energy filled in from GPU profiles");
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use weir_learners::Sample;
    use weir_policy_runtime::{Action, OwnedContext};

    use super::*;

    #[test]
    fn what_a_router_reports_stays_and_what_is_not_known_stays_unknown() {
        let action =
            |model: &str| Action { model: model.to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None };
        let sample = |action, energy_wh, completion_tokens| Sample {
            action,
            energy_wh,
            completion_tokens,
            context: OwnedContext { prompt_tokens: Some(1_000), ..OwnedContext::default() },
            ..Sample::default()
        };
        let samples = vec![
            sample(0, None, Some(200)),
            sample(0, Some(0.5), Some(200)),
            sample(0, None, None),
            sample(1, None, Some(200)),
        ];
        let mut set =
            TrainingSet { actions: vec![action("own"), action("elsewhere")], samples, ..TrainingSet::default() };
        let section = |sequences| {
            BTreeMap::from([(
                "own".to_owned(),
                EnergySection { profile: "llama-3.1-8b-bf16-1xh100".to_owned(), sequences },
            )])
        };
        assert_eq!(fill(&mut set, &section(32.0)).unwrap(), 1);
        let expected = GpuProfile::named("llama-3.1-8b-bf16-1xh100").unwrap().request_wh(1_000.0, 200.0, 32.0);
        let energies: Vec<Option<f64>> = set.samples.iter().map(|sample| sample.energy_wh).collect();
        assert_eq!(energies, [Some(expected), Some(0.5), None, None]);
        set.samples[0].energy_wh = None;
        assert!(fill(&mut set, &section(0.0)).unwrap_err().to_string().contains("from 1"));
    }
}
