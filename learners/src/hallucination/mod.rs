//! Does a response say more than its context supports?
//!
//! **In:** a grounding context and a response. **Out:** a probability that the response holds a hallucination, from
//! [`features()`] of how the two align and a small network trained on labelled pairs. The verdict says nothing of facts
//! beyond the context, and a response without a context is not checkable: no verdict, never a clean one.
//!
//! Training needs burn; scoring an [`Estimator`] does not.

mod dataset;
mod estimator;
mod features;
mod job;
mod metrics;
mod text;
mod train;

pub use dataset::{Labelled, LabelledPair, read_labelled};
pub use estimator::{Estimator, Verdict};
pub use features::{FEATURE_NAMES, features};
pub use job::{JobSummary, run_hallucination_job};
pub(crate) use metrics::calibration_error;
pub use metrics::{DetectionMetrics, detection_metrics};
pub use train::{HallucinationConfig, HallucinationReport, train_hallucination, train_on_labelled};
