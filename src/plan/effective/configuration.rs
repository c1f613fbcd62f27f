//! A session's configuration file: the objects that it is read from, and its content. The session's own fields take precedence over the
//! fields of the file.

use std::{collections::BTreeMap, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{
    EffectiveSession,
    launch::{Layers, awaits_itself},
    profile,
};
use crate::{
    api::{
        AigiseSession, AigiseSessionSpec, RawJson, SandboxTemplate,
        condition::Reason,
        config::{ConfigFrom, KeyRef},
        meta,
        template::Entrypoint,
    },
    config::{
        self, ErrorKind, Ignored, Input, Origin, VariableValue, Variables,
        tree::Table,
        write::{self, Hosts},
    },
    plan::{Failure, facts::session::secret_name, name::Label},
};

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

/// The configuration file of a session.
pub fn file(session: &AigiseSession) -> Option<Reference> {
    let ConfigFrom { config_map_key_ref, secret_key_ref } = session.spec.config_from.as_ref()?;
    let config_map =
        config_map_key_ref.as_ref().map(|KeyRef { name, key }| Reference::ConfigMap(name.clone(), key.clone()));
    config_map.or_else(|| secret_key_ref.as_ref().map(Reference::secret))
}

/// All references from which a session's configuration is read.
pub fn references(session: &AigiseSession) -> Vec<Reference> {
    let variables = session.spec.variables.iter().filter_map(|variable| variable.value_from.as_ref());
    let Some(file) = file(session) else { return vec![] };
    std::iter::once(file).chain(variables.map(|source| Reference::secret(&source.secret_key_ref))).collect()
}

/// Reads a session's configuration from the contents of its references. Also returns the desired content of the session's Secret, which
/// includes the complete configuration if an agent has a runner.
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
        let session = EffectiveSession::reading(Arc::new(session.clone()), &configuration);
        let text = whole(&session, tree);
        wanted.insert(meta::CONFIG_FILE.into(), SecretString::from(text));
    }
    (configuration, wanted)
}

/// The effective configuration in the format of the framework's file, with all values and the addresses in this cluster. It is for a
/// Secret.
fn whole(session: &EffectiveSession, mut file: Table) -> String {
    let host = |sandbox_type: &str| Some(session.host(&Label::of(sandbox_type).ok()?));
    let services = session.services().into_iter();
    let hosts = Hosts {
        services: services
            .filter_map(|(name, service)| Some((name.to_string(), (host(&service.sandbox)?, service.port))))
            .collect(),
        neo4j: session.launchable().get(NEO4J).and_then(|sandbox_type| host(sandbox_type)),
    };
    // The file has no defaults for all types, so each type gets its complete template.
    let mut spec = session.spec().clone();
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
    let merged = merged(session, &read.spec).map_err(|_| Failure {
        reason: Reason::BadValue,
        message: format!("The session's own fields and {file} do not make a valid session together."),
    })?;
    match without_image(&merged, &read.spec) {
        Some(sandbox_type) => {
            let error = config::lacks_image(text_of_file.expose_secret(), &read.file, &sandbox_type);
            Err(Failure { reason: reason(error.mistake), message: format!("In {file}: {error}.") })
        }
        None => Ok(read),
    }
}

/// A type of the file that is started, and that has no image.
fn without_image(session: &EffectiveSession, from_file: &Value) -> Option<String> {
    let has_image = |template: &SandboxTemplate| template.image.as_deref().is_some_and(|image| !image.is_empty());
    if session.spec().sandbox_defaults.as_ref().is_some_and(has_image) {
        return None;
    }
    let lacks_one = |template: &SandboxTemplate| template.attach.is_none() && !has_image(template);
    let types = of_file(session, from_file).filter(|(_, own)| lacks_one(own)).map(|(sandbox_type, _)| sandbox_type);
    let mut types = types.collect::<Vec<_>>().into_iter();
    let launchable = session.launchable();
    types.find(|sandbox_type| launchable.contains(sandbox_type)).map(String::from)
}

/// The types of the file, with their templates, in which the session's own fields have precedence.
fn of_file<'a>(
    session: &'a EffectiveSession,
    from_file: &'a Value,
) -> impl Iterator<Item = (&'a str, &'a SandboxTemplate)> {
    let types = from_file["sandboxes"].as_object().into_iter().flatten();
    types.filter_map(|(sandbox_type, _)| {
        Some((sandbox_type.as_str(), &session.spec().sandboxes.get(sandbox_type)?.template))
    })
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

/// The text of a value that is stored as bytes.
///
/// # Errors
/// When the value is not text, with the position of the first byte that is not.
pub fn decoded(reference: &Reference, bytes: Vec<u8>) -> Result<SecretString, Failure> {
    let text = config::text(bytes);
    text.map(SecretString::from)
        .map_err(|error| Failure { reason: reason(error.mistake), message: format!("In {reference}: {error}.") })
}

/// The session with the fields of its file, over which its own fields have precedence.
fn merged(session: &AigiseSession, from_file: &Value) -> serde_json::Result<EffectiveSession> {
    let own = serde_json::to_value(&session.spec)?;
    let spec: AigiseSessionSpec = serde_json::from_value(config::merge::merge(from_file, &own))?;
    let merged = EffectiveSession::from(Arc::new(AigiseSession { spec, ..session.clone() }));
    let serving = serving(&merged, from_file);
    let mut session = Arc::unwrap_or_clone(merged.session);
    for (_, own) in session.spec.sandboxes.iter_mut().filter(|(sandbox_type, _)| serving.contains(sandbox_type)) {
        own.template.entrypoint = Some(Entrypoint::ImageThenIdle);
    }
    Ok(EffectiveSession { serving, ..Arc::new(session).into() })
}

/// The types of the file without a command that wait for an MCP service in their own sandbox: only the ENTRYPOINT of their image can
/// start it. The framework gives its idle program to the ENTRYPOINT of every image as arguments; other types have it in place of the
/// ENTRYPOINT, which may run something else and end (docs/adr/0017-an-entrypoint-that-serves.md). A step may start the service as well, and
/// so may a container beside the sandbox's own.
fn serving(session: &EffectiveSession, from_file: &Value) -> Vec<String> {
    let says = |template: &SandboxTemplate| template.entrypoint.is_some() || !template.command.is_empty();
    let starts = |template: &SandboxTemplate| {
        template.init.as_ref().is_some_and(|init| !init.steps.is_empty()) || has_further_containers(template)
    };
    if session.spec().sandbox_defaults.as_ref().is_some_and(|defaults| says(defaults) || starts(defaults)) {
        return vec![];
    }
    let services = session.services();
    let serving = of_file(session, from_file).filter(|(sandbox_type, own)| {
        let by_profile = || profile::of(session, sandbox_type).is_some_and(|profile| says(&profile.template));
        own.attach.is_none()
            && !says(own)
            && awaits_itself(session, sandbox_type, &services)
            && !by_profile()
            && !starts(own)
    });
    serving.map(|(sandbox_type, _)| sandbox_type.to_string()).collect()
}

/// Whether a template adds containers to the sandbox's own.
fn has_further_containers(template: &SandboxTemplate) -> bool {
    let pod = template.pod_template.as_ref().map(RawJson::value).unwrap_or_default();
    let added = |list: &str| {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.into_iter().any(|container| container["name"] != meta::SANDBOX_CONTAINER)
    };
    added("containers") || added("initContainers")
}

/// What a file sets in a session, for a manifest without `configFrom`: with what follows from its coming from a file.
pub fn in_full(name: &str, from_file: &Value) -> Value {
    let mut spec = from_file.clone();
    if let Ok(own) = serde_json::from_value(spec.clone()) {
        let session = EffectiveSession::from(Arc::new(AigiseSession::new(name, own)));
        for sandbox_type in serving(&session, from_file) {
            spec["sandboxes"][sandbox_type]["entrypoint"] = "ImageThenIdle".into();
        }
    }
    spec
}

/// Merges the session's own fields over those of the file. They were already merged when the file was read, so this only fails if the
/// session's own fields have changed since; the next read of the file then reports that.
pub(super) fn over(session: &AigiseSession, from_file: &RawJson) -> Option<EffectiveSession> {
    session.spec.config_from.as_ref()?;
    merged(session, &from_file.value()).ok()
}
