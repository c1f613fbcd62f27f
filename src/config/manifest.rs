//! A session as a manifest for `kubectl`.
//!
//! The YAML writer that the rest of the crate uses follows YAML 1.2, and `kubectl` reads YAML 1.1, in which `yes`, `on` and `1_000`
//! are not text. A variable `ACCEPT_LICENSE: yes` would be rejected. So every text that is not plainly a word is quoted here, as
//! JSON, which both versions read in the same way.

use serde_json::Value;

use crate::api::meta;

/// The manifest of a session with this specification.
#[must_use]
pub fn manifest(name: &str, spec: &Value) -> String {
    // In the order in which people write a manifest.
    let mut text = format!("apiVersion: {}/v1alpha1\nkind: AigiseSession\n", meta::GROUP);
    write_block(&mut text, &serde_json::json!({"metadata": {"name": name}, "spec": spec}), 0);
    text
}

/// Writes a value that takes lines of its own.
fn write_block(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                text.extend([&" ".repeat(indent), &scalar(key), ":"]);
                // The entries of a list have the same indentation as the key.
                let below = if value.is_array() { indent } else { indent + 2 };
                write_value(text, value, below);
            }
        }
        Value::Array(entries) => {
            for entry in entries {
                text.extend([&" ".repeat(indent), "-"]);
                let begin = text.len();
                write_value(text, entry, indent + 2);
                // The first line of the entry follows the hyphen, so its indentation is removed.
                if text[begin..].starts_with('\n') {
                    text.replace_range(begin..begin + indent + 2, "");
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Writes a value after its key or hyphen.
fn write_value(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            write_block(text, value, indent);
        }
        Value::Array(entries) if !entries.is_empty() => {
            text.push('\n');
            write_block(text, value, indent);
        }
        Value::String(word) => text.extend([" ", &scalar(word), "\n"]),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) | Value::Array(_) => {
            text.extend([" ", &value.to_string(), "\n"]);
        }
    }
}

/// A text, in quotes unless every reader takes it for text.
fn scalar(word: &str) -> String {
    const NO_TEXT: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_word = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && word.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./ :".contains(c))
        && !word.contains(": ")
        && !NO_TEXT.contains(&word.to_ascii_lowercase().as_str());
    if is_word {
        return word.to_string();
    }
    // Characters that JSON does not escape and that YAML takes for the end of a line or drops.
    let is_odd =
        |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let escaped = |c: char| if is_odd(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    let quoted = Value::from(word).to_string();
    if quoted.contains(is_odd) { quoted.chars().map(escaped).collect::<Vec<_>>().concat() } else { quoted }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_yaml_would_take_for_something_else_is_quoted() {
        let spec = json!({"env": [{"name": "A", "value": "yes"}, {"name": "n", "value": "1_000"}], "b": {}, "c": [], "d": [["x"]], "e": "a: b"});
        let expected = r#"apiVersion: aigise.dev/v1alpha1
kind: AigiseSession
metadata:
  name: demo
spec:
  b: {}
  c: []
  d:
  - - x
  e: "a: b"
  env:
  - name: A
    value: "yes"
  - name: "n"
    value: "1_000"
"#;
        assert_eq!(manifest("demo", &spec), expected);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            any::<String>(),
            "[\u{7f}-\u{9f}\u{2028}\u{2029}\u{feff}\u{fffe}\u{10000}é]{1,3}",
            "[-yno:# .~0-9a-f'\"{}&*!|>%@`]{0,6}"
        ];
        let leaf = prop_oneof![
            word.clone().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(word.clone(), inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_manifest_is_read_as_what_was_written(spec in any_json()) {
            let text = manifest("demo", &spec);
            let read: Value = serde_yaml::from_str(&text).unwrap();
            prop_assert_eq!(&read["spec"], &spec, "{}", text);
        }
    }
}
