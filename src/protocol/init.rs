//! What the gate of a sandbox is told and what it answers: plain data, shared by the planner that writes it and by
//! `sandboxd gate` that obeys it. Nothing here depends on Kubernetes types.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The folder that belongs to the gate in each sandbox that has one.
pub const FOLDER: &str = "/run/aigise";

/// In [`FOLDER`]: the [`Work`], as JSON. The kubelet writes it from an annotation of the Pod.
pub const WORK_FILE: &str = "pod/work";

/// In [`FOLDER`]: not empty once the gate may begin. Likewise.
pub const RELEASE_FILE: &str = "pod/release";

/// In [`FOLDER`]: what the gate writes down.
pub const STATE: &str = "state";

/// Everything that is to be done before a sandbox is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Work {
    /// How long all of it may take from its release on, in seconds.
    pub timeout: u64,
    /// The initialiser, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The skills whose dependencies are installed after the steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<Skills>,
    /// What has to answer before the sandbox is ready, and for as long as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// What the sandbox's own readiness probe asks, where services have to answer besides: a container has but one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<OwnProbe>,
    /// What must not be told of the environment.
    #[serde(default, skip_serializing_if = "Secrets::are_none")]
    pub secrets: Secrets,
}

/// Skills whose dependencies are installed in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Skills {
    /// The type of the sandbox: a skill says in which one it runs.
    pub sandbox_type: String,
    /// Folders below the tools volume, each with all that is below it; [`ALL_SKILLS`]: all there are.
    pub enabled: Vec<String>,
}

/// In a list of enabled skills: all of them.
pub const ALL_SKILLS: &str = "all";

/// An MCP service that is reached over SSE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// What the session calls it.
    pub name: String,
    /// The host as seen from the sandbox.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path of its event stream, with its leading `/`.
    pub path: String,
}

/// What a readiness probe asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum OwnProbe {
    /// A command that has to end with 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// A port of the sandbox that has to open.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A page that has to answer with a status of 200 to 399.
    Http {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The path, with its leading `/`.
        path: String,
        /// Further headers: name and value.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
    },
}

/// One step of an initialiser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// What it is called.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may take, in seconds. Absent: as long as the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Besides what the sandbox's container has in its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// Which variables of the environment hold secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secrets {
    /// These do.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<String>,
    /// Whole Secrets are in the environment: every variable may hold one but these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_but: Option<BTreeSet<String>>,
}

impl Secrets {
    fn are_none(&self) -> bool {
        self.names.is_empty() && self.all_but.is_none()
    }
}

/// What the gate has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitProgress {
    /// When it was released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Timestamp>,
    /// What has begun: the steps, then the skills, each as `skill <path>`, then the services, each as `service <name>`.
    #[serde(default)]
    pub steps: Vec<Run>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// A step that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its name.
    pub name: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Why it has not ended yet: what was wrong when a service was asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How the work of a gate ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// All of it is done.
    Succeeded,
    /// It is not, and will not be.
    Failed(InitFailure),
}

/// Why the work of a gate failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitFailure {
    /// The step that failed, or `skill <path>` or `service <name>`; absent: it was none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// How, in words that follow the step's name: `ended with exit code 2`.
    pub how: String,
    /// The exit code of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The last lines that the step printed, without secrets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tail: String,
}

impl InitFailure {
    /// What failed, in words that a sentence begins with after `the`: `step compile`, `skill fuzz/afl`, `initialiser`.
    #[must_use]
    pub fn subject(&self) -> String {
        match &self.step {
            // The name of a step has no blank.
            Some(step) if step.contains(' ') => step.clone(),
            Some(step) => format!("step {step}"),
            None => "initialiser".into(),
        }
    }
}

/// What a gate that failed leaves in the container's termination log; the key tells it from what programs write there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminationMessage {
    /// Why it failed.
    #[serde(rename = "aigiseGate")]
    pub failure: InitFailure,
}

/// The kubelet keeps no more of a termination message.
const LIMIT: usize = 4096;

impl TerminationMessage {
    /// As JSON that the kubelet keeps whole: of a tail that is too long the beginning goes.
    #[must_use]
    pub fn text(mut self) -> String {
        loop {
            let text = serde_json::to_string(&self).unwrap_or_default();
            if text.len() <= LIMIT {
                return text;
            }
            let tail = if self.failure.tail.is_empty() { &mut self.failure.how } else { &mut self.failure.tail };
            // A character may take six bytes in JSON, so this takes some more away than it has to.
            let excess = (text.len() - LIMIT).div_ceil(6).max(1);
            let cut = tail.char_indices().nth(excess).map_or(tail.len(), |(at, _)| at);
            tail.drain(..cut);
        }
    }

    /// Reads a termination message.
    #[must_use]
    pub fn read(text: &str) -> Option<InitFailure> {
        serde_json::from_str::<Self>(text).ok().map(|message| message.failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_never_longer_than_the_kubelet_keeps() {
        for letter in ["x", "\u{1}", "ü", "\"", "🦀"] {
            let tail = format!("{}end", letter.repeat(5000));
            let words =
                TerminationMessage { failure: InitFailure { tail, how: "ended".into(), ..InitFailure::default() } };
            let text = words.text();
            assert!(text.len() <= LIMIT && text.len() > LIMIT / 2, "{} bytes of {letter}", text.len());
            assert!(TerminationMessage::read(&text).unwrap().tail.ends_with("end"), "what came last is kept");
        }
    }

    #[test]
    fn what_programs_write_is_not_taken_for_the_gates() {
        for text in ["", "killed", "{}", r#"{"message":"x"}"#, "[1]"] {
            assert_eq!(TerminationMessage::read(text), None, "{text}");
        }
    }
}
