//! The command line. Command names are a contract: people and tests rely on them.

mod learning;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weir_learners::WEIGHT_MAX;

pub use self::learning::{
    CascadeArgs, EvaluateArgs, LearnArgs, LearnKind, LearnerArgs, LearnerName, SessionAlgorithm, SessionArgs,
};

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
    /// Console, policy delivery, metrics and PostgreSQL's wire over the tables, without ingest.
    Serve(ServeArgs),
    /// Receive Prometheus remote-write and OTLP (metrics, traces, logs), and produce to Kafka, at least once.
    Bridge(BridgeArgs),
    /// Produce simulated traffic to Kafka or to a file.
    Simulate(SimulateArgs),
    /// Produce a public trace or score matrix to Kafka or to a file.
    Replay(ReplayArgs),
    /// Query tables and views in SQL; a shell when no query is given.
    Sql(SqlArgs),
    /// Make the summaries anew from the raw rows, as far back as these are kept: corrections and forgotten redeliveries
    /// come right, and a gap in the log is bridged. Stop `weir run` first, unless its summaries no longer go on.
    Rebuild,
    /// Keep tables up by hand: checkpoints, retention, small files merged, files that nobody needs deleted. `weir run` and
    /// `weir serve` do the same beside their work; it is safe beside them.
    Compact(CompactArgs),
    /// Messages that could not be read: what they are, and, after a fix, their rows after all.
    Deadletters {
        #[command(subcommand)]
        command: DeadlettersCommand,
    },
    /// Where ingest stands in each partition, and the ways on after Kafka has lost what comes next, or a topic was made again.
    Positions {
        #[command(subcommand)]
        command: PositionsCommand,
    },
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
    /// What an outcome is worth here: an operator's signed file.
    Outcome {
        #[command(subcommand)]
        command: OutcomeCommand,
    },
    /// Training sets.
    Features {
        #[command(subcommand)]
        command: FeaturesCommand,
    },
    /// Reports for people.
    Report {
        #[command(subcommand)]
        command: ReportCommand,
    },
    /// Capacity.
    Fleet {
        #[command(subcommand)]
        command: FleetCommand,
    },
    /// What can be read beside Weir's own events: other systems' messages, projected onto the same tables.
    Adapters {
        #[command(subcommand)]
        command: AdaptersCommand,
    },
    /// Check configuration, connections and permissions; says what is wrong and how to mend it.
    Check,
}

#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How long traffic runs, seconds (20 to 3600). Under about 45 the logs are too short to judge a policy by. What follows
    /// takes at most 25 more.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(20..=3600))]
    pub seconds: u64,
    /// Seed of traffic and training. How fast this machine is decides when the policy is taken up.
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

#[derive(Debug, Clone, Args)]
pub struct CompactArgs {
    /// The table; all of them when left out.
    pub table: Option<String>,
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
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
    /// Do not open the HTTP listener. Policies still go to Kafka, where `policy.kafka_topic` is set.
    #[arg(long)]
    pub no_http: bool,
    /// Listener; overrides `http.listen`.
    #[arg(long, conflicts_with = "no_http")]
    pub listen: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Listener; overrides `http.listen`.
    #[arg(long)]
    pub listen: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct BridgeArgs {
    /// Kafka brokers; overrides `kafka.brokers`.
    #[arg(long)]
    pub brokers: Option<String>,
    /// Listener, once or more; overrides `bridge.listen`.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Vec<String>,
    /// Create the bridge's topics where they are missing, with this many partitions.
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub create_topics: Option<i32>,
}

/// Where produced events go.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Sink {
    /// Kafka brokers; topics requests, feedback and gpu_telemetry.
    #[arg(long)]
    pub brokers: Option<String>,
    /// A file of JSON lines, each {"topic", "event"}, which appears when it is whole; - is standard output.
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
    /// Mean request rate over a whole day of event time, per second. A daily cycle makes the rate half of it at 02:00 UTC and
    /// one and a half of it at 14:00.
    #[arg(long, default_value_t = 20.0, value_parser = rate, allow_negative_numbers = true)]
    pub rate: f64,
    /// Length in event time, seconds, up to ten years.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..=315_360_000))]
    pub seconds: u32,
    /// Start in event time, ms since the epoch (default: a fixed day, so that runs repeat).
    #[arg(long, default_value_t = 1_767_225_600_000, value_parser = start_ms())]
    pub start_ms: i64,
}

#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// A trace file or folder (azure-llm, mooncake, servegen), or a score matrix's folder or one of its tables.
    pub path: PathBuf,
    #[command(flatten)]
    pub sink: Sink,
    #[command(flatten)]
    pub topics: Topics,
    /// Insist on a format, which the files' columns show by themselves: azure-llm, mooncake, servegen, score-matrix.
    #[arg(long)]
    pub format: Option<String>,
    /// Seed of what is drawn: servegen's stream, and the play of a score matrix.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Score matrix: passes over its queries (default: 3).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub passes: Option<u32>,
    /// Score matrix: nine models at list prices (main, the default), or six on Natural Questions at the cost paid.
    #[arg(long, value_enum)]
    pub part: Option<MatrixPartName>,
    /// Score matrix: who chooses the models. `uniform` (the default); or `epsilon:SHARE`, which draws a SHARE of the requests
    /// uniformly and gives the others to the model with the best mean score; or `epsilon:SHARE:MODEL`, to that model.
    #[arg(long, value_name = "POLICY")]
    pub logging: Option<LoggingPolicy>,
    /// Trace: 2 halves the gaps between arrivals; tokens stay as they are (default: 1).
    #[arg(long, value_parser = above_zero, allow_negative_numbers = true)]
    pub speed: Option<f64>,
    /// Trace: moment of the first arrival, ms since the epoch (default: the trace's own times, or a fixed day where it has
    /// none).
    #[arg(long, value_parser = start_ms())]
    pub start_ms: Option<i64>,
    /// servegen: the model whose clients are drawn, or `all` for those of every model (default: deepseek-r1).
    #[arg(long)]
    pub model: Option<String>,
    /// servegen: keep each arrival with this probability, so that a stream of billions can be sampled over its whole length
    /// (default: 1).
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    pub keep: Option<f64>,
    /// servegen: start within the published days, seconds (default: 0).
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..=315_360_000))]
    pub from: Option<i64>,
    /// servegen: length of the stream, rounded up to whole windows of 600 s (default: 600).
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=315_360_000))]
    pub seconds: Option<i64>,
    /// Stop after this many events.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MatrixPartName {
    Main,
    Nq,
}

/// Who chooses the models when a score matrix is played.
#[derive(Debug, Clone, PartialEq)]
pub enum LoggingPolicy {
    Uniform,
    /// A uniform draw for this share of the requests, the favourite for the others; none is the best by mean score.
    Epsilon {
        share: f64,
        favourite: Option<String>,
    },
}

impl FromStr for LoggingPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "uniform" {
            return Ok(Self::Uniform);
        }
        let epsilon = text.strip_prefix("epsilon:").and_then(|rest| {
            let (share, favourite) = rest.split_once(':').map_or((rest, None), |(share, model)| (share, Some(model)));
            let share = share.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0)?;
            Some(Self::Epsilon { share, favourite: favourite.map(str::to_owned) })
        });
        // A share of 0 would leave all models but one without a chance, and their worth unknown.
        epsilon.ok_or_else(|| "write uniform, or epsilon:SHARE with a share above 0 and up to 1".to_owned())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = above_zero(text).ok().filter(|rate| *rate <= 100_000.0);
    rate.ok_or_else(|| "give a rate above 0 and up to 100000 per second".to_owned())
}

/// A moment from 1970 to 2100.
fn start_ms() -> clap::builder::RangedI64ValueParser {
    clap::value_parser!(i64).range(0..=4_102_444_800_000)
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

#[derive(Debug, Subcommand)]
pub enum DeadlettersCommand {
    /// How many there are, by topic and reason: replayed or pending, and whether their bytes can still be read.
    List {
        #[command(flatten)]
        filter: LettersArgs,
        /// Only reasons with letters that no replay has dealt with.
        #[arg(long)]
        pending: bool,
    },
    /// One letter.
    Show {
        /// Where its message lies in Kafka.
        #[arg(value_name = "TOPIC/PARTITION/OFFSET", value_parser = weir_ingest::LetterId::from_str)]
        letter: weir_ingest::LetterId,
        /// Print the message itself, which may hold personal data: opened with the key of its day, and escaped. Needs the
        /// keys folder.
        #[arg(long)]
        payload: bool,
        /// Write the message to standard output as it came, and nothing else.
        #[arg(long, requires = "payload", conflicts_with = "json")]
        raw: bool,
    },
    /// After a fix: decode pending letters with the present configuration, and store the rows of those that can be read now,
    /// once. Safe beside `weir run` and beside itself; interrupted, the next one goes on. Needs the keys folder.
    Replay {
        #[command(flatten)]
        filter: LettersArgs,
        /// Say what would happen, and store nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which dead letters are meant.
#[derive(Debug, Clone, Args)]
pub struct LettersArgs {
    /// Of this topic.
    #[arg(long)]
    pub topic: Option<String>,
    /// Whose reason is of this class, for example missing_field.
    #[arg(long)]
    pub class: Option<String>,
    /// Seen since: a day in UTC (2026-11-22), or so long ago (90m, 24h, 7d).
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub since: Option<Since>,
    /// Of this partition.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
}

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// The start of a day in UTC, ms since the Unix epoch.
    At(i64),
    /// So many milliseconds ago.
    Ago(i64),
}

#[derive(Debug, Subcommand)]
pub enum PositionsCommand {
    /// The next offset of each partition, what Kafka holds of it, and whether that is still what comes next.
    List,
    /// Pass over offsets: reading of the partition goes on there, in every table that its topic feeds. Recorded in the table
    /// `ingest_gaps`. Stop `weir run` first: a process that reads the partition meanwhile wins, or is fenced.
    Skip {
        /// The partition.
        #[arg(value_name = "TOPIC/PARTITION", value_parser = weir_ingest::PartitionId::from_str)]
        partition: weir_ingest::PartitionId,
        /// Where reading goes on: an offset that Kafka holds, above the position; its first one; or behind its last one.
        #[arg(long, value_name = "OFFSET|earliest|latest", value_parser = weir_ingest::SkipTo::from_str)]
        to: weir_ingest::SkipTo,
        #[command(flatten)]
        decided: DecidedArgs,
    },
    /// Give up a topic that was deleted and created again, or has moved to another cluster: the new one is read from its
    /// first message, as another topic, whose rows name it TOPIC@2. Rows of the old one stay. Stop `weir run` first.
    Forget {
        /// The topic, as Kafka names it.
        topic: String,
        /// Also where Kafka does not tell the two apart: brokers before 2.8, or a topic that was cut off. What it holds is
        /// read from its first message all the same, under the other name.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        decided: DecidedArgs,
    },
}

/// Who passes over messages, and why.
#[derive(Debug, Clone, Args)]
pub struct DecidedArgs {
    /// Why; kept with the gap.
    #[arg(long)]
    pub reason: Option<String>,
    /// Who decides (default: the user's name).
    #[arg(long)]
    pub actor: Option<String>,
}

fn since(text: &str) -> Result<Since, String> {
    let day = || weir_store::UtcDay::parse(text).map(|day| Since::At(day.start_ms()));
    let ago = || {
        let (number, unit_ms) = match text.char_indices().next_back()? {
            (at, 'm') => (&text[..at], 60_000),
            (at, 'h') => (&text[..at], 3_600_000),
            (at, 'd') => (&text[..at], 86_400_000),
            _ => return None,
        };
        let number = number.parse::<u32>().ok()?;
        i64::from(number).checked_mul(unit_ms).map(Since::Ago)
    };
    day().or_else(ago).ok_or_else(|| "write a day (2026-11-22), or how long ago (90m, 24h, 7d)".to_owned())
}

#[derive(Debug, Clone, Subcommand)]
pub enum FeaturesCommand {
    /// Write the routing decisions of a period with their contexts and outcomes (view `training_examples`) as Parquet.
    Export(ExportArgs),
}

#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// The file to write; one that is there is replaced once the new one is whole.
    #[arg(value_name = "FILE")]
    pub output: PathBuf,
    /// Begin of the period by arrival, UTC: a day, or a day and a time (2026-11-22T08:30).
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    pub from: Option<i64>,
    /// End of the period, not included.
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    pub to: Option<i64>,
    /// Adds a column `split`: `train` for what ended before this moment, `test` for what began at or after it. What may
    /// depend on each other stays together: a session that lies across the moment is in neither, and not written.
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    pub cut: Option<i64>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ReportCommand {
    /// What the workload is: traffic, mix, lengths, models, latency, caches, sessions, and what changed.
    Workload(WorkloadReportArgs),
    /// What models, tools and callers do: reputations, failures and their causes, hand-offs, budgets, pauses, risk.
    Routing(RoutingReportArgs),
}

#[derive(Debug, Clone, Args)]
pub struct WorkloadReportArgs {
    /// Begin of the period by arrival, UTC: a day, or a day and a time (2026-11-22T08:30); the oldest summary when left out.
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    pub from: Option<i64>,
    /// End of the period, not included; the newest summary when left out.
    #[arg(long, value_name = "TIME", value_parser = moment_ms)]
    pub to: Option<i64>,
    /// Objective for the time to first token, ms.
    #[arg(long, default_value_t = 2000.0)]
    pub ttft_ms: f64,
    /// Objective for a request's mean time per output token, ms.
    #[arg(long, default_value_t = 100.0)]
    pub tpot_ms: f64,
    #[command(flatten)]
    pub page: PageArgs,
}

#[derive(Debug, Clone, Args)]
pub struct RoutingReportArgs {
    /// What a failure of this class costs beside others (time_out=2); 1 when left out. Give it again for other classes.
    #[arg(long = "weight", value_name = "CLASS=NUMBER", value_parser = weight)]
    pub weights: Vec<(String, f64)>,
    #[command(flatten)]
    pub page: PageArgs,
}

/// How a report is written.
#[derive(Debug, Clone, Args)]
pub struct PageArgs {
    /// Markdown, or one HTML page with charts.
    #[arg(long, value_enum, default_value_t = ReportFormat::Markdown)]
    pub format: ReportFormat,
    /// Write to this file in place of standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    Markdown,
    Html,
}

/// A day, or a day and a time to the minute, in UTC; ms since the Unix epoch.
fn moment_ms(text: &str) -> Result<i64, String> {
    let parsed = || {
        let (day, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
        let (hour, minute) = time.trim_end_matches('Z').split_once(':')?;
        let part = |text: &str, below: i64| {
            let number = text.parse::<i64>().ok().filter(|number| (0..below).contains(number))?;
            (text.len() == 2).then_some(number)
        };
        let minutes = part(hour, 24)? * 60 + part(minute, 60)?;
        Some(weir_store::UtcDay::parse(day)?.start_ms() + minutes * 60_000)
    };
    parsed().ok_or_else(|| "write a day (2026-11-22), or a day and a time in UTC (2026-11-22T08:30)".to_owned())
}

#[derive(Debug, Clone, Subcommand)]
pub enum OutcomeCommand {
    /// Check a file and sign it; the signature lies beside it.
    Sign {
        /// TOML: `[weights]` of quality, usd, latency_s, hallucination, unsafe and energy_wh, `[guardrails]` of the same, `margin`.
        file: PathBuf,
        /// Signing key written by `weir policy keygen`.
        #[arg(long)]
        key: PathBuf,
    },
    /// What a file says, and which trusted key signed it.
    Show { file: PathBuf },
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
    /// Where the active policy comes from: the URL of a Weir, or a bundle's folder or tar.
    #[arg(long, default_value = "http://127.0.0.1:8077")]
    pub policy: String,
    /// Folder of trusted public keys; overrides `policy.trusted_keys`.
    #[arg(long)]
    pub trusted_keys: Option<PathBuf>,
    /// File to which decisions are logged, as JSON lines (standard output when left out).
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Secret salt of the session-sticky draw, the same on every replica (`openssl rand -hex 16` makes one). Left out, the
    /// process makes its own, and no other replica draws as it does.
    #[arg(long)]
    pub salt: Option<String>,
    /// Explore with this tenant's sessions, by the policy's own probabilities, until that is expected to have cost LOSS today, in units
    /// of the policy's utility. Once for each tenant; * is each one that is not named. TENANT/DOMAIN has a budget of its own, 0 for none.
    /// Without it every decision takes what looks best, and the logs cannot judge another policy.
    #[arg(long, value_name = "TENANT[/DOMAIN]=LOSS")]
    pub explore: Vec<String>,
    /// Of requests that seek facts, keep models away that are shown to hallucinate in more than this share of answers on the
    /// subject, by the policy's table of reputations (above 0 and up to 1).
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub hallucination_max: Option<f64>,
    /// Say with each decision whether its answer is worth checking, so that about this share of answers is: those first whose
    /// checks find most, by the policy's table, and one in twenty of the others (above 0 and up to 1).
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub check: Option<f64>,
}

#[derive(Debug, Subcommand)]
pub enum AdaptersCommand {
    /// Every adapter with the tables that it fills.
    List,
    /// One adapter: the fields that it reads, and its SQL.
    Show { name: String },
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Every policy with its state.
    List,
    /// One policy: lineage, metrics, report, history.
    Show { policy: String },
    /// What differs between two policies.
    Diff { left: String, right: String },
    /// Check content, hash and signature of a bundle's folder or tar, or of a stored policy.
    Verify { policy: String },
    /// Accept a policy and make it the active one.
    Approve(ApproveArgs),
    /// Turn a policy down.
    Reject(DecisionArgs),
    /// Withdraw the active policy and go back to the one before it.
    Rollback {
        /// The policy to withdraw (default: the one that is active). Named, the command changes nothing when it is sent
        /// twice.
        policy: Option<String>,
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
}

#[derive(Debug, Clone, Args)]
pub struct ApproveArgs {
    #[command(flatten)]
    pub decision: DecisionArgs,
    /// Approve although the report does not say "better", or although it was rolled back before; needs a reason.
    #[arg(long)]
    pub force: bool,
    /// Approve only if this policy is the active one (`none`: if none is).
    #[arg(long, value_name = "POLICY")]
    pub over: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// How many GPUs the observed workload needs, with one pool and with two.
    Recommend(RecommendArgs),
    /// For how long engines should keep the blocks of prompts whose sessions pause, learned and tried on observed requests.
    Retention(RetentionArgs),
}

#[derive(Debug, Clone, Args)]
pub struct RetentionArgs {
    /// Blocks of the prefix cache of a pool, all instances together, as the engines say at their start.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub blocks: u64,
    /// Share of the blocks that may be pinned. With more of them, more is won where the past tells of the future, and lost where
    /// it does not.
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    pub pinned: f64,
    /// Learn from the first SHARE of the time, and try on the rest.
    #[arg(long, default_value_t = 0.5, value_name = "SHARE", value_parser = share)]
    pub learn: f64,
    /// Only this model's requests; the one with most blocks when left out. Models share no blocks.
    #[arg(long)]
    pub model: Option<String>,
    /// Only this pool's requests; all pools as one when left out.
    #[arg(long)]
    pub pool: Option<String>,
    /// Look at the last HOURS of the observed event time.
    #[arg(long, default_value_t = 24, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=960))]
    pub hours: u32,
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
    /// 95th percentile of the time from arrival to the last token, ms; no objective when left out.
    #[arg(long)]
    pub e2e_ms: Option<f64>,
    /// Share of time that one instance is up (0.5 to 1); spares are added so that enough are up 99.9 % of the time.
    #[arg(long, default_value_t = 1.0)]
    pub availability: f64,
    /// Only this model's requests. The GPU profile decides which model is sized; this decides whose traffic it gets.
    #[arg(long)]
    pub model: Option<String>,
    /// Look at the last HOURS of the observed event time.
    #[arg(long, default_value_t = 168, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=960))]
    pub hours: u32,
    /// Multiply the observed arrival rate.
    #[arg(long, default_value_t = 1.0, value_parser = above_zero, allow_negative_numbers = true)]
    pub scale: f64,
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
}

/// A class of failure and its weight.
fn weight(text: &str) -> Result<(String, f64), String> {
    let (class, number) = text.split_once('=').ok_or("give a class and a number, like time_out=2")?;
    let number = number.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    Ok((class.to_owned(), number.ok_or("the weight must be a number from 0")?))
}

/// A probability of something that can happen.
fn share(text: &str) -> Result<f64, String> {
    let share = above_zero(text).ok().filter(|share| *share <= 1.0);
    share.ok_or_else(|| "give a share above 0 and up to 1".to_owned())
}

fn share_below_one(text: &str) -> Result<f64, String> {
    let share = share(text).ok().filter(|share| *share < 1.0);
    share.ok_or_else(|| "give a share above 0 and below 1".to_owned())
}

fn share_from_zero(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "give a share from 0 to 1".to_owned())
}

/// A price: what an outcome may weigh.
fn price(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=WEIGHT_MAX).contains(number));
    number.ok_or_else(|| format!("give a number from 0 to {WEIGHT_MAX}"))
}

/// A factor: a number that is finite and above zero.
fn above_zero(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("it must be finite and above zero".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{LoggingPolicy, Since, since};

    #[test]
    fn no_two_options_of_a_command_share_a_name() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn since_is_a_day_or_so_long_ago() {
        // `date -u -d 2026-11-22 +%s` is 1795305600.
        assert_eq!(since("2026-11-22"), Ok(Since::At(1_795_305_600_000)));
        assert_eq!(since("90m"), Ok(Since::Ago(5_400_000)));
        assert_eq!(since("24h"), since("1d"));
        for wrong in ["", "h", "-1h", "1w", "2026-02-31", "99999999999d", "é"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_logging_policy_says_its_share_and_may_say_its_favourite() {
        let epsilon =
            |share, favourite: Option<&str>| LoggingPolicy::Epsilon { share, favourite: favourite.map(Into::into) };
        assert_eq!("uniform".parse(), Ok(LoggingPolicy::Uniform));
        assert_eq!("epsilon:0.2".parse(), Ok(epsilon(0.2, None)));
        assert_eq!("epsilon:1:google/gemma-2-27b-it".parse(), Ok(epsilon(1.0, Some("google/gemma-2-27b-it"))));
        for wrong in ["greedy", "epsilon", "epsilon:0", "epsilon:1.5", "epsilon:NaN"] {
            assert!(wrong.parse::<LoggingPolicy>().is_err(), "{wrong}");
        }
    }
}
