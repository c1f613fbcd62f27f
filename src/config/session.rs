//! Turns the file into the specification of a session: exactly the fields that the file sets.

use serde_json::{Map, Value as Json, json};

use super::{
    ErrorKind, Reader,
    cast::to_integer,
    error::SpannedError,
    sandbox::{self, check_length, fault, ports_of},
    tree::{Node, Path, Table, Value},
};
use crate::api::sandbox::dns_label;

/// The backends that the framework knows, including their later names.
const BACKENDS: [&str; 8] =
    ["native", "k8s", "remotedocker", "opensandbox", "agentdocker-lite", "nitrobox", "podman", "local"];

/// The maximum number of types in a session.
const MAX_TYPES: usize = 32;

/// The maximum number of services, models and tolerations in a session.
const MAX_NAMED: usize = 64;

/// What the file sets in a session, as JSON: parts of a specification, which may be incomplete.
///
/// # Errors
/// When a key cannot have its value.
pub fn specification(file: &Table, reader: &mut Reader<'_>) -> Result<Json, SpannedError> {
    let mut spec = Map::new();
    if let Some(name) = file.text("task_name") {
        if is_label(name) {
            spec.insert("taskName".into(), name.into());
        } else {
            reader
                .ignore(&Path::Root.key("task_name"), "it is not a valid value of a label; the session's name is used");
        }
    }
    if let Some(is) = file.get("auto_cleanup").and_then(Node::as_bool) {
        spec.insert("autoCleanup".into(), is.into());
    }
    sandboxes(file, &mut spec, reader)?;
    for (field, value) in
        [("mcpServices", mcp_services(file, reader)?), ("models", models(file)?), ("build", build(file))]
    {
        if !value.is_empty() {
            spec.insert(field.into(), Json::Object(value));
        }
    }
    Ok(Json::Object(spec))
}

/// Whether a text can be the value of a label.
fn is_label(text: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn sandboxes(file: &Table, spec: &mut Map<String, Json>, reader: &mut Reader<'_>) -> Result<(), SpannedError> {
    let path = Path::Root.key("sandbox");
    let section = file.table("sandbox");
    if let Some(node) = section.get("backend")
        && node.as_text().is_some_and(|backend| !backend.is_empty() && !BACKENDS.contains(&backend))
    {
        let message = format!("the framework does not have this backend; it has {}", BACKENDS.join(", "));
        return Err(SpannedError::new(ErrorKind::UnknownBackend, node.at, &path.key("backend").text(), message));
    }
    if let Some(node) = section.get("tolerations").filter(|node| !node.is_blank()) {
        let tolerations = tolerations(node, &path.key("tolerations"))?;
        spec.insert("sandboxDefaults".into(), json!({"podTemplate": {"spec": {"tolerations": tolerations}}}));
    }
    let path = path.key("sandboxes");
    let mut types = Map::new();
    for (sandbox_type, node) in &section.table("sandboxes").entries {
        if types.len() == MAX_TYPES {
            return Err(fault(node, &path.key(sandbox_type), &format!("a session has at most {MAX_TYPES} types")));
        }
        let Some(table) = node.as_table() else { continue };
        let template = sandbox::template(table, sandbox_type, &path.key(sandbox_type), reader)?;
        types.insert(sandbox_type.clone(), template);
    }
    if !types.is_empty() {
        spec.insert("sandboxes".into(), Json::Object(types));
    }
    Ok(())
}

/// The tolerations of all types, whose fields are those of Kubernetes.
fn tolerations(node: &Node, path: &Path<'_>) -> Result<Vec<Json>, SpannedError> {
    const WANTED: &str = "tolerations must be a list of tables with key, operator, value, effect and tolerationSeconds";
    let list = node.as_list().ok_or_else(|| fault(node, path, WANTED))?;
    check_length(node, path, MAX_NAMED)?;
    let tolerations = list.iter().enumerate().map(|(position, node)| {
        let path = path.entry(position);
        let table = node.as_table().ok_or_else(|| fault(node, &path, WANTED))?;
        let fields = table.entries.iter().map(|(field, node)| {
            let value = match field.as_str() {
                "key" | "operator" | "value" | "effect" => node.value.to_text().map(Json::from),
                "tolerationSeconds" => to_integer(&node.value).map(Json::from),
                _ => None, // a toleration has no other field
            };
            Ok((field.clone(), value.ok_or_else(|| fault(node, &path.key(field), WANTED))?))
        });
        fields.collect::<Result<Map<_, _>, _>>().map(Json::Object)
    });
    tolerations.collect()
}

fn check_number(before: usize, node: &Node, path: &Path<'_>) -> Result<(), SpannedError> {
    if before < MAX_NAMED { Ok(()) } else { Err(fault(node, path, &format!("at most {MAX_NAMED} are allowed"))) }
}

fn mcp_services(file: &Table, reader: &mut Reader<'_>) -> Result<Map<String, Json>, SpannedError> {
    let sandboxes = file.table("sandbox").table("sandboxes");
    let path = Path::Root.key("mcp");
    let path = path.key("services");
    let mut services = Map::new();
    for (before, (name, node)) in file.table("mcp").table("services").entries.iter().enumerate() {
        let Some(service) = node.as_table() else { continue };
        let path = path.key(name);
        check_number(before, node, &path)?;
        let port = service.get("sse_port").unwrap_or(node);
        let number = to_integer(&port.value).filter(|number| (1..=65535).contains(number)).ok_or_else(|| {
            let message = "a service must have a port from 1 to 65535".to_string();
            SpannedError::new(ErrorKind::BadPort, port.at, &path.key("sse_port").text(), message)
        })?;
        match server(sandboxes, name, service.text("sse_host"), number)? {
            Ok((sandbox_type, port)) => {
                services.insert(name.clone(), json!({"sandbox": sandbox_type, "port": port}));
            }
            Err(reason) => reader.ignore(&path, reason),
        }
    }
    Ok(services)
}

/// The sandbox that serves at a port, and its own port: the port in the file is a port on a host. The host may name the type.
/// Otherwise it is the type with the service's name, else the only type with that port, else the only type that waits for the
/// service.
fn server<'a>(
    sandboxes: &'a Table,
    service: &str,
    host: Option<&str>,
    port: i64,
) -> Result<Result<(&'a str, i64), &'static str>, SpannedError> {
    let mut listening = Vec::new();
    for (sandbox_type, node) in &sandboxes.entries {
        let Some(sandbox) = node.as_table() else { continue };
        let ports = ports_of(sandbox, &Path::Root.key("sandbox").key("sandboxes").key(sandbox_type))?;
        let own = ports.into_iter().map(|(_, port)| (i64::from(port.container.number), port.host));
        let found =
            own.filter(|(own, host)| *host == Some(port) || *own == port).max_by_key(|(_, host)| *host == Some(port));
        listening.extend(found.map(|(own, _)| (sandbox_type.as_str(), own)));
    }
    let port_of = |sandbox_type: &str| {
        listening.iter().find(|(listens, _)| *listens == sandbox_type).map_or(port, |(_, port)| *port)
    };
    let named = |word: &str| {
        sandboxes.entries.iter().map(|(key, _)| key.as_str()).find(|key| dns_label(key) == dns_label(word))
    };
    let is_local = |host: &str| ["127.0.0.1", "localhost", "0.0.0.0", "::1"].contains(&host);
    if let Some(host) = host.filter(|host| !is_local(host)) {
        // The DNS name of a sandbox in its session begins with its type.
        let first = host.split('.').next().unwrap_or_default();
        let found = named(host).or_else(|| named(first));
        return Ok(found.map(|found| (found, port_of(found))).ok_or("its host is not one of the sandboxes"));
    }
    if let Some(found) = named(service) {
        return Ok(Ok((found, port_of(found))));
    }
    if let [(found, port)] = listening[..] {
        return Ok(Ok((found, port)));
    }
    let waits = |node: &Node| {
        let names = node.as_table().and_then(|sandbox| sandbox.get("mcp_services")).and_then(Node::as_list);
        names.unwrap_or_default().iter().any(|name| name.as_text() == Some(service))
    };
    let mut waiting = sandboxes.entries.iter().filter(|(_, node)| waits(node)).map(|(key, _)| key.as_str());
    match (waiting.next(), waiting.next()) {
        (Some(found), None) => Ok(Ok((found, port_of(found)))),
        _ => Ok(Err("no sandbox, or more than one, matches; set it in spec.mcpServices")), // none or many
    }
}

fn models(file: &Table) -> Result<Map<String, Json>, SpannedError> {
    let path = Path::Root.key("llm");
    let path = path.key("model_configs");
    let mut models = Map::new();
    for (before, (name, node)) in file.table("llm").table("model_configs").entries.iter().enumerate() {
        let Some(table) = node.as_table() else { continue };
        let path = path.key(name);
        check_number(before, node, &path)?;
        let model_name =
            table.text("model_name").ok_or_else(|| fault(node, &path.key("model_name"), "a model must have a name"))?;
        let mut model = json!({"modelName": model_name});
        if let Some(temperature) = table.get("temperature") {
            // The temperature is text in a specification, which has no fractions.
            model["temperature"] = match &temperature.value {
                Value::Integer(number) => number.to_string().into(),
                Value::Float(number) => number.to_string().into(),
                _ => continue, // a number has no other type
            };
        }
        for (key, field) in [("max_tokens", "maxTokens"), ("rpm", "rpm"), ("tpm", "tpm")] {
            let Some(node) = table.get(key) else { continue };
            let number = node.as_integer().filter(|number| *number >= 0);
            let number =
                number.ok_or_else(|| fault(node, &path.key(key), "this must be a number that is not negative"))?;
            model[field] = number.into();
        }
        models.insert(name.clone(), model);
    }
    Ok(models)
}

fn build(file: &Table) -> Map<String, Json> {
    let section = file.table("build");
    let fields = [
        ("poc_dir", "pocDir"),
        ("compile_command", "compileCommand"),
        ("run_command", "runCommand"),
        ("target_type", "targetType"),
        ("target_binary", "targetBinary"),
    ];
    let source = file.text("src_dir_in_sandbox").map(|folder| ("sourceDir".to_string(), folder.into()));
    let fields = fields.into_iter().filter_map(|(key, field)| Some((field.to_string(), section.text(key)?.into())));
    source.into_iter().chain(fields).collect()
}
