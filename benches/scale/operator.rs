//! The operator as a process of ours.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Args, Result};

/// A running operator. It is killed where nobody stops it.
pub struct Operator {
    process: Child,
    probes: SocketAddr,
    metrics: SocketAddr,
    started: Instant,
}

/// What it has used since it started, or between two looks.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Time on a core, of all its threads.
    pub cpu: Duration,
    /// Reconciles of all kinds.
    pub reconciles: f64,
}

impl Usage {
    /// What was used in between.
    pub fn since(&self, before: &Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), reconciles: self.reconciles - before.reconciles }
    }
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub now: u64,
    pub peak: u64,
}

const LOG: &str = "target/bench-operator.log";

/// How often is looked whether something holds.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What time on a core in between is more than that of a thread which only answers.
const MUCH: Duration = Duration::from_millis(1);

impl Operator {
    /// Starts one.
    pub fn start(args: &Args) -> Result<Self> {
        // The ports are free again when the listeners are dropped, which is when both are known.
        let [probes, metrics] = {
            let free = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
            [free[0].local_addr()?, free[1].local_addr()?]
        };
        let log = File::options().create(true).append(true).open(LOG)?;
        let started = Instant::now();
        let process = Command::new(&args.operator)
            .args(["run", "--helper-mount=image", "--log-format=json"])
            .arg(format!("--helper-image={}", args.image))
            .args([format!("--listen={metrics}"), format!("--probes-listen={probes}")])
            .env("KUBECONFIG", &args.operator_kubeconfig)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { process, probes, metrics, started })
    }

    /// Waits until its caches are filled.
    pub async fn ready(&self, patience: Duration) -> Result<()> {
        self.until("the operator's caches are filled", patience, |operator| {
            Ok(get(operator.probes, "/readyz").is_ok_and(|answer| answer.contains(" 200 ")))
        })
        .await
    }

    /// Waits until it has looked at so many Sandboxes since it started, and tells how long that took, and what time on a core. What its
    /// metrics say is up to a second old; so it was over when the worker last had much to do before they said it.
    pub async fn reconciled(&self, sandboxes: usize, patience: Duration) -> Result<(Duration, Duration)> {
        self.ready(patience).await?;
        #[expect(clippy::cast_precision_loss, reason = "there are few sandboxes")]
        let all = sandboxes as f64;
        let (worked, over) = (Cell::new(Duration::ZERO), Cell::new((Duration::ZERO, Duration::ZERO)));
        let looked = |operator: &Self| {
            let now = thread_cpu(&operator.threads().join(operator.process.id().to_string()))?;
            if now.saturating_sub(worked.replace(now)) > MUCH {
                over.set((operator.started.elapsed(), operator.cpu()?));
            }
            Ok(operator.reconciles("sandbox")? >= all)
        };
        self.until("all Sandboxes are reconciled", patience, looked).await?;
        Ok(over.get())
    }

    async fn until(&self, what: &str, patience: Duration, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !holds(self)? {
            if Instant::now() > deadline {
                return Err(format!("waited {} s in vain until {what}; see {LOG}", patience.as_secs()).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// What it has used since it started.
    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage { cpu: self.cpu()?, reconciles: self.reconciles("sandbox")? + self.reconciles("session")? })
    }

    /// How many Sandboxes it knows in this phase.
    pub fn sandboxes(&self, phase: &str) -> Result<f64> {
        self.metric("aigise_objects{", &["kind=\"Sandbox\"", &format!("phase=\"{phase}\"")])
    }

    /// How many sessions it knows in this phase.
    pub fn sessions(&self, phase: &str) -> Result<f64> {
        self.metric("aigise_objects{", &["kind=\"AigiseSession\"", &format!("phase=\"{phase}\"")])
    }

    fn reconciles(&self, controller: &str) -> Result<f64> {
        self.metric("aigise_reconciles_total{", &[&format!("controller=\"{controller}\"")])
    }

    /// The sum of the metrics that begin like this and have these labels.
    fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = get(self.metrics, "/metrics")?;
        let ours =
            text.lines().filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        ours.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?)).sum()
    }

    /// Time on a core, to the nanosecond; threads that have ended are not in it, and the operator's do not end.
    fn cpu(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for thread in fs::read_dir(self.threads())? {
            sum += thread_cpu(&thread?.path())?;
        }
        Ok(sum)
    }

    fn threads(&self) -> PathBuf {
        format!("/proc/{}/task", self.process.id()).into()
    }

    /// Its memory.
    pub fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
            Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
        };
        Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(self) -> Result<()> {
        kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        let wait = move || {
            let mut operator = self;
            operator.process.wait()
        };
        let ended = tokio::task::spawn_blocking(wait).await??;
        if ended.success() { Ok(()) } else { Err(format!("the operator ended with {ended}; see {LOG}").into()) }
    }
}

impl Drop for Operator {
    /// One that went on would be a second operator in the next run.
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

fn thread_cpu(thread: &Path) -> Result<Duration> {
    let text = fs::read_to_string(thread.join("schedstat"))?;
    Ok(Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?))
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
