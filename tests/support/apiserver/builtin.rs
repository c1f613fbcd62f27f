//! What the API server knows of its own kinds: defaults, what is not a valid object, what cannot change.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Node, PersistentVolumeClaim, Pod, Service, ServiceAccount},
    events::v1::Event,
    networking::v1::NetworkPolicy,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    refusal::{FieldError, Refusal},
    resource::Resource,
    schema::matches,
    store::text,
};

/// Reads an object as its kind: what the kind does not know is dropped, and what is of a wrong type refused.
pub fn read(resource: &Resource, object: Value) -> Result<Value, Refusal> {
    fn through<K: DeserializeOwned + Serialize>(object: Value) -> Result<Value, serde_json::Error> {
        serde_json::to_value(serde_json::from_value::<K>(object)?)
    }
    let read = match resource.kind {
        "Pod" => through::<Pod>(object),
        "PersistentVolumeClaim" => through::<PersistentVolumeClaim>(object),
        "Service" => through::<Service>(object),
        "NetworkPolicy" => through::<NetworkPolicy>(object),
        "ConfigMap" => through::<ConfigMap>(object),
        "ServiceAccount" => through::<ServiceAccount>(object),
        "Event" => through::<Event>(object),
        "Namespace" => through::<Namespace>(object),
        "Node" => through::<Node>(object),
        _ => Ok(object),
    };
    read.map_err(|error| {
        Refusal::bad_request(format!("{} in version \"v1\" cannot be handled: {error}", resource.kind))
    })
}

fn set_default(object: &mut Value, field: &str, value: Value) {
    if object.get(field).is_none_or(Value::is_null) {
        object[field] = value;
    }
}

/// Fills in what a user left out.
pub fn default(resource: &Resource, object: &mut Value) {
    match resource.kind {
        "Pod" => {
            let spec = &mut object["spec"];
            set_default(spec, "restartPolicy", json!("Always"));
            set_default(spec, "terminationGracePeriodSeconds", json!(30));
            set_default(spec, "dnsPolicy", json!("ClusterFirst"));
            set_default(spec, "schedulerName", json!("default-scheduler"));
            set_default(spec, "enableServiceLinks", json!(true));
            set_default(spec, "serviceAccountName", json!("default"));
            set_default(spec, "securityContext", json!({}));
            for list in ["initContainers", "containers"] {
                for container in spec[list].as_array_mut().into_iter().flatten() {
                    set_default(container, "imagePullPolicy", json!("IfNotPresent"));
                    set_default(container, "terminationMessagePath", json!("/dev/termination-log"));
                    set_default(container, "terminationMessagePolicy", json!("File"));
                    set_default(container, "resources", json!({}));
                    for port in container["ports"].as_array_mut().into_iter().flatten() {
                        set_default(port, "protocol", json!("TCP"));
                    }
                }
            }
        }
        "PersistentVolumeClaim" => {
            set_default(&mut object["spec"], "storageClassName", json!("standard"));
            set_default(&mut object["spec"], "volumeMode", json!("Filesystem"));
        }
        "Service" => {
            let spec = &mut object["spec"];
            set_default(spec, "type", json!("ClusterIP"));
            set_default(spec, "sessionAffinity", json!("None"));
            set_default(spec, "internalTrafficPolicy", json!("Cluster"));
            set_default(spec, "ipFamilies", json!(["IPv4"]));
            set_default(spec, "ipFamilyPolicy", json!("SingleStack"));
            set_default(spec, "clusterIP", json!("10.96.0.10"));
            let address = spec["clusterIP"].clone();
            set_default(spec, "clusterIPs", json!([address]));
        }
        "NetworkPolicy" => {
            let rules = ["ingress", "egress"].map(|list| object["spec"][list].clone());
            set_default(&mut object["spec"], "policyTypes", json!(["Ingress"]));
            for (list, mut rules) in ["ingress", "egress"].into_iter().zip(rules) {
                for rule in rules.as_array_mut().into_iter().flatten() {
                    for port in rule["ports"].as_array_mut().into_iter().flatten() {
                        set_default(port, "protocol", json!("TCP"));
                    }
                }
                if rules.is_array() {
                    object["spec"][list] = rules;
                }
            }
        }
        _ => {}
    }
}

/// The status that a new object has.
pub fn first_status(resource: &Resource) -> Option<Value> {
    match resource.kind {
        "Pod" => Some(json!({"phase": "Pending", "qosClass": "BestEffort"})),
        "PersistentVolumeClaim" => Some(json!({"phase": "Pending"})),
        "Service" => Some(json!({"loadBalancer": {}})),
        "Namespace" => Some(json!({"phase": "Active"})),
        _ => None,
    }
}

/// The finalizer that a new object is given.
pub fn first_finalizer(resource: &Resource) -> Option<&'static str> {
    (resource.kind == "PersistentVolumeClaim").then_some("kubernetes.io/pvc-protection")
}

pub fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && matches("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", text)
}

fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && matches(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", text)
}

fn is_label_value(text: &str) -> bool {
    text.len() <= 63 && matches("^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", text)
}

fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_value(name)
}

/// What is wrong with the metadata of any object.
pub fn metadata_errors(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = vec![];
    let name = text(object, "/metadata/name");
    let name_is_good = match resource.kind {
        "Service" => name.len() <= 63 && matches("^[a-z]([-a-z0-9]*[a-z0-9])?$", name),
        "Namespace" => is_dns_label(name),
        _ => is_dns_subdomain(name),
    };
    if !name_is_good {
        errors.push(FieldError::new("metadata.name", format!("Invalid value: \"{name}\": not a DNS name")));
    }
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        if !is_qualified_name(key) || !value.as_str().is_some_and(is_label_value) {
            errors.push(FieldError::new("metadata.labels", format!("Invalid value: {key}={value}")));
        }
    }
    for key in object["metadata"]["annotations"].as_object().into_iter().flat_map(|map| map.keys()) {
        if !is_qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::new("metadata.annotations", format!("Invalid value: \"{key}\"")));
        }
    }
    let owners: Vec<_> = object["metadata"]["ownerReferences"].as_array().into_iter().flatten().collect();
    if owners.iter().any(|owner| {
        ["apiVersion", "kind", "name", "uid"].iter().any(|field| text(owner, &format!("/{field}")).is_empty())
    }) {
        errors.push(FieldError::new(
            "metadata.ownerReferences",
            "Invalid value: apiVersion, kind, name and uid must not be empty",
        ));
    }
    if owners.iter().filter(|owner| owner["controller"] == true).count() > 1 {
        errors.push(FieldError::new(
            "metadata.ownerReferences",
            "Invalid value: Only one reference can have Controller set to true",
        ));
    }
    errors
}

/// What is wrong with an object of one of the API server's own kinds.
pub fn errors(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match (resource.kind, old) {
        ("Pod", Some(old)) => pod_change_errors(object, old),
        ("Pod", None) => pod_errors(object),
        ("PersistentVolumeClaim", Some(old)) => claim_change_errors(object, old),
        ("PersistentVolumeClaim", None) => claim_errors(object),
        ("Service", Some(old)) if text(object, "/spec/clusterIP") != text(old, "/spec/clusterIP") => {
            vec![FieldError::new("spec.clusterIP", "Invalid value: field is immutable")]
        }
        ("NetworkPolicy", _) => policy_errors(object),
        _ => vec![],
    }
}

fn pod_errors(pod: &Value) -> Vec<FieldError> {
    let mut errors = vec![];
    let spec = &pod["spec"];
    let list = |name: &str| spec[name].as_array().cloned().unwrap_or_default();
    if list("containers").is_empty() {
        errors.push(FieldError::new("spec.containers", "Required value"));
    }
    let policy = text(spec, "/restartPolicy");
    if !["Always", "OnFailure", "Never"].contains(&policy) {
        errors.push(FieldError::new("spec.restartPolicy", format!("Unsupported value: \"{policy}\"")));
    }
    for field in ["hostname", "subdomain"] {
        if spec[field].as_str().is_some_and(|name| !is_dns_label(name)) {
            errors.push(FieldError::new(format!("spec.{field}"), "Invalid value: not a DNS label"));
        }
    }
    let volumes: Vec<_> = list("volumes").iter().map(|volume| text(volume, "/name").to_string()).collect();
    for (index, name) in volumes.iter().enumerate() {
        if !is_dns_label(name) || volumes[..index].contains(name) {
            errors.push(FieldError::new(
                format!("spec.volumes[{index}].name"),
                format!("Duplicate or invalid value: \"{name}\""),
            ));
        }
    }
    for (kind, index, container) in ["initContainers", "containers"]
        .into_iter()
        .flat_map(|kind| list(kind).into_iter().enumerate().map(move |(index, container)| (kind, index, container)))
    {
        let at = |field: &str| format!("spec.{kind}[{index}].{field}");
        if !is_dns_label(text(&container, "/name")) {
            errors.push(FieldError::new(at("name"), "Invalid value: not a DNS label"));
        }
        if text(&container, "/image").trim().is_empty() {
            errors.push(FieldError::new(at("image"), "Required value"));
        }
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            if !volumes.iter().any(|name| name == text(mount, "/name")) {
                errors.push(FieldError::new(at("volumeMounts"), format!("Not found: {}", mount["name"])));
            }
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            let name = text(variable, "/name");
            if name.is_empty() || name.contains('=') {
                errors.push(FieldError::new(at("env"), format!("Invalid value: \"{name}\"")));
            }
        }
        errors.extend(resource_errors(&container["resources"], &at("resources")));
    }
    errors
}

/// A quantity is a number with a suffix, and no request is above its limit (where both are plain numbers of one suffix).
fn resource_errors(resources: &Value, at: &str) -> Vec<FieldError> {
    let quantities =
        ["limits", "requests"].into_iter().flat_map(|list| resources[list].as_object().into_iter().flatten());
    let bad = quantities.filter(|(_, quantity)| {
        !matches(
            "^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]+)?$",
            quantity.as_str().unwrap_or_default(),
        )
    });
    bad.map(|(name, quantity)| FieldError::new(format!("{at}.{name}"), format!("Invalid value: {quantity}"))).collect()
}

/// Of a Pod's specification only the images, a shorter deadline and more tolerations can change.
fn pod_change_errors(pod: &Value, old: &Value) -> Vec<FieldError> {
    let frozen = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for container in ["initContainers", "containers"]
            .into_iter()
            .filter_map(|list| Some(list).filter(|list| spec[list].is_array()))
            .collect::<Vec<_>>()
        {
            for container in spec[container].as_array_mut().into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        for field in ["activeDeadlineSeconds", "tolerations"] {
            spec[field] = Value::Null;
        }
        spec
    };
    if frozen(pod) == frozen(old) {
        return vec![];
    }
    let message = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    vec![FieldError::new("spec", message)]
}

fn claim_errors(claim: &Value) -> Vec<FieldError> {
    let mut errors = vec![];
    if claim["spec"]["accessModes"].as_array().is_none_or(Vec::is_empty) {
        errors.push(FieldError::new("spec.accessModes", "Required value: at least 1 access mode is required"));
    }
    if !claim["spec"]["resources"]["requests"]["storage"].is_string() {
        errors.push(FieldError::new("spec.resources[storage]", "Required value"));
    }
    errors
}

/// Only the size of a claim can change, once it is bound.
fn claim_change_errors(claim: &Value, old: &Value) -> Vec<FieldError> {
    let frozen = |claim: &Value| {
        let mut spec = claim["spec"].clone();
        spec["resources"] = Value::Null;
        spec
    };
    if frozen(claim) == frozen(old) {
        return vec![];
    }
    let message = "Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    vec![FieldError::new("spec", message)]
}

fn policy_errors(policy: &Value) -> Vec<FieldError> {
    let types = policy["spec"]["policyTypes"].as_array().into_iter().flatten();
    let bad = types.filter(|word| !["Ingress", "Egress"].map(Some).contains(&word.as_str()));
    bad.map(|word| FieldError::new("spec.policyTypes", format!("Unsupported value: {word}"))).collect()
}
