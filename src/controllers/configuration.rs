//! Reads what a session's configuration is made of: by name, live, and no oftener than somebody may have changed it.
//!
//! What was read is remembered for as long as it is good, without the secrets in it: they are read with the file, and written
//! where they belong in the same pass.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret as SecretObject},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;

use super::{
    Context,
    live::{Busy, PASS_BYTES},
};
use crate::{
    api::{AigiseSession, condition::Reason},
    apply::{self, Object},
    config::Secret,
    plan::{
        ChildState, Failure, ownership,
        session::{
            Observed,
            configuration::{self, ConfigSecret, Configuration, Contents, Reference, SECRET_POLL},
            is_inactive,
        },
    },
    reading::live::{self, Version},
};

/// What was read of the sessions that have a configuration file, by their UIDs.
#[derive(Debug, Default)]
pub struct Configurations(Mutex<HashMap<String, Remembered>>);

/// What is remembered of a session's configuration.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    /// What of the session it was read for: its generation, whether it rested, and whether a Pod wanted to read it.
    of: (Option<i64>, bool, bool),
    /// The versions of all objects that it was read from, with the Secret that was written.
    versions: Versions,
    /// When it was last looked at whether these are other ones.
    looked_at: Timestamp,
    /// Likewise, for the Secrets among them.
    secrets_at: Timestamp,
    configuration: Configuration,
}

/// The versions of objects that were looked at; nothing of one that was not there.
#[derive(Clone, Debug, Default)]
struct Versions {
    known: BTreeMap<Place, Option<Version>>,
    /// Some could not be read.
    has_gaps: bool,
}

/// What was read in this pass, or is remembered.
pub(super) struct ConfigRead {
    pub(super) configuration: Configuration,
    pub(super) config_secret: Option<ConfigSecret>,
    /// What is to be remembered once all of it is written.
    pub(super) remembered: Option<Remembered>,
}

/// An object that a configuration is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    ConfigMap(String),
    Secret(String),
}

/// The texts that were looked for in an object, by their keys.
type Texts = BTreeMap<String, Secret>;

impl Configurations {
    /// Remembers what was read in a pass that has written all of it.
    pub(super) fn remember(&self, observed: &Observed, remembered: Option<Remembered>) {
        let (Ok(mut all), Some(mut remembered)) = (self.0.lock(), remembered) else { return };
        if let Some(secret) = &observed.config_secret {
            let written = secret.child.owned().and_then(|secret| secret.uid().zip(secret.resource_version()));
            remembered.versions.known.insert(own_secret(&observed.session), written);
        }
        // Whoever has not looked for so long is gone.
        let is_alive = |other: &Remembered| remembered.looked_at.duration_since(other.looked_at) < FORGOTTEN;
        all.retain(|_, other| is_alive(other));
        all.insert(observed.session.uid().unwrap_or_default(), remembered);
    }

    fn recall(&self, session: &AigiseSession) -> Option<Remembered> {
        self.0.lock().ok()?.get(session.metadata.uid.as_ref()?).cloned()
    }
}

/// After this long nobody asks any more: every session looks at its file oftener.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(1);

fn own_secret(session: &AigiseSession) -> Place {
    Place::Secret(configuration::secret_name(session))
}

/// What is known of a session's configuration file. A session without one has a configuration as well, which is told where a Pod
/// wants to read it.
pub(super) async fn read(
    session: &Arc<AigiseSession>,
    has_runner: bool,
    context: &Context<AigiseSession>,
) -> Result<ConfigRead, Busy> {
    let nothing = ConfigRead { configuration: Configuration::None, config_secret: None, remembered: None };
    let (now, of) = (context.now(), (session.metadata.generation, is_inactive(session), has_runner));
    let known = context.configurations.recall(session).filter(|known| known.of == of);
    let file = configuration::file(session);
    if file.is_none() && !has_runner {
        return Ok(nothing);
    }
    if let Some(mut known) = known {
        let since = |then: Timestamp| now.duration_since(then).unsigned_abs();
        let mut has_changed = false;
        if since(known.looked_at) >= configuration::poll(file.as_ref(), &known.configuration) {
            let is_used = !matches!(known.configuration, Configuration::Unusable(_));
            let with_secrets = !is_used || since(known.secrets_at) >= SECRET_POLL;
            known.looked_at = now;
            if with_secrets {
                known.secrets_at = now;
            }
            has_changed = versions_differ(&known, with_secrets, session, context).await;
        }
        if !has_changed {
            return Ok(ConfigRead {
                configuration: known.configuration.clone(),
                config_secret: None,
                remembered: Some(known),
            });
        }
    }
    let pass = context.live.begin(&session.namespace().unwrap_or_default())?;
    let mut versions = Versions::default();
    let contents = contents(session, &mut versions, context).await;
    let (configuration, wanted) = configuration::read(session, &contents, has_runner);
    drop((contents, pass));
    let config_secret = match configuration {
        Configuration::None | Configuration::Read { .. } => {
            Some(ConfigSecret { wanted, child: config_secret(session, context).await })
        }
        // What is there is still what runs.
        Configuration::Unusable(_) => None,
    };
    // What could not be read is tried again.
    let remembered = (!versions.has_gaps).then(|| Remembered {
        of,
        versions,
        looked_at: now,
        secrets_at: now,
        configuration: configuration.clone(),
    });
    Ok(ConfigRead { configuration, config_secret, remembered })
}

/// Whether one of the objects is another one than it was; only their versions are read.
async fn versions_differ(
    known: &Remembered,
    with_secrets: bool,
    session: &AigiseSession,
    context: &Context<AigiseSession>,
) -> bool {
    let namespace = session.namespace().unwrap_or_default();
    for (place, version) in &known.versions.known {
        let now = match place {
            Place::Secret(_) if !with_secrets => continue,
            Place::ConfigMap(name) => context.live.version::<ConfigMap>(&namespace, name).await,
            Place::Secret(name) => context.live.version::<SecretObject>(&namespace, name).await,
        };
        // That one could not be looked at just now says nothing of it.
        if now.is_ok_and(|now| now != *version) {
            return true;
        }
    }
    false
}

/// The texts that a configuration is made of. No more of them is held than a pass may hold.
async fn contents(session: &AigiseSession, versions: &mut Versions, context: &Context<AigiseSession>) -> Contents {
    let mut wanted = BTreeMap::<_, Vec<_>>::new();
    for reference in configuration::references(session) {
        wanted.entry(place(&reference)).or_default().push(reference);
    }
    let (mut contents, mut bytes) = (Contents::new(), 0);
    for (place, references) in wanted {
        let found = if bytes > PASS_BYTES {
            Err(Failure { reason: Reason::TooLarge, message: too_large() })
        } else {
            look(&place, &references, session, context).await
        };
        match &found {
            Ok(found) => {
                versions.known.insert(place, found.as_ref().and_then(|(version, _)| version.clone()));
            }
            Err(_) => versions.has_gaps = true,
        }
        let found = found.map(|found| found.map(|(_, texts)| texts));
        bytes += found.iter().flatten().flatten().map(|(_, text)| text.reveal().len()).sum::<usize>();
        for reference in references {
            let text = match &found {
                _ if bytes > PASS_BYTES => Err(Failure { reason: Reason::TooLarge, message: too_large() }),
                Ok(texts) => Ok(texts.as_ref().and_then(|texts| texts.get(reference.key()).cloned())),
                Err(failure) => Err(failure.clone()),
            };
            contents.insert(reference, text);
        }
    }
    contents
}

fn too_large() -> String {
    let most = PASS_BYTES / 1024 / 1024;
    format!("The configuration file and what its variables refer to have more than {most} MiB together.")
}

/// The object that a reference leads to.
fn place(reference: &Reference) -> Place {
    match reference {
        Reference::ConfigMap(name, _) => Place::ConfigMap(name.clone()),
        Reference::Secret(name, _) => Place::Secret(name.clone()),
    }
}

/// An object, as far as it is referred to.
async fn look(
    place: &Place,
    references: &[Reference],
    session: &AigiseSession,
    context: &Context<AigiseSession>,
) -> Result<Option<(Option<Version>, Texts)>, Failure> {
    let is_wanted = |key: &String| references.iter().any(|reference| reference.key() == key);
    let version = |meta: &ObjectMeta| meta.uid.clone().zip(meta.resource_version.clone());
    Ok(match place {
        Place::ConfigMap(name) => get::<ConfigMap>(name, session, context).await?.map(|object| {
            let texts = object.data.unwrap_or_default().into_iter().filter(|(key, _)| is_wanted(key));
            (version(&object.metadata), texts.map(|(key, text)| (key, Secret::new(text))).collect())
        }),
        Place::Secret(name) => get::<SecretObject>(name, session, context).await?.map(|object| {
            let texts = object.data.unwrap_or_default().into_iter().filter(|(key, _)| is_wanted(key));
            // What is no text cannot be a part of one.
            let texts = texts.filter_map(|(key, bytes)| Some((key, Secret::new(String::from_utf8(bytes.0).ok()?))));
            (version(&object.metadata), texts.collect())
        }),
    })
}

async fn get<K: Object>(
    name: &str,
    session: &AigiseSession,
    context: &Context<AigiseSession>,
) -> Result<Option<K>, Failure> {
    let found = live::get::<K>(&context.client, &session.namespace().unwrap_or_default(), name, K::PROJECTION).await;
    found.map_err(|error| apply::failure(&error))?.transpose().map_err(|unreadable| unreadable.failure())
}

async fn config_secret(session: &AigiseSession, context: &Context<AigiseSession>) -> ChildState<SecretObject> {
    match get::<SecretObject>(&configuration::secret_name(session), session, context).await {
        Ok(found) => ownership::child_state(found.map(Arc::new), &session.metadata),
        Err(failure) => ChildState::Failed(failure),
    }
}
