//! Turns one sandbox of the file into the template of a type, as the specification of a session has it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use secrecy::SecretString;

use super::{
    ErrorKind, Reader,
    cast::to_integer,
    error::SpannedError,
    tree::{Node, Path, Table, Taint, Value},
    units::{self, SecurityOption},
};
use crate::api::meta;

/// The mount paths of the session's own volumes.
const OUR_FOLDERS: [&str; 3] = ["/sandbox_scripts", "/shared", "/bash_tools"];

/// The maximum number of entries of a key: as many as the field of the session may have, or more than any file needs. In a
/// specification each entry takes a hundred times the memory of its text.
const LONGEST: [(&str, usize); 7] = [
    ("command", 64),
    ("environment", 256),
    ("ports", 64),
    ("volumes", 64),
    ("cap_add", 64),
    ("security_opt", 64),
    ("mcp_services", 16),
];

/// Rejects a value that has too many entries.
pub(super) fn check_length(node: &Node, path: &Path<'_>, longest: usize) -> Result<(), SpannedError> {
    let entries = node.as_list().map(<[_]>::len).or_else(|| Some(node.as_table()?.entries.len()));
    if entries.is_none_or(|entries| entries <= longest) {
        return Ok(());
    }
    Err(fault(node, path, &format!("at most {longest} entries are allowed")))
}

/// The template of a type.
///
/// # Errors
/// When a key cannot have its value.
pub fn template(
    sandbox: &Table,
    sandbox_type: &str,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) -> Result<Json, SpannedError> {
    for (key, longest) in LONGEST {
        sandbox.get(key).map_or(Ok(()), |node| check_length(node, &path.key(key), longest))?;
    }
    let mut fields = Map::new();
    put(&mut fields, "image", sandbox.text("image").map(Json::from));
    put(&mut fields, "workingDir", sandbox.text("working_dir").map(Json::from));
    if let Some(command) = sandbox.get("command") {
        let (field, value) = command_of(&command.value);
        fields.insert(field.into(), value);
    }
    put(&mut fields, "env", env(sandbox, sandbox_type, path, reader)?);
    put(&mut fields, "ports", ports(sandbox, path, reader)?);
    put(&mut fields, "resources", resources(sandbox, path)?);
    put(&mut fields, "securityContext", security_context(sandbox, path, reader));
    put(&mut fields, "podTemplate", pod_template(sandbox, path, reader)?);
    put(&mut fields, "mcpServices", some_list(texts(sandbox, "mcp_services").map(|(_, name)| name.into()).collect()));
    if let Some(timeout) = sandbox.table("extra").get("initializer_timeout_sec") {
        let seconds = seconds(&timeout.value).ok_or_else(|| {
            fault(timeout, &path.key("extra").key("initializer_timeout_sec"), "this must be a number of seconds")
        })?;
        fields.insert("init".into(), json!({"timeout": format!("{seconds}s")}));
    }
    Ok(Json::Object(fields))
}

/// The error for a value that its key cannot have.
pub(super) fn fault(node: &Node, path: &Path<'_>, message: &str) -> SpannedError {
    SpannedError::new(ErrorKind::BadValue, node.at, &path.text(), message.into())
}

fn put(fields: &mut Map<String, Json>, field: &str, value: Option<Json>) {
    fields.extend(value.map(|value| (field.to_string(), value)));
}

fn some_list(list: Vec<Json>) -> Option<Json> {
    (!list.is_empty()).then_some(Json::Array(list))
}

/// The texts of a list, each with its position.
fn texts<'a>(table: &'a Table, key: &str) -> impl Iterator<Item = (usize, &'a str)> {
    let list = table.get(key).and_then(Node::as_list).unwrap_or_default();
    list.iter().enumerate().filter_map(|(position, node)| Some((position, node.as_text()?)))
}

/// The command of a sandbox: text is run by a shell, a list is run without a shell, and an empty value means the image's own
/// entrypoint.
fn command_of(value: &Value) -> (&'static str, Json) {
    match value {
        Value::Text(text) if !text.is_empty() => ("command", json!(["/bin/sh", "-c", units::literal(text)])),
        Value::List(list) if !list.is_empty() => {
            ("command", list.iter().filter_map(Node::as_text).map(units::literal).collect())
        }
        _ => ("entrypoint", "Image".into()), // an empty command; its type has been checked
    }
}

fn seconds(value: &Value) -> Option<i64> {
    let whole = to_integer(value).or_else(|| match value {
        Value::Float(number) => to_integer(&Value::Float(number.ceil())),
        _ => None, // not a number
    });
    whole.filter(|seconds| (1..=999_999_999).contains(seconds))
}

fn env(
    sandbox: &Table,
    sandbox_type: &str,
    path: &Path<'_>,
    reader: &mut Reader<'_>,
) -> Result<Option<Json>, SpannedError> {
    let path = path.key("environment");
    let Some(node) = sandbox.get("environment") else { return Ok(None) };
    let table = node.as_table().ok_or_else(|| fault(node, &path, "this must be a table"))?;
    let variables = table.entries.iter().map(|(name, node)| {
        let path = path.key(name);
        if name.is_empty() || name.contains('=') || !name.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
            return Err(fault(node, &path, "this is not a valid name of a variable"));
        }
        let Some(text) = node.value.to_text() else {
            return Err(fault(node, &path, "the value of a variable must be text, a number, true or false"));
        };
        if node.taint == Taint::Clean {
            return Ok(json!({"name": name, "value": units::literal(&text)}));
        }
        let key = secret_key(sandbox_type, name);
        let reference = json!({"name": name, "valueFrom": {"secretKeyRef": {"name": reader.secret_name, "key": key}}});
        reader.secrets.insert(key, SecretString::from(text));
        Ok(reference)
    });
    Ok(some_list(variables.collect::<Result<_, _>>()?))
}

/// The key in the Secret that holds the value of a variable.
fn secret_key(sandbox_type: &str, name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let key = format!("env.{sandbox_type}.{name}");
    if key.chars().all(is_plain) && key.len() <= 253 {
        return key;
    }
    // Not every variable name is a valid key. The digest that is used instead never equals another key.
    let digest = Sha256::digest(format!("{sandbox_type}\n{name}").as_bytes());
    let digits: Vec<String> = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("env-{}", digits.concat())
}

/// A port in the file.
pub(super) struct Port {
    /// The port in the container.
    pub container: units::Port,
    /// The port on the host, if the file names one.
    pub host: Option<i64>,
}

/// The ports of a sandbox, each with its key.
pub(super) fn ports_of<'a>(sandbox: &'a Table, path: &Path<'_>) -> Result<Vec<(&'a str, Port)>, SpannedError> {
    let path = path.key("ports");
    let Some(node) = sandbox.get("ports") else { return Ok(vec![]) };
    let refuse = |node: &Node, path: &Path<'_>, message: &str| {
        SpannedError::new(ErrorKind::BadPort, node.at, &path.text(), message.to_string())
    };
    let table =
        node.as_table().ok_or_else(|| refuse(node, &path, "ports must be a table, such as \"8081/tcp\" = 8081"))?;
    let ports = table.entries.iter().map(|(key, node)| {
        let path = path.key(key);
        let container = units::port(key).map_err(|message| refuse(node, &path, message))?;
        let named = match &node.value {
            Value::Table(table) => table.get("port").or(table.get("host")).map(|_| table.get("port")),
            Value::Integer(_) | Value::Text(_) => Some(Some(node)),
            Value::Float(_) | Value::Bool(_) | Value::Datetime(_) | Value::List(_) => None,
        };
        let Some(named) = named else {
            return Err(refuse(
                node,
                &path,
                "the value of a port must be the port on the host, or a table with host and port",
            ));
        };
        let host = named.map(|node| {
            let number = to_integer(&node.value).filter(|number| (0..=65535).contains(number));
            number.ok_or_else(|| refuse(node, &path, "the port on the host must be a number from 0 to 65535"))
        });
        Ok((key.as_str(), Port { container, host: host.transpose()?.filter(|number| *number != 0) }))
    });
    ports.collect()
}

fn ports(sandbox: &Table, path: &Path<'_>, reader: &mut Reader<'_>) -> Result<Option<Json>, SpannedError> {
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    for (key, Port { container, host }) in ports_of(sandbox, path)? {
        if host.is_some_and(|host| host != i64::from(container.number)) {
            let reason = "there is no port on a host; the sandbox is reached at its own name and port";
            reader.ignore(&path.key("ports").key(key), reason);
        }
        if !seen.insert((container.number, container.protocol)) {
            continue;
        }
        let mut port = json!({"containerPort": container.number});
        if container.protocol != "TCP" {
            port["protocol"] = container.protocol.into();
        }
        list.push((container.number, port));
    }
    // A table has no order, and the same file may have another order when it is written again.
    list.sort_by_key(|(number, _)| *number);
    Ok(some_list(list.into_iter().map(|(_, port)| port).collect()))
}

fn resources(sandbox: &Table, path: &Path<'_>) -> Result<Option<Json>, SpannedError> {
    let mut limits = Map::new();
    for (key, name, read) in
        [("mem_limit", "memory", units::memory as fn(&str) -> _), ("cpus", "cpu", units::cpus as fn(&str) -> _)]
    {
        put(&mut limits, name, quantity(sandbox, key, path, read)?.map(Json::from));
    }
    Ok((!limits.is_empty()).then(|| json!({"limits": limits})))
}

/// The quantity of a key; `None` if the key is empty.
fn quantity(
    sandbox: &Table,
    key: &str,
    path: &Path<'_>,
    read: fn(&str) -> Result<Option<String>, &'static str>,
) -> Result<Option<String>, SpannedError> {
    let Some((node, text)) = sandbox.get(key).and_then(|node| Some((node, node.as_text()?))) else { return Ok(None) };
    if text.is_empty() {
        return Ok(None);
    }
    read(text).map_err(|message| fault(node, &path.key(key), message))
}

fn security_context(sandbox: &Table, path: &Path<'_>, reader: &mut Reader<'_>) -> Option<Json> {
    let mut context = Map::new();
    if sandbox.get("privileged").and_then(Node::as_bool) == Some(true) {
        context.insert("privileged".into(), true.into());
    }
    let capabilities: Vec<Json> = texts(sandbox, "cap_add").map(|(_, name)| units::capability(name).into()).collect();
    put(&mut context, "capabilities", some_list(capabilities).map(|add| json!({"add": add})));
    if let Some(text) = sandbox.text("user") {
        match units::user(text) {
            Some((user, group)) => {
                context.insert("runAsUser".into(), user.into());
                put(&mut context, "runAsGroup", group.map(Json::from));
            }
            None => {
                reader.ignore(&path.key("user"), "only the image knows the name; use numeric IDs of user and group");
            }
        }
    }
    for (position, text) in texts(sandbox, "security_opt") {
        let (field, value) = match units::security_option(text) {
            SecurityOption::SeccompUnconfined => ("seccompProfile", json!({"type": "Unconfined"})),
            SecurityOption::AppArmorUnconfined => ("appArmorProfile", json!({"type": "Unconfined"})),
            SecurityOption::AppArmor(profile) => {
                ("appArmorProfile", json!({"type": "Localhost", "localhostProfile": profile}))
            }
            SecurityOption::NoNewPrivileges(set) => ("allowPrivilegeEscalation", (!set).into()),
            SecurityOption::SeLinuxType(word) => ("seLinuxOptions", json!({"type": word})),
            SecurityOption::SeLinuxLevel(word) => ("seLinuxOptions", json!({"level": word})),
            SecurityOption::Other => {
                reader.ignore(&path.key("security_opt").entry(position), "Kubernetes does not have this option");
                continue;
            }
        };
        match (context.get_mut(field), value) {
            (Some(Json::Object(present)), Json::Object(value)) if field == "seLinuxOptions" => present.extend(value),
            (_, value) => {
                context.insert(field.into(), value);
            }
        }
    }
    (!context.is_empty()).then_some(Json::Object(context))
}

/// The settings that have no field of their own: claims, and shared memory.
fn pod_template(sandbox: &Table, path: &Path<'_>, reader: &mut Reader<'_>) -> Result<Option<Json>, SpannedError> {
    let (mut volumes, mut mounts): (Vec<Json>, Vec<Json>) = (vec![], vec![]);
    let (mut claims, mut targets) = (BTreeMap::new(), BTreeSet::new());
    let list = sandbox.get("volumes").and_then(Node::as_list).unwrap_or_default();
    let texts = list.iter().enumerate().filter_map(|(position, node)| Some((position, node, node.as_text()?)));
    for (position, node, text) in texts {
        let path = path.key("volumes");
        let path = path.entry(position);
        let mount = units::mount(text).map_err(|message| fault(node, &path, message))?;
        let target = mount.target.trim_end_matches('/');
        let ours = OUR_FOLDERS.iter().any(|folder| target == *folder || target.starts_with(&format!("{folder}/")));
        let reason = if mount.is_of_host() {
            "a sandbox has no folders of a host; fill the session's volumes through spec.volumes"
        } else if ours {
            "the session mounts its own volume there"
        } else if !mount.is_claim() {
            "its source is not a valid name of a claim"
        } else if !targets.insert(target) {
            "another volume is already mounted there"
        } else {
            let next = claims.len();
            let claim = *claims.entry(mount.source).or_insert(next);
            if claim == next {
                volumes.push(
                    json!({"name": format!("claim-{claim}"), "persistentVolumeClaim": {"claimName": mount.source}}),
                );
            }
            let mut mounted = json!({"name": format!("claim-{claim}"), "mountPath": mount.target});
            if mount.is_read_only {
                mounted["readOnly"] = true.into();
            }
            mounts.push(mounted);
            continue;
        };
        reader.ignore(&path, reason);
    }
    if let Some(size) = quantity(sandbox, "shm_size", path, units::memory)? {
        volumes.push(json!({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}));
        mounts.push(json!({"name": "shm", "mountPath": "/dev/shm"}));
    }
    let containers = json!([{"name": meta::SANDBOX_CONTAINER, "volumeMounts": mounts}]);
    Ok((!volumes.is_empty()).then(|| json!({"spec": {"containers": containers, "volumes": volumes}})))
}
