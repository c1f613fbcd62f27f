//! What an API server does with the requests of the operator and its users: run against the one in memory (`tests/it`) and against
//! a real one (`tests/e2e`), so that the first cannot drift from the second.

use std::fmt::Debug;

use futures::{StreamExt, future::LocalBoxFuture, stream::BoxStream};
use kube::{
    Api, Client, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
        Preconditions, WatchEvent, WatchParams,
    },
    core::Status,
};
use serde_json::{Value, json};

/// A namespace to try things in; its own for each scenario.
pub struct Ground {
    pub client: Client,
    pub namespace: String,
}

/// Something that is tried.
pub type Scenario = for<'a> fn(&'a Ground) -> LocalBoxFuture<'a, ()>;

/// All of them, by name. A name is part of a namespace's.
pub const SCENARIOS: [(&str, Scenario); 14] = [
    ("create", |ground| Box::pin(what_is_there_is_not_made_again(ground))),
    ("delete", |ground| Box::pin(a_delete_hits_what_it_names_and_nothing_else(ground))),
    ("apply", |ground| Box::pin(fields_belong_to_who_applied_them(ground))),
    ("apply-uid", |ground| Box::pin(an_apply_with_a_uid_makes_nothing_anew(ground))),
    ("take-over", |ground| Box::pin(who_updates_a_field_takes_it_over(ground))),
    ("status", |ground| Box::pin(status_and_specification_are_written_apart(ground))),
    ("conditions", |ground| Box::pin(conditions_are_merged_by_type(ground))),
    ("generation", |ground| Box::pin(a_generation_is_a_change_of_the_specification(ground))),
    ("finalizer", |ground| Box::pin(a_finalizer_holds_a_deleted_object(ground))),
    ("replace", |ground| Box::pin(a_replace_needs_the_version_that_it_read(ground))),
    ("pod", |ground| Box::pin(of_a_pod_only_little_can_change(ground))),
    ("list", |ground| Box::pin(lists_and_watches_show_what_is_selected(ground))),
    ("schema", |ground| Box::pin(what_the_schema_does_not_allow_is_refused(ground))),
    ("namespace", |ground| Box::pin(in_a_namespace_that_goes_nothing_is_made(ground))),
];

impl Ground {
    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let group = if matches!(kind, "Sandbox" | "AigiseSession") { ("aigise.dev", "v1alpha1") } else { ("", "v1") };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group.0, group.1, kind));
        if kind == "Namespace" {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        }
    }

    async fn create(&self, object: &Value) -> Result<DynamicObject, kube::Error> {
        self.api(object["kind"].as_str().unwrap()).create(&PostParams::default(), &read(object)).await
    }

    async fn apply(&self, manager: &str, object: &Value) -> Result<DynamicObject, kube::Error> {
        self.apply_as(&PatchParams::apply(manager), object).await
    }

    async fn apply_as(&self, params: &PatchParams, object: &Value) -> Result<DynamicObject, kube::Error> {
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        self.api(kind).patch(name, params, &Patch::Apply(object)).await
    }

    async fn merge(&self, kind: &str, name: &str, patch: Value) -> Result<DynamicObject, kube::Error> {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    #[expect(clippy::disallowed_methods, reason = "what a delete does is what is tried")]
    async fn delete(&self, kind: &str, name: &str, preconditions: Option<Preconditions>) -> Result<(), kube::Error> {
        self.api(kind).delete(name, &DeleteParams { preconditions, ..DeleteParams::background() }).await.map(|_| ())
    }
}

fn read(object: &Value) -> DynamicObject {
    serde_json::from_value(object.clone()).unwrap()
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn sandbox(name: &str) -> Value {
    json!({
        "apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": name},
        "spec": {"type": "main", "image": "registry.example/none:1"},
    })
}

/// On no node, so that nobody but the test touches it.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "registry.example/none:1"}]},
    })
}

fn refusal<T: Debug>(result: Result<T, kube::Error>) -> Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("it should be refused: {other:?}"),
    }
}

#[track_caller]
fn refused<T: Debug>(result: Result<T, kube::Error>, code: u16, reason: &str) -> Status {
    let status = refusal(result);
    assert_eq!((status.code, status.reason.as_str()), (code, reason), "{}", status.message);
    status
}

fn version(object: &DynamicObject) -> String {
    object.resource_version().unwrap()
}

/// Who owns fields, and by which kind of request.
async fn managers(ground: &Ground, kind: &str, name: &str) -> Vec<(String, String)> {
    let object = ground.api(kind).get(name).await.unwrap();
    let word = |text: &Option<String>| text.clone().unwrap_or_default();
    let managers = object.managed_fields().iter().map(|entry| (word(&entry.manager), word(&entry.operation)));
    let mut managers: Vec<_> = managers.collect();
    managers.sort();
    managers
}

async fn what_is_there_is_not_made_again(ground: &Ground) {
    let made = ground.create(&config_map("a")).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    refused(ground.create(&config_map("a")).await, 409, "AlreadyExists");
    refused(ground.create(&config_map("A_B")).await, 422, "Invalid");
    let mut labelled = config_map("b");
    labelled["metadata"]["labels"] = json!({"a": "no label value!"});
    refused(ground.create(&labelled).await, 422, "Invalid");
    refused(ground.api("ConfigMap").get("none").await, 404, "NotFound");
    let generated = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "some-"}});
    let names =
        [ground.create(&generated).await.unwrap().name_any(), ground.create(&generated).await.unwrap().name_any()];
    assert!(names[0].starts_with("some-") && names[0] != names[1], "{names:?}");
    let mut versioned = config_map("c");
    versioned["metadata"]["resourceVersion"] = json!("1");
    refused(ground.create(&versioned).await, 500, "");
}

async fn a_delete_hits_what_it_names_and_nothing_else(ground: &Ground) {
    let made = ground.create(&config_map("a")).await.unwrap();
    let uid = |uid: &str| Some(Preconditions { uid: Some(uid.into()), resource_version: None });
    refused(ground.delete("ConfigMap", "a", uid("00000000-0000-0000-0000-000000000000")).await, 409, "Conflict");
    ground.merge("ConfigMap", "a", json!({"data": {"a": "2"}})).await.unwrap();
    let stale = Some(Preconditions { uid: made.uid(), resource_version: Some(version(&made)) });
    refused(ground.delete("ConfigMap", "a", stale).await, 409, "Conflict");
    ground.delete("ConfigMap", "a", uid(&made.uid().unwrap())).await.unwrap();
    refused(ground.delete("ConfigMap", "a", None).await, 404, "NotFound");
    // A Pod on no node does not take any time.
    ground.create(&pod("p")).await.unwrap();
    ground.delete("Pod", "p", None).await.unwrap();
    refused(ground.api("Pod").get("p").await, 404, "NotFound");
}

async fn fields_belong_to_who_applied_them(ground: &Ground) {
    let labelled = |labels: Value| {
        let mut object = sandbox("a");
        object["metadata"]["labels"] = labels;
        object
    };
    let only_label = |value: &str| json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "a", "labels": {"x": value}}});
    ground.apply("one", &labelled(json!({"x": "1", "y": "1"}))).await.unwrap();
    // The first write after the creation writes the default of the status down; after that nothing changes.
    let first = ground.apply("one", &labelled(json!({"x": "1", "y": "1"}))).await.unwrap();
    let again = ground.apply("one", &labelled(json!({"x": "1", "y": "1"}))).await.unwrap();
    assert_eq!(version(&first), version(&again), "nothing changed");
    // The same value can be owned by two; another value is a conflict.
    ground.apply("two", &only_label("1")).await.unwrap();
    let conflict = refused(ground.apply("two", &only_label("2")).await, 409, "Conflict");
    let causes = conflict.details.unwrap().causes;
    assert!(
        causes.iter().any(|cause| cause.reason == "FieldManagerConflict" && cause.field == ".metadata.labels.x"),
        "{causes:?}"
    );
    let forced = ground.apply_as(&PatchParams::apply("two").force(), &only_label("2")).await.unwrap();
    assert_eq!(forced.labels()["x"], "2");
    // What one no longer says goes, unless somebody else says it.
    let less = ground.apply("one", &labelled(json!({}))).await.unwrap();
    assert_eq!(less.labels().iter().collect::<Vec<_>>(), [(&"x".to_string(), &"2".to_string())]);
    let nothing = json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "a"}});
    let bare = ground.apply("two", &nothing).await.unwrap();
    assert!(bare.labels().is_empty());
    // A field that the schema needs cannot be let go.
    refused(ground.apply("one", &nothing).await, 422, "Invalid");
    refused(ground.apply_as(&PatchParams::default(), &nothing).await, 422, "Invalid");
}

async fn an_apply_with_a_uid_makes_nothing_anew(ground: &Ground) {
    let mut object = sandbox("a");
    object["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    refused(ground.apply("one", &object).await, 409, "Conflict");
    let made = ground.apply("one", &sandbox("a")).await.unwrap();
    // Of an object that is there, a UID is a field like others, which cannot change.
    refused(ground.apply_as(&PatchParams::apply("one").force(), &object).await, 422, "Invalid");
    let other = json!({"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}});
    refused(ground.merge("Sandbox", "a", other.clone()).await, 422, "Invalid");
    ground.create(&config_map("c")).await.unwrap();
    refused(ground.merge("ConfigMap", "c", other.clone()).await, 422, "Invalid");
    let mut versioned = sandbox("a");
    versioned["metadata"]["resourceVersion"] = json!("1");
    refused(ground.apply("one", &versioned).await, 409, "Conflict");
    // A status is written whatever UID it has; only a version keeps it from an object that was made anew.
    let status = |metadata: &Value| {
        let status = json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": metadata, "status": {"state": "ready"}});
        Patch::Apply(status)
    };
    let (api, params) = (ground.api("Sandbox"), PatchParams::apply("one").force());
    refused(api.patch_status("a", &params, &status(&json!({"resourceVersion": "1"}))).await, 409, "Conflict");
    let written = api.patch_status("a", &params, &status(&other["metadata"])).await.unwrap();
    assert_eq!(written.data["status"]["state"], "ready");
    let version = json!({"resourceVersion": version(&written), "uid": written.uid()});
    api.patch_status("a", &params, &status(&version)).await.unwrap();
    object["metadata"]["uid"] = json!(made.uid());
    object["spec"]["image"] = json!("registry.example/none:2");
    let changed = ground.apply("one", &object).await.unwrap();
    assert_eq!(changed.data["spec"]["image"], "registry.example/none:2");
}

async fn who_updates_a_field_takes_it_over(ground: &Ground) {
    ground.apply("one", &sandbox("a")).await.unwrap();
    assert_eq!(managers(ground, "Sandbox", "a").await, [("one".to_string(), "Apply".to_string())]);
    let patch = json!({"spec": {"image": "registry.example/none:2"}});
    let params = PatchParams { field_manager: Some("two".into()), ..PatchParams::default() };
    ground.api("Sandbox").patch("a", &params, &Patch::Merge(patch)).await.unwrap();
    let names = [("one".to_string(), "Apply".to_string()), ("two".to_string(), "Update".to_string())];
    assert_eq!(managers(ground, "Sandbox", "a").await, names);
    refused(ground.apply("one", &sandbox("a")).await, 409, "Conflict");
    let forced = ground.apply_as(&PatchParams::apply("one").force(), &sandbox("a")).await.unwrap();
    assert_eq!(forced.data["spec"]["image"], "registry.example/none:1");
    assert_eq!(
        managers(ground, "Sandbox", "a").await,
        [("one".to_string(), "Apply".to_string())],
        "nothing is left to the other"
    );
}

async fn status_and_specification_are_written_apart(ground: &Ground) {
    let mut object = sandbox("a");
    object["status"] = json!({"state": "ready"});
    let made = ground.create(&object).await.unwrap();
    assert_eq!(made.data["status"]["state"], Value::Null, "a status cannot be made");
    let ready = &made.data["status"]["conditions"][0];
    assert_eq!(
        (&ready["type"], &ready["status"], &ready["reason"]),
        (&json!("Ready"), &json!("Unknown"), &json!("Pending"))
    );
    let ignored = ground.merge("Sandbox", "a", json!({"status": {"state": "ready"}})).await.unwrap();
    assert_eq!(ignored.data["status"], made.data["status"], "nor patched through the object");
    let patch = json!({"status": {"state": "error"}, "spec": {"image": "registry.example/none:2"}, "metadata": {"labels": {"x": "1"}}});
    let written = ground.api("Sandbox").patch_status("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(written.data["status"]["state"], "error");
    assert_eq!(written.data["spec"]["image"], "registry.example/none:1", "and a status writes nothing else");
    assert_eq!(written.metadata.generation, Some(1));
    let bad = json!({"status": {"state": "splendid"}});
    refused(ground.api("Sandbox").patch_status("a", &PatchParams::default(), &Patch::Merge(bad)).await, 422, "Invalid");
}

async fn conditions_are_merged_by_type(ground: &Ground) {
    ground.create(&sandbox("a")).await.unwrap();
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Because", "message": "It is so.", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let apply = async |manager: &str, conditions: Value| {
        let patch =
            json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "status": {"conditions": conditions}});
        let params = PatchParams::apply(manager).force();
        let written = ground.api("Sandbox").patch_status("a", &params, &Patch::Apply(patch)).await.unwrap();
        let list = written.data["status"]["conditions"].as_array().unwrap().clone();
        let mut list: Vec<_> = list
            .iter()
            .map(|one| format!("{}={}", one["type"].as_str().unwrap(), one["status"].as_str().unwrap()))
            .collect();
        list.sort();
        (list, version(&written))
    };
    let (list, _) = apply("one", json!([condition("Ready", "True"), condition("Stalled", "False")])).await;
    assert_eq!(list, ["Ready=True", "Stalled=False"], "the default is replaced");
    let (list, before) = apply("two", json!([condition("Runtime", "True")])).await;
    assert_eq!(list, ["Ready=True", "Runtime=True", "Stalled=False"]);
    let (_, after) = apply("two", json!([condition("Runtime", "True")])).await;
    assert_eq!(before, after, "nothing changed");
    let (list, _) = apply("one", json!([condition("Ready", "False")])).await;
    assert_eq!(list, ["Ready=False", "Runtime=True"], "what one no longer says goes, and what the other says stays");
}

async fn a_generation_is_a_change_of_the_specification(ground: &Ground) {
    let made = ground.create(&sandbox("a")).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let labelled = ground.merge("Sandbox", "a", json!({"metadata": {"labels": {"x": "1"}}})).await.unwrap();
    assert_eq!(labelled.metadata.generation, Some(1));
    assert_ne!(version(&labelled), version(&made));
    let same = ground.merge("Sandbox", "a", json!({"spec": {"type": "main"}})).await.unwrap();
    assert_eq!(version(&same), version(&labelled), "nothing changed");
    let patch = serde_json::from_value(json!([
        {"op": "test", "path": "/spec/type", "value": "main"},
        {"op": "replace", "path": "/spec/image", "value": "registry.example/none:2"},
    ]));
    let changed =
        ground.api("Sandbox").patch("a", &PatchParams::default(), &Patch::Json::<()>(patch.unwrap())).await.unwrap();
    assert_eq!(changed.metadata.generation, Some(2));
    let wrong = serde_json::from_value(json!([{"op": "test", "path": "/spec/type", "value": "fuzz"}]));
    refused(
        ground.api("Sandbox").patch("a", &PatchParams::default(), &Patch::Json::<()>(wrong.unwrap())).await,
        422,
        "Invalid",
    );
}

async fn a_finalizer_holds_a_deleted_object(ground: &Ground) {
    let mut object = sandbox("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    ground.create(&object).await.unwrap();
    ground.delete("Sandbox", "a", None).await.unwrap();
    let held = ground.api("Sandbox").get("a").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    assert_eq!(held.metadata.generation, Some(2), "being deleted is a change of what is wanted");
    ground.delete("Sandbox", "a", None).await.unwrap();
    assert_eq!(version(&ground.api("Sandbox").get("a").await.unwrap()), version(&held), "once is enough");
    refused(ground.create(&sandbox("a")).await, 409, "AlreadyExists");
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    refused(ground.merge("Sandbox", "a", more).await, 422, "Invalid");
    ground.merge("Sandbox", "a", json!({"metadata": {"finalizers": null}})).await.unwrap();
    refused(ground.api("Sandbox").get("a").await, 404, "NotFound");
}

async fn a_replace_needs_the_version_that_it_read(ground: &Ground) {
    let api = ground.api("Sandbox");
    let params = PostParams::default();
    refused(api.replace("a", &params, &read(&sandbox("a"))).await, 404, "NotFound");
    let made = ground.create(&sandbox("a")).await.unwrap();
    refused(api.replace("a", &params, &read(&sandbox("a"))).await, 422, "Invalid");
    let made = api.replace("a", &params, &made).await.unwrap();
    let same = api.replace("a", &params, &made).await.unwrap();
    assert_eq!(version(&same), version(&made), "nothing changed");
    let mut changed = made.clone();
    changed.data["spec"]["image"] = json!("registry.example/none:2");
    changed.data["status"]["state"] = json!("ready");
    changed.metadata.labels = Some([("x".to_string(), "1".to_string())].into());
    let replaced = api.replace("a", &params, &changed).await.unwrap();
    assert_eq!(replaced.metadata.generation, Some(2));
    assert_eq!(replaced.data["status"]["state"], Value::Null, "the status stays as it was");
    assert_eq!(replaced.labels()["x"], "1");
    refused(api.replace("a", &params, &changed).await, 409, "Conflict");
    let mut other = replaced.clone();
    other.metadata.uid = Some("00000000-0000-0000-0000-000000000000".into());
    refused(api.replace("a", &params, &other).await, 409, "Conflict");
    let mut without = replaced.clone();
    without.metadata.labels = None;
    assert!(api.replace("a", &params, &without).await.unwrap().labels().is_empty(), "what is left out goes");
    // Of the API server's own kinds, a replace without a version takes the newest.
    ground.create(&config_map("c")).await.unwrap();
    ground.api("ConfigMap").replace("c", &params, &read(&config_map("c"))).await.unwrap();
}

async fn of_a_pod_only_little_can_change(ground: &Ground) {
    let made = ground.create(&pod("p")).await.unwrap();
    assert_eq!(made.data["spec"]["restartPolicy"], "Always");
    assert_eq!(made.data["status"]["phase"], "Pending");
    refused(ground.merge("Pod", "p", json!({"spec": {"hostname": "other"}})).await, 422, "Invalid");
    let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "registry.example/none:2"}]);
    let image = Patch::Json::<()>(serde_json::from_value(image).unwrap());
    ground.api("Pod").patch("p", &PatchParams::default(), &image).await.unwrap();
    let annotated =
        ground.merge("Pod", "p", json!({"metadata": {"annotations": {"example.com/a": "1"}}})).await.unwrap();
    assert_eq!(annotated.annotations()["example.com/a"], "1");
    let mut broken = pod("q");
    broken["spec"]["containers"] = json!([]);
    refused(ground.create(&broken).await, 422, "Invalid");
    let mut broken = pod("q");
    broken["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "none", "mountPath": "/a"}]);
    refused(ground.create(&broken).await, 422, "Invalid");
    let mut broken = pod("q");
    broken["spec"]["containers"] = json!("c");
    refused(ground.create(&broken).await, 400, "BadRequest");
}

async fn lists_and_watches_show_what_is_selected(ground: &Ground) {
    let api = ground.api("ConfigMap");
    for (name, label) in [("a", "1"), ("b", "1"), ("c", "2")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"x": label});
        ground.create(&object).await.unwrap();
    }
    let names = async |selector: &str| {
        let list = api.list(&ListParams::default().labels(selector)).await.unwrap();
        list.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("x=1").await, "a b");
    assert_eq!(names("x=1,x!=2").await, "a b");
    assert_eq!(names("x in (2,3)").await, "c");
    assert_eq!(names("x notin (1),x").await, "c");
    let one = ListParams::default().labels("x").limit(2);
    let page = api.list(&one).await.unwrap();
    assert_eq!(page.items.len(), 2);
    let next = page.metadata.continue_.clone().unwrap();
    let rest = api.list(&one.clone().continue_token(&next)).await.unwrap();
    assert_eq!(rest.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["c"]);
    assert!(rest.metadata.continue_.is_none_or(|token| token.is_empty()));

    let params = WatchParams::default().labels("x=1").disable_bookmarks();
    let mut events = api.watch(&params, &page.metadata.resource_version.unwrap()).await.unwrap().boxed();
    ground.merge("ConfigMap", "a", json!({"data": {"a": "2"}})).await.unwrap();
    assert_eq!(next_event(&mut events).await, "changed a");
    ground.merge("ConfigMap", "c", json!({"metadata": {"labels": {"x": "1"}}})).await.unwrap();
    assert_eq!(next_event(&mut events).await, "added c", "a label brings it into view");
    ground.merge("ConfigMap", "b", json!({"metadata": {"labels": {"x": null}}})).await.unwrap();
    assert_eq!(next_event(&mut events).await, "deleted b", "and takes it out");
    ground.delete("ConfigMap", "c", None).await.unwrap();
    assert_eq!(next_event(&mut events).await, "deleted c");
}

async fn next_event(events: &mut BoxStream<'_, Result<WatchEvent<DynamicObject>, kube::Error>>) -> String {
    match events.next().await.unwrap().unwrap() {
        WatchEvent::Added(object) => format!("added {}", object.name_any()),
        WatchEvent::Modified(object) => format!("changed {}", object.name_any()),
        WatchEvent::Deleted(object) => format!("deleted {}", object.name_any()),
        other => panic!("{other:?}"),
    }
}

async fn what_the_schema_does_not_allow_is_refused(ground: &Ground) {
    let mut unknown = sandbox("a");
    unknown["spec"]["colour"] = json!("red");
    let made = ground.create(&unknown).await.unwrap();
    assert_eq!(made.data["spec"].get("colour"), None, "what the schema does not know is dropped");
    let with = |field: &str, value: Value| {
        let mut object = sandbox("b");
        object["spec"][field] = value;
        object
    };
    refused(ground.create(&with("image", json!(1))).await, 422, "Invalid");
    refused(ground.create(&with("type", json!("1x"))).await, 422, "Invalid");
    refused(ground.create(&with("type", Value::Null)).await, 422, "Invalid");
    refused(ground.create(&with("entrypoint", json!("Other"))).await, 422, "Invalid");
    refused(ground.create(&with("ports", json!([{"name": "a"}]))).await, 422, "Invalid");
    // Rules in CEL.
    let message = refused(ground.create(&with("image", Value::Null)).await, 422, "Invalid").message;
    assert!(message.contains("image is required"), "{message}");
    let message =
        refused(ground.merge("Sandbox", "a", json!({"spec": {"type": "fuzz"}})).await, 422, "Invalid").message;
    assert!(message.contains("type cannot change"), "{message}");
    let session = |name: &str, spec: Value| json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": name}, "spec": spec});
    let good = json!({"sandboxes": {"main": {"image": "a:1"}}});
    refused(ground.create(&session("a--b", good.clone())).await, 422, "Invalid");
    refused(ground.create(&session("a", json!({"sandboxes": {"stage": {"image": "a:1"}}}))).await, 422, "Invalid");
    let sized = |size: &str| json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": {"data": {"size": size}}});
    refused(ground.create(&session("a", sized("much"))).await, 422, "Invalid");
    refused(ground.create(&session("a", sized("0"))).await, 422, "Invalid");
    let path = json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": {"data": {"sources": [{"configMap": {"name": "a"}, "path": "../b"}]}}});
    refused(ground.create(&session("a", path)).await, 422, "Invalid");
    ground.create(&session("a", good)).await.unwrap();
    refused(
        ground.merge("AigiseSession", "a", json!({"spec": {"volumes": {"data": {"size": "512Mi"}}}})).await,
        422,
        "Invalid",
    );
    ground.merge("AigiseSession", "a", json!({"spec": {"volumes": {"data": {"size": "1Gi"}}}})).await.unwrap();
    let laid_out = |more: Value| {
        let mut volumes = json!({"layout": "Single", "scripts": {"sources": [{"configMap": {"name": "a"}}]}});
        volumes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": volumes})
    };
    for (more, why) in [
        (json!({"data": {"claimName": "theirs"}}), "data: claimName requires layout Separate"),
        (json!({"tools": {"size": "2Gi"}}), "tools: with layout Single, only sources can be set"),
        (json!({"scripts": {"accessModes": ["ReadWriteMany"]}}), "scripts: with layout Single"),
    ] {
        let message = refused(ground.create(&session("b", laid_out(more))).await, 422, "Invalid").message;
        assert!(message.contains(why), "{message}");
    }
    ground.create(&session("b", laid_out(json!({"data": {"size": "2Gi"}})))).await.unwrap();
    for layout in [json!("Separate"), Value::Null] {
        let change = json!({"spec": {"volumes": {"layout": layout}}});
        let message = refused(ground.merge("AigiseSession", "b", change).await, 422, "Invalid").message;
        assert!(message.contains("volumes.layout cannot change"), "{message}");
    }
}

async fn in_a_namespace_that_goes_nothing_is_made(ground: &Ground) {
    let mut held = config_map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    ground.create(&held).await.unwrap();
    ground.delete("Namespace", &ground.namespace, None).await.unwrap();
    let status = refused(ground.create(&config_map("a")).await, 403, "Forbidden");
    let causes = status.details.unwrap().causes;
    assert!(causes.iter().any(|cause| cause.reason == "NamespaceTerminating"), "{causes:?}");
    // What is there can still be changed, and let go.
    ground.merge("ConfigMap", "held", json!({"metadata": {"finalizers": null}})).await.unwrap();
}
