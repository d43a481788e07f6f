//! Reading, verifying and scoring a policy bundle.
//!
//! **In:** a bundle (a directory, or the deterministic tar of one), its signature, and at decision time a
//! [`Context`]: what is known of a request before a model is chosen. **Out:** the probability of every action
//! ([`Policy::propensities`]) and a choice with its exact propensity ([`Policy::decide`]).
//!
//! ```text
//! directory / tar --> Bundle (every size and hash checked) --> verify (Ed25519 over the id) --> Policy
//! Context --FeatureSpec--> input --Mlp--> quality, ln(cost) --Objective--> utilities --Exploration--> propensities
//! ```
//!
//! A decision is a pure function of (bundle, context, allowed actions, draw): no clock, no global random numbers, and
//! after the first call with a [`Scratch`] no allocation.
//!
//! **Refuses to know:** training frameworks, async runtimes, Arrow, Kafka, stores, HTTP. It holds no private key and
//! cannot sign.

mod action_parts;
mod bundle;
mod cascade;
mod context;
mod dense;
mod error;
mod exploration;
mod features;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod hash_embedding;
mod heads;
mod knobs;
mod mlp;
mod policy;
mod posterior;
mod signature;
mod spec;
mod sticky;
mod strategy;

pub use action_parts::ActionParts;
pub use bundle::{
    Bundle, FileEntry, Lineage, MANIFEST_FILE, MANIFEST_SCHEMA, MAX_BUNDLE_BYTES, MAX_FILES, MAX_MANIFEST_BYTES,
    MAX_PATH_BYTES, MAX_TAR_BYTES, Manifest, POLICY_FILE, POSTERIOR_FILE, PolicyId, REPORT_JSON_FILE,
    REPORT_MARKDOWN_FILE, ROUTING_POLICY_KIND, SIGNATURE_FILE, WEIGHTS_FILE, canonical_json,
};
pub use cascade::{
    AcceptModel, Answer, AnswerFeature, AnswerField, CASCADE_FILE, CASCADE_SCHEMA, Cascade, CascadeAction,
    CascadeDecision, CascadeEvidence, CascadeReason, CascadeRequest, EscalationGate, Fallback, LOGISTIC_SHARE, MidTier,
    PoolLimits, PoolState,
};
pub use context::{Context, OwnedContext};
pub use error::{BundleError, PolicyError, SignatureError};
pub use exploration::{Exploration, floor_share, inverse_gap_weights};
pub use features::{CategoryField, CountField, Feature, FeatureSpec, FlagField, NUMERIC_CLIP};
pub use heads::Heads;
pub use knobs::{KNOB_SCHEMA, KnobRow, KnobTable, MAX_KNOB_ROWS, Support, knob_path, knob_tables};
pub use mlp::{Layer, Mlp, MlpScratch};
pub use policy::{Decision, Policy, Predictions, Scratch, Terms};
pub use posterior::Posterior;
pub use signature::{
    OUTCOME_SIGNING_PREFIX, PublicKey, SIGNING_PREFIX, Signature, Standing, Trust, TrustedKeys,
    outcome_signing_message, signing_message, verify,
};
pub use spec::{Action, Objective, PolicySpec, Preference, Probation};
pub use sticky::{sticky_uniform, sticky_uniform_of};
pub use strategy::{Strategy, softmax_weights};
