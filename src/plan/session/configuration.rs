//! What a session does with its configuration file: its Secret, its condition, and when the file is read again.
//!
//! The session's status keeps the content of the file. The sandbox controller, for example, reads it there. A session whose file becomes
//! invalid continues with the content that was last read successfully.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use secrecy::{ExposeSecret, SecretString};

use super::{Applied, ChildState, Failure, Observed, Write};
use crate::{
    api::{
        condition::{ConditionType, Reason},
        meta::Component,
        session::ConfigurationStatus,
    },
    config::Ignored,
    plan::{
        effective::configuration::{Configuration, Reference},
        facts::session::secret_name,
        ownership,
        status::{self, ConditionValue, condition_value},
    },
};

/// The interval at which an unusable configuration is read again: its user will probably fix it soon.
const MENDING_POLL: Duration = Duration::from_secs(10);

/// The interval at which a ConfigMap with a configuration is read again. It is read by name and not watched, since the operator does not
/// need the other ConfigMaps.
pub const FILE_POLL: Duration = Duration::from_secs(60);

/// The interval at which a Secret is read again while a session refers to it.
pub const SECRET_POLL: Duration = Duration::from_secs(600);

/// The Secret of a session, for the sensitive values of its configuration.
#[derive(Clone, Debug)]
pub struct ConfigSecret {
    /// The desired content.
    pub wanted: BTreeMap<String, SecretString>,
    /// The live Secret.
    pub child: ChildState<Secret>,
}

/// The content of the file that the status keeps.
pub(super) fn kept(observed: &Observed) -> Option<ConfigurationStatus> {
    match &observed.configuration {
        Configuration::None => None,
        Configuration::Read { spec, .. } => Some(ConfigurationStatus { spec: spec.clone() }),
        Configuration::Unusable(_) => last_understood(observed).cloned(),
    }
}

fn last_understood(observed: &Observed) -> Option<&ConfigurationStatus> {
    observed.session.status()?.configuration.as_ref()
}

/// Why nothing can be created for the session: its file cannot be used, and was never read successfully.
pub(super) fn obstacle(observed: &Observed) -> Option<&Failure> {
    trouble(observed).filter(|_| last_understood(observed).is_none())
}

/// Why the file cannot be used now.
pub(super) fn trouble(observed: &Observed) -> Option<&Failure> {
    if let Configuration::Unusable(failure) = &observed.configuration { Some(failure) } else { None }
}

/// Whether the status already has the content of the file. Sandboxes read it from the status, so no Sandbox is created or changed before.
pub(super) fn is_reported(observed: &Observed) -> bool {
    match &observed.configuration {
        Configuration::Read { spec, .. } => last_understood(observed).is_some_and(|kept| kept.spec == *spec),
        Configuration::None | Configuration::Unusable(_) => true,
    }
}

/// The delay until the next reconcile: to read the file again, or to do what had to wait until the status has the file's content.
pub(super) fn next(observed: &Observed, conditions: &[Condition]) -> Option<Duration> {
    match &observed.configuration {
        Configuration::Read { .. } if !is_reported(observed) => Some(Duration::ZERO),
        Configuration::None => None,
        // The user will fix the file soon, or has forgotten it.
        Configuration::Unusable(_) => {
            Some(status::poll(MENDING_POLL, conditions, ConditionType::ConfigValid, observed.now))
        }
        Configuration::Read { .. } => Some(poll(observed.session.config_file().as_ref(), &observed.configuration)),
    }
}

/// How long the content of a file may be used before it is read again.
pub fn poll(file: Option<&Reference>, configuration: &Configuration) -> Duration {
    match (configuration, file) {
        (Configuration::Unusable(_), _) => MENDING_POLL,
        (_, Some(Reference::ConfigMap(..))) => FILE_POLL,
        (_, Some(Reference::Secret(..)) | None) => SECRET_POLL,
    }
}

/// The condition `ConfigValid`.
pub(super) fn config_valid(observed: &Observed) -> ConditionValue {
    let kind = ConditionType::ConfigValid;
    match &observed.configuration {
        Configuration::None => condition_value(kind, true, Reason::NoConfig, "The session has no configuration file."),
        Configuration::Read { ignored, .. } if ignored.is_empty() => {
            condition_value(kind, true, Reason::ConfigRead, "The configuration file was read.")
        }
        Configuration::Read { ignored, .. } => {
            let keys: Vec<_> = ignored.iter().map(|Ignored { key, reason }| format!("{key} ({reason})")).collect();
            let message = format!("The configuration file was read. These keys have no effect: {}.", keys.join("; "));
            condition_value(kind, true, Reason::ConfigRead, message)
        }
        Configuration::Unusable(failure) => {
            // A failed read says nothing about the validity of the file.
            let holds = (failure.reason != Reason::ApiError).then_some(false);
            let rest = if last_understood(observed).is_some() { " The session continues unchanged." } else { "" };
            condition_value(kind, holds, failure.reason, format!("{}{rest}", failure.message))
        }
    }
}

/// The write for the Secret, if it is missing, out of date, or no longer needed. The Secret is read together with the file and not in
/// between, since the operator does not watch Secrets.
pub(super) fn writes(observed: &Observed) -> Vec<Write> {
    let Some(ConfigSecret { wanted, child }) = &observed.config_secret else { return vec![] };
    let write = match child {
        ChildState::Owned(live) if wanted.is_empty() => {
            (live.metadata.deletion_timestamp.is_none()).then(|| Write::delete(&**live))
        }
        ChildState::Foreign(_) | ChildState::Failed(_) => None,
        ChildState::Absent if wanted.is_empty() => None,
        ChildState::Absent => Some(Write::Apply(Applied::Secret(Box::new(secret(observed, wanted))))),
        ChildState::Owned(live) => {
            let desired = secret(observed, wanted);
            let is_well = live.data == desired.data
                && live.metadata.owner_references.is_some() == desired.metadata.owner_references.is_some();
            (!is_well).then(|| Write::Apply(Applied::Secret(Box::new(ownership::pinned(desired, child)))))
        }
    };
    write.into_iter().collect()
}

fn secret(observed: &Observed, wanted: &BTreeMap<String, SecretString>) -> Secret {
    let session = &observed.session;
    let labels = session.labels(Component::Config);
    let mut metadata = ownership::child_meta(session, secret_name(session), labels);
    if !session.cleans_up() {
        metadata.owner_references = None;
    }
    let bytes = |text: &SecretString| ByteString(text.expose_secret().as_bytes().to_vec());
    Secret {
        metadata,
        data: Some(wanted.iter().map(|(key, text)| (key.clone(), bytes(text))).collect()),
        ..Secret::default()
    }
}

/// Whether the Secret is up to date, if it was read.
pub fn is_kept(observed: &Observed) -> bool {
    match &observed.config_secret {
        None => true,
        Some(ConfigSecret { child: ChildState::Failed(_) | ChildState::Foreign(_), .. }) => false,
        Some(_) => writes(observed).is_empty(),
    }
}
