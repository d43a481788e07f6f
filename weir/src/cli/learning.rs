//! `weir learn` and `weir evaluate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{price, share, share_below_one, share_from_zero};

#[derive(Debug, Clone, Args)]
pub struct LearnArgs {
    #[command(subcommand)]
    pub kind: LearnKind,
}

#[derive(Debug, Clone, Subcommand)]
pub enum LearnKind {
    /// A routing policy from logged requests and rewards; proposed to the registry, signed.
    Policy {
        /// Signing key written by `weir policy keygen`.
        #[arg(long)]
        key: PathBuf,
        #[arg(long, default_value = "routing")]
        name: String,
        #[arg(long, default_value_t = 7)]
        seed: u64,
        /// Only requests whose gateway tag NAME has this VALUE (for example split=train).
        #[arg(long, value_name = "NAME=VALUE")]
        tag: Option<String>,
        /// Also write the policy in the forms that vLLM Semantic Router loads, for a router whose embeddings have so many dimensions (768
        /// for mmBERT, 1024 for qwen3): exports/vllm-sr/ in the bundle, distilled and judged as they are.
        #[arg(long, value_name = "DIMENSIONS", value_parser = clap::value_parser!(u32).range(1..=8192))]
        vllm_sr: Option<u32>,
        /// Where the router logged no propensities, take how often it chose each model: weaker evidence, which takes --force to approve.
        #[arg(long)]
        estimate_propensities: bool,
        #[command(flatten)]
        learner: LearnerArgs,
        /// Blocks of a pool's prefix cache, all instances together: the bundle then brings a table of retention, learned from
        /// the last day (`weir fleet retention` tries it).
        #[arg(long, value_name = "BLOCKS", value_parser = clap::value_parser!(u64).range(1..))]
        kv_blocks: Option<u64>,
        /// That pool's requests; all pools as one when left out.
        #[arg(long, value_name = "POOL", requires = "kv_blocks")]
        kv_pool: Option<String>,
        /// Share of the blocks that may be pinned; a half when left out.
        #[arg(long, value_name = "SHARE", value_parser = share, requires = "kv_blocks")]
        kv_pinned: Option<f64>,
        /// A cascade that `weir learn cascade` wrote: the bundle then brings it.
        #[arg(long, value_name = "FILE")]
        cascade: Option<PathBuf>,
    },
    /// Let a policy that knows how sure it is (thompson, upper-bound) learn on from the decisions that came since; proposed, signed.
    Update {
        /// Signing key written by `weir policy keygen`.
        #[arg(long)]
        key: PathBuf,
        /// Policy id, or its beginning; the active one when left out.
        #[arg(long)]
        policy: Option<String>,
        /// Days in which what it knew comes to count for half.
        #[arg(long, value_name = "DAYS")]
        half_life_days: Option<f64>,
        /// Learn from a decision once it is so old that this share of all opinions has come.
        #[arg(long, default_value_t = 0.95, value_name = "SHARE", value_parser = share)]
        settled_share: f64,
        /// Go on doing so, each time after so many seconds, from the last one proposed; until a signal.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        every: Option<u64>,
    },
    /// When the cheap model's answer will do: an accept score, and the least threshold that is shown to be safe, from logged requests
    /// with propensities. Writes cascade.json, whose limits and fallbacks are the operator's to change.
    Cascade(CascadeArgs),
    /// A policy for whole sessions, which chooses a model anew at every turn by what that does to the turns that follow, from logged sessions
    /// whose outcome is known; judged on other sessions, proposed to the registry, signed.
    Sessions(SessionArgs),
    /// A hallucination estimator from a labelled set.
    Hallucination {
        /// Parquet files or folders with the columns id, dataset, context, response and label (1 is hallucinated).
        #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
        labelled: Vec<PathBuf>,
        /// Where the artifact goes.
        #[arg(long)]
        out: PathBuf,
        #[arg(long, default_value_t = 7)]
        seed: u64,
    },
}

#[derive(Debug, Clone, Args)]
pub struct SessionArgs {
    /// Signing key written by `weir policy keygen`.
    #[arg(long)]
    pub key: PathBuf,
    #[arg(long, default_value = "sessions")]
    pub name: String,
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// The way of learning.
    #[arg(long, value_enum, default_value_t = SessionAlgorithm::ImplicitQ)]
    pub algorithm: SessionAlgorithm,
    /// Worth of a session that ends with its task done; the operator's outcome's weight of quality when left out.
    #[arg(long, value_name = "UTILITY", value_parser = price)]
    pub completion: Option<f64>,
    /// Worth of a turn's quality of 1; sessions with a turn that nobody judged are then left out.
    #[arg(long, default_value_t = 0.0, value_name = "UTILITY", value_parser = price)]
    pub quality: f64,
    /// Price of a dollar; the operator's outcome's when left out. Sessions with a turn of unknown cost are left out, unless it is 0.
    #[arg(long, value_name = "UTILITY", value_parser = price)]
    pub usd: Option<f64>,
    /// Price of a second of waiting for an answer; the operator's outcome's when left out.
    #[arg(long, value_name = "UTILITY", value_parser = price)]
    pub second: Option<f64>,
    /// Price of a turn.
    #[arg(long, default_value_t = 0.02, value_name = "UTILITY", value_parser = price)]
    pub turn: f64,
    /// Price of a million prompt tokens that a turn after a switch of models reads again.
    #[arg(long, default_value_t = 0.0, value_name = "UTILITY", value_parser = price)]
    pub switch_mtok: f64,
    /// Loss of completion that still counts as none, a share of sessions.
    #[arg(long, default_value_t = 0.02, value_name = "SHARE", value_parser = share_from_zero)]
    pub completion_margin: f64,
}

/// Ways to learn a policy for sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SessionAlgorithm {
    /// Implicit Q-learning: asks for the worth of logged choices only.
    ImplicitQ,
    /// Conservative Q-learning: keeps the worth of untried choices low.
    ConservativeQ,
    /// Batch-constrained Q-learning: chooses among what the log makes often enough.
    BatchConstrainedQ,
    /// Each turn by its own reward, doubly robust: what the others are compared with.
    TurnBandit,
}

/// How a policy is learned, and how it draws.
#[derive(Debug, Clone, Args)]
pub struct LearnerArgs {
    /// The way of learning.
    #[arg(long, value_enum, default_value_t = LearnerName::InverseGap)]
    pub learner: LearnerName,
    /// With --learner upper-bound: standard deviations above the guess; one when left out.
    #[arg(long, value_name = "DEVIATIONS", value_parser = price)]
    pub bound_width: Option<f64>,
    /// With --learner policy-gradient: the least cost at such a quality, instead of the outcome's weight of cost.
    #[arg(long, value_name = "QUALITY", value_parser = share)]
    pub quality_at_least: Option<f64>,
    /// Days after which a decision counts for half: what a model was worth may change.
    #[arg(long, value_name = "DAYS")]
    pub half_life_days: Option<f64>,
    /// Keep what training has done so far in this folder: a training that was stopped goes on from there, if data and settings are the
    /// same.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    /// Learn and judge by requests only that are so old that this share of all opinions has come: what comes fast is not like what comes
    /// late. 0.95 for thompson and upper-bound, which `weir learn update` goes on from; all of them for the others.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub settled_share: Option<f64>,
    /// A model that no log names yet, one of the logs that it is like, and the share of decisions that it gets until there is evidence.
    /// Once for each.
    #[arg(long, value_name = "MODEL=LIKE:SHARE")]
    pub new_model: Vec<String>,
}

/// Ways to learn a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LearnerName {
    /// Guesses of quality and cost, drawn from by inverse-gap weighting.
    InverseGap,
    /// Guesses corrected by a doubly robust policy gradient, drawn from by softmax.
    PolicyGradient,
    /// Guesses with their uncertainty, drawn from by the probability of being the best (Thompson sampling).
    Thompson,
    /// Guesses with their uncertainty, the highest upper bound taken (LinUCB).
    UpperBound,
}

#[derive(Debug, Clone, Args)]
pub struct CascadeArgs {
    /// The model that answers first.
    #[arg(long, value_name = "MODEL")]
    pub cheap: String,
    /// The model that is escalated to.
    #[arg(long, value_name = "MODEL")]
    pub strong: String,
    /// Quality that the answers served may lack to perfect ones, on average over sessions, each counted once.
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", value_parser = share_below_one)]
    pub alpha: f64,
    /// Probability with which they may lack more.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE", value_parser = share_below_one)]
    pub delta: f64,
    /// The largest weight that the router's exploration allows: 1 through the least probability with which it asks the cheap model.
    #[arg(long, default_value_t = 20.0, value_name = "WEIGHT")]
    pub weight_max: f64,
    /// Only requests whose gateway tag NAME has this VALUE.
    #[arg(long, value_name = "NAME=VALUE")]
    pub tag: Option<String>,
    /// Where the file goes.
    #[arg(long)]
    pub out: PathBuf,
    /// Write over a file that is there, with what an operator changed in it.
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(Debug, Clone, Args)]
pub struct EvaluateArgs {
    /// A bundle folder or a policy id.
    pub bundle: Option<String>,
    /// A score matrix whose oracle is known: judge the bundle on its test queries, or, without a bundle, the learner. A folder with
    /// pairs.parquet (a weak and a strong model) is judged as RouteLLM does.
    #[arg(long, value_name = "DIR")]
    pub matrix: Option<PathBuf>,
    /// A folder that holds the folders of public score matrices: the learned policy and all baselines on each, by nested cross-validation,
    /// every query judged once, with quality at equal cost, cost at equal quality, AIQ, oracle capture, APGR and CPT, or why the data do
    /// not support one.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["bundle", "matrix", "rounds"])]
    pub matrices: Option<PathBuf>,
    /// With --matrices: a program and its arguments that turn texts into vectors, in place of hashed n-grams: one JSON string a line on its
    /// input, one JSON array of numbers a line on its output.
    #[arg(long, value_name = "COMMAND", requires = "matrices")]
    pub encoder: Option<String>,
    /// With --matrix: judge cascades from a cheap to the best model instead, with a promise on what they lose, beside routers that choose
    /// once.
    #[arg(long, requires = "matrix", conflicts_with = "bundle")]
    pub cascade: bool,
    /// A file of logged decisions (.parquet, .csv, .jsonl) with the columns reward, propensity and target_probability: judge the target
    /// policy with every estimator. Optional columns: q_logged and q_policy, cluster, unsupported_mass, group_propensity and
    /// group_target_probability.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bundle", "matrix"])]
    pub rounds: Option<PathBuf>,
    /// Learn session policies from simulated sessions of agents, by each algorithm, judge them from other sessions, and show what is true.
    #[arg(long, conflicts_with_all = ["bundle", "matrix", "rounds"])]
    pub session_simulator: bool,
    /// With --session-simulator: a failed turn may also be cut off before a model answers, and the report says what that adds.
    #[arg(long, requires = "session_simulator")]
    pub cut_back: bool,
    /// Where the router logged no propensities, take how often it chose each model: weaker evidence, and labelled as such.
    #[arg(long, conflicts_with_all = ["rounds", "matrix", "matrices", "session_simulator"])]
    pub estimate_propensities: bool,
    /// Judge by requests only that are so old that this share of all opinions has come.
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with_all = ["rounds", "matrix", "matrices"])]
    pub settled_share: Option<f64>,
    /// With --rounds: least and largest reward that can occur, for intervals that hold at every moment.
    #[arg(
        long,
        value_name = "LOW,HIGH",
        value_delimiter = ',',
        num_args = 1,
        allow_negative_numbers = true,
        requires = "rounds"
    )]
    pub reward_range: Option<Vec<f64>>,
    /// With --reward-range: the largest weight that the logging policy allows, for an interval that holds for few sessions.
    #[arg(long, value_name = "WEIGHT", requires = "reward_range")]
    pub weight_max: Option<f64>,
    /// With --rounds: resamples of whole clusters that intervals come from; without it they come from a t law.
    #[arg(long, value_name = "N", requires = "rounds", value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub bootstraps: Option<u32>,
    /// With --rounds: probability with which intervals hold.
    #[arg(long, value_name = "SHARE", requires = "rounds", value_parser = share)]
    pub confidence: Option<f64>,
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// With --matrix: seeds of the coverage study; 200 when left out.
    #[arg(long, value_name = "N")]
    pub coverage_seeds: Option<u64>,
}
