//! What the API server wrote down of the operator.

use std::{
    collections::{BTreeMap, HashMap},
    process::Command,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{Args, Result};

/// A part of the log.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// How long after the answer to a Pod's last status the operator asked to write its Sandbox's, and had it written.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    pub asked: Duration,
    pub done: Duration,
}

/// What the operator did in a part of the log.
#[derive(Debug, Default)]
pub struct Audit {
    /// Writes but events, by what was written.
    writes: BTreeMap<(String, String), usize>,
    /// Events that it wrote.
    pub events: usize,
    /// Lists that it asked for.
    pub lists: usize,
    /// Of each Sandbox.
    pub lags: Vec<Lag>,
}

impl Audit {
    /// Reads the log.
    pub fn read(args: &Args, window: Window) -> Result<Self> {
        let Some((program, arguments)) = args.audit.split_first() else { return Err("--audit is empty".into()) };
        let log = Command::new(program).args(arguments).output()?;
        if !log.status.success() {
            return Err(format!("--audit: {}", String::from_utf8_lossy(&log.stderr)).into());
        }
        let lines = log.stdout.split(|&byte| byte == b'\n');
        let entries = lines.filter_map(|line| Entry::parse(line, window, &args.user));
        Ok(Self::of(entries))
    }

    fn of(entries: impl Iterator<Item = Entry>) -> Self {
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by_key(|entry| entry.answered);
        let mut audit = Self::default();
        let (mut told, mut lags) = (HashMap::new(), HashMap::new());
        for entry in entries {
            match (entry.by_operator, entry.verb.as_str(), entry.what.as_str()) {
                (false, "patch" | "update", "pods/status") => _ = told.insert(entry.object, entry.answered),
                (false, ..) | (true, "get" | "watch", _) => {}
                (true, "list", _) => audit.lists += 1,
                (true, _, "events") => audit.events += 1,
                (true, verb, what) => {
                    *audit.writes.entry((verb.to_string(), what.to_string())).or_default() += 1;
                    if what == "sandboxes/status"
                        && let Some(told) = told.remove(&entry.object)
                    {
                        let after = |at: Timestamp| at.duration_since(told).try_into().unwrap_or_default();
                        let lag = Lag { asked: after(entry.asked), done: after(entry.answered) };
                        lags.insert(entry.object, lag); // the last one is the one that made it Ready
                    }
                }
            }
        }
        audit.lags = lags.into_values().collect();
        audit
    }

    /// All writes but events.
    pub fn writes(&self) -> usize {
        self.writes.values().sum()
    }
}

/// One line of the log.
struct Entry {
    by_operator: bool,
    verb: String,
    what: String,
    object: String,
    asked: Timestamp,
    answered: Timestamp,
}

impl Entry {
    fn parse(line: &[u8], window: Window, operator: &str) -> Option<Self> {
        let entry: Value = serde_json::from_slice(line).ok()?;
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let time = |pointer: &str| text(pointer).parse::<Timestamp>().ok();
        let asked = time("/requestReceivedTimestamp")?;
        if !(window.from..=window.until).contains(&asked) {
            return None;
        }
        let (resource, part) = (text("/objectRef/resource"), text("/objectRef/subresource"));
        Some(Self {
            by_operator: text("/user/username") == operator,
            verb: text("/verb").into(),
            what: if part.is_empty() { resource.into() } else { format!("{resource}/{part}") },
            object: format!("{}/{}", text("/objectRef/namespace"), text("/objectRef/name")),
            asked,
            answered: time("/stageTimestamp")?,
        })
    }
}
