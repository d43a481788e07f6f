//! Only the right key over the right id counts.
#![allow(missing_docs)]

mod common;

use common::bundle;
use ed25519_dalek::{Signer, SigningKey};
use weir_policy_runtime::{
    Bundle, PublicKey, Signature, SignatureError, Standing, Trust, TrustedKeys, signing_message, verify,
};

fn key(seed: u8) -> (SigningKey, PublicKey) {
    let signing = SigningKey::from_bytes(&[seed; 32]);
    let public = PublicKey::from_bytes(signing.verifying_key().as_bytes()).unwrap();
    (signing, public)
}

fn signed(seed: u8) -> (Bundle, Signature) {
    let (signing, public) = key(seed);
    let bundle = bundle();
    let bytes = signing.sign(&signing_message(&bundle.id)).to_bytes();
    let signature = Signature::new(bundle.id.clone(), &public, &bytes);
    (bundle, signature)
}

#[test]
fn a_signature_holds_for_its_bundle_and_key_only() {
    let (bundle, signature) = signed(1);
    assert!(verify(&bundle, &signature, &key(1).1).is_ok());
    assert!(matches!(verify(&bundle, &signature, &key(2).1), Err(SignatureError::OtherKey { .. })));

    let mut manifest = bundle.manifest.clone();
    manifest.name = "another".to_owned();
    let other = Bundle::build(manifest, bundle.files.clone()).unwrap();
    assert!(matches!(verify(&other, &signature, &key(1).1), Err(SignatureError::OtherPolicy { .. })));
    // Nor when the label is changed to fit.
    let relabelled = Signature { policy_id: other.id.clone(), ..signature };
    assert!(matches!(verify(&other, &relabelled, &key(1).1), Err(SignatureError::Wrong { .. })));
}

#[test]
fn a_signature_over_the_bare_id_does_not_count() {
    let (signing, public) = key(1);
    let bundle = bundle();
    let bare = signing.sign(bundle.id.as_str().as_bytes()).to_bytes();
    let signature = Signature::new(bundle.id.clone(), &public, &bare);
    assert!(matches!(verify(&bundle, &signature, &public), Err(SignatureError::Wrong { .. })));
}

#[test]
fn trust_is_explicit() {
    let (bundle, signature) = signed(1);
    let trusting: TrustedKeys = [key(1).1, key(2).1].into_iter().collect();
    let stranger = signed(3).1;
    let strict = Trust::Signed(trusting);
    assert_eq!(strict.check(&bundle.id, Some(&signature)).unwrap(), Standing::SignedBy(key(1).1.key_id()));
    assert!(matches!(strict.check(&bundle.id, Some(&stranger)), Err(SignatureError::UnknownKey { .. })));
    assert!(matches!(strict.check(&bundle.id, None), Err(SignatureError::Unsigned { .. })));
    assert!(Trust::Signed(TrustedKeys::default()).check(&bundle.id, Some(&signature)).is_err());
    assert_eq!(Trust::AcceptUnsigned.check(&bundle.id, None).unwrap(), Standing::Unsigned);
}

/// RFC 8032, section 7.1, test 1 gives this key pair; the key id is `sha256sum` of its 32 bytes, cut to 16 digits
/// (CPython's `hashlib.sha256(bytes.fromhex(...)).hexdigest()[:16]`).
#[test]
fn keys_have_a_text_form_and_a_short_name() {
    let text = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let public: PublicKey = text.parse().unwrap();
    assert_eq!(public.to_string(), text);
    assert_eq!(public.key_id(), "21fe31dfa154a261");
    for bad in [
        "",
        "ed25519:",
        "d75a98",
        &text[..70],
        "ed25519:zz5a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    ] {
        assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
    }
    // All zeros is a point of small order: anybody can make signatures under it.
    assert!(PublicKey::from_bytes(&[0; 32]).is_err());
}

#[test]
fn the_signature_file_lies_beside_the_content() {
    let (bundle, signature) = signed(1);
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("policy");
    bundle.write_dir(&place, Some(&signature)).unwrap();
    assert_eq!(Bundle::read_dir(&place).unwrap(), bundle);
    assert_eq!(Bundle::read_signature(&place).unwrap(), Some(signature));
    std::fs::write(place.join("signature.json"), b"{}").unwrap();
    assert!(matches!(Bundle::read_signature(&place), Err(SignatureError::Malformed { .. })));
    std::fs::remove_file(place.join("signature.json")).unwrap();
    assert_eq!(Bundle::read_signature(&place).unwrap(), None);
}

#[test]
fn refusals_are_sentences() {
    let (bundle, signature) = signed(1);
    let strict = |seed| Trust::Signed([key(seed).1].into_iter().collect());
    let cut = Signature { signature: signature.signature[..100].to_owned(), ..signature.clone() };
    let mut flipped = signature.clone();
    flipped.signature.replace_range(0..1, if signature.signature.starts_with('0') { "1" } else { "0" });
    let sentences = [
        strict(1).check(&bundle.id, None),
        strict(2).check(&bundle.id, Some(&signature)),
        strict(1).check(&bundle.id, Some(&cut)),
        strict(1).check(&bundle.id, Some(&flipped)),
    ]
    .map(|refusal| refusal.unwrap_err().to_string());
    insta::assert_snapshot!(sentences.join("\n"));
}
