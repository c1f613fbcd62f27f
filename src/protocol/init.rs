//! The init work of a sandbox, and the progress and result that the init supervisor reports: plain data, shared by the planner that
//! writes the work and by `sandboxd gate` that runs it. Nothing here depends on Kubernetes types.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cache::{RestoreFault, RootReport, RootWork};

/// The folder of the init supervisor in each sandbox that has init work.
pub const FOLDER: &str = "/run/aigise";

/// In [`FOLDER`]: the [`Work`], as JSON. The kubelet writes this file from an annotation of the Pod.
pub const WORK_FILE: &str = "pod/work";

/// In [`FOLDER`]: not empty once the init work may begin. The kubelet writes this file from an annotation of the Pod.
pub const RELEASE_FILE: &str = "pod/release";

/// In [`FOLDER`]: the folder for the files that the init supervisor writes.
pub const STATE: &str = "state";

/// The init work of a sandbox: everything that has to be done before the sandbox is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Work {
    /// How long all of the work may take after its release, in seconds.
    pub timeout: u64,
    /// The steps of the initialiser, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The skills whose dependencies are installed after the steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<Skills>,
    /// The services that must answer a handshake before the sandbox is ready, and accept connections as long as it is ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// How long the services may take to answer after the steps, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_timeout: Option<u64>,
    /// The sandbox's own readiness probe: a container can have only one probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<OwnProbe>,
    /// How long the sandbox's own readiness probe may take, in seconds. Absent: [`PROBE_TIMEOUT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_timeout: Option<u64>,
    /// The environment variables whose values must not be reported.
    #[serde(default, skip_serializing_if = "Secrets::are_none")]
    pub secrets: Secrets,
    /// What is done about the root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootWork>,
}

/// Skills whose dependencies are installed in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Skills {
    /// The type of the sandbox. Each skill names the type that it runs in.
    pub sandbox_type: String,
    /// Folders below the tools volume, each including everything below it; [`ALL_SKILLS`] means all skills.
    pub enabled: Vec<String>,
}

/// The entry in a list of enabled skills that means all skills.
pub const ALL_SKILLS: &str = "all";

/// Whether a path is that of a folder, or of something below it. Enabled skills include those below them.
pub fn is_at_or_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An MCP service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// The name of the service in the session.
    pub name: String,
    /// The host as seen from the sandbox.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path to which a session is opened, with its leading `/`.
    pub path: String,
    /// The transport. This field is part of the hash of a template; the default is not written.
    #[serde(default, skip_serializing_if = "Transport::is_auto")]
    pub transport: Transport,
}

/// The transport of an MCP service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Transport {
    /// Whichever the server has.
    #[default]
    Auto,
    /// An event stream, and an address for messages that the stream names.
    Sse,
    /// Streamable HTTP.
    Http,
}

impl Transport {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// A readiness probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum OwnProbe {
    /// A command that must end with exit code 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// A port of the sandbox that must accept connections.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A page that must respond with a status from 200 to 399.
    Http {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The path, with its leading `/`.
        path: String,
        /// Additional headers: name and value.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
    },
}

/// One step of an initialiser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// The name of the step.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long the step may take, in seconds. Absent: as long as all of the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Environment variables, in addition to those of the sandbox's container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whether the step also runs when the root file system is restored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
}

/// Which environment variables hold secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secrets {
    /// Variables that hold secrets.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<String>,
    /// Present if whole Secrets are in the environment: every variable except these may then hold a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_but: Option<BTreeSet<String>>,
}

/// How long services may take to answer by default, in seconds.
pub const SERVICE_TIMEOUT: u64 = 15 * 60;

/// How long the sandbox's own readiness probe may take by default, and how long a service may take to accept a connection, in seconds.
pub const PROBE_TIMEOUT: u16 = 10;

impl Secrets {
    fn are_none(&self) -> bool {
        self.names.is_empty() && self.all_but.is_none()
    }
}

/// The progress of the init work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitProgress {
    /// When the work was released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Timestamp>,
    /// The parts that have begun: first the steps, then the skills as `skill <path>`, then the services as `service <name>`.
    #[serde(default)]
    pub steps: Vec<Run>,
    /// What became of the root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootReport>,
    /// How the work ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// A step that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The name of the step.
    pub name: String,
    /// When the step began.
    pub began: Timestamp,
    /// When the step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Why the step has not ended yet: the problem when the service was last asked. Of a skill that has ended: why it was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How the init work ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// All of the work is done.
    Succeeded,
    /// The work failed.
    Failed(InitFailure),
}

/// Why the init work failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitFailure {
    /// The step that failed, or `skill <path>` or `service <name>`. Absent if none of these failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// How it failed, as text that follows the step's name: `ended with exit code 2`.
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
    /// Why the root file system could not be restored, if that is what failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreFault>,
}

impl InitFailure {
    /// What failed, as text that follows `the` in a sentence: `step compile`, `skill fuzz/afl`, `initialiser`.
    pub fn subject(&self) -> String {
        match &self.step {
            // The name of a step contains no space.
            Some(step) if step.contains(' ') => step.clone(),
            Some(step) => format!("step {step}"),
            None => "initialiser".into(),
        }
    }
}

/// The message that an init supervisor leaves in the container's termination log when the init work failed. Its key distinguishes
/// the message from those of other programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminationMessage {
    /// Why the init work failed.
    #[serde(rename = "aigiseGate")]
    pub failure: InitFailure,
}

/// The termination message about init work that has succeeded and concerned no root file system.
pub const SUCCESS: &str = r#"{"aigiseInit":"Succeeded"}"#;

/// The termination message of the container that reports the success of the init work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    #[serde(rename = "aigiseInit")]
    outcome: Succeeded,
    /// What became of the root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootReport>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Succeeded {
    #[default]
    Succeeded,
}

impl Success {
    /// The message about work that ended with this root file system.
    pub fn with(root: Option<RootReport>) -> Self {
        Self { root, ..Self::default() }
    }

    /// The message as JSON.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses a termination message.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The kubelet keeps at most this many bytes of a termination message.
const LIMIT: usize = 4096;

impl TerminationMessage {
    /// The message as JSON that is short enough for the kubelet to keep: a tail that is too long loses its beginning.
    pub fn text(mut self) -> String {
        loop {
            let text = serde_json::to_string(&self).unwrap_or_default();
            if text.len() <= LIMIT {
                return text;
            }
            let tail = if self.failure.tail.is_empty() { &mut self.failure.how } else { &mut self.failure.tail };
            // A character may take up to six bytes in JSON, so this may remove a little more than necessary.
            let excess = (text.len() - LIMIT).div_ceil(6).max(1);
            let cut = tail.char_indices().nth(excess).map_or(tail.len(), |(at, _)| at);
            tail.drain(..cut);
        }
    }

    /// Parses a termination message.
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
            assert!(TerminationMessage::read(&text).unwrap().tail.ends_with("end"), "the end is kept");
        }
    }

    #[test]
    fn a_success_says_what_became_of_the_root_file_system() {
        assert_eq!(Success::default().text(), SUCCESS);
        let saved = Success::with(Some(RootReport::Saved(super::super::cache::Root::default())));
        assert_eq!(Success::read(&saved.text()), Some(saved));
        for text in ["", "{}", r#"{"aigiseInit":"Failed"}"#] {
            assert_eq!(Success::read(text), None, "{text}");
        }
    }

    #[test]
    fn what_programs_write_is_not_taken_for_the_init_supervisors() {
        for text in ["", "killed", "{}", r#"{"message":"x"}"#, "[1]"] {
            assert_eq!(TerminationMessage::read(text), None, "{text}");
        }
    }
}
