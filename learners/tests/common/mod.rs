//! What several tests of estimators share.

use weir_learners::ope::SupportLimits;

/// Limits that let everything through, to see the numbers themselves.
pub fn no_limits() -> SupportLimits {
    SupportLimits {
        effective_clusters_min: 0.0,
        effective_share_min: 0.0,
        propensity_floor: 0.0,
        unsupported_mass_max: 1.0,
        cluster_weight_share_max: 1.0,
        integrity_confidence: 0.999_999_999_999_9,
    }
}
