//! A session's configuration file: the objects that it is read from, its content, and the effective session, in which the session's own
//! fields take precedence over the fields of the file.
//!
//! The session's status keeps the content of the file. The sandbox controller, for example, reads it there. A session whose file becomes
//! invalid continues with the content that was last read successfully.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt;
use serde_json::Value;

use secrecy::{ExposeSecret, SecretString};

use super::{
    Applied, ChildState, Failure, Observed, Write,
    launch::{Layers, launchable, services},
};
use crate::{
    api::{
        AigiseSession, AigiseSessionSpec, RawJson,
        condition::{ConditionType, Reason},
        config::{ConfigFrom, KeyRef},
        meta::{self, Component},
        session::ConfigurationStatus,
    },
    config::{
        self, ErrorKind, Ignored, Input, Origin, VariableValue, Variables,
        tree::Table,
        write::{self, Hosts},
    },
    plan::{
        name::{self, Label},
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

/// A key of an object from which a configuration is read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// A key of a ConfigMap: the ConfigMap's name, and the key.
    ConfigMap(String, String),
    /// A key of a Secret: the Secret's name, and the key.
    Secret(String, String),
}

impl Reference {
    fn secret(KeyRef { name, key }: &KeyRef) -> Self {
        Reference::Secret(name.clone(), key.clone())
    }
}

impl Reference {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        let (Reference::ConfigMap(_, key) | Reference::Secret(_, key)) = self;
        key
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reference::ConfigMap(name, key) => write!(f, "the key {key} of the ConfigMap {name}"),
            Reference::Secret(name, key) => write!(f, "the key {key} of the Secret {name}"),
        }
    }
}

/// The result of reading each reference: its text, nothing, or why it could not be read.
pub type Contents = BTreeMap<Reference, Result<Option<SecretString>, Failure>>;

/// The state of a session's configuration file.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Configuration {
    /// The session has no configuration file.
    #[default]
    None,
    /// The file was read.
    Read {
        /// The fields of the session's spec that the file sets.
        spec: RawJson,
        /// The keys that have no effect.
        ignored: Vec<Ignored>,
    },
    /// The file cannot be used.
    Unusable(Failure),
}

/// The Secret of a session, for the sensitive values of its configuration.
#[derive(Clone, Debug)]
pub struct ConfigSecret {
    /// The desired content.
    pub wanted: BTreeMap<String, SecretString>,
    /// The live Secret.
    pub child: ChildState<Secret>,
}

/// The name of a session's Secret.
#[must_use]
pub fn secret_name(session: &AigiseSession) -> String {
    name::child(&session.name_any(), "config")
}

/// The configuration file of a session.
#[must_use]
pub fn file(session: &AigiseSession) -> Option<Reference> {
    let ConfigFrom { config_map_key_ref, secret_key_ref } = session.spec.config_from.as_ref()?;
    let config_map =
        config_map_key_ref.as_ref().map(|KeyRef { name, key }| Reference::ConfigMap(name.clone(), key.clone()));
    config_map.or_else(|| secret_key_ref.as_ref().map(Reference::secret))
}

/// All references from which a session's configuration is read.
#[must_use]
pub fn references(session: &AigiseSession) -> Vec<Reference> {
    let variables = session.spec.variables.iter().filter_map(|variable| variable.value_from.as_ref());
    let Some(file) = file(session) else { return vec![] };
    std::iter::once(file).chain(variables.map(|source| Reference::secret(&source.secret_key_ref))).collect()
}

/// Reads a session's configuration from the contents of its references. Also returns the desired content of the session's Secret, which
/// includes the complete configuration if an agent has a runner.
#[must_use]
pub fn read(
    session: &AigiseSession,
    contents: &Contents,
    has_runner: bool,
) -> (Configuration, BTreeMap<String, SecretString>) {
    let (configuration, mut wanted, tree) = match file(session).map(|file| read_file(session, &file, contents)) {
        None => (Configuration::None, BTreeMap::new(), Table::default()),
        Some(Ok(config::Configuration { spec, ignored, secrets, file })) => {
            (Configuration::Read { spec: RawJson::from(&spec), ignored }, secrets, file)
        }
        Some(Err(failure)) => return (Configuration::Unusable(failure), BTreeMap::new()),
    };
    if has_runner {
        let text = whole(&effective_now(Arc::new(session.clone()), &configuration), tree);
        wanted.insert(meta::CONFIG_FILE.into(), SecretString::from(text));
    }
    (configuration, wanted)
}

/// The effective configuration in the format of the framework's file, with all values and the addresses in this cluster. It is for a
/// Secret.
fn whole(session: &AigiseSession, mut file: Table) -> String {
    let namespace = session.namespace().unwrap_or_default();
    let host = |sandbox_type: &str| Some(name::host(&Label::of(sandbox_type).ok()?, &session.name_any(), &namespace));
    let services = services(session).into_iter();
    let hosts = Hosts {
        services: services
            .filter_map(|(name, service)| Some((name.to_string(), (host(&service.sandbox)?, service.port))))
            .collect(),
        neo4j: launchable(session).get(NEO4J).and_then(|sandbox_type| host(sandbox_type)),
    };
    // The file has no defaults for all types, so each type gets its complete template.
    let mut spec = session.spec.clone();
    if let Ok(layers) = Layers::of(session) {
        for (sandbox_type, sandbox) in &mut spec.sandboxes {
            if let Ok((template, _)) = layers.template(sandbox_type) {
                sandbox.template = template;
            }
        }
    }
    write::put_own(&mut file, &serde_json::to_value(&spec).unwrap_or_default());
    write::put_hosts(&mut file, &hosts);
    // This cannot fail: everything in the table was read from TOML, or put in above as TOML values.
    write::file(&file, write::Secrets::InClear).unwrap_or_default()
}

/// The type of the sandbox with the database.
const NEO4J: &str = "neo4j";

fn read_file(session: &AigiseSession, file: &Reference, contents: &Contents) -> Result<config::Configuration, Failure> {
    let text_of_file = text(file, contents)?;
    let mut variables = Variables::new();
    for variable in &session.spec.variables {
        let given = match &variable.value_from {
            Some(source) => VariableValue::Secret(text(&Reference::secret(&source.secret_key_ref), contents)?),
            None => VariableValue::Plain(variable.value.clone().unwrap_or_default()),
        };
        variables.insert(variable.name.clone(), given);
    }
    let origin = if matches!(file, Reference::Secret(..)) { Origin::Secret } else { Origin::Plain };
    let secret_name = secret_name(session);
    let input = Input { file: text_of_file.expose_secret(), origin, variables: &variables, secret_name: &secret_name };
    let read = config::read(input)
        .map_err(|error| Failure { reason: reason(error.mistake), message: format!("In {file}: {error}.") })?;
    // The error would repeat content of the file, so the message omits it.
    merged(session, &read.spec).map_err(|_| Failure {
        reason: Reason::BadValue,
        message: format!("The session's own fields and {file} do not make a valid session together."),
    })?;
    Ok(read)
}

fn text(reference: &Reference, contents: &Contents) -> Result<SecretString, Failure> {
    match contents.get(reference) {
        Some(Ok(Some(text))) => Ok(text.clone()),
        Some(Err(failure)) => Err(failure.clone()),
        Some(Ok(None)) | None => Err(Failure {
            reason: Reason::ConfigNotFound,
            message: format!("The session waits for {reference}, from which its configuration is read."),
        }),
    }
}

fn reason(mistake: ErrorKind) -> Reason {
    match mistake {
        ErrorKind::Unparsable => Reason::Unparsable,
        ErrorKind::TooLarge => Reason::TooLarge,
        ErrorKind::UnknownVariable => Reason::UnknownVariable,
        ErrorKind::UnknownBackend => Reason::UnknownBackend,
        ErrorKind::BadPort => Reason::BadPort,
        ErrorKind::BadValue => Reason::BadValue,
        ErrorKind::SecretInPlainField => Reason::SecretInPlainField,
    }
}

fn merged(session: &AigiseSession, from_file: &Value) -> serde_json::Result<AigiseSessionSpec> {
    let own = serde_json::to_value(&session.spec)?;
    serde_json::from_value(config::merge::merge(from_file, &own))
}

/// The effective session: its own fields over those of its file, as the file was last read successfully.
#[must_use]
pub fn effective(session: Arc<AigiseSession>) -> Arc<AigiseSession> {
    let from_file = session.status.as_ref().and_then(|status| status.configuration.as_ref());
    match from_file.map(|from_file| over(&session, &from_file.spec)) {
        Some(Some(effective)) => Arc::new(effective),
        Some(None) | None => session,
    }
}

/// The effective session, with the file as it is now.
#[must_use]
pub fn effective_now(session: Arc<AigiseSession>, configuration: &Configuration) -> Arc<AigiseSession> {
    match configuration {
        Configuration::None => session,
        Configuration::Read { spec, .. } => over(&session, spec).map_or(session, Arc::new),
        Configuration::Unusable(_) => effective(session),
    }
}

/// Merges the session's own fields over those of the file. They were already merged when the file was read, so this only fails if the
/// session's own fields have changed since; the next read of the file then reports that.
fn over(session: &AigiseSession, from_file: &RawJson) -> Option<AigiseSession> {
    session.spec.config_from.as_ref()?;
    Some(AigiseSession { spec: merged(session, &from_file.value()).ok()?, ..session.clone() })
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
    observed.session.status.as_ref()?.configuration.as_ref()
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
        Configuration::Read { .. } => Some(poll(file(&observed.session).as_ref(), &observed.configuration)),
    }
}

/// How long the content of a file may be used before it is read again.
#[must_use]
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
    let session = &*observed.session;
    let labels = ownership::labels(Some(session), Component::Config);
    let mut metadata = ownership::child_meta(session, secret_name(session), labels);
    if !session.spec.cleans_up() {
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
#[must_use]
pub fn is_kept(observed: &Observed) -> bool {
    match &observed.config_secret {
        None => true,
        Some(ConfigSecret { child: ChildState::Failed(_) | ChildState::Foreign(_), .. }) => false,
        Some(_) => writes(observed).is_empty(),
    }
}
