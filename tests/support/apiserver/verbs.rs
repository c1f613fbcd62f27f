//! The verbs: what each does to the objects, and when it does not.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    builtin,
    fields::{Apply, Manager, after_update},
    refusal::{FieldError, Refusal},
    resource::{self, Resource},
    store::{Key, Store, Stored, is_deleting, text},
};

/// One request to one object.
pub struct Call<'a> {
    pub resource: &'static Resource,
    pub key: Key,
    pub subresource: Option<&'static str>,
    pub manager: &'a str,
    pub now: Timestamp,
}

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Apply { force: bool },
    Merge,
    Json,
}

/// An object, and whether it was made or changed.
pub type Answer = Result<(u16, Arc<Value>), Refusal>;

/// Whose finalizer holds a namespace until it is empty.
const NAMESPACE_FINALIZER: &str = "kubernetes";

impl Call<'_> {
    fn name(&self) -> &str {
        &self.key.name
    }

    fn found<'s>(&self, store: &'s Store) -> Result<&'s Stored, Refusal> {
        store.get(&self.key).ok_or_else(|| Refusal::not_found(&self.plural(), self.name()))
    }

    fn plural(&self) -> String {
        let Resource { group, plural, .. } = self.resource;
        if group.is_empty() { plural.to_string() } else { format!("{plural}.{group}") }
    }

    fn conflict(&self, why: &str) -> Refusal {
        Refusal::conflict(&self.plural(), self.name(), why)
    }

    pub fn get(&self, store: &Store) -> Answer {
        let stored = self.found(store)?;
        // Only here: it is half of an object, and costs as much everywhere else.
        let shown = stored.managers.iter().map(|manager| manager.shown(&self.resource.api_version()));
        let mut object = Value::clone(&stored.object);
        object["metadata"]["managedFields"] = shown.collect();
        Ok((200, Arc::new(object)))
    }

    /// POST: the object must not be there.
    pub fn create(&mut self, store: &mut Store, object: Value) -> Answer {
        let uid = store.birth();
        if self.key.name.is_empty() {
            let prefix = text(&object, "/metadata/generateName");
            if prefix.is_empty() {
                let error = FieldError::new("metadata.name", "Required value: name or generateName is required");
                return Err(Refusal::invalid(self.resource.kind, "", &[error]));
            }
            self.key.name = format!("{prefix}{}", &uid[3..8]);
        }
        if !text(&object, "/metadata/resourceVersion").is_empty() {
            return Err(Refusal::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        let object = self.admit_new(store, object, &uid)?;
        if store.get(&self.key).is_some() {
            return Err(Refusal::already_exists(&self.plural(), self.name()));
        }
        // The default of a status belongs to nobody.
        let written = without_status(&object);
        let managers = after_update(self.resource, (&json!({}), &written), &[], (self.manager, None));
        Ok((201, self.keep_new(store, object, managers)))
    }

    /// What a new object is before it is kept.
    fn admit_new(&self, store: &Store, mut object: Value, uid: &str) -> Result<Value, Refusal> {
        self.check_namespace(store)?;
        self.check_address(&object)?;
        object = builtin::read(self.resource, object)?;
        let given = object["metadata"].take();
        let mut metadata = json!({
            "name": self.name(),
            "uid": uid,
            "creationTimestamp": Timestamp::from_second(self.now.as_second()).expect("a time").to_string(),
        });
        if self.resource.namespaced {
            metadata["namespace"] = json!(self.key.namespace);
        }
        if self.resource.counts_generations {
            metadata["generation"] = json!(1);
        }
        for field in ["labels", "annotations", "ownerReferences", "finalizers", "generateName"] {
            let is_empty = |value: &Value| {
                value.is_null()
                    || value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty)
            };
            if !is_empty(&given[field]) {
                metadata[field] = given[field].clone();
            }
        }
        if let Some(finalizer) = builtin::first_finalizer(self.resource) {
            metadata["finalizers"] = json!([finalizer]);
        }
        object["metadata"] = metadata;
        object["apiVersion"] = json!(self.resource.api_version());
        object["kind"] = json!(self.resource.kind);
        if self.resource.has_status {
            object.as_object_mut().expect("an object").remove("status");
        }
        if let Some(status) = builtin::first_status(self.resource) {
            object["status"] = status;
        }
        if self.resource.kind == "Namespace" {
            object["spec"]["finalizers"] = json!([NAMESPACE_FINALIZER]);
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(self.name());
        }
        self.finish(&mut object);
        self.validate(&object, None)?;
        Ok(object)
    }

    fn finish(&self, object: &mut Value) {
        match &self.resource.schema {
            Some(schema) => schema.prune_and_default(object),
            None => builtin::default(self.resource, object),
        }
    }

    fn check_namespace(&self, store: &Store) -> Result<(), Refusal> {
        if !self.resource.namespaced {
            return Ok(());
        }
        let name = &self.key.namespace;
        let key = Key { plural: "namespaces", namespace: String::new(), name: name.clone() };
        let namespace = store.get(&key).ok_or_else(|| Refusal::not_found("namespaces", name))?;
        if is_deleting(&namespace.object) {
            let why = format!("unable to create new content in namespace {name} because it is being terminated");
            let message = format!("{} \"{}\" is forbidden: {why}", self.plural(), self.name());
            let because = format!("namespace {name} is being terminated");
            let refusal = Refusal::new(403, "Forbidden", message);
            return Err(refusal.because("NamespaceTerminating", &because, "metadata.namespace"));
        }
        Ok(())
    }

    /// What the body says of its kind and place is what the address says.
    fn check_address(&self, object: &Value) -> Result<(), Refusal> {
        let differs = |pointer: &str, expected: &str| !["", expected].contains(&text(object, pointer));
        let namespace = if self.resource.namespaced { self.key.namespace.as_str() } else { "" };
        if differs("/kind", self.resource.kind)
            || differs("/apiVersion", &self.resource.api_version())
            || differs("/metadata/name", self.name())
            || differs("/metadata/namespace", namespace)
        {
            return Err(Refusal::bad_request("the kind, name or namespace of the object does not match the request"));
        }
        Ok(())
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Result<(), Refusal> {
        let mut errors = builtin::metadata_errors(self.resource, object);
        match &self.resource.schema {
            Some(schema) => errors.extend(schema.errors(object, old)),
            None => errors.extend(builtin::errors(self.resource, object, old)),
        }
        if errors.is_empty() { Ok(()) } else { Err(Refusal::invalid(self.resource.kind, self.name(), &errors)) }
    }

    /// PUT: the object is replaced as it was read.
    pub fn replace(&self, store: &mut Store, object: Value) -> Answer {
        let live = self.found(store)?.clone();
        self.check_address(&object)?;
        if self.resource.is_ours() && text(&object, "/metadata/resourceVersion").is_empty() {
            let error =
                FieldError::new("metadata.resourceVersion", "Invalid value: 0: must be specified for an update");
            return Err(Refusal::invalid(self.resource.kind, self.name(), &[error]));
        }
        self.check_uid(&live.object, &object)?;
        let new = self.admit_change(&live, object)?;
        let by = (self.manager, self.subresource);
        let managers = after_update(self.resource, (&live.object, &new), &live.managers, by);
        Ok(self.keep(store, &live, new, managers))
    }

    /// PATCH in one of its forms.
    pub fn patch(&mut self, store: &mut Store, kind: PatchKind, patch: &Value) -> Answer {
        if let PatchKind::Apply { force } = kind {
            return self.apply(store, force, patch);
        }
        let live = self.found(store)?.clone();
        let mut object = Value::clone(&live.object);
        if kind == PatchKind::Merge {
            json_patch::merge(&mut object, patch);
        } else {
            let read: json_patch::Patch =
                serde_json::from_value(patch.clone()).map_err(|error| Refusal::bad_request(error.to_string()))?;
            json_patch::patch(&mut object, &read).map_err(|error| {
                Refusal::new(
                    422,
                    "Invalid",
                    format!("the server rejected our request due to an error in our request: {error}"),
                )
            })?;
        }
        let new = self.admit_change(&live, object)?;
        let managers =
            after_update(self.resource, (&live.object, &new), &live.managers, (self.manager, self.subresource));
        Ok(self.keep(store, &live, new, managers))
    }

    fn apply(&mut self, store: &mut Store, force: bool, config: &Value) -> Answer {
        self.check_address(config)?;
        if text(config, "/apiVersion").is_empty() || text(config, "/kind").is_empty() {
            return Err(Refusal::bad_request("an applied object says its apiVersion and kind"));
        }
        if config["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        let mut config = config.clone();
        if self.subresource == Some("status") {
            config
                .as_object_mut()
                .expect("an object")
                .retain(|field, _| ["apiVersion", "kind", "metadata", "status"].contains(&field.as_str()));
            if let Some(map) = config["metadata"].as_object_mut() {
                map.retain(|field, _| ["uid", "resourceVersion"].contains(&field.as_str()));
            }
        } else if self.resource.has_status {
            config.as_object_mut().expect("an object").remove("status");
        }
        let apply = |config| Apply {
            resource: self.resource,
            manager: self.manager,
            subresource: self.subresource,
            force,
            config,
        };
        let Some(live) = store.get(&self.key).cloned() else {
            if self.subresource.is_some() {
                return Err(Refusal::not_found(&self.plural(), self.name()));
            }
            let uid = text(&config, "/metadata/uid");
            if !uid.is_empty() {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(self.conflict(&why));
            }
            let uid = store.birth();
            let object = self.admit_new(store, config.clone(), &uid)?;
            let (_, managers) = apply(&config).to(&json!({}), &[]).unwrap_or_default();
            return Ok((201, self.keep_new(store, object, managers)));
        };
        self.check_identity(&live.object, &config)?;
        let (merged, managers) = apply(&config).to(&live.object, &live.managers).map_err(|conflicts| {
            let words: Vec<_> =
                conflicts.iter().map(|(manager, field)| format!("conflict with \"{manager}\": {field}")).collect();
            let message = format!("Apply failed with {} conflicts: {}", words.len(), words.join(", "));
            conflicts.iter().fold(Refusal::new(409, "Conflict", message), |refusal, (manager, field)| {
                refusal.because("FieldManagerConflict", &format!("conflict with \"{manager}\""), field)
            })
        })?;
        let new = self.admit_change(&live, merged)?;
        Ok(self.keep(store, &live, new, managers))
    }

    /// A replace that names a UID is for that object and no other.
    fn check_uid(&self, live: &Value, body: &Value) -> Result<(), Refusal> {
        let (uid, live_uid) = (text(body, "/metadata/uid"), text(live, "/metadata/uid"));
        if uid.is_empty() || uid == live_uid {
            return Ok(());
        }
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {live_uid}");
        Err(self.conflict(&why))
    }

    /// A body that names a version is for that version. A UID is a field that cannot change; with a status it is not even checked.
    fn check_identity(&self, live: &Value, body: &Value) -> Result<(), Refusal> {
        let version = text(body, "/metadata/resourceVersion");
        if !version.is_empty() && version != text(live, "/metadata/resourceVersion") {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(self.conflict(why));
        }
        let uid = text(body, "/metadata/uid");
        if self.subresource.is_none() && !uid.is_empty() && uid != text(live, "/metadata/uid") {
            let error = FieldError::new("metadata.uid", format!("Invalid value: \"{uid}\": field is immutable"));
            return Err(Refusal::invalid(self.resource.kind, self.name(), &[error]));
        }
        Ok(())
    }

    /// What a changed object is before it is kept: what cannot be written by this request stays as it was.
    fn admit_change(&self, live: &Stored, object: Value) -> Result<Value, Refusal> {
        let old = &*live.object;
        self.check_identity(old, &object)?;
        let mut object = builtin::read(self.resource, object)?;
        let mut new = if self.subresource == Some("status") {
            let mut new = old.clone();
            new["status"] = object["status"].take();
            new
        } else {
            if self.resource.has_status {
                object["status"] = old["status"].clone();
            }
            let given = object["metadata"].take();
            let mut metadata = old["metadata"].clone();
            for field in ["labels", "annotations", "ownerReferences", "finalizers"] {
                let map = metadata.as_object_mut().expect("metadata");
                match &given[field] {
                    Value::Null => _ = map.remove(field),
                    Value::Array(list) if list.is_empty() => _ = map.remove(field),
                    Value::Object(labels) if labels.is_empty() => _ = map.remove(field),
                    value => _ = map.insert(field.into(), value.clone()),
                }
            }
            self.check_finalizers(&old["metadata"], &metadata)?;
            object["metadata"] = metadata;
            object["apiVersion"] = old["apiVersion"].clone();
            object["kind"] = old["kind"].clone();
            object
        };
        if new["status"].is_null() {
            new.as_object_mut().expect("an object").remove("status");
        }
        self.finish(&mut new);
        self.validate(&new, Some(old))?;
        if self.resource.counts_generations && self.subresource.is_none() && without_meta(&new) != without_meta(old) {
            new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or_default() + 1);
        }
        Ok(new)
    }

    fn check_finalizers(&self, old: &Value, new: &Value) -> Result<(), Refusal> {
        let list = |metadata: &Value| metadata["finalizers"].as_array().cloned().unwrap_or_default();
        let before = list(old);
        if old["deletionTimestamp"].is_string() && list(new).iter().any(|finalizer| !before.contains(finalizer)) {
            let message = "Forbidden: no new finalizers can be added if the object is being deleted";
            let error = FieldError::new("metadata.finalizers", message);
            return Err(Refusal::invalid(self.resource.kind, self.name(), &[error]));
        }
        Ok(())
    }

    fn keep_new(&self, store: &mut Store, object: Value, managers: Vec<Manager>) -> Arc<Value> {
        if self.resource.is_ours() {
            store.put_bare(self.key.clone(), object, managers)
        } else {
            store.put(self.key.clone(), object, managers)
        }
    }

    /// Keeps a changed object; nothing happens where nothing changed, and the last finalizer of a deleted one lets it go.
    fn keep(&self, store: &mut Store, live: &Stored, new: Value, managers: Vec<Manager>) -> (u16, Arc<Value>) {
        if *live.object == new && live.managers == managers && !live.is_bare {
            return (200, live.object.clone());
        }
        let kept = store.put(self.key.clone(), new, managers);
        if may_go(&kept) {
            store.remove(&self.key);
        }
        (200, kept)
    }

    /// DELETE: at once, unless a finalizer or the grace of a Pod on a node holds it.
    pub fn delete(&self, store: &mut Store, options: &Value) -> Answer {
        let live = self.found(store)?.clone();
        let old = &*live.object;
        for (field, word) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let (wanted, is) =
                (text(options, &format!("/preconditions/{field}")), text(old, &format!("/metadata/{field}")));
            if !wanted.is_empty() && wanted != is {
                let why = format!("Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {is}");
                return Err(self.conflict(&why));
            }
        }
        let grace = self.grace(old, options);
        let pending =
            is_deleting(old).then(|| old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default());
        let mut new = old.clone();
        if pending.is_none_or(|pending| grace < pending) {
            let seconds = self.now.as_second() + grace;
            new["metadata"]["deletionTimestamp"] = json!(Timestamp::from_second(seconds).expect("a time").to_string());
            new["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            if let (None, Some(generation)) = (pending, old["metadata"]["generation"].as_i64()) {
                new["metadata"]["generation"] = json!(generation + 1);
            }
            if self.resource.kind == "Namespace" {
                new["status"]["phase"] = json!("Terminating");
            }
        }
        if may_go(&new) {
            let last = store.remove(&self.key).expect("it was there");
            return Ok((200, if self.resource.is_ours() { Arc::new(deleted(self, &last)) } else { last }));
        }
        Ok(self.keep(store, &live, new, live.managers.clone()))
    }

    /// How long a Pod may take to end. One that is on no node, or has ended, does not take any time.
    fn grace(&self, object: &Value, options: &Value) -> i64 {
        let has_ended = ["Succeeded", "Failed"].contains(&text(object, "/status/phase"));
        if self.resource.kind != "Pod" || text(object, "/spec/nodeName").is_empty() || has_ended {
            return 0;
        }
        let asked = options["gracePeriodSeconds"].as_i64();
        asked.or(object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30)
    }
}

fn deleted(call: &Call<'_>, object: &Value) -> Value {
    let details = json!({"name": call.name(), "kind": call.plural(), "uid": object["metadata"]["uid"]});
    json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success", "details": details})
}

/// A deleted object that nothing holds any more.
fn may_go(object: &Value) -> bool {
    let holds = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let is_namespace = object["kind"] == "Namespace";
    is_deleting(object)
        && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default() == 0
        && !holds("/metadata/finalizers")
        && !(is_namespace && holds("/spec/finalizers"))
}

fn without_status(object: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().expect("an object").remove("status");
    object
}

fn without_meta(object: &Value) -> Value {
    let mut object = without_status(object);
    object.as_object_mut().expect("an object").remove("metadata");
    object
}

/// Whether an owner is there.
pub fn owner_is_there(store: &Store, namespace: &str, owner: &Value) -> bool {
    let Some(resource) = resource::of_kind(text(owner, "/apiVersion"), text(owner, "/kind")) else { return true };
    let namespace = if resource.namespaced { namespace } else { "" };
    let key = Key { plural: resource.plural, namespace: namespace.into(), name: text(owner, "/name").into() };
    store.get(&key).is_some_and(|stored| stored.object["metadata"]["uid"] == owner["uid"])
}

/// Keeps what the cluster itself changed.
pub fn keep_edited(store: &mut Store, key: &Key, new: Value, managers: Vec<Manager>) {
    let kept = store.put(key.clone(), new, managers);
    if may_go(&kept) {
        store.remove(key);
    }
}
