//! The command line. Command names are a contract: people and tests rely on them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Streaming analytics and adaptation for LLM serving: measures the workload, learns routing policies, publishes them
/// signed, and says how many GPUs the result needs.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Configuration file (weir.toml in this folder, or the defaults, when left out).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder; overrides `store.url` of the configuration.
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<String>,
    /// One JSON object on standard output, for machines.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole loop on one machine: embedded broker, simulated traffic, a policy learned, judged and taken up.
    Demo(DemoArgs),
    /// Ingest, features and HTTP services, as the configuration says.
    Run(RunArgs),
    /// Console, policy delivery and metrics over the tables, without ingest.
    Serve(ServeArgs),
    /// Produce simulated traffic to Kafka or to a file.
    Simulate(SimulateArgs),
    /// Produce a public trace or score matrix to Kafka or to a file.
    Replay(ReplayArgs),
    /// Query tables and views in SQL; a shell when no query is given.
    Sql(SqlArgs),
    /// Train a policy or an estimator.
    Learn(LearnArgs),
    /// Judge a bundle on logged traffic, or the learner on a score matrix.
    Evaluate(EvaluateArgs),
    /// Hallucination verdicts for a file of contexts and responses.
    Estimate(EstimateArgs),
    /// A sidecar that scores the active policy, explores within its limits and logs propensities.
    Decide(DecideArgs),
    /// The policy registry.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Capacity.
    Fleet {
        #[command(subcommand)]
        command: FleetCommand,
    },
    /// Check configuration, connections and permissions; says what is wrong and how to mend it.
    Check,
}

#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How long traffic runs, seconds (20 to 3600). Under about 45 the logs are too short to judge a policy by.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(20..=3600))]
    pub seconds: u64,
    /// Seed of traffic and training.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Kind of traffic.
    #[arg(long, value_enum, default_value_t = ProfileName::Mixed)]
    pub profile: ProfileName,
    /// `no-gain` is a world in which no policy can beat logging.
    #[arg(long, value_enum, default_value_t = WorldName::Default)]
    pub world: WorldName,
    /// Keep the data here instead of in a temporary folder.
    #[arg(long)]
    pub keep: Option<PathBuf>,
    /// HTTP listener of the demo (port 0: any free port).
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    Chat,
    Rag,
    Agent,
    Mixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorldName {
    Default,
    NoGain,
}

#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Stop when every partition has been read to its end, and everything derived is written.
    #[arg(long)]
    pub until_drained: bool,
    /// Kafka brokers; overrides `kafka.brokers`.
    #[arg(long)]
    pub brokers: Option<String>,
    /// Do not open the HTTP listener.
    #[arg(long)]
    pub no_http: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Listener; overrides `http.listen`.
    #[arg(long)]
    pub listen: Option<String>,
}

/// Where produced events go.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Sink {
    /// Kafka brokers; topics requests, feedback and gpu_telemetry.
    #[arg(long)]
    pub brokers: Option<String>,
    /// A file of JSON lines, each {"topic", "event"}; - is standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What happens to topics that the cluster lacks.
#[derive(Debug, Clone, Args)]
pub struct Topics {
    /// Create the topics requests, feedback and gpu_telemetry where they are missing, with this many partitions.
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub create_topics: Option<i32>,
}

#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    #[command(flatten)]
    pub sink: Sink,
    #[command(flatten)]
    pub topics: Topics,
    #[arg(long, value_enum, default_value_t = ProfileName::Mixed)]
    pub profile: ProfileName,
    #[arg(long, value_enum, default_value_t = WorldName::Default)]
    pub world: WorldName,
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Mean request rate in event time, per second.
    #[arg(long, default_value_t = 20.0)]
    pub rate: f64,
    /// Length in event time, seconds.
    #[arg(long, default_value_t = 3600)]
    pub seconds: u64,
    /// Start in event time, ms since the epoch (default: a fixed day, so that runs repeat).
    #[arg(long, default_value_t = 1_767_225_600_000)]
    pub start_ms: i64,
}

#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// A trace file or folder (azure-llm, mooncake, servegen), or a score matrix folder.
    pub path: PathBuf,
    #[command(flatten)]
    pub sink: Sink,
    #[command(flatten)]
    pub topics: Topics,
    /// Format, when it cannot be told from the files: azure-llm, mooncake, servegen, score-matrix.
    #[arg(long)]
    pub format: Option<String>,
    /// Passes over the queries of a score matrix.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub passes: u32,
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Part of a score matrix: nine models at list prices, or six models on Natural Questions at the cost paid.
    #[arg(long, value_enum, default_value_t = MatrixPartName::Main)]
    pub part: MatrixPartName,
    /// 2 halves the gaps between a trace's arrivals; tokens stay as they are.
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// Moment of a trace's first arrival, ms since the epoch (default: the trace's own times where it has any).
    #[arg(long)]
    pub start_ms: Option<i64>,
    /// Stop after this many events.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MatrixPartName {
    Main,
    Nq,
}

#[derive(Debug, Clone, Args)]
pub struct SqlArgs {
    /// The query; a shell when left out.
    pub query: Option<String>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    pub format: TableFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    Table,
    Csv,
    Json,
}

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
    },
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
pub struct EvaluateArgs {
    /// A bundle folder or a policy id.
    pub bundle: Option<String>,
    /// A score matrix whose oracle is known: judge the bundle on its test queries, or, without a bundle, the learner.
    #[arg(long, value_name = "DIR")]
    pub matrix: Option<PathBuf>,
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Seeds of the coverage study (with --matrix).
    #[arg(long, default_value_t = 200)]
    pub coverage_seeds: u64,
}

#[derive(Debug, Clone, Args)]
pub struct EstimateArgs {
    /// JSON lines, each {"context": ..., "response": ...}; - is standard input.
    pub file: PathBuf,
    /// Artifact written by `weir learn hallucination`.
    #[arg(long)]
    pub artifact: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct DecideArgs {
    /// Listener.
    #[arg(long, default_value = "127.0.0.1:8078")]
    pub listen: String,
    /// Where the active policy comes from: the URL of a Weir, or a bundle folder.
    #[arg(long, default_value = "http://127.0.0.1:8077")]
    pub policy: String,
    /// Folder of trusted public keys; overrides `policy.trusted_keys`.
    #[arg(long)]
    pub trusted_keys: Option<PathBuf>,
    /// File to which decisions are logged, as JSON lines (standard output when left out).
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Salt of the session-sticky draw; keep it the same on every replica.
    #[arg(long, default_value = "weir")]
    pub salt: String,
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Every policy with its state.
    List,
    /// One policy: lineage, metrics, report, history.
    Show { policy: String },
    /// What differs between two policies.
    Diff { left: String, right: String },
    /// Check content, hash and signature of a bundle folder or of a stored policy.
    Verify { policy: String },
    /// Accept a policy and make it the active one.
    Approve(DecisionArgs),
    /// Turn a policy down.
    Reject(DecisionArgs),
    /// Go back to the policy that was active before.
    Rollback {
        #[arg(long)]
        reason: String,
        /// Who decides (default: the user's name).
        #[arg(long)]
        actor: Option<String>,
    },
    /// Write a policy's bundle to a folder.
    Export { policy: String, folder: PathBuf },
    /// Make a signing key; its public half goes to the trusted folder.
    Keygen {
        /// The private key's file.
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub struct DecisionArgs {
    pub policy: String,
    #[arg(long)]
    pub reason: Option<String>,
    /// Who decides (default: the user's name).
    #[arg(long)]
    pub actor: Option<String>,
    /// Approve although the report does not say "better"; needs a reason.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// How many GPUs the observed workload needs, with one pool and with two.
    Recommend(RecommendArgs),
}

#[derive(Debug, Clone, Args)]
pub struct RecommendArgs {
    /// GPU profile: a TOML file, or the name of a built-in one.
    #[arg(long)]
    pub gpu: String,
    /// 99th percentile of time to first token, ms.
    #[arg(long, default_value_t = 2000.0)]
    pub ttft_ms: f64,
    /// 95th percentile over requests of the mean time per output token, ms.
    #[arg(long, default_value_t = 100.0)]
    pub tpot_ms: f64,
    /// Only this model's requests. The GPU profile decides which model is sized; this decides whose traffic it gets.
    #[arg(long)]
    pub model: Option<String>,
    /// Look at the last HOURS of the observed event time.
    #[arg(long, default_value_t = 168, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=960))]
    pub hours: u32,
    /// Multiply the observed arrival rate.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn no_two_options_of_a_command_share_a_name() {
        super::Cli::command().debug_assert();
    }
}
