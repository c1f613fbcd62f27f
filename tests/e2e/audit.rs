//! What the operator wrote, as the API server noted it down.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde_json::Value;

use super::{
    client::{OPERATOR, kubectl, run},
    ground::Ground,
};

const OPERATOR_USER: &str = "system:serviceaccount:aigise-system:aigise-operator";

/// The tests that measure, against the one that restarts the operator.
static OPERATOR_RUNS: RwLock<()> = RwLock::new(());

/// As long as this is held, no test restarts the operator.
pub fn operator_stays() -> RwLockReadGuard<'static, ()> {
    OPERATOR_RUNS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until nobody measures, and holds off those who would.
pub fn operator_may_go() -> RwLockWriteGuard<'static, ()> {
    OPERATOR_RUNS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the operator and waits until its successor is ready.
pub fn restart_operator() {
    let (namespace, deployment) = OPERATOR;
    kubectl(&["-n", namespace, "rollout", "restart", deployment]).text();
    kubectl(&["-n", namespace, "rollout", "status", deployment, "--timeout", "120s"]).text();
}

/// One write of the operator.
#[derive(Clone, Debug)]
pub struct Write {
    pub verb: String,
    /// With the subresource, if any.
    pub resource: String,
    pub name: String,
    pub code: u64,
    /// When the API server got it; sorts by time.
    pub received: String,
}

/// The writes of the operator in a namespace, oldest first, without events.
pub fn writes(ground: &Ground) -> Vec<Write> {
    let log = run("tests/kind/cluster", &["audit"], "").text();
    let within = format!("\"namespace\":\"{}\"", ground.namespace);
    let lines = log.lines().filter(|line| line.contains(&within) && line.contains(OPERATOR_USER));
    let entries = lines.map(|line| serde_json::from_str::<Value>(line).expect("a line of the audit log"));
    let mut writes: Vec<_> = entries.filter(is_write).map(|entry| write(&entry)).collect();
    writes.sort_by(|a, b| a.received.cmp(&b.received));
    writes
}

fn is_write(entry: &Value) -> bool {
    let verb = entry["verb"].as_str().unwrap_or_default();
    let resource = entry["objectRef"]["resource"].as_str().unwrap_or_default();
    entry["stage"] == "ResponseComplete"
        && entry["user"]["username"] == OPERATOR_USER
        && ["create", "update", "patch", "delete", "deletecollection"].contains(&verb)
        && !["events", "leases"].contains(&resource)
}

fn write(entry: &Value) -> Write {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let reference = &entry["objectRef"];
    let subresource = reference["subresource"].as_str().map(|part| format!("/{part}")).unwrap_or_default();
    Write {
        verb: text(&entry["verb"]),
        resource: text(&reference["resource"]) + &subresource,
        name: text(&reference["name"]),
        code: entry["responseStatus"]["code"].as_u64().unwrap_or_default(),
        received: text(&entry["requestReceivedTimestamp"]),
    }
}

/// Writes counted by what they were.
pub struct Breakdown<'a>(pub &'a [Write]);

impl fmt::Display for Breakdown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<(&str, &str, &str, u64), u32> = BTreeMap::new();
        for write in self.0 {
            *counts.entry((&write.resource, &write.name, &write.verb, write.code)).or_default() += 1;
        }
        for ((resource, name, verb, code), count) in counts {
            writeln!(f, "{count:4}  {verb} {resource} {name} ({code})")?;
        }
        Ok(())
    }
}
