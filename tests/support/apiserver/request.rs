//! Reading a request: what is asked, of what, by whom.

use std::collections::BTreeMap;

use axum::http::{Method, Uri};
use serde_json::Value;

use super::{
    refusal::Refusal,
    resource::{self, Resource},
    store::{Key, text},
};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    pub fn writes(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// A request, understood.
#[derive(Clone)]
pub struct Ask {
    pub verb: Verb,
    pub resource: &'static Resource,
    /// The name is empty where a request is for all objects; the namespace where it is for all namespaces.
    pub key: Key,
    pub subresource: Option<&'static str>,
    pub query: BTreeMap<String, String>,
    /// The answer is to have metadata only.
    pub metadata_only: bool,
}

impl Ask {
    pub fn read(method: &Method, uri: &Uri) -> Result<Self, Refusal> {
        let unknown = || Refusal::new(404, "NotFound", format!("the server could not find {}", uri.path()));
        let query: BTreeMap<String, String> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_string(), decoded(value)))
            .collect();
        let path: Vec<_> = uri.path().split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let (group, version, rest) = match path.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(unknown()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && rest != ["status"] => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, "", None),
            [plural, name] => (*plural, *name, None),
            [plural, name, "status"] => (*plural, *name, Some("status")),
            _ => return Err(unknown()),
        };
        let resource = resource::find(group, version, plural).ok_or_else(unknown)?;
        if subresource.is_some() && !resource.has_status {
            return Err(unknown());
        }
        let watches = query.get("watch").is_some_and(|watch| watch == "true" || watch == "1");
        let verb = match (method.as_str(), name.is_empty()) {
            ("GET", true) if watches => Verb::Watch,
            ("GET", true) => Verb::List,
            ("GET", false) => Verb::Get,
            ("POST", true) => Verb::Create,
            ("PUT", false) => Verb::Update,
            ("PATCH", false) => Verb::Patch,
            ("DELETE", false) => Verb::Delete,
            _ => return Err(Refusal::new(405, "MethodNotAllowed", format!("{method} is not served here"))),
        };
        let key = Key { plural: resource.plural, namespace: namespace.into(), name: name.into() };
        Ok(Self { verb, resource, key, subresource, query, metadata_only: false })
    }

    pub fn option(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Whether a list or watch that asks like this would show the object.
    pub fn selects(&self, object: &Value) -> bool {
        let in_place = self.key.namespace.is_empty() || text(object, "/metadata/namespace") == self.key.namespace;
        in_place && selected(self.option("labelSelector"), &object["metadata"]["labels"]) && self.has_fields(object)
    }

    fn has_fields(&self, object: &Value) -> bool {
        let wanted = self.option("fieldSelector").split(',').filter_map(|pair| pair.split_once('='));
        wanted.into_iter().all(|(field, value)| text(object, &format!("/{}", field.replace('.', "/"))) == value)
    }
}

/// Whether labels are what a selector asks for: `a=b`, `a!=b`, `a`, `!a`, `a in (b,c)`, `a notin (b,c)`.
fn selected(selector: &str, labels: &Value) -> bool {
    let mut depth = 0;
    let parts = selector.split(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).all(|part| {
        let value = |key: &str| labels.get(key.trim()).and_then(Value::as_str);
        let among = |list: &str, value: Option<&str>| {
            let list = list.trim().trim_start_matches('(').trim_end_matches(')');
            value.is_some_and(|value| list.split(',').any(|item| item.trim() == value))
        };
        if let Some((key, list)) = part.split_once(" notin ") {
            !among(list, value(key))
        } else if let Some((key, list)) = part.split_once(" in ") {
            among(list, value(key))
        } else if let Some((key, wanted)) = part.split_once("!=") {
            value(key) != Some(wanted.trim())
        } else if let Some((key, wanted)) = part.split_once('=') {
            value(key) == Some(wanted.trim_start_matches('=').trim())
        } else if let Some(key) = part.strip_prefix('!') {
            value(key).is_none()
        } else {
            value(part).is_some()
        }
    })
}

/// `%2F` and its like, as characters.
fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = vec![];
    while let Some(byte) = bytes.next() {
        let hex = (byte == b'%')
            .then(|| [bytes.next(), bytes.next()].map(|digit| (digit.unwrap_or(b'0') as char).to_digit(16)));
        decoded.push(match hex {
            Some([Some(high), Some(low)]) => u8::try_from(high * 16 + low).expect("a byte"),
            Some(_) => b'?',
            None if byte == b'+' => b' ',
            None => byte,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
