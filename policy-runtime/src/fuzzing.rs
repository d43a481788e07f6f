//! What must hold of any bytes: one function a fuzz target, which panics where its law is broken. The tests replay the
//! targets' seeds, and every input that ever broke one.

use crate::bundle::{Bundle, MAX_BUNDLE_BYTES, Manifest};
use crate::context::Context;
use crate::knobs::{KnobTable, knob_tables};
use crate::mlp::Mlp;
use crate::policy::Policy;
use crate::signature::Signature;
use crate::spec::PolicySpec;

/// What is read from an archive is within the limits, and packed and read again it is the same bundle. Bytes are also read as
/// a manifest, as a signature and as a table for a knob.
pub fn policy_bundle(bytes: &[u8]) {
    drop(Manifest::from_json(bytes));
    knob_table(bytes);
    if let Ok(signature) = Signature::from_json(bytes) {
        let again = Signature::from_json(&signature.to_json()).expect("what we wrote can be read");
        assert_eq!(again, signature);
    }
    archive(bytes);
    archive(&with_checksums(bytes));
}

/// Every cell of a table that was read is found by its key, and what was read is the same written and read again.
fn knob_table(bytes: &[u8]) {
    let Ok(table) = KnobTable::from_json("knobs/x.json", bytes) else { return };
    let written = table.to_json().expect("numbers that were read are finite");
    assert_eq!(KnobTable::from_json("knobs/x.json", &written).expect("what we wrote can be read"), table);
    for row in &table.rows {
        let key: Vec<Option<&str>> = row.key.iter().map(Option::as_deref).collect();
        assert_eq!(table.get(&key), Some(row));
    }
}

fn archive(bytes: &[u8]) {
    drop(Bundle::signature_in_tar(bytes));
    let Ok(bundle) = Bundle::from_tar(bytes) else { return };
    let size: usize = bundle.entries().map(|(_, content)| content.len()).sum();
    assert!(size as u64 <= MAX_BUNDLE_BYTES, "a bundle of {size} bytes was read");
    drop(knob_tables(&bundle));
    assert_eq!(Bundle::from_tar(&bundle.to_tar()).expect("what we packed can be read"), bundle);
    drop(Policy::load(&bundle));
}

/// The archive with the right checksum in each header, which a change of any other byte makes wrong.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut archive = bytes.to_vec();
    for block in archive.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    archive
}

/// A policy that is accepted decides: propensities are probabilities, they sum to 1, and what is chosen was possible. The
/// input is `policy.json` in one line, and the weights behind it.
pub fn policy_load(input: &[u8]) {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (spec, weights) = (PolicySpec::from_json(&input[..end]), Mlp::from_safetensors(&input[end + 1..]));
    if let Ok(spec) = &spec {
        let written = spec.to_json().expect("a spec that was read can be written");
        assert_eq!(&PolicySpec::from_json(&written).expect("what we wrote can be read"), spec);
    }
    let (Ok(spec), Ok(weights)) = (spec, weights) else { return };
    let Ok(policy) = Policy::new(spec, weights) else { return };
    let embedding = [0.5_f32; 8];
    let known = Context {
        domain: Some("law"),
        prompt_tokens: Some(u32::MAX),
        turn: Some(0),
        multimodal: Some(true),
        embedding: Some(&embedding),
        ..Context::default()
    };
    let mut scratch = policy.scratch();
    let actions = policy.actions().len();
    let only_last: Vec<bool> = (0..actions).map(|action| action + 1 == actions).collect();
    for context in [Context::default(), known] {
        for allowed in [vec![true; actions], only_last.clone()] {
            let shares = policy.propensities(&context, &allowed, &mut scratch).expect("one flag an action").to_vec();
            let sum: f64 = shares.iter().sum();
            assert!((sum - 1.0).abs() < 1e-9, "propensities {shares:?} sum to {sum}");
            for (share, allowed) in shares.iter().zip(&allowed) {
                assert!((0.0..=1.0 + 1e-12).contains(share) && (*allowed || *share == 0.0), "{shares:?}");
            }
            for u in [0.0, 0.5, 1.0_f64.next_down()] {
                let decision = policy.decide(&context, &allowed, u, &mut scratch).expect("one flag an action");
                assert!(decision.propensity > 0.0 && allowed[decision.action], "{decision:?} of {shares:?}");
            }
        }
    }
}

#[cfg(test)]
#[path = "../../fuzz/inputs.rs"]
mod inputs;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_of_policy_bundle_are_the_same_packed_again() {
        inputs::replay("policy_bundle", policy_bundle);
    }

    #[test]
    fn inputs_of_policy_load_decide_or_are_refused() {
        inputs::replay("policy_load", policy_load);
    }
}
