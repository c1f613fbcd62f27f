//! `aigise-operator self-test`, which `helm test` runs: creates a small session as a user would, and deletes it. The session has a
//! sandbox and three claims, and one claim is filled from a ConfigMap that each namespace has. So the operator creates all of its kinds
//! of objects: claims, stage Pod, policy, Service, Sandbox and its Pod with the helper in it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use super::args::SelfTestArgs;
use crate::{
    api::{AigiseSession, Sandbox, condition::ConditionType, meta, session::AigiseSessionStatus},
    apply::Object,
};

/// The name of the session. The chart's Role contains the same name.
const NAME: &str = "aigise-self-test";

/// How often the session is read.
const POLL: Duration = Duration::from_millis(250);

/// How long it may take until all objects of a deleted session are gone.
const CLEAN_UP: Duration = Duration::from_secs(60);

/// Why the test failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment does not configure a cluster.
    #[error("no Kubernetes cluster is configured: set KUBECONFIG, or run in a Pod with a service account")]
    Configure(#[source] kube::Error),
    /// The signal handlers could not be installed.
    #[error(transparent)]
    Signals(#[from] super::Error),
    /// The session of the test does not fit the API of this version.
    #[error("the session of the test cannot be built")]
    Describe(#[source] serde_json::Error),
    /// The API server did not accept the session.
    #[error("the session could not be created in {namespace}")]
    Create {
        /// The namespace of the session.
        namespace: String,
        /// The error of the API server.
        #[source]
        source: kube::Error,
    },
    /// The session was not ready in time, or never will be.
    #[error("the session is not ready: {0}")]
    NotReady(String),
    /// The session could not be deleted.
    #[error("the session could not be deleted")]
    Delete(#[source] kube::Error),
    /// Objects of the session still exist after it was deleted.
    #[error("the session was deleted, but these objects still exist: {0}")]
    Left(String),
    /// The test received a signal to stop before it was done.
    #[error("received a signal to stop")]
    Stopped,
}

/// Creates the session, waits until it is ready, and deletes it in any case.
///
/// # Errors
/// When the session did not become ready, or objects of the session are left.
pub async fn run(args: SelfTestArgs) -> Result<(), Error> {
    let client = Client::try_default().await.map_err(Error::Configure)?;
    let stopped = super::stop_signal()?;
    let test =
        SelfTest { sessions: Api::namespaced(client.clone(), &args.namespace), client, started: Instant::now(), args };

    test.delete().await?; // a killed run may have left its session
    let result = tokio::select! {
        result = test.create_and_wait() => result,
        () = stopped => Err(Error::Stopped),
    };
    let deleted = test.delete().await;
    result.and(deleted)?;
    test.say("the session was ready, and nothing of it is left");
    Ok(())
}

struct SelfTest {
    client: Client,
    sessions: Api<AigiseSession>,
    started: Instant,
    args: SelfTestArgs,
}

impl SelfTest {
    async fn create_and_wait(&self) -> Result<(), Error> {
        let session = session(&self.args).map_err(Error::Describe)?;
        let namespace = &self.args.namespace;
        let created = self.sessions.create(&PostParams::default(), &session).await;
        created.map_err(|source| Error::Create { namespace: namespace.clone(), source })?;
        self.say(&format!("the session {NAME} is created in {namespace}; its sandbox runs {}", self.args.image));

        let deadline = self.started + Duration::from_secs(self.args.timeout.into());
        let mut said = String::from("the session was not reconciled: does the operator run and watch this namespace?");
        while Instant::now() < deadline {
            let news = match timeout_at(deadline, self.sessions.get(NAME)).await {
                Ok(Ok(session)) => session.status.as_ref().and_then(Standing::of),
                Ok(Err(error)) => Some(Standing::Moving(format!("the session cannot be read: {error}"))),
                Err(_) => break,
            };
            if let Some(standing) = news {
                let text = standing.text();
                if *text != said {
                    self.say(text);
                    said.clone_from(text);
                }
                match standing {
                    Standing::Ready(_) => return Ok(()),
                    Standing::Stalled(why) => return Err(Error::NotReady(why)),
                    Standing::Moving(_) => {}
                }
            }
            sleep(POLL).await;
        }
        Err(Error::NotReady(format!("after {} s: {said}", self.args.timeout)))
    }

    /// Deletes the session, if it exists, and waits until all of its objects are gone.
    #[expect(clippy::disallowed_methods, reason = "the test's own session; the UID is a precondition")]
    async fn delete(&self) -> Result<(), Error> {
        let Some(session) = self.sessions.get_opt(NAME).await.map_err(Error::Delete)? else { return Ok(()) };
        let uid = session.uid().unwrap_or_default();
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
            ..DeleteParams::background()
        };
        self.sessions.delete(NAME, &params).await.map_err(Error::Delete)?;
        self.say("the session is deleted");
        let deadline = Instant::now() + CLEAN_UP;
        loop {
            let left = self.left(&uid).await.map_err(Error::Delete)?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Left(left.join(", ")));
            }
            sleep(POLL).await;
        }
    }

    /// All objects that have the label with the session's UID, and the session itself.
    async fn left(&self, uid: &str) -> Result<Vec<String>, kube::Error> {
        let mut left = self.names::<Sandbox>(uid).await?;
        left.extend(self.names::<Pod>(uid).await?);
        left.extend(self.names::<Service>(uid).await?);
        left.extend(self.names::<PersistentVolumeClaim>(uid).await?);
        let session = self.sessions.get_opt(NAME).await?.filter(|session| session.uid().as_deref() == Some(uid));
        left.extend(session.map(|_| format!("AigiseSession {NAME}")));
        Ok(left)
    }

    async fn names<K: Object>(&self, uid: &str) -> Result<Vec<String>, kube::Error> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.args.namespace);
        let found = api.list_metadata(&ListParams::default().labels(&format!("{}={uid}", meta::SESSION_UID))).await?;
        Ok(found.iter().map(|object| format!("{} {}", K::kind(&()), object.name_any())).collect())
    }

    #[expect(clippy::print_stdout, reason = "what `helm test --logs` shows")]
    fn say(&self, text: &str) {
        println!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
    }
}

/// What the session's status reports, with its phase and message.
enum Standing {
    Ready(String),
    Moving(String),
    Stalled(String),
}

impl Standing {
    fn of(status: &AigiseSessionStatus) -> Option<Self> {
        let find = |kind: ConditionType| {
            let name = kind.to_string();
            status.conditions.iter().find(|condition| condition.type_ == name)
        };
        let holds = |kind| find(kind).is_some_and(|condition| condition.status == "True");
        // Without a phase, the condition is a default of the API server: the session was not reconciled yet.
        let text = format!("{}: {}", status.phase?, find(ConditionType::Ready)?.message);
        Some(match () {
            () if holds(ConditionType::Ready) => Self::Ready(text),
            () if holds(ConditionType::Stalled) => Self::Stalled(text),
            () => Self::Moving(text),
        })
    }

    fn text(&self) -> &String {
        match self {
            Self::Ready(text) | Self::Moving(text) | Self::Stalled(text) => text,
        }
    }
}

/// A small session. It has limits, which some namespaces require, and Pod Security `restricted` admits its Pods. Any image works: without
/// a command, the helper runs.
fn session(args: &SelfTestArgs) -> Result<AigiseSession, serde_json::Error> {
    let volume = |sources| json!({"size": "16Mi", "storageClassName": args.storage_class, "sources": sources});
    let root_certificate = json!([{"configMap": {"name": "kube-root-ca.crt"}, "path": "self-test"}]);
    serde_json::from_value(json!({
        "apiVersion": "aigise.dev/v1alpha1",
        "kind": "AigiseSession",
        "metadata": {"name": NAME, "namespace": args.namespace},
        "spec": {
            "sandboxes": {"main": {
                "image": args.image,
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
                "securityContext": {
                    "runAsNonRoot": true,
                    "runAsUser": 65532,
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                },
            }},
            "volumes": {"data": volume(root_certificate), "scripts": volume(json!([])), "tools": volume(json!([]))},
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_what_a_user_would_write() {
        let args = SelfTestArgs {
            namespace: "team".into(),
            image: "registry.example/tool:1".into(),
            storage_class: Some("fast".into()),
            timeout: 1,
        };
        let written = serde_json::to_value(session(&args).unwrap()).unwrap();
        assert_eq!(written["spec"]["sandboxes"]["main"]["image"], "registry.example/tool:1");
        for volume in ["data", "scripts", "tools"] {
            assert_eq!(written["spec"]["volumes"][volume]["storageClassName"], "fast", "{volume}");
        }
        let none = serde_json::to_value(session(&SelfTestArgs { storage_class: None, ..args }).unwrap()).unwrap();
        assert!(none["spec"]["volumes"]["data"].get("storageClassName").is_none(), "the default class");
    }
}
