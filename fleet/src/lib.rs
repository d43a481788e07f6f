//! How many GPUs a workload needs, and how sure that answer is.
//!
//! **In:** a [`Workload`] (the joint distribution of prompt and completion lengths, and the arrivals), a [`GpuProfile`]
//! (one serving instance of one model, read from TOML, every number with its source), a [`Slo`] and [`Options`].
//! **Out:** a [`Recommendation`]: the smallest single pool, the smallest pair of a short and a long pool found at the
//! boundaries that are tried, an interval on the number of GPUs, and what the number is sensitive to. It is plain data,
//! and prints itself as Markdown.
//!
//! The model, a file each, in reading order:
//!
//! | file | says |
//! |---|---|
//! | `workload`, `arrivals` | what has been observed; the rate to plan for; how bursty arrivals are |
//! | `profile`, `power` | what one iteration of one instance costs in time, memory and watts |
//! | `prefill` | how long a prompt takes in chunks that share one budget |
//! | `pool` | throughput as a function of concurrency, and the stable operating point |
//! | `latency` | TTFT, TPOT and end-to-end time as distributions over requests |
//! | `queue` | Erlang C, and its generalisation to servers that slow down as they fill |
//! | `sizing`, `routing`, `two_pools` | the smallest fleet that keeps the objectives |
//! | `interval`, `sensitivity` | how far the answer moves |
//! | [`sim`] | an iteration-by-iteration simulator of the same law: the check on all of the above |
//! | [`retention`] | for how long the blocks of a prompt are kept for a session that pauses, and a cache to try it on |
//!
//! **Refuses to know:** Kafka, SQL, clocks, files (other than the profiles compiled in), async, and any fixed split of
//! tokens into prompt and completion. Nothing here draws a random number except the bootstrap and the simulator, and
//! both take a seed.

mod arrivals;
mod error;
mod interval;
mod latency;
mod markdown;
mod pool;
mod power;
mod prefill;
mod profile;
pub mod queue;
mod recommend;
pub mod retention;
mod routing;
mod sensitivity;
pub mod sim;
mod sizing;
mod two_pools;
mod workload;

pub use arrivals::{Arrivals, RatePlan};
pub use error::FleetError;
pub use interval::Interval;
pub use pool::{Overload, PoolModel, Saturation};
pub use profile::{GpuProfile, KvAdmission, Quantity};
pub use recommend::{Options, Recommendation, Sizing, Topology, WorkloadSummary, recommend, whatif};
pub use routing::{Knowledge, Split, split};
pub use sensitivity::SensitivityRow;
pub use sizing::{Binding, PoolPlan, Slo, TtftMs};
pub use two_pools::TwoPoolPlan;
pub use workload::{Cell, Workload};
