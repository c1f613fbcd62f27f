//! What the helper takes in a sandbox in which nothing happens.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use aigise_operator::protocol::init;

use crate::Result;

const SANDBOXD: &str = "target/image/context/sandboxd";

/// How long it is watched doing nothing.
const WATCHED: Duration = Duration::from_secs(20);

/// Prints the CPU and the memory of each of its ways to wait. The gate is two processes: the probe, and the one that does the work.
pub async fn print() -> Result<()> {
    println!("\n## What the helper takes at rest\n\n| | CPU | resident memory | of these its own |\n|---|---|---|---|");
    let folder = std::env::temp_dir().join(format!("aigise-bench-{}", std::process::id()));
    for part in ["pod", init::STATE] {
        fs::create_dir_all(folder.join(part))?;
    }
    let work = init::Work { timeout: 3600, ..init::Work::default() };
    fs::write(folder.join(init::WORK_FILE), serde_json::to_string(&work)?)?;
    let result = print_below(&folder).await;
    fs::remove_dir_all(&folder)?;
    result
}

async fn print_below(folder: &Path) -> Result<()> {
    let idle = Running::start(&["idle"])?;
    print_one("`sandboxd idle`", &[idle.0.id()]).await?;
    let mut waits = Running::start(&["gate", "--folder", &folder.to_string_lossy()])?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let gate = waits.0.id();
    let supervisor = fs::read_to_string(format!("/proc/{gate}/task/{gate}/children"))?.trim().parse()?;
    print_one("a gate that waits for its release", &[gate, supervisor]).await?;
    // It ends like every other: released, with nothing to do.
    fs::write(folder.join(init::RELEASE_FILE), "now")?;
    if waits.0.wait()?.success() { Ok(()) } else { Err("the gate failed".into()) }
}

/// A process that ends with this.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str]) -> Result<Self> {
        Ok(Self(Command::new(SANDBOXD).args(arguments).stdin(Stdio::null()).spawn()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn print_one(what: &str, processes: &[u32]) -> Result<()> {
    let cpu = || processes.iter().map(|process| cpu(*process)).sum::<Result<Duration>>();
    let before = cpu()?;
    tokio::time::sleep(WATCHED).await;
    let spent = cpu()?.saturating_sub(before).as_secs_f64() / WATCHED.as_secs_f64();
    let resident = processes.iter().map(|process| kilobytes(*process, "VmRSS")).sum::<Result<u64>>()?;
    let own = processes.iter().map(|process| kilobytes(*process, "RssAnon")).sum::<Result<u64>>()?;
    println!("| {what} | {:.3} ms a second | {resident} KB | {own} KB |", spent * 1000.0);
    Ok(())
}

/// The time on a core, to the nanosecond.
fn cpu(process: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat"))?;
    Ok(Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?))
}

fn kilobytes(process: u32, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find(|line| line.starts_with(field)).ok_or("no such field")?;
    Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
}
