//! What is timed, and the ground that it is timed on.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use aigise_operator::api::AigiseSession;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::marks::{Marks, Object};
use crate::{Args, Result};

/// One way to a container that can be worked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arm {
    /// A claim and a Pod.
    OneClaim,
    /// Three claims, as a session has, and a Pod.
    ThreeClaims,
    /// Three claims, a Pod that ends (any volume with content needs one), and then the Pod.
    StagedClaims,
    /// A session of one sandbox with no sources.
    EmptySession,
    /// A session of one sandbox with a ConfigMap as a source.
    SourcedSession,
    /// The same as without sources, with one claim.
    SingleSession,
    /// The same as with a source, with one claim.
    SourcedSingle,
    /// A session of one sandbox with an initialiser of one step that does nothing.
    GatedSession,
    /// Three claims, and eight Pods that mount them.
    EightPods,
    /// A session of eight sandboxes with no sources.
    EightSandboxes,
}

impl Arm {
    pub const ALL: [Arm; 10] = [
        Arm::OneClaim,
        Arm::SingleSession,
        Arm::EmptySession,
        Arm::SourcedSingle,
        Arm::ThreeClaims,
        Arm::SourcedSession,
        Arm::GatedSession,
        Arm::StagedClaims,
        Arm::EightSandboxes,
        Arm::EightPods,
    ];

    /// For the reader.
    pub fn label(self) -> &'static str {
        match self {
            Arm::OneClaim => "Pod, 1 claim",
            Arm::ThreeClaims => "Pod, 3 claims",
            Arm::StagedClaims => "Pod that ends, then Pod, 3 claims",
            Arm::EmptySession => "session without sources",
            Arm::SourcedSession => "session with one source",
            Arm::SingleSession => "session without sources, 1 claim",
            Arm::SourcedSingle => "session with one source, 1 claim",
            Arm::GatedSession => "session with one step",
            Arm::EightPods => "8 Pods, 3 claims",
            Arm::EightSandboxes => "session of 8 sandboxes",
        }
    }

    /// For objects.
    pub fn name(self) -> &'static str {
        match self {
            Arm::OneClaim => "one",
            Arm::ThreeClaims => "three",
            Arm::StagedClaims => "staged",
            Arm::EmptySession => "empty",
            Arm::SourcedSession => "sourced",
            Arm::SingleSession => "single",
            Arm::SourcedSingle => "sourced-single",
            Arm::GatedSession => "gated",
            Arm::EightPods => "eight",
            Arm::EightSandboxes => "eightfold",
        }
    }

    /// Whether Pods start beside each other: their times are not those of one alone.
    pub fn is_crowd(self) -> bool {
        matches!(self, Arm::EightPods | Arm::EightSandboxes)
    }

    pub fn is_session(self) -> bool {
        matches!(
            self,
            Arm::EmptySession
                | Arm::SourcedSession
                | Arm::SingleSession
                | Arm::SourcedSingle
                | Arm::GatedSession
                | Arm::EightSandboxes
        )
    }
}

/// A namespace of our own, watched.
pub struct Ground {
    pub args: Args,
    pub client: Client,
    pub marks: Marks,
    pub namespace: String,
}

const SOURCE: &str = "source";
const CLAIM_SIZE: &str = "16Mi";
const VOLUMES: [&str; 3] = ["scripts", "data", "tools"];

impl Ground {
    /// Makes the namespace and what every arm finds there.
    pub async fn prepare(args: Args) -> Result<Self> {
        let client = Client::try_default().await?;
        let namespace: Namespace = object(json!({"metadata": {"generateName": "aigise-bench-"}}))?;
        let namespace = Api::all(client.clone()).create(&PostParams::default(), &namespace).await?.name_any();
        let marks = Marks::watch(&client, &namespace);
        let ground = Self { args, client, marks, namespace };
        ground.create::<ConfigMap>(json!({"metadata": {"name": SOURCE}, "data": {"hello": "world"}})).await?;
        let is_there = || async {
            let accounts: Api<ServiceAccount> = ground.api();
            Ok(accounts.get_opt("default").await?.is_some())
        };
        ground.until("the namespace has its service account", is_there).await?;
        Ok(ground)
    }

    /// Deletes the namespace, and does not wait for it.
    #[expect(clippy::disallowed_methods, reason = "a namespace that this process has made")]
    pub async fn leave(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        Ok(())
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.args.patience)
    }

    pub async fn create<K>(&self, value: Value) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        self.api::<K>().create(&PostParams::default(), &object(value)?).await?;
        Ok(())
    }

    /// Does one arm, and tells how long it took.
    pub async fn run(&self, arm: Arm, name: &str) -> Result<Duration> {
        let started = Instant::now();
        let ready = match arm {
            Arm::OneClaim => self.pods(name, 1, &VOLUMES[..1], false).await?,
            Arm::ThreeClaims => self.pods(name, 1, &VOLUMES, false).await?,
            Arm::StagedClaims => self.pods(name, 1, &VOLUMES, true).await?,
            Arm::EightPods => self.pods(name, 8, &VOLUMES, false).await?,
            Arm::EmptySession => self.session(name, 1, separate(json!([])), json!({})).await?,
            Arm::SourcedSession => self.session(name, 1, separate(source()), json!({})).await?,
            Arm::SingleSession => self.session(name, 1, single(json!([])), json!({})).await?,
            Arm::SourcedSingle => self.session(name, 1, single(source()), json!({})).await?,
            Arm::GatedSession => {
                let step = json!({"name": "nothing", "command": self.args.end});
                self.session(name, 1, separate(json!([])), json!({"init": {"steps": [step]}})).await?
            }
            Arm::EightSandboxes => self.session(name, 8, separate(json!([])), json!({})).await?,
        };
        Ok(ready.saturating_duration_since(started))
    }

    async fn session(&self, name: &str, count: usize, volumes: Value, defaults: Value) -> Result<Instant> {
        let types = ["main".to_string()].into_iter().chain((1..count).map(|index| format!("type-{index}")));
        let sandboxes: serde_json::Map<_, _> =
            types.map(|sandbox_type| (sandbox_type, json!({"image": self.args.image}))).collect();
        self.ready(name, json!({"sandboxes": sandboxes, "sandboxDefaults": defaults, "volumes": volumes})).await
    }

    /// Applies a session of one sandbox with this image, and tells how long it took.
    pub async fn session_of(&self, name: &str, image: &str, volumes: Value) -> Result<Duration> {
        self.time(name, json!({"sandboxes": {"main": {"image": image}}, "volumes": volumes})).await
    }

    /// Applies a session, and tells how long it took.
    pub async fn time(&self, name: &str, spec: Value) -> Result<Duration> {
        let started = Instant::now();
        Ok(self.ready(name, spec).await?.saturating_duration_since(started))
    }

    /// Applies a session, and tells when it was Ready.
    async fn ready(&self, name: &str, spec: Value) -> Result<Instant> {
        let session = json!({
            "apiVersion": "aigise.dev/v1alpha1",
            "kind": "AigiseSession",
            "metadata": {"name": name},
            "spec": spec,
        });
        self.marks.add(Object::session(name), "is applied");
        let sessions: Api<AigiseSession> = self.api();
        sessions.patch(name, &PatchParams::apply("aigise-bench"), &Patch::Apply(session)).await?;
        self.marks.wait(Object::session(name), "Ready", self.patience()).await
    }

    /// Claims and Pods, where the claims are empty; else a Pod that ends comes first. Tells when the last one was Ready.
    async fn pods(&self, name: &str, count: usize, volumes: &[&str], staged: bool) -> Result<Instant> {
        for volume in volumes {
            self.create::<PersistentVolumeClaim>(json!({
                "metadata": {"name": format!("{name}--{volume}"), "labels": {"bare": "true"}},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": CLAIM_SIZE}}},
            }))
            .await?;
        }
        if staged {
            let stage = format!("{name}--stage");
            self.create::<Pod>(self.bare(&stage, name, volumes, &self.args.end)).await?;
            self.marks.wait(Object::pod(&stage), "ended", self.patience()).await?;
        }
        // The first has the name itself; the names of the others begin with it, as those of a session's do.
        let pods: Vec<String> =
            (0..count).map(|index| if index == 0 { name.into() } else { format!("{name}--{index}") }).collect();
        for pod in &pods {
            self.create::<Pod>(self.bare(pod, name, volumes, &self.args.idle)).await?;
        }
        let mut last = Instant::now();
        for pod in &pods {
            last = last.max(self.marks.wait(Object::pod(pod), "Ready", self.patience()).await?);
        }
        Ok(last)
    }

    /// A Pod with nothing that a session's does not have, either: no token, no service links, the same grace.
    fn bare(&self, name: &str, of: &str, volumes: &[&str], command: &[String]) -> Value {
        let claim =
            |volume: &&str| json!({"name": volume, "persistentVolumeClaim": {"claimName": format!("{of}--{volume}")}});
        let mount = |volume: &&str| json!({"name": volume, "mountPath": format!("/volumes/{volume}")});
        json!({
            "metadata": {"name": name, "labels": {"bare": "true"}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 5,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "containers": [{
                    "name": "main",
                    "image": self.args.image,
                    "command": command,
                    "volumeMounts": volumes.iter().map(mount).collect::<Value>(),
                }],
                "volumes": volumes.iter().map(claim).collect::<Value>(),
            },
        })
    }

    /// Deletes what an arm has made, and waits until nothing is left of it: Pods, claims, and the volumes behind them.
    pub async fn clear(&self) -> Result<()> {
        let (now, all, bare) =
            (DeleteParams::background(), ListParams::default(), ListParams::default().labels("bare"));
        let not_registry = ListParams::default().labels("!registry");
        self.api::<AigiseSession>().delete_collection(&now, &all).await?;
        self.api::<Pod>().delete_collection(&now, &bare).await?;
        self.api::<PersistentVolumeClaim>().delete_collection(&now, &bare).await?;
        let is_clear = || async {
            let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
            let is_ours = |volume: &PersistentVolume| {
                let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
                claim.is_some_and(|claim| claim.namespace.as_deref() == Some(self.namespace.as_str()))
            };
            Ok(self.api::<Pod>().list(&not_registry).await?.items.is_empty()
                && self.api::<PersistentVolumeClaim>().list(&all).await?.items.is_empty()
                && self.api::<AigiseSession>().list(&all).await?.items.is_empty()
                && !volumes.list(&all).await?.items.iter().any(is_ours))
        };
        self.until("everything is deleted", is_clear).await
    }

    pub async fn until<F: Future<Output = Result<bool>>>(&self, what: &str, holds: impl Fn() -> F) -> Result<()> {
        let deadline = Instant::now() + self.patience();
        while !holds().await? {
            if Instant::now() > deadline {
                return Err(format!("waited {} s in vain until {what}", self.args.patience).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

fn source() -> Value {
    json!([{"configMap": {"name": SOURCE}}])
}

/// The volumes of a session with three claims.
fn separate(sources: Value) -> Value {
    let scripts = json!({"size": CLAIM_SIZE, "sources": sources});
    json!({"scripts": scripts, "data": {"size": CLAIM_SIZE}, "tools": {"size": CLAIM_SIZE}})
}

/// The volumes of a session with one.
fn single(sources: Value) -> Value {
    json!({"layout": "Single", "scripts": {"sources": sources}, "data": {"size": CLAIM_SIZE}})
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> Result<K> {
    Ok(serde_json::from_value(value)?)
}
