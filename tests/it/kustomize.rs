//! kustomize renames what it knows. It knows each field of ours that names an object or an image: `examples/kustomize` lists what is in the
//! CRDs.

use std::{collections::BTreeSet, path::Path};

use aigise_operator::api::crds;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value;

/// The end of the path of each field that names an object, and the object's kind.
const OBJECTS: [(&str, &str); 27] = [
    ("/apiKeySecretRef/name", "Secret"),
    ("/attach/podName", "Pod"),
    ("/claimName", "PersistentVolumeClaim"),
    ("/clusterTrustBundle/name", "ClusterTrustBundle"),
    ("/configMap/name", "ConfigMap"),
    ("/configMapKeyRef/name", "ConfigMap"),
    ("/configMapRef/name", "ConfigMap"),
    ("/dataSource/name", "PersistentVolumeClaim"),
    ("/dataSource/name", "VolumeSnapshot"),
    ("/dataSourceRef/name", "PersistentVolumeClaim"),
    ("/dataSourceRef/name", "VolumeSnapshot"),
    ("/imagePullSecrets/name", "Secret"),
    ("/nodePublishSecretRef/name", "Secret"),
    ("/priorityClassName", "PriorityClass"),
    ("/resourceClaimName", "ResourceClaim"),
    ("/resourceClaimTemplateName", "ResourceClaimTemplate"),
    ("/runtimeClassName", "RuntimeClass"),
    ("/secret/name", "Secret"),
    ("/secretKeyRef/name", "Secret"),
    ("/secretName", "Secret"),
    ("/secretRef/name", "Secret"),
    ("/serviceAccountName", "ServiceAccount"),
    ("/storageClassName", "StorageClass"),
    ("/volumeAttributesClassName", "VolumeAttributesClass"),
    ("/volumeName", "PersistentVolume"),
    ("spec/creator", "Agent"),
    ("spec/parent", "Agent"),
];

/// The same for the one field that all kinds have.
const SESSION: (&str, &str) = ("spec/session", "AigiseSession");

/// The end of the path of each field that names something else: a part of the same object, a user, a name for people.
const NO_OBJECTS: [&str; 28] = [
    "/claims/name",
    "/containerName",
    "/containers/name",
    "/env/name",
    "/generateName",
    "/gmsaCredentialSpecName",
    "/httpHeaders/name",
    "/initContainers/name",
    "/metadata/name",
    "/modelName",
    "/options/name",
    "/os/name",
    "/ownerReferences/name",
    "/ports/name",
    "/resourceClaims/name",
    "/resourceName",
    "/runAsUserName",
    "/schedulerName",
    "/schedulingGates/name",
    "/signerName",
    "/steps/name",
    "/sysctls/name",
    "/taskName",
    "/variables/name",
    "/volumeDevices/name",
    "/volumeMounts/name",
    "/volumes/name",
    "spec/name",
];

/// Fields of a Pod that a template may not set, or only with `--allow-privileged-templates`; and the old name of a field.
const NOT_ALLOWED: [&str; 24] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "ephemeralContainers",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "iscsi",
    "nfs",
    "nodeName",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "serviceAccount",
    "storageos",
    "vsphereVolume",
];

/// The models that the framework's files have.
const MODELS: [&str; 3] = ["main", "summarize", "flag_claims"];

/// One entry: the kind that is named (or "image"), the kind that names it, and where.
type Entry = (String, String, String);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn yaml<T: serde::de::DeserializeOwned>(file: &str) -> T {
    serde_yaml::from_str(&std::fs::read_to_string(root().join(file)).unwrap()).unwrap()
}

/// The types that the framework has.
fn types() -> Vec<String> {
    let profiles: serde_json::Map<String, Value> = yaml("src/plan/effective/profiles.yaml");
    ["main".to_string()].into_iter().chain(profiles.into_iter().map(|(name, _)| name)).collect()
}

/// What the keys of a map may be; nothing, if the map holds no names.
fn keys(map: &str) -> Vec<String> {
    match map {
        "sandboxes" => types(),
        "models" => MODELS.map(str::to_string).into(),
        _ => vec![],
    }
}

/// The paths of all texts below a schema, as kustomize writes them: lists are passed over.
fn texts(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    if path.ends_with("/podTemplate") {
        let mut settings = SchemaSettings::openapi3();
        settings.inline_subschemas = true;
        let template = settings.into_generator().into_root_schema_for::<PodTemplateSpec>().to_value();
        return texts(&template["properties"]["spec"], &format!("{path}/spec"), found);
    }
    let is_text = schema["type"] == "string" || schema["type"] == serde_json::json!(["string", "null"]);
    if is_text {
        found.push((path.into(), schema.clone()));
    }
    for part in schema["allOf"].as_array().into_iter().chain(schema["anyOf"].as_array()).flatten() {
        texts(part, path, found);
    }
    if schema["items"].is_object() {
        texts(&schema["items"], path, found);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if !NOT_ALLOWED.contains(&name.as_str()) {
            texts(field, &format!("{path}/{name}"), found);
        }
    }
    if schema["additionalProperties"].is_object() {
        for key in keys(path.rsplit('/').next().unwrap()) {
            texts(&schema["additionalProperties"], &format!("{path}/{key}"), found);
        }
    }
}

/// Whether a text may be the name of an object.
fn may_name(path: &str, schema: &Value) -> bool {
    let last = path.rsplit('/').next().unwrap();
    last == "name" || last.ends_with("Name") || schema["pattern"] == "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
}

/// All entries that the CRDs ask for.
fn expected() -> BTreeSet<Entry> {
    let mut entries = BTreeSet::new();
    let mut unknown = vec![];
    for (file, content) in crds::rendered().unwrap() {
        let crd: Value = serde_yaml::from_str(&content).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let mut found = vec![];
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        texts(schema, "spec", &mut found);
        assert!(found.len() > 100, "{file} is read in another way now");
        for (path, schema) in found {
            let named: Vec<_> = OBJECTS.iter().chain([&SESSION]).filter(|(end, _)| path.ends_with(end)).collect();
            if named.is_empty() && may_name(&path, &schema) && !NO_OBJECTS.iter().any(|end| path.ends_with(end)) {
                unknown.push(format!("{kind} {path}"));
            }
            entries.extend(named.into_iter().map(|(_, named)| ((*named).into(), kind.into(), path.clone())));
            // kustomize finds the images of `containers` and `initContainers` itself.
            let is_image = path.ends_with("/image") || path.ends_with("/image/reference");
            if is_image && !path.ends_with("ontainers/image") {
                entries.insert(("image".into(), kind.into(), path));
            }
        }
    }
    assert!(unknown.is_empty(), "do these name objects? Add them to OBJECTS or NO_OBJECTS: {unknown:#?}");
    let attachable = format!("metadata/annotations/{}", aigise_operator::api::meta::ATTACHABLE.replace('/', "\\/"));
    entries.extend(["AigiseSession", "Sandbox"].map(|named| (named.into(), "Pod".into(), attachable.clone())));
    entries
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    name_reference: Vec<Named>,
    images: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Named {
    kind: String,
    #[serde(default)]
    group: Option<String>,
    field_specs: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    kind: String,
    #[serde(default)]
    group: Option<String>,
    path: String,
}

/// Other projects have kinds called Agent and Sandbox as well.
fn has_its_group(kind: &str, group: Option<&str>) -> bool {
    let is_ours = ["AigiseSession", "Agent", "Sandbox"].contains(&kind);
    group == is_ours.then_some("aigise.dev")
}

#[test]
fn kustomize_knows_each_field_that_names_an_object_or_an_image() {
    let configuration: Configuration = yaml("examples/kustomize/configuration.yaml");
    let mut listed = vec![];
    for named in &configuration.name_reference {
        assert!(has_its_group(&named.kind, named.group.as_deref()), "{}", named.kind);
        listed.extend(named.field_specs.iter().map(|field| (named.kind.as_str(), field)));
    }
    listed.extend(configuration.images.iter().map(|field| ("image", field)));
    let mut entries = BTreeSet::new();
    for (named, field) in listed {
        assert!(has_its_group(&field.kind, field.group.as_deref()), "{}", field.path);
        let entry = (named.to_string(), field.kind.clone(), field.path.clone());
        assert!(entries.insert(entry), "twice: {named} in {} {}", field.kind, field.path);
    }
    let expected = expected();
    let missing: Vec<_> = expected.difference(&entries).collect();
    let needless: Vec<_> = entries.difference(&expected).collect();
    assert!(missing.is_empty(), "examples/kustomize/configuration.yaml lacks {missing:#?}");
    assert!(needless.is_empty(), "there is no such field: {needless:#?}");
}

#[test]
fn the_examples_have_names_with_hashes() {
    for example in ["agents", "crash-triage", "from-toml"] {
        let text = std::fs::read_to_string(root().join(format!("examples/{example}/kustomization.yaml"))).unwrap();
        assert!(text.contains("components: [../kustomize]"), "{example}");
        assert!(!text.contains("disableNameSuffixHash"), "{example}");
    }
}
