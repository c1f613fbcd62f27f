//! How long a session takes from apply to Ready, against Pods that get as far without an operator: `make bench`.
//!
//! Everything is timed by this process's clock, when a watch tells it: the times in objects are whole seconds. All arms take
//! turns in every round, so that what else the machine does meets them alike, and each starts when the one before has left
//! nothing behind, its volumes included.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

mod startup {
    pub mod arms;
    pub mod cache;
    pub mod cost;
    pub mod marks;
    pub mod pull;
    pub mod rest;
}

use std::{collections::BTreeMap, error::Error, time::Duration};

use clap::{Parser, ValueEnum};

use self::startup::{
    arms::{Arm, Ground},
    cache,
    cost::{self, Cost},
    marks::{Mark, Marks, Object},
    pull, rest,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Times sessions against bare Pods on the cluster of KUBECONFIG, on which the operator is installed.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// How often each arm is timed. One more round before these fills caches and is forgotten.
    #[arg(long, default_value_t = 10)]
    rounds: usize,

    /// Print what one session does when, instead of comparing.
    #[arg(long)]
    breakdown: bool,

    /// Time only these sessions.
    #[arg(long)]
    only: Option<Only>,

    /// The image of all sandboxes and bare Pods; it has to be on the node.
    #[arg(long, default_value = "localhost/aigise-operator:dev")]
    image: String,

    /// An image with a shell, for what fills a volume; it has to be on the node.
    #[arg(long, default_value = "localhost/aigise-e2e:dev")]
    tools: String,

    /// What keeps a bare Pod of this image running.
    #[arg(long, value_delimiter = ' ', default_value = "/sandboxd idle")]
    idle: Vec<String>,

    /// What ends a bare Pod of this image at once, and well.
    #[arg(long, value_delimiter = ' ', default_value = "/aigise-operator --version")]
    end: Vec<String>,

    /// The operator's Service, as namespace/name:port, for its metrics.
    #[arg(long, default_value = "aigise-system/aigise-operator:8080")]
    metrics: String,

    /// A command that prints the API server's audit log, for counting writes.
    #[arg(long, value_delimiter = ' ')]
    audit: Vec<String>,

    /// The user of the operator in the audit log.
    #[arg(long, default_value = "system:serviceaccount:aigise-system:aigise-operator")]
    user: String,

    /// How many seconds any one thing may take.
    #[arg(long, default_value_t = 90)]
    patience: u64,

    /// `cargo bench` says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is timed alone.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Only {
    /// Sessions whose image is pulled while their volumes are filled.
    Pull,
    /// Sessions that start from caches.
    Cache,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let ground = Ground::prepare(args.clone()).await?;
    let work = async {
        match &args {
            Args { breakdown: true, .. } => breakdown(&ground).await,
            Args { only: Some(Only::Pull), .. } => pull::print(&ground).await,
            Args { only: Some(Only::Cache), .. } => cache::print(&ground).await,
            _ => compare(&ground).await,
        }
    };
    let result = tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    let left = ground.leave().await;
    result.and(left)
}

/// One session after the other, as a time line.
async fn breakdown(ground: &Ground) -> Result<()> {
    for round in 0..=ground.args.rounds {
        for arm in [Arm::EmptySession, Arm::SourcedSession, Arm::SingleSession, Arm::SourcedSingle] {
            let name = format!("{}-{round}", arm.name());
            ground.run(arm, &name).await?;
            if round > 0 {
                println!("\n{} ({name}), seconds since apply, and since the line before:", arm.label());
                timeline(&ground.marks, &name);
            }
            ground.clear().await?;
        }
    }
    Ok(())
}

fn timeline(marks: &Marks, name: &str) {
    let all = marks.of(name);
    let Some(start) = all.first().map(|(at, ..)| *at) else { return };
    let mut before = start;
    for (at, object, what) in all {
        let (since, gap) = ((at - start).as_secs_f64(), (at - before).as_secs_f64());
        println!("{since:7.3} {gap:+7.3}  {object} {what}");
        before = at;
    }
}

/// What is held against what. Content needs a Pod that puts it there, with or without an operator.
const PAIRS: [(Arm, Arm); 9] = [
    (Arm::SingleSession, Arm::OneClaim),
    (Arm::SourcedSingle, Arm::OneClaim),
    (Arm::EmptySession, Arm::OneClaim),
    (Arm::EmptySession, Arm::ThreeClaims),
    (Arm::SourcedSession, Arm::OneClaim),
    (Arm::SourcedSession, Arm::ThreeClaims),
    (Arm::SourcedSession, Arm::StagedClaims),
    (Arm::GatedSession, Arm::EmptySession),
    (Arm::EightSandboxes, Arm::EightPods),
];

const REACTION: &str = "of 3., until the operator asks to write (audit log)";

/// All arms in turn, and the tables.
async fn compare(ground: &Ground) -> Result<()> {
    let mut times: BTreeMap<Arm, Vec<Duration>> = BTreeMap::new();
    let mut from_node: BTreeMap<Arm, Vec<Duration>> = BTreeMap::new();
    let mut lags: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let mut costs: BTreeMap<Arm, Cost> = BTreeMap::new();
    for round in 0..=ground.args.rounds {
        for turn in 0..Arm::ALL.len() {
            let arm = Arm::ALL[(turn + round) % Arm::ALL.len()];
            let name = format!("{}-{round}", arm.name());
            let (took, cost) = Cost::around(ground, arm, &name).await?;
            if round > 0 {
                times.entry(arm).or_default().push(took);
                from_node.entry(arm).or_default().extend(ground.marks.since_first_node(&name));
                costs.entry(arm).or_default().add(&cost);
                for (lag, from, to) in own_lags(arm, &name) {
                    lags.entry(lag).or_default().extend(ground.marks.between(&from, &to));
                }
            }
            ground.clear().await?;
        }
        eprint_round(round);
    }
    println!("\n## From the first write to Ready");
    print_times(&times);
    println!("\n## The same, from when the first Pod has its node: without the wait for the volumes");
    print_times(&from_node);
    for (arm, cost) in costs.iter_mut().filter(|(_, cost)| cost.is_counted()) {
        cost.read_audit(ground)?;
        if !arm.is_crowd() {
            lags.entry(REACTION).or_default().extend(cost.reactions());
        }
    }
    println!("\n## The operator's own part, from one watch event to the next\n");
    print_rows("from → to", lags.iter().map(|(lag, of)| (*lag, of.as_slice())));
    for (arm, cost) in costs.iter().filter(|(_, cost)| cost.is_counted()) {
        cost.print(*arm);
    }
    pull::print(ground).await?;
    cost::print_sizes();
    rest::print().await
}

#[expect(clippy::print_stderr, reason = "progress is not part of the report")]
fn eprint_round(round: usize) {
    eprintln!("round {round} is done");
}

/// What the operator does between two things, or after the cluster did one.
fn own_lags(arm: Arm, name: &str) -> Vec<(&'static str, Mark, Mark)> {
    if arm.is_crowd() {
        return vec![];
    }
    let pod = Object::pod(&format!("{name}--main"));
    let stage = Object::pod(&format!("{name}--stage"));
    let (session, sandbox) = (Object::session(name), Object::sandbox(&format!("{name}--main")));
    let first = if matches!(arm, Arm::SourcedSession | Arm::SourcedSingle) { &stage } else { &pod };
    // What is between the two is the kubelet's probing, and a step that takes no time.
    let runs = if arm == Arm::GatedSession {
        "container runs → Pod Ready, with a step"
    } else {
        "container runs → Pod Ready, without one"
    };
    vec![
        ("1. session created → its first Pod created", (session.clone(), "created"), (first.clone(), "created")),
        ("2. stage Pod ended → sandbox's Pod created", (stage, "ended"), (pod.clone(), "created")),
        (runs, (pod.clone(), "runs"), (pod.clone(), "Ready")),
        ("3. Pod Ready → Sandbox Ready", (pod, "Ready"), (sandbox.clone(), "Ready")),
        ("4. Sandbox Ready → session Ready", (sandbox, "Ready"), (session, "Ready")),
    ]
}

fn print_times(times: &BTreeMap<Arm, Vec<Duration>>) {
    println!();
    print_rows("arm", times.iter().map(|(arm, of)| (arm.label(), of.as_slice())));
    println!("\n| session | against | ratio of medians |\n|---|---|---|");
    for (session, pod) in PAIRS {
        if let (Some(session_times), Some(pod_times)) = (times.get(&session), times.get(&pod)) {
            let ratio = quantile(session_times, 50).as_secs_f64() / quantile(pod_times, 50).as_secs_f64();
            println!("| {} | {} | {ratio:.2} |", session.label(), pod.label());
        }
    }
}

fn print_rows<'a>(title: &str, rows: impl Iterator<Item = (&'a str, &'a [Duration])>) {
    println!("| {title} | median | p90 | min | max |\n|---|---|---|---|---|");
    for (label, times) in rows {
        let cells = [50, 90, 0, 100].map(|percent| format!("{:.3} s", quantile(times, percent).as_secs_f64()));
        println!("| {label} | {} |", cells.join(" | "));
    }
}

/// The time that so many percent of all do not exceed.
fn quantile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}
