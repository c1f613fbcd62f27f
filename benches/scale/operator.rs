//! The operator as a process of ours.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Args, Result};

/// A running operator. It is killed where nobody stops it.
pub struct Operator {
    process: Child,
    address: SocketAddr,
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

impl Operator {
    /// Starts one.
    pub fn start(args: &Args) -> Result<Self> {
        // The port is free again when the listener is dropped, which is at the end of this statement.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = File::options().create(true).append(true).open(LOG)?;
        let started = Instant::now();
        let process = Command::new(&args.operator)
            .args(["run", "--helper-mount=image", "--log-format=json"])
            .args([format!("--helper-image={}", args.image), format!("--listen={address}")])
            .env("KUBECONFIG", &args.operator_kubeconfig)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { process, address, started })
    }

    /// Waits until its caches are filled.
    pub async fn ready(&self, patience: Duration) -> Result<()> {
        self.until("the operator's caches are filled", patience, |operator| {
            Ok(operator.get("/readyz").is_ok_and(|answer| answer.contains(" 200 ")))
        })
        .await
    }

    /// Waits until it has looked at so many Sandboxes since it started, and tells how long that took, and what time on a core.
    pub async fn reconciled(&self, sandboxes: usize, patience: Duration) -> Result<(Duration, Duration)> {
        self.ready(patience).await?;
        #[expect(clippy::cast_precision_loss, reason = "there are few sandboxes")]
        let all = sandboxes as f64;
        let looked = |operator: &Self| Ok(operator.reconciles("sandbox")? >= all);
        self.until("all Sandboxes are reconciled", patience, looked).await?;
        Ok((self.started.elapsed(), self.cpu()?))
    }

    async fn until(&self, what: &str, patience: Duration, holds: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !holds(self)? {
            if Instant::now() > deadline {
                return Err(format!("waited {} s in vain until {what}; see {LOG}", patience.as_secs()).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
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
        let text = self.get("/metrics")?;
        let ours =
            text.lines().filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)));
        ours.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?)).sum()
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Time on a core, to the nanosecond; threads that have ended are not in it, and the operator's do not end.
    fn cpu(&self) -> Result<Duration> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            sum += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(sum))
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
