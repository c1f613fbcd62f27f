//! What a rendered CRD holds its objects to: unknown fields are dropped, defaults filled in, types, bounds and CEL rules checked.

use std::{cell::RefCell, collections::HashMap};

use kube_cel::{CompiledSchema, RootContext, Validator, compile_schema};
use regex::Regex;
use serde_json::{Map, Value};

use super::refusal::FieldError;

/// The schema of one version of a CRD.
pub struct Schema {
    tree: Value,
    rules: CompiledSchema,
    context: RootContext,
}

impl Schema {
    pub fn of_crd(text: &str) -> Self {
        // The evaluator has a null where the API server has an optional without a value.
        let text = text.replace("oldSelf.hasValue()", "oldSelf != null");
        let crd: Value = serde_yaml::from_str(&text).expect("a rendered CRD");
        let tree = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        assert!(tree.is_object(), "a rendered CRD has a schema");
        let word = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string();
        let context = RootContext {
            api_version: format!("{}/{}", word("/spec/group"), word("/spec/versions/0/name")),
            api_group: word("/spec/group"),
            kind: word("/spec/names/kind"),
        };
        Self { rules: compile_schema(&tree), tree, context }
    }

    /// Drops what the schema does not know, and nulls, which mean absent; fills in defaults.
    pub fn prune_and_default(&self, object: &mut Value) {
        settle(&self.tree, object, true);
    }

    /// What is wrong with the object; `old` is what it replaces.
    pub fn errors(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = vec![];
        check(&self.tree, object, "", &mut errors);
        // Rules of what did not change are not looked at again; there is none on a status.
        let is_new = |field: &str| old.is_none_or(|old| old[field] != object[field]);
        if errors.is_empty() && is_new("spec") {
            let result = thread_local_validator(|validator| {
                validator.validate_compiled_with_context(&self.rules, object, old, Some(&self.context))
            });
            if let Err(found) = result {
                let found = found.into_vec().into_iter();
                errors.extend(found.map(|error| FieldError::new(error.field_path, error.message)));
            }
        }
        errors
    }

    /// The schema of the field at a path of names, lists and maps being looked through.
    pub fn at<'a>(&self, path: impl Iterator<Item = &'a str>) -> Option<&Value> {
        let mut node = &self.tree;
        for name in path {
            while let Some(items) = node.get("items") {
                node = items;
            }
            let property = node.get("properties").and_then(|properties| properties.get(name));
            node = property.or_else(|| node.get("additionalProperties").filter(|schema| schema.is_object()))?;
        }
        Some(node)
    }
}

/// Whether a text has a pattern. Patterns are few, and reading one takes longer than matching it.
pub fn matches(pattern: &str, text: &str) -> bool {
    thread_local! { static READ: RefCell<HashMap<String, Regex>> = RefCell::default() }
    READ.with_borrow_mut(|read| {
        let regex = read.entry(pattern.into()).or_insert_with(|| Regex::new(pattern).expect("a pattern"));
        regex.is_match(text)
    })
}

/// A validator holds the functions of CEL and cannot be shared between threads.
fn thread_local_validator<T>(validate: impl FnOnce(&Validator) -> T) -> T {
    thread_local! { static VALIDATOR: Validator = Validator::new() }
    VALIDATOR.with(validate)
}

fn settle(schema: &Value, value: &mut Value, is_root: bool) {
    match value {
        Value::Object(map) => {
            if schema["x-kubernetes-preserve-unknown-fields"] == true {
                return;
            }
            if let Some(properties) = schema["properties"].as_object() {
                let implied = |name: &str| is_root && ["apiVersion", "kind", "metadata"].contains(&name);
                map.retain(|name, value| implied(name) || properties.contains_key(name) && !value.is_null());
                for (name, schema) in properties {
                    if let Some(default) = schema.get("default").filter(|_| !map.contains_key(name)) {
                        map.insert(name.clone(), default.clone());
                    }
                    if let Some(value) = map.get_mut(name).filter(|_| !implied(name)) {
                        settle(schema, value, false);
                    }
                }
            } else if schema["additionalProperties"].is_object() {
                map.retain(|_, value| !value.is_null());
                map.values_mut().for_each(|value| settle(&schema["additionalProperties"], value, false));
            } else if !is_root {
                map.clear();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| settle(&schema["items"], item, false)),
        _ => {}
    }
}

fn check(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !has_type(schema, value) {
        let message = format!("Invalid value: {value}: {path} must be of type {}", schema["type"]);
        errors.push(FieldError::new(path, message));
        return;
    }
    if let Some(values) = schema["enum"].as_array().filter(|values| !values.contains(value)) {
        errors.push(FieldError::new(path, format!("Unsupported value: {value}: supported values: {values:?}")));
    }
    match value {
        Value::Object(map) => check_object(schema, map, path, errors),
        Value::Array(items) => {
            check_bounds(schema, ["minItems", "maxItems"], items.len(), path, errors);
            check_keys(schema, items, path, errors);
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{index}]"), errors);
            }
        }
        Value::String(text) => {
            check_bounds(schema, ["minLength", "maxLength"], text.chars().count(), path, errors);
            if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| !matches(pattern, text)) {
                errors.push(FieldError::new(path, format!("Invalid value: {value}: should match '{pattern}'")));
            }
        }
        Value::Number(number) => {
            check_range(schema, ["minimum", "maximum"], number.as_f64().unwrap_or_default(), path, errors);
        }
        Value::Bool(_) | Value::Null => {}
    }
}

fn check_object(schema: &Value, map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    check_bounds(schema, ["minProperties", "maxProperties"], map.len(), path, errors);
    let at = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(required) {
            errors.push(FieldError::new(at(required), "Required value"));
        }
    }
    for (name, value) in map {
        if path.is_empty() && name == "metadata" {
            continue;
        }
        let property = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
        if let Some(schema) = property.filter(|schema| schema.is_object()) {
            check(schema, value, &at(name), errors);
        }
    }
}

fn check_bounds(schema: &Value, names: [&str; 2], size: usize, path: &str, errors: &mut Vec<FieldError>) {
    check_range(schema, names, u32::try_from(size).map_or(f64::MAX, f64::from), path, errors);
}

fn check_range(schema: &Value, names: [&str; 2], size: f64, path: &str, errors: &mut Vec<FieldError>) {
    let [least, most] = names.map(|name| schema[name].as_f64());
    if least.is_some_and(|least| size < least) || most.is_some_and(|most| size > most) {
        errors.push(FieldError::new(
            path,
            format!("Invalid value: {} and {} do not hold for {size}", names[0], names[1]),
        ));
    }
}

/// Two items of a list-map cannot have the same keys.
fn check_keys(schema: &Value, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let Some(keys) = schema["x-kubernetes-list-map-keys"].as_array() else { return };
    let key_of = |item: &Value| keys.iter().filter_map(|key| item.get(key.as_str()?).cloned()).collect::<Vec<_>>();
    for (index, item) in items.iter().enumerate() {
        if items[..index].iter().any(|other| key_of(other) == key_of(item)) {
            errors.push(FieldError::new(format!("{path}[{index}]"), format!("Duplicate value: {:?}", key_of(item))));
        }
    }
}

fn has_type(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return value.is_i64() || value.is_string();
    }
    match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    }
}
