//! What many sandboxes cost the operator, against its budgets: `make bench BENCH=scale`.
//!
//! API server, scheduler and operator are real; nodes and Pods are played by kwok, so that one machine holds thousands. The
//! operator is the release binary, run here as a process with the rights of its own service account: what it uses is read
//! from `/proc`, how often it looked from its metrics, and what it wrote from the API server's audit log.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

mod scale {
    pub mod audit;
    pub mod cluster;
    pub mod operator;
    pub mod verdict;
}

use std::{error::Error, path::PathBuf, time::Duration};

use clap::Parser;
use jiff::Timestamp;

use self::scale::{
    audit::{Audit, Window},
    cluster::{Cluster, Namespace},
    operator::{Operator, Usage},
    verdict::{Verdicts, quantile},
};

type Failed = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failed>;

/// Counts and times what many sandboxes cost, on the cluster of KUBECONFIG, on which the chart is installed and no operator runs.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// How many sandboxes there are when it matters how many there are.
    #[arg(long, default_value_t = 2000)]
    many: usize,

    /// And when there are few.
    #[arg(long, default_value_t = 100)]
    few: usize,

    /// How many sandboxes are made to see what one costs, among few and among many.
    #[arg(long, default_value_t = 200)]
    batch: usize,

    /// How many of these are made in a second.
    #[arg(long, default_value_t = 20)]
    rate: usize,

    /// How many sessions of three sandboxes are made.
    #[arg(long, default_value_t = 20)]
    sessions: usize,

    /// How many objects of each kind are made that are too large to be read, and half as many that are just not.
    #[arg(long, default_value_t = 100)]
    large: usize,

    /// How often the operator is started again.
    #[arg(long, default_value_t = 5)]
    restarts: usize,

    /// For how many seconds nothing happens.
    #[arg(long, default_value_t = 60)]
    steady: u64,

    /// The operator's release binary.
    #[arg(long, default_value = "target/x86_64-unknown-linux-gnu/release/aigise-operator")]
    operator: PathBuf,

    /// A kubeconfig with the operator's own rights.
    #[arg(long)]
    operator_kubeconfig: PathBuf,

    /// The user of the operator in the audit log.
    #[arg(long, default_value = "system:serviceaccount:aigise-system:aigise-operator")]
    user: String,

    /// A command that prints the API server's audit log.
    #[arg(long, value_delimiter = ' ', required = true)]
    audit: Vec<String>,

    /// A command that makes every watch begin anew, by a restart of the API server for instance.
    #[arg(long, value_delimiter = ' ')]
    relist: Vec<String>,

    /// The program that plays nodes and Pods.
    #[arg(long)]
    kwok: PathBuf,

    /// What it plays.
    #[arg(long, default_value = "tests/kind/kwok/stages.yaml")]
    stages: PathBuf,

    /// The image of all sandboxes; nobody pulls it.
    #[arg(long, default_value = "localhost/aigise-operator:dev")]
    image: String,

    /// How many seconds any one thing may take.
    #[arg(long, default_value_t = 600)]
    patience: u64,

    /// `cargo bench` says so.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut cluster = Cluster::prepare(&args).await?;
    let mut verdicts = Verdicts::default();
    let result = tokio::select! {
        result = measure(&args, &cluster, &mut verdicts) => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    let left = cluster.leave().await;
    verdicts.print(); // also what was measured before something failed
    result.and(left)?;
    verdicts.outcome()
}

/// The whole story.
async fn measure(args: &Args, cluster: &Cluster, verdicts: &mut Verdicts) -> Result<()> {
    let operator = Operator::start(args)?;
    operator.ready(cluster.patience()).await?;

    let crowd = cluster.namespace("crowd").await?;
    say("few");
    let few = Measured::around(args, &operator, crowd.fill(0, args.few, None, &operator)).await?;
    drop(few); // what runs for the first time costs more
    say("a batch among few");
    let batch = cluster.namespace("first").await?;
    let among_few = Measured::around(args, &operator, batch.fill(0, args.batch, Some(args.rate), &operator)).await?;
    cluster.delete(batch).await?;
    say("many");
    let bulk = args.many.saturating_sub(args.few);
    let bulk_cost = Measured::around(args, &operator, crowd.fill(args.few, bulk, None, &operator)).await?;
    say("a batch among many");
    let batch = cluster.namespace("second").await?;
    let among_many = Measured::around(args, &operator, batch.fill(0, args.batch, Some(args.rate), &operator)).await?;
    cluster.delete(batch).await?;

    creation(verdicts, &format!("{bulk} at once"), bulk, &bulk_cost);
    creation(verdicts, &format!("{} a second, {} there already", args.rate, args.many), args.batch, &among_many);
    latency(verdicts, &among_many);
    comparison(verdicts, args, &among_few, &among_many);

    say("nothing");
    let still = Measured::around(args, &operator, async {
        tokio::time::sleep(Duration::from_secs(args.steady)).await;
        Ok(())
    });
    let still = still.await?;
    let what = format!("{} s with {} sandboxes in which nothing happens", args.steady, args.many);
    verdicts.count(&format!("{what}: writes"), 0.0, still.writes());
    verdicts.note(&format!("{what}: CPU"), milliseconds(still.usage.cpu));
    verdicts.note(&format!("{what}: reconciles"), format!("{:.0}", still.usage.reconciles));
    verdicts.note("memory after all this, now and at most", memory(&operator)?);

    if !args.relist.is_empty() {
        say("every list anew");
        let relist = Measured::around(args, &operator, cluster.relist(now())).await?;
        verdicts.note("lists after the API server's restart", format!("{}", relist.audit.lists));
        verdicts.count("these lists: writes", 0.0, relist.writes());
        verdicts.note("these lists: reconciles", format!("{:.0}", relist.usage.reconciles));
    }
    operator.stop().await?;

    restarts(args, &crowd, verdicts).await?;
    Box::pin(large(args, cluster, verdicts)).await?;
    if args.sessions > 0 {
        Box::pin(sessions(args, cluster, verdicts)).await?;
    }
    Ok(())
}

/// What the operator did and used while something was done.
struct Measured {
    usage: Usage,
    audit: Audit,
    took: Duration,
}

impl Measured {
    /// Measures from just before to a little after, when late writes are through.
    async fn around(args: &Args, operator: &Operator, work: impl Future<Output = Result<()>>) -> Result<Self> {
        let (before, from) = (operator.usage()?, now());
        work.await?;
        let took = now().duration_since(from).try_into()?;
        tokio::time::sleep(SETTLED).await;
        let usage = operator.usage()?.since(&before);
        let audit = Audit::read(args, Window { from, until: now() })?;
        Ok(Self { usage, audit, took })
    }

    #[expect(clippy::cast_precision_loss, reason = "there are few writes")]
    fn writes(&self) -> f64 {
        self.audit.writes() as f64
    }
}

/// A status that has to wait its turn is written within this time.
const SETTLED: Duration = Duration::from_secs(3);

#[expect(clippy::cast_precision_loss, reason = "there are few sandboxes")]
fn creation(verdicts: &mut Verdicts, how: &str, count: usize, measured: &Measured) {
    let each = count as f64;
    verdicts.note(&format!("cold sandboxes, {how}: all Ready after"), seconds(measured.took));
    verdicts.count(&format!("cold sandboxes, {how}: writes for each"), 3.0, measured.writes() / each);
    verdicts.count(&format!("cold sandboxes, {how}: events for each"), 2.0, measured.audit.events as f64 / each);
    verdicts.count(&format!("cold sandboxes, {how}: reconciles for each"), 4.0, measured.usage.reconciles / each);
    let cpu = measured.usage.cpu.div_f64(each.max(1.0));
    verdicts.time(&format!("cold sandboxes, {how}: CPU for each"), Duration::from_millis(2), cpu);
}

fn latency(verdicts: &mut Verdicts, measured: &Measured) {
    let (millis, lags) = (Duration::from_millis, &measured.audit.lags);
    let of = |part: fn(&scale::audit::Lag) -> Duration| lags.iter().map(part).collect::<Vec<_>>();
    let (asked, done) = (of(|lag| lag.asked), of(|lag| lag.done));
    verdicts.time("Pod Ready → the operator asks to write, median", millis(4), quantile(&asked, 50));
    verdicts.time("Pod Ready → the operator asks to write, p99", millis(20), quantile(&asked, 99));
    verdicts.note("Pod Ready → Sandbox Ready is written, median", milliseconds(quantile(&done, 50)));
    verdicts.note("Pod Ready → Sandbox Ready is written, p99", milliseconds(quantile(&done, 99)));
}

/// What one costs among many, against what it costs among few.
fn comparison(verdicts: &mut Verdicts, args: &Args, few: &Measured, many: &Measured) {
    let what = |what: &str| format!("cost of one among {} to one among {}: {what}", args.many, args.few);
    verdicts.count(&what("writes"), 1.1, many.writes() / few.writes());
    verdicts.count(&what("reconciles"), 1.1, many.usage.reconciles / few.usage.reconciles);
    verdicts.ratio(&what("CPU"), 1.1, many.usage.cpu.as_secs_f64() / few.usage.cpu.as_secs_f64());
}

/// Starts the operator again and again where everything is as it should be.
#[expect(clippy::cast_precision_loss, reason = "there are few sandboxes")]
async fn restarts(args: &Args, crowd: &Namespace, verdicts: &mut Verdicts) -> Result<()> {
    let (mut times, mut cpus, mut memories, mut peaks, mut writes, mut reconciles) =
        (vec![], vec![], vec![], vec![], 0, 0.0_f64);
    for round in 0..args.restarts {
        say(&format!("restart {round}"));
        let (from, operator) = (now(), Operator::start(args)?);
        let (took, cpu) = operator.reconciled(args.many, crowd.patience()).await?;
        tokio::time::sleep(SETTLED).await;
        let usage = operator.usage()?;
        times.push(took);
        cpus.push(cpu);
        memories.push(operator.memory()?.now);
        peaks.push(operator.memory()?.peak);
        reconciles = reconciles.max(usage.reconciles / args.many as f64);
        operator.stop().await?;
        writes += Audit::read(args, Window { from, until: now() })?.writes();
    }
    let what = |what: &str| format!("restart with {}: {what}", args.many);
    let median = |of: &[Duration]| quantile(of, 50);
    verdicts.time(&what("all are reconciled after"), Duration::from_millis(1100), median(&times));
    verdicts.time(&what("CPU until then"), Duration::from_millis(300), median(&cpus));
    memories.sort_unstable();
    peaks.sort_unstable();
    verdicts.megabytes(&what("memory, a little later"), 40, memories[memories.len() / 2]);
    verdicts.megabytes(&what("memory, at most"), 40, peaks[peaks.len() / 2]);
    verdicts.count(&what(&format!("writes, in all {} restarts", args.restarts)), 0.0, writes as f64);
    verdicts.count(&what("reconciles of each"), 1.1, reconciles);
    Ok(())
}

/// Starts the operator beside objects at its limits, and others that it cannot read: what they take of its memory, and that it works.
async fn large(args: &Args, cluster: &Cluster, verdicts: &mut Verdicts) -> Result<()> {
    if args.large == 0 {
        return Ok(());
    }
    say("large objects");
    for kind in ["sandboxes", "aigisesessions", "agents"] {
        // A namespace for each: together they would be more than is kept of one.
        cluster.namespace("large").await?.large(kind, args.large).await?;
    }
    let operator = Operator::start(args)?;
    operator.ready(cluster.patience()).await?;
    let other = cluster.namespace("other").await?;
    other.fill(0, 1, None, &operator).await?;
    tokio::time::sleep(SETTLED).await;
    let what = format!(
        "start with {} sandboxes, of each kind {} objects at the limits and {} of 1.4 MB",
        args.many,
        args.large / 2,
        args.large
    );
    verdicts.megabytes(&format!("{what}: memory, at most"), 96, operator.memory()?.peak);
    if !args.relist.is_empty() {
        cluster.relist(now()).await?;
        verdicts.megabytes("the same after everything was listed again", 96, operator.memory()?.peak);
    }
    operator.stop().await
}

/// Sessions of three sandboxes, whose claims are bound at once.
#[expect(clippy::cast_precision_loss, reason = "there are few sessions")]
async fn sessions(args: &Args, cluster: &Cluster, verdicts: &mut Verdicts) -> Result<()> {
    say("sessions");
    let operator = Operator::start(args)?;
    operator.reconciled(args.many, cluster.patience()).await?;
    let namespace = cluster.namespace("sessions").await?;
    let measured = Measured::around(args, &operator, Box::pin(namespace.sessions(args.sessions, &operator))).await?;
    let each = args.sessions as f64;
    let what = |what: &str| format!("a session of three sandboxes, without sources: {what}");
    verdicts.count(&what("writes"), 28.0, measured.writes() / each);
    verdicts.note(&what("events"), format!("{:.1}", measured.audit.events as f64 / each));
    verdicts.note(&what("reconciles, of it and its sandboxes"), format!("{:.1}", measured.usage.reconciles / each));
    verdicts.note(&what("CPU"), milliseconds(measured.usage.cpu.div_f64(each)));
    operator.stop().await
}

fn memory(operator: &Operator) -> Result<String> {
    let memory = operator.memory()?;
    Ok(format!("{} MB, {} MB", memory.now / 1_000_000, memory.peak / 1_000_000))
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// The time of the machine, which is the API server's, too, where it runs on the same.
#[expect(clippy::disallowed_methods, reason = "to find our part of the audit log")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[expect(clippy::print_stderr, reason = "progress is not part of the report")]
fn say(what: &str) {
    eprintln!("{} {what}", now().strftime("%T"));
}
