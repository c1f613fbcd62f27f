//! Writes a session as a manifest for `kubectl`.

use serde::Serialize;
use serde_json::{Value, json};

use crate::api::meta;

/// Returns the manifest of a session with this name and specification.
///
/// `kubectl` reads YAML 1.1, in which `yes`, `on` and `1_000` are not text: the writer quotes what either version would misread.
pub fn manifest(name: &str, spec: &Value) -> String {
    /// The fields in the order in which people write them.
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest<'a> {
        api_version: String,
        kind: &'static str,
        metadata: Value,
        spec: &'a Value,
    }
    let manifest = Manifest {
        api_version: format!("{}/v1alpha1", meta::GROUP),
        kind: "AigiseSession",
        metadata: json!({"name": name}),
        spec,
    };
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false, yaml_12: false };
    serde_saphyr::to_string_with_options(&manifest, options).unwrap_or_default()
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

    /// `kubectl` would read each of these as a number, a time, a flag or nothing, in one version of YAML or the other.
    #[test]
    fn text_that_looks_like_something_else_stays_text() {
        let words = [
            "1:30",
            "010",
            "0o10",
            "0x1F",
            "0b1",
            "1e3",
            ".5",
            "+1",
            "1_0",
            "~",
            "=",
            "<<",
            "2001-01-01",
            "Off",
            "YES",
            "TRUE",
            "NULL",
            ".nan",
            ".inf",
            "-.INF",
        ];
        for word in words {
            let text = manifest("demo", &json!({"a": word}));
            assert!(text.contains(&format!("a: \"{word}\"")) || text.contains(&format!("a: '{word}'")), "{text}");
        }
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
