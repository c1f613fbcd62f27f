//! What a session costs besides time: writes, reconciles and bytes.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use jiff::Timestamp;
use kube::api::{GetParams, Request};
use serde_json::Value;

use super::arms::{Arm, Ground};
use crate::Result;

/// A status that has to wait its turn is written within this time.
const SETTLED: Duration = Duration::from_millis(1500);

/// What the sessions of one arm cost.
#[derive(Debug, Default)]
pub struct Cost {
    windows: Vec<(Timestamp, Timestamp)>,
    reconciles: BTreeMap<String, f64>,
    writes: BTreeMap<(String, String), usize>,
    reactions: BTreeMap<String, Duration>,
}

impl Cost {
    /// Does one arm, and counts around it from just before to a little after.
    pub async fn around(ground: &Ground, arm: Arm, name: &str) -> Result<(Duration, Self)> {
        if !arm.is_session() {
            return Ok((ground.run(arm, name).await?, Self::default()));
        }
        let (from, before) = (now(), reconciles(ground).await?);
        let took = ground.run(arm, name).await?;
        tokio::time::sleep(SETTLED).await;
        let mut reconciles = reconciles(ground).await?;
        for (controller, count) in &mut reconciles {
            *count -= before.get(controller).unwrap_or(&0.0);
        }
        Ok((took, Self { windows: vec![(from, now())], reconciles, ..Self::default() }))
    }

    /// Whether there was a session in it: what does not involve the operator is not counted.
    pub fn is_counted(&self) -> bool {
        !self.windows.is_empty()
    }

    /// Adds another session's.
    pub fn add(&mut self, other: &Self) {
        self.windows.extend(&other.windows);
        for (controller, count) in &other.reconciles {
            *self.reconciles.entry(controller.clone()).or_default() += count;
        }
    }

    /// Reads in the audit log what was written in our namespace while these sessions came up: what the operator wrote, and
    /// how long after a Pod's last status it asked for its Sandbox's.
    pub fn read_audit(&mut self, ground: &Ground) -> Result<()> {
        let Some((program, arguments)) = ground.args.audit.split_first() else { return Ok(()) };
        let log = Command::new(program).args(arguments).output()?;
        let mut told = BTreeMap::new();
        for line in log.stdout.split(|&byte| byte == b'\n') {
            let Ok(entry) = serde_json::from_slice::<Value>(line) else { continue };
            let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let time = |pointer: &str| text(pointer).parse::<Timestamp>().unwrap_or_default();
            let (asked, answered) = (time("/requestReceivedTimestamp"), time("/stageTimestamp"));
            if text("/objectRef/namespace") != ground.namespace
                || !matches!(text("/verb"), "create" | "update" | "patch" | "delete")
                || !self.windows.iter().any(|(from, until)| (*from..=*until).contains(&asked))
            {
                continue;
            }
            let (resource, part) = (text("/objectRef/resource"), text("/objectRef/subresource"));
            let what = if part.is_empty() { resource.to_string() } else { format!("{resource}/{part}") };
            let name = text("/objectRef/name").to_string();
            if text("/user/username") == ground.args.user {
                if let Some(told) = told.get(&name).filter(|_| what == "sandboxes/status") {
                    self.reactions.insert(name, asked.duration_since(*told).try_into().unwrap_or_default());
                }
                *self.writes.entry((text("/verb").to_string(), what)).or_default() += 1;
            } else if what == "pods/status" {
                told.insert(name, answered);
            }
        }
        Ok(())
    }

    /// How long after the answer to the write that made a Pod Ready the operator asked to write the Sandbox, each time.
    pub fn reactions(&self) -> impl Iterator<Item = Duration> {
        self.reactions.values().copied()
    }

    /// Prints the averages.
    #[expect(clippy::cast_precision_loss, reason = "there are few sessions")]
    pub fn print(&self, arm: Arm) {
        let sessions = self.windows.len().max(1) as f64;
        println!("\n## What one {} costs until it is Ready\n\n| | count |\n|---|---|", arm.label());
        for (controller, count) in &self.reconciles {
            println!("| reconciles of a {controller} | {:.1} |", count / sessions);
        }
        for ((verb, what), count) in &self.writes {
            println!("| {verb} {what} | {:.1} |", *count as f64 / sessions);
        }
        let of = |is: &dyn Fn(&str) -> bool| {
            self.writes.iter().filter(|((_, what), _)| is(what)).map(|(_, count)| count).sum::<usize>() as f64
                / sessions
        };
        println!("| all writes but events | {:.1} |", of(&|what| what != "events"));
    }
}

/// How many reconciles there have been, by controller.
async fn reconciles(ground: &Ground) -> Result<BTreeMap<String, f64>> {
    let (namespace, service) = ground.args.metrics.split_once('/').ok_or("--metrics is namespace/name:port")?;
    let proxy = Request::new(format!("/api/v1/namespaces/{namespace}/services/{service}/proxy"));
    let text = ground.client.request_text(proxy.get("metrics", &GetParams::default())?).await?;
    let mut counts = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("aigise_reconciles_total{")) {
        if let Some((labels, count)) = line.split_once("} ")
            && let Some(controller) = labels.split('"').nth(1)
        {
            *counts.entry(controller.to_string()).or_default() += count.parse::<f64>()?;
        }
    }
    Ok(counts)
}

/// The time of the machine, which is the API server's, too, where it runs on the same.
#[expect(clippy::disallowed_methods, reason = "to find our part of the audit log")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Prints the sizes of what `make image` has made.
pub fn print_sizes() {
    let folder = "target/image";
    println!("\n| file | bytes |\n|---|---|");
    for file in ["context/aigise-operator", "context/sandboxd", "aigise-operator.oci.tar"] {
        if let Ok(found) = fs::metadata(format!("{folder}/{file}")) {
            println!("| {} | {} |", file.trim_start_matches("context/"), found.len());
        }
    }
}
