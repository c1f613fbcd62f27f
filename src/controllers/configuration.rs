//! Reads what a session's configuration is made of: by name, live, and no oftener than somebody may have changed it.
//!
//! What was read is remembered for as long as it is good, without the secrets in it: they are read with the file, and written
//! where they belong in the same pass.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret as SecretObject};
use kube::{Api, ResourceExt};

use super::Context;
use crate::{
    api::AigiseSession,
    apply::{self, Object},
    config::Secret,
    plan::{
        Failure, Slot, ownership,
        session::{
            configuration::{self, ConfigSecret, Configuration, Contents, FILE_POLL, Reference, SECRET_POLL},
            is_at_rest,
        },
    },
};

/// What was read of the sessions that have a configuration file, by their UIDs.
#[derive(Debug, Default)]
pub struct Configurations(Mutex<HashMap<String, Remembered>>);

/// What is remembered of a session's configuration.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    /// What of the session it was read for: its generation, whether it rested, and whether a Pod wanted to read it.
    of: (Option<i64>, bool, bool),
    /// The version of the object that the file is in.
    file: Option<String>,
    /// When that was last looked at.
    looked_at: Timestamp,
    /// When all was last read.
    read_at: Timestamp,
    configuration: Configuration,
}

/// What was read in this pass, or is remembered.
pub(super) struct Reading {
    pub(super) configuration: Configuration,
    pub(super) config_secret: Option<ConfigSecret>,
    /// What is to be remembered once all of it is written.
    pub(super) remembered: Option<Remembered>,
}

/// An object that holds texts: its version, and the texts by their keys.
type Texts = (Option<String>, BTreeMap<String, Secret>);

impl Configurations {
    /// Remembers what was read in a pass that has written all of it.
    pub(super) fn remember(&self, session: &AigiseSession, remembered: Option<Remembered>) {
        if let (Ok(mut all), Some(remembered)) = (self.0.lock(), remembered) {
            // Whoever has not looked for so long is gone.
            let is_alive = |other: &Remembered| remembered.looked_at.duration_since(other.looked_at) < FORGOTTEN;
            all.retain(|_, other| is_alive(other));
            all.insert(session.uid().unwrap_or_default(), remembered);
        }
    }

    fn recall(&self, session: &AigiseSession) -> Option<Remembered> {
        self.0.lock().ok()?.get(session.metadata.uid.as_ref()?).cloned()
    }
}

/// After this long nobody asks any more: every session looks at its file oftener.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);

/// What is known of a session's configuration file. A session without one has a configuration as well, which is told where a Pod
/// wants to read it.
pub(super) async fn read(session: &Arc<AigiseSession>, has_runner: bool, context: &Context<AigiseSession>) -> Reading {
    let nothing = Reading { configuration: Configuration::None, config_secret: None, remembered: None };
    let (now, of) = (context.now(), (session.metadata.generation, is_at_rest(session), has_runner));
    let since = |then: Timestamp| now.duration_since(then).unsigned_abs();
    let known = context.configurations.recall(session).filter(|known| known.of == of);
    let known = known.filter(|known| since(known.read_at) < SECRET_POLL);
    let Some(file) = configuration::file(session) else {
        if !has_runner || known.is_some() {
            return nothing;
        }
        let (configuration, wanted) = configuration::read(session, &Contents::new(), has_runner);
        let config_secret = Some(ConfigSecret { wanted, slot: config_secret(session, context).await });
        let remembered =
            Remembered { of, file: None, looked_at: now, read_at: now, configuration: configuration.clone() };
        return Reading { configuration, config_secret, remembered: Some(remembered) };
    };
    let kept = |known: Remembered| Reading {
        configuration: known.configuration.clone(),
        config_secret: None,
        remembered: Some(Remembered { looked_at: now, ..known }),
    };
    let mut objects = HashMap::new();
    if let Some(known) = known {
        let is_read = matches!(known.configuration, Configuration::Read { .. });
        if is_read && (matches!(file, Reference::Secret(..)) || since(known.looked_at) < FILE_POLL) {
            return Reading { remembered: None, ..kept(known) };
        }
        let found = look(&file, session, context).await;
        let version = found.as_ref().ok().and_then(|found| found.as_ref()?.0.clone());
        if is_read && version.is_some() && version == known.file {
            return kept(known);
        }
        objects.insert(place(&file), found);
    }
    let mut contents = Contents::new();
    for reference in configuration::references(session) {
        let place = place(&reference);
        if !objects.contains_key(&place) {
            objects.insert(place.clone(), look(&reference, session, context).await);
        }
        let found = objects.get(&place).cloned().unwrap_or(Ok(None));
        let (Reference::ConfigMap(_, key) | Reference::Secret(_, key)) = &reference;
        let text = found.map(|object| object.and_then(|(_, texts)| texts.get(key).cloned()));
        contents.insert(reference, text);
    }
    let (configuration, wanted) = configuration::read(session, &contents, has_runner);
    let config_secret = match configuration {
        Configuration::Read { .. } => Some(ConfigSecret { wanted, slot: config_secret(session, context).await }),
        // What is there is still what runs.
        Configuration::None | Configuration::Unusable(_) => None,
    };
    let version = objects.get(&place(&file)).and_then(|found| found.as_ref().ok()?.as_ref()?.0.clone());
    let remembered =
        Remembered { of, file: version, looked_at: now, read_at: now, configuration: configuration.clone() };
    Reading { configuration, config_secret, remembered: Some(remembered) }
}

/// The object that a reference leads to.
fn place(reference: &Reference) -> (bool, String) {
    match reference {
        Reference::ConfigMap(name, _) => (false, name.clone()),
        Reference::Secret(name, _) => (true, name.clone()),
    }
}

async fn look(
    reference: &Reference,
    session: &AigiseSession,
    context: &Context<AigiseSession>,
) -> Result<Option<Texts>, Failure> {
    match reference {
        Reference::ConfigMap(name, _) => {
            let found = get::<ConfigMap>(name, session, context).await?;
            Ok(found.map(|object| {
                let texts = object.data.unwrap_or_default().into_iter();
                (object.metadata.resource_version, texts.map(|(key, text)| (key, Secret::new(text))).collect())
            }))
        }
        Reference::Secret(name, _) => {
            let found = get::<SecretObject>(name, session, context).await?;
            Ok(found.map(|object| {
                let texts = object.data.unwrap_or_default().into_iter();
                // What is no text cannot be a part of one.
                let texts = texts.filter_map(|(key, bytes)| Some((key, Secret::new(String::from_utf8(bytes.0).ok()?))));
                (object.metadata.resource_version, texts.collect())
            }))
        }
    }
}

async fn get<K: Object>(
    name: &str,
    session: &AigiseSession,
    context: &Context<AigiseSession>,
) -> Result<Option<K>, Failure> {
    let api: Api<K> = Api::namespaced(context.client.clone(), &session.namespace().unwrap_or_default());
    api.get_opt(name).await.map_err(|error| apply::failure(&error))
}

async fn config_secret(session: &AigiseSession, context: &Context<AigiseSession>) -> Slot<SecretObject> {
    match get::<SecretObject>(&configuration::secret_name(session), session, context).await {
        Ok(found) => ownership::slot(found.map(Arc::new), &session.metadata),
        Err(failure) => Slot::Failed(failure),
    }
}
