//! Reads the configuration file of a session and the objects that it refers to: by name from the API server, and only at intervals.
//!
//! What was read is remembered for as long as it is valid, but without secrets: these are read with the file, and the same reconcile
//! writes them to the session's Secret.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use secrecy::{ExposeSecret, SecretString};

use super::{
    Shared,
    live::{Busy, HELD_BYTES},
};
use crate::{
    api::{AigiseSession, condition::Reason},
    apply::{self, Object},
    plan::{
        ChildState, Failure,
        effective::configuration::{self, Configuration, Contents, Reference},
        facts::session::{is_inactive, secret_name},
        ownership,
        session::{
            Observed,
            configuration::{ConfigSecret, SECRET_POLL, poll},
        },
    },
    reading::live::{self, Version},
};

/// The configurations that were read, by the UIDs of their sessions.
#[derive(Debug, Default)]
pub struct Configurations(Mutex<HashMap<String, Remembered>>);

/// The remembered configuration of a session.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// What it was read for: the session's generation, whether the session was inactive, and whether an agent's Pod reads it.
    of: (Option<i64>, bool, bool),
    /// The versions of all objects that it was read from, and of the Secret that was written.
    versions: Versions,
    /// When these versions were last checked for changes.
    looked_at: Timestamp,
    /// When the versions of the Secrets among them were last checked for changes.
    secrets_at: Timestamp,
    configuration: Configuration,
}

/// The versions of the objects that were read; `None` for an object that did not exist.
#[derive(Clone, Debug, Default)]
struct Versions {
    known: BTreeMap<Place, Option<Version>>,
    /// Some objects could not be read.
    has_gaps: bool,
}

/// The configuration of a session, which this reconcile has read or remembered.
pub struct ConfigRead {
    /// The configuration.
    pub configuration: Configuration,
    /// The Secret for its sensitive values, if the file was read.
    pub config_secret: Option<ConfigSecret>,
    /// What to remember once the Secret is written.
    pub remembered: Option<Remembered>,
}

/// An object that a configuration is read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    ConfigMap(String),
    Secret(String),
}

/// The texts that a configuration uses from an object, by their keys.
type Texts = BTreeMap<String, Result<SecretString, Failure>>;

impl Configurations {
    /// Remembers what a reconcile has read, after it has written the Secret.
    pub(super) fn remember(&self, observed: &Observed, remembered: Option<Remembered>) {
        let (Ok(mut all), Some(mut remembered)) = (self.0.lock(), remembered) else { return };
        if let Some(secret) = &observed.config_secret {
            let written = secret.child.owned().and_then(|secret| secret.uid().zip(secret.resource_version()));
            remembered.versions.known.insert(own_secret(&observed.session), written);
        }
        // A session that has not checked its configuration for so long is gone.
        let is_alive = |other: &Remembered| remembered.looked_at.duration_since(other.looked_at) < FORGOTTEN;
        all.retain(|_, other| is_alive(other));
        all.insert(observed.session.uid().unwrap_or_default(), remembered);
    }

    fn recall(&self, session: &AigiseSession) -> Option<Remembered> {
        self.0.lock().ok()?.get(session.metadata.uid.as_ref()?).cloned()
    }
}

/// After this time, a configuration is forgotten: every existing session checks its configuration more often.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);

fn own_secret(session: &impl ResourceExt) -> Place {
    Place::Secret(secret_name(session))
}

/// The configuration of a session, read or remembered. A session without a configuration file has a configuration as well: it is written
/// to the session's Secret if an agent's Pod reads it.
pub(super) async fn read(session: &Arc<AigiseSession>, has_runner: bool, shared: &Shared) -> Result<ConfigRead, Busy> {
    let nothing = ConfigRead { configuration: Configuration::None, config_secret: None, remembered: None };
    let (now, of) = (shared.now(), (session.metadata.generation, is_inactive(session), has_runner));
    let known = shared.configurations.recall(session).filter(|known| known.of == of);
    let file = configuration::file(session);
    if file.is_none() && !has_runner {
        return Ok(nothing);
    }
    if let Some(mut known) = known {
        let since = |then: Timestamp| now.duration_since(then).unsigned_abs();
        let mut has_changed = false;
        if since(known.looked_at) >= poll(file.as_ref(), &known.configuration) {
            let is_used = !matches!(known.configuration, Configuration::Unusable(_));
            let with_secrets = !is_used || since(known.secrets_at) >= SECRET_POLL;
            known.looked_at = now;
            if with_secrets {
                known.secrets_at = now;
            }
            has_changed = versions_differ(&known, with_secrets, session, shared).await;
        }
        if !has_changed {
            return Ok(ConfigRead {
                configuration: known.configuration.clone(),
                config_secret: None,
                remembered: Some(known),
            });
        }
    }
    let permit = shared.live.begin(&session.namespace().unwrap_or_default())?;
    let mut versions = Versions::default();
    let contents = contents(session, &mut versions, shared).await;
    let (configuration, wanted) = configuration::read(session, &contents, has_runner);
    drop((contents, permit));
    let config_secret = match configuration {
        Configuration::None | Configuration::Read { .. } => {
            Some(ConfigSecret { wanted, child: config_secret(session, shared).await })
        }
        // The existing Secret stays: the session still runs with its content.
        Configuration::Unusable(_) => None,
    };
    // If an object could not be read, the next reconcile reads everything again.
    let remembered = (!versions.has_gaps).then(|| Remembered {
        of,
        versions,
        looked_at: now,
        secrets_at: now,
        configuration: configuration.clone(),
    });
    Ok(ConfigRead { configuration, config_secret, remembered })
}

/// Whether one of the objects has changed. Only their versions are read.
async fn versions_differ(known: &Remembered, with_secrets: bool, session: &AigiseSession, shared: &Shared) -> bool {
    let namespace = session.namespace().unwrap_or_default();
    for (place, version) in &known.versions.known {
        let now = match place {
            Place::Secret(_) if !with_secrets => continue,
            Place::ConfigMap(name) => shared.live.version::<ConfigMap>(&namespace, name).await,
            Place::Secret(name) => shared.live.version::<Secret>(&namespace, name).await,
        };
        // A failed read does not mean that the object has changed.
        if now.is_ok_and(|now| now != *version) {
            return true;
        }
    }
    false
}

/// The texts that a configuration is read from. A reconcile holds at most [`HELD_BYTES`] of them.
async fn contents(session: &AigiseSession, versions: &mut Versions, shared: &Shared) -> Contents {
    let mut wanted = BTreeMap::<_, Vec<_>>::new();
    for reference in configuration::references(session) {
        wanted.entry(place(&reference)).or_default().push(reference);
    }
    let (mut contents, mut bytes) = (Contents::new(), 0);
    for (place, references) in wanted {
        let found = if bytes > HELD_BYTES {
            Err(Failure { reason: Reason::TooLarge, message: too_large() })
        } else {
            look(&place, &references, session, shared).await
        };
        match &found {
            Ok(found) => {
                versions.known.insert(place, found.as_ref().and_then(|(version, _)| version.clone()));
            }
            Err(_) => versions.has_gaps = true,
        }
        let found = found.map(|found| found.map(|(_, texts)| texts));
        let texts = found.iter().flatten().flatten().flat_map(|(_, text)| text);
        bytes += texts.map(|text| text.expose_secret().len()).sum::<usize>();
        for reference in references {
            let text = match &found {
                _ if bytes > HELD_BYTES => Err(Failure { reason: Reason::TooLarge, message: too_large() }),
                Ok(texts) => texts.as_ref().and_then(|texts| texts.get(reference.key()).cloned()).transpose(),
                Err(failure) => Err(failure.clone()),
            };
            contents.insert(reference, text);
        }
    }
    contents
}

fn too_large() -> String {
    let most = HELD_BYTES / 1024 / 1024;
    format!("The configuration file and the values of its variables are larger than {most} MiB together.")
}

/// The object that a reference points to.
fn place(reference: &Reference) -> Place {
    match reference {
        Reference::ConfigMap(name, _) => Place::ConfigMap(name.clone()),
        Reference::Secret(name, _) => Place::Secret(name.clone()),
    }
}

/// Reads an object: its version, and the texts that the references use.
async fn look(
    place: &Place,
    references: &[Reference],
    session: &AigiseSession,
    shared: &Shared,
) -> Result<Option<(Option<Version>, Texts)>, Failure> {
    let wanted = |key: &str| references.iter().find(|reference| reference.key() == key);
    let texts = |values: Option<BTreeMap<String, ByteString>>| {
        let values = values.unwrap_or_default().into_iter();
        values.filter_map(|(key, bytes)| {
            let text = configuration::decoded(wanted(&key)?, bytes.0);
            Some((key, text))
        })
    };
    let version = |meta: &ObjectMeta| meta.uid.clone().zip(meta.resource_version.clone());
    Ok(match place {
        Place::ConfigMap(name) => get::<ConfigMap>(name, session, shared).await?.map(|object| {
            // `kubectl create configmap --from-file` stores a file that is not UTF-8 as binary data.
            let data = object.data.unwrap_or_default().into_iter().filter(|(key, _)| wanted(key).is_some());
            let data = data.map(|(key, text)| (key, Ok(SecretString::from(text))));
            (version(&object.metadata), data.chain(texts(object.binary_data)).collect())
        }),
        Place::Secret(name) => get::<Secret>(name, session, shared)
            .await?
            .map(|object| (version(&object.metadata), texts(object.data).collect())),
    })
}

async fn get<K: Object>(name: &str, session: &AigiseSession, shared: &Shared) -> Result<Option<K>, Failure> {
    let found = live::get::<K>(&shared.client, &session.namespace().unwrap_or_default(), name, K::PROJECTION).await;
    found.map_err(|error| apply::failure(&error))?.transpose().map_err(|unreadable| unreadable.failure())
}

async fn config_secret(session: &AigiseSession, shared: &Shared) -> ChildState<Secret> {
    match get::<Secret>(&secret_name(session), session, shared).await {
        Ok(found) => ownership::child_state(found.map(Arc::new), &session.metadata),
        Err(failure) => ChildState::Failed(failure),
    }
}
