//! Writes the effective configuration as a file for the framework.
//!
//! The written file reads back as the same configuration: `thread_safe_tools` and unknown keys are kept, text that only looks like
//! a `${NAME}` is escaped, and a secret is written as the `${NAME}` that it came from, unless the file is for a Secret.

use std::collections::{BTreeMap, BTreeSet};

use ::toml as format;
use serde_json::Value as Json;

use super::{
    Configuration,
    expand::{Piece, is_credential, is_name, pieces},
    tree::{Node, Part, Path, Table, Taint, Value},
    units,
};

/// How secrets are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// As `${NAME}`.
    AsVariables,
    /// In clear text, for a file in a Secret.
    InClear,
}

/// The variable that stands for a literal `$`; there is no other way to write `${NAME}` as text.
const DOLLAR: &str = "DOLLAR";

/// The configuration as TOML.
///
/// # Errors
/// When it cannot be written as TOML, which a test rules out.
pub fn toml(configuration: &Configuration, secrets: Secrets) -> Result<String, format::ser::Error> {
    file(&configuration.file, secrets)
}

/// A table as TOML.
///
/// # Errors
/// When it cannot be written as TOML, which a test rules out.
pub fn file(file: &Table, secrets: Secrets) -> Result<String, format::ser::Error> {
    let mut writer = Writer { secrets, dollar: dollar(file), needs_dollar: false };
    let mut table = writer.table(file, &Path::Root, false);
    if writer.needs_dollar {
        table.insert(writer.dollar, format::Value::String("$".into()));
    }
    format::to_string_pretty(&table)
}

/// A name that already means `$` in this file, or that is unused.
fn dollar(file: &Table) -> String {
    let others = file.entries.iter().filter(|(_, node)| node.as_text() != Some("$"));
    let taken: BTreeSet<&str> = others.map(|(key, _)| key.as_str()).collect();
    let names = std::iter::once(DOLLAR.to_string()).chain((2_usize..).map(|count| format!("{DOLLAR}_{count}")));
    // A free name always exists: a file has fewer keys than there are numbers.
    names.into_iter().find(|name| !taken.contains(name.as_str())).unwrap_or_default()
}

struct Writer {
    secrets: Secrets,
    dollar: String,
    needs_dollar: bool,
}

impl Writer {
    /// `is_env`: the values are the environment variables of a sandbox.
    fn table(&mut self, table: &Table, path: &Path<'_>, is_env: bool) -> format::Table {
        let entries = table.entries.iter().map(|(key, node)| {
            let path = path.key(key);
            let is_secret = node.taint == Taint::File && (is_env || is_credential(key));
            (key.clone(), self.node(node, &path, is_secret))
        });
        entries.collect()
    }

    fn node(&mut self, node: &Node, path: &Path<'_>, is_secret: bool) -> format::Value {
        if self.secrets == Secrets::AsVariables {
            if let Taint::Variable(parts) = &node.taint {
                return format::Value::String(self.with_variables(parts));
            }
            if is_secret && node.value.to_text().is_some() {
                return format::Value::String(format!("${{{}}}", variable_name(path)));
            }
        }
        match &node.value {
            Value::Text(text) => format::Value::String(self.literal(text)),
            Value::Integer(number) => format::Value::Integer(*number),
            Value::Float(number) => format::Value::Float(*number),
            Value::Bool(is) => format::Value::Boolean(*is),
            Value::Datetime(time) => format::Value::Datetime(*time),
            Value::List(list) => {
                let entries = list.iter().enumerate();
                format::Value::Array(
                    entries.map(|(position, node)| self.node(node, &path.entry(position), is_secret)).collect(),
                )
            }
            Value::Table(table) => format::Value::Table(self.table(table, path, is_environment(path))),
        }
    }

    fn with_variables(&mut self, parts: &[Part]) -> String {
        let (mut text, mut plain) = (String::new(), String::new());
        for part in parts {
            match part {
                Part::Plain(more) => plain.push_str(more),
                Part::Secret(name) => {
                    text.push_str(&self.literal(&plain));
                    plain.clear();
                    text.extend(["${", name, "}"]);
                }
            }
        }
        text + &self.literal(&plain)
    }

    /// A text, escaped so that it reads back unchanged.
    fn literal(&mut self, text: &str) -> String {
        let mut written = String::with_capacity(text.len());
        for piece in pieces(text) {
            match piece {
                Piece::Literal(literal) => written.push_str(literal),
                Piece::Variable(name) => {
                    self.needs_dollar = true;
                    written.extend(["${", &self.dollar, "}{", name, "}"]);
                }
            }
        }
        written
    }
}

fn is_environment(path: &Path<'_>) -> bool {
    matches!(path, Path::Key(Path::Key(Path::Key(Path::Key(Path::Root, "sandbox"), "sandboxes"), _), "environment"))
}

/// The name of a variable through which a secret from the file itself can be given.
fn variable_name(path: &Path<'_>) -> String {
    let name: String =
        path.text().chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    if is_name(&name) { name } else { "SECRET".to_string() }
}

/// Writes the session's own fields into its file, as far as the file has keys for them.
pub fn put_own(file: &mut Table, own: &Json) {
    put_texts(file, own, &[("taskName", "task_name")]);
    if let Some(is) = own["autoCleanup"].as_bool() {
        file.put("auto_cleanup", Value::Bool(is));
    }
    put_texts(file, &own["build"], &[("sourceDir", "src_dir_in_sandbox")]);
    if own["build"].is_object() {
        file.change("build", |build| {
            let fields = [
                ("pocDir", "poc_dir"),
                ("compileCommand", "compile_command"),
                ("runCommand", "run_command"),
                ("targetType", "target_type"),
                ("targetBinary", "target_binary"),
            ];
            put_texts(build, &own["build"], &fields);
        });
    }
    for_each(file, &["llm", "model_configs"], &own["models"], |model, own| {
        put_texts(model, own, &[("modelName", "model_name")]);
        if let Some(temperature) = own["temperature"].as_str().and_then(|text| text.parse().ok()) {
            model.put("temperature", Value::Float(temperature));
        }
        for (field, key) in [("maxTokens", "max_tokens"), ("rpm", "rpm"), ("tpm", "tpm")] {
            put_integer(model, key, &own[field]);
        }
    });
    for_each(file, &["mcp", "services"], &own["mcpServices"], |service, own| {
        put_texts(service, own, &[("sandbox", "sse_host")]);
        put_integer(service, "sse_port", &own["port"]);
    });
    for_each(file, &["sandbox", "sandboxes"], &own["sandboxes"], put_sandbox);
    let switched_off = own["sandboxes"].as_object().into_iter().flatten().filter(|(_, own)| own["enabled"] == false);
    for (sandbox_type, _) in switched_off {
        file.change("sandbox", |section| section.change("sandboxes", |types| types.remove(sandbox_type)));
    }
}

/// The addresses of a session's services and database inside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// The host and the port of each MCP service.
    pub services: BTreeMap<String, (String, i32)>,
    /// The host of the database.
    pub neo4j: Option<String>,
}

/// Replaces the addresses of a single host by those of the cluster.
pub fn put_hosts(file: &mut Table, hosts: &Hosts) {
    for (name, (host, port)) in &hosts.services {
        file.change("mcp", |mcp| {
            mcp.change("services", |services| {
                services.change(name, |service| {
                    service.put("sse_host", Value::Text(host.clone()));
                    service.put("sse_port", Value::Integer(i64::from(*port)));
                });
            });
        });
    }
    if let Some(host) = &hosts.neo4j {
        file.change("neo4j", |neo4j| neo4j.put("host", Value::Text(host.clone())));
    }
}

fn for_each(file: &mut Table, sections: &[&str], own: &Json, mut change: impl FnMut(&mut Table, &Json)) {
    let Some(own) = own.as_object().filter(|own| !own.is_empty()) else { return };
    let [first, second] = sections else { return };
    file.change(first, |section| {
        section.change(second, |entries| {
            for (name, own) in own {
                entries.change(name, |entry| change(entry, own));
            }
        });
    });
}

fn put_texts(table: &mut Table, own: &Json, fields: &[(&str, &str)]) {
    for (field, key) in fields {
        if let Some(text) = own[*field].as_str() {
            table.put(key, Value::Text(text.to_string()));
        }
    }
}

fn put_integer(table: &mut Table, key: &str, own: &Json) {
    if let Some(number) = own.as_i64() {
        table.put(key, Value::Integer(number));
    }
}

fn put_sandbox(sandbox: &mut Table, own: &Json) {
    put_texts(sandbox, own, &[("image", "image"), ("workingDir", "working_dir")]);
    match own["entrypoint"].as_str() {
        Some("Image") => sandbox.put("command", Value::Text(String::new())),
        Some("Idle" | "ImageThenIdle") => sandbox.remove("command"),
        _ => {} // absent
    }
    for (field, key) in [("command", "command"), ("mcpServices", "mcp_services")] {
        let texts = own[field].as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Json::as_str);
        let texts: Vec<Node> = texts.map(|text| Node::new(Value::Text(text.to_string()))).collect();
        if !texts.is_empty() {
            sandbox.put(key, Value::List(texts));
        }
    }
    let limits = &own["resources"]["limits"];
    put_texts(sandbox, limits, &[("cpu", "cpus")]);
    if let Some(memory) = limits["memory"].as_str().and_then(units::memory_of_quantity) {
        sandbox.put("mem_limit", Value::Text(memory));
    }
    // Values from a Secret are not known here.
    let env = own["env"].as_array().into_iter().flatten();
    for (name, value) in env.filter_map(|env| Some((env["name"].as_str()?, env["value"].as_str()?))) {
        sandbox.change("environment", |env| env.put(name, Value::Text(value.to_string())));
    }
    let ports = own["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !ports.is_empty() {
        let mut table = Table::default();
        for (port, number) in ports.iter().filter_map(|port| Some((port, port["containerPort"].as_i64()?))) {
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_ascii_lowercase();
            table.put(&format!("{number}/{protocol}"), Value::Integer(number));
        }
        sandbox.put("ports", Value::Table(table));
    }
    let timeout = own["init"]["timeout"].as_str().and_then(|text| text.parse::<jiff::SignedDuration>().ok());
    if let Some(timeout) = timeout {
        sandbox.change("extra", |extra| extra.put("initializer_timeout_sec", Value::Integer(timeout.as_secs())));
    }
}
