//! Discrete conservative Q-learning: Q-learning that keeps the worth of untried choices low.
//!
//! Kumar et al. 2020, arXiv 2006.04779, equation 4 (CQL(H)), with sums and maxima over what is allowed:
//!
//! ```text
//! α E (ln Σ_a exp Q(s, a) - Q(s, a_logged)) + ½ E (r + γ max_a' Q̂(s', a') - Q(s, a_logged))²
//! ```

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::config::{Algorithm, SessionLearnerConfig};
use super::double_q::double_q;
use super::policy::SessionPolicy;
use super::replay::{Replay, runtime};
use super::trajectory::SessionLog;
use crate::error::Result;

pub(super) fn learn(log: &SessionLog, config: &SessionLearnerConfig) -> Result<SessionPolicy> {
    let replay = Replay::new(log, config);
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let quality = double_q(&replay, config.conservatism, config, &mut rng)?;
    Ok(SessionPolicy::new(log, Algorithm::ConservativeQ, runtime(&quality.network)?, None))
}
