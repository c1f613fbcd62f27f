//! A cluster with room for thousands: nodes that kwok plays, and what is made on them.

use std::{
    fmt::Debug,
    fs::File,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aigise_operator::api::{AigiseSession, Sandbox};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Namespace as NamespaceObject, Node, ServiceAccount},
    storage::v1::StorageClass,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    audit::{Audit, Window},
    operator::Operator,
};
use crate::{Args, Result, now};

/// Nodes with this label are played.
const PLAYED: &str = "aigise.dev/bench=played";
/// The class of volumes that are played.
const CLASS: &str = "played";
/// A node has addresses for so many Pods.
const PODS_PER_NODE: usize = 220;
const LOG: &str = "target/bench-kwok.log";

/// What this process changed of the cluster.
pub struct Cluster {
    client: Client,
    args: Args,
    kwok: Child,
    cordoned: Vec<String>,
}

/// A namespace of ours.
pub struct Namespace {
    client: Client,
    name: String,
    image: String,
    patience: Duration,
}

impl Cluster {
    /// Makes room: the real nodes take no more Pods, and there are others that do.
    pub async fn prepare(args: &Args) -> Result<Self> {
        let client = Client::try_default().await?;
        let log = File::create(LOG)?;
        let kubeconfig = std::env::var("KUBECONFIG")?;
        let kwok = Command::new(&args.kwok)
            .args(["--kubeconfig", &kubeconfig, "--manage-nodes-with-label-selector", PLAYED])
            .args(["--node-lease-duration-seconds", "40", "--config"])
            .arg(&args.stages)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut cluster = Self { client, args: args.clone(), kwok, cordoned: vec![] };
        match cluster.make_room().await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.leave().await?;
                Err(error)
            }
        }
    }

    async fn make_room(&mut self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for node in nodes.list(&ListParams::default().labels("!aigise.dev/bench")).await? {
            if node.spec.as_ref().and_then(|spec| spec.unschedulable) != Some(true) {
                self.cordon(&node.name_any(), true).await?;
                self.cordoned.push(node.name_any());
            }
        }
        let class = json!({
            "metadata": {"name": CLASS}, "provisioner": "aigise.dev/played", "volumeBindingMode": "Immediate",
        });
        create::<StorageClass>(&Api::all(self.client.clone()), class).await?;
        let pods = self.args.many + self.args.batch + self.args.sessions * 3;
        for index in 0..=pods / PODS_PER_NODE {
            let name = format!("played-{index}");
            let room = json!({"cpu": "1k", "memory": "1Ti", "pods": PODS_PER_NODE.to_string()});
            let node = json!({
                "metadata": {"name": name, "labels": {"aigise.dev/bench": "played", "kubernetes.io/hostname": name}},
                "status": {
                    "allocatable": room, "capacity": room,
                    "addresses": [{"type": "InternalIP", "address": format!("192.0.2.{}", index % 250 + 1)}],
                },
            });
            create::<Node>(&nodes, node).await?;
        }
        let all_ready = || async {
            let played = nodes.list(&ListParams::default().labels(PLAYED)).await?;
            Ok(played.iter().all(|node| {
                let tainted = node.spec.as_ref().is_some_and(|spec| spec.taints.is_some());
                let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
                let ready = |kind: &str, status: &str| kind == "Ready" && status == "True";
                !tainted && conditions.into_iter().flatten().any(|is| ready(&is.type_, &is.status))
            }))
        };
        until("the played nodes are ready", self.patience(), all_ready).await
    }

    async fn cordon(&self, node: &str, unschedulable: bool) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = json!({"spec": {"unschedulable": unschedulable}});
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Leaves the cluster as it was. Pods are deleted while there is somebody to play their end.
    pub async fn leave(&mut self) -> Result<()> {
        let namespaces: Api<NamespaceObject> = Api::all(self.client.clone());
        for namespace in namespaces.list(&ListParams::default().labels("aigise.dev/bench=scale")).await? {
            self.delete(Namespace::of(self, &namespace.name_any())).await?;
        }
        let (now, played) = (DeleteParams::default(), ListParams::default().labels(PLAYED));
        Api::<Node>::all(self.client.clone()).delete_collection(&now, &played).await?;
        let ours = ListParams::default().fields(&format!("metadata.name={CLASS}"));
        Api::<StorageClass>::all(self.client.clone()).delete_collection(&now, &ours).await?;
        for node in std::mem::take(&mut self.cordoned) {
            self.cordon(&node, false).await?;
        }
        Ok(())
    }

    /// How long any one thing may take.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.args.patience)
    }

    /// Makes a namespace.
    pub async fn namespace(&self, what: &str) -> Result<Namespace> {
        let namespace = json!({
            "metadata": {"generateName": format!("aigise-bench-{what}-"), "labels": {"aigise.dev/bench": "scale"}},
        });
        let made = create::<NamespaceObject>(&Api::all(self.client.clone()), namespace).await?;
        let namespace = Namespace::of(self, &made.name_any());
        let accounts: Api<ServiceAccount> = namespace.api();
        let has_account = || async { Ok(accounts.get_opt("default").await?.is_some()) };
        until("the namespace has its service account", self.patience(), has_account).await?;
        Ok(namespace)
    }

    /// Deletes a namespace, and waits until it is gone.
    #[expect(clippy::disallowed_methods, reason = "a namespace that this process has made")]
    pub async fn delete(&self, namespace: Namespace) -> Result<()> {
        let namespaces: Api<NamespaceObject> = Api::all(self.client.clone());
        namespaces.delete(&namespace.name, &DeleteParams::default()).await?;
        let gone = || async { Ok(namespaces.get_opt(&namespace.name).await?.is_none()) };
        until("the namespace is gone", self.patience(), gone).await
    }

    /// Makes every watch begin anew, and waits until the operator has listed again what it watches.
    pub async fn relist(&self, from: Timestamp) -> Result<()> {
        let Some((program, arguments)) = self.args.relist.split_first() else { return Ok(()) };
        let done = Command::new(program).args(arguments).stdout(Stdio::null()).status()?;
        if !done.success() {
            return Err(format!("--relist: {done}").into());
        }
        let pause = || tokio::time::sleep(Duration::from_secs(10));
        let listed = || async {
            pause().await;
            // While the API server is away, there is no log to be read, either.
            let audit = Audit::read(&self.args, Window { from, until: now() });
            Ok(audit.is_ok_and(|audit| audit.lists > 0))
        };
        until("the operator lists again", self.patience(), listed).await?;
        pause().await; // for the lists of the other kinds
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.kwok.kill().and_then(|()| self.kwok.wait());
    }
}

impl Namespace {
    fn of(cluster: &Cluster, name: &str) -> Self {
        Self {
            client: cluster.client.clone(),
            name: name.into(),
            image: cluster.args.image.clone(),
            patience: cluster.patience(),
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// How long any one thing may take.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Makes so many Sandboxes, the first of this number, at once or so many a second, and waits until all are Ready.
    pub async fn fill(&self, first: usize, count: usize, rate: Option<usize>, operator: &Operator) -> Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "there are few sandboxes")]
        let wanted = operator.sandboxes("Ready")? + count as f64;
        let sandboxes: Api<Sandbox> = self.api();
        let gap = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / u32::try_from(rate).unwrap_or(1));
        let started = tokio::time::Instant::now();
        let made = (0..count).map(|index| {
            let (sandboxes, sandbox) = (&sandboxes, self.sandbox(&format!("sandbox-{}", first + index)));
            async move {
                tokio::time::sleep_until(started + gap * u32::try_from(index).unwrap_or_default()).await;
                create(sandboxes, sandbox).await.map(drop)
            }
        });
        stream::iter(made).buffer_unordered(8).try_collect::<()>().await?;
        let all_ready = || async { Ok(operator.sandboxes("Ready")? >= wanted) };
        until("all Sandboxes are Ready", self.patience, all_ready).await?;
        self.all_ready(first + count).await
    }

    /// The operator's own word is not taken for it.
    async fn all_ready(&self, count: usize) -> Result<()> {
        let all = self.api::<Sandbox>().list(&ListParams::default()).await?;
        let ready = all.iter().filter(|sandbox| {
            let conditions = sandbox.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        let ready = ready.count();
        if ready == count { Ok(()) } else { Err(format!("{ready} of {count} Sandboxes are Ready").into()) }
    }

    /// One made by hand: it has no claims.
    fn sandbox(&self, name: &str) -> Value {
        json!({
            "apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox",
            "metadata": {"name": name},
            "spec": {
                "type": "main", "image": self.image, "workingDir": "/src",
                "env": [{"name": "FUZZER", "value": "afl"}, {"name": "CORPUS", "value": "/shared/corpus"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
            },
        })
    }

    /// Makes so many objects of a kind that are too large to be read, and half as many at the limits.
    pub async fn large(&self, plural: &str, count: usize) -> Result<()> {
        let at_limits = json!({"values": vec![json!({"a": 0}); 7_900], "text": "x".repeat(190_000)});
        let too_large = json!({"text": "x".repeat(1_400_000)});
        let path = format!("/apis/aigise.dev/v1alpha1/namespaces/{}/{plural}", self.name);
        let made = (0..count + count / 2).map(|index| {
            let template = if index < count { &too_large } else { &at_limits };
            let (kind, spec) = match plural {
                "sandboxes" => {
                    ("Sandbox", json!({"type": "main", "image": self.image, "suspend": true, "podTemplate": template}))
                }
                "agents" => ("Agent", json!({"session": "absent", "config": {"instruction": "x", "more": template}})),
                _ => {
                    let main = json!({"image": self.image, "podTemplate": template});
                    ("AigiseSession", json!({"suspend": true, "sandboxes": {"main": main}}))
                }
            };
            let metadata = json!({"name": format!("large-{index}")});
            let object = json!({"apiVersion": "aigise.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
            let request = http::Request::post(&path).header("content-type", "application/json");
            async move {
                self.client.request_text(request.body(object.to_string().into_bytes())?).await?;
                Ok::<_, crate::Failed>(())
            }
        });
        stream::iter(made).buffer_unordered(4).try_collect::<()>().await
    }

    /// Makes so many sessions of three sandboxes, and waits until all are Ready.
    pub async fn sessions(&self, count: usize, operator: &Operator) -> Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "there are few sessions")]
        let wanted = operator.sessions("Ready")? + count as f64;
        let sessions: Api<AigiseSession> = self.api();
        let volume = json!({"size": "16Mi", "storageClassName": CLASS});
        for index in 0..count {
            let session = json!({
                "apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession",
                "metadata": {"name": format!("session-{index}")},
                "spec": {
                    "sandboxes": {"main": {"image": self.image}, "fuzz": {"image": self.image}, "gdb_mcp": {"image": self.image}},
                    "volumes": {"scripts": volume, "data": volume, "tools": volume},
                },
            });
            create(&sessions, session).await?;
        }
        let all_ready = || async { Ok(operator.sessions("Ready")? >= wanted) };
        until("all sessions are Ready", self.patience, all_ready).await
    }
}

async fn create<K>(api: &Api<K>, value: Value) -> Result<K>
where
    K: Resource + Clone + Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    Ok(api.create(&PostParams::default(), &serde_json::from_value(value)?).await?)
}

async fn until<F: Future<Output = Result<bool>>>(what: &str, patience: Duration, holds: impl Fn() -> F) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !holds().await? {
        if Instant::now() > deadline {
            return Err(format!("waited {} s in vain until {what}", patience.as_secs()).into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
