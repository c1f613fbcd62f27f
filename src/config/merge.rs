//! Merges the session's own fields over those of its file, field by field.

use serde_json::{Map, Value};

use crate::overlay;

/// Fields whose entries are identified by name.
const BY_NAME: [&str; 3] = ["sandboxes", "mcpServices", "models"];

/// The effective specification: `own` merged over `from_file`, by the rules of [`overlay`]. A type that `own` switches off keeps no
/// other field; a type that `own` attaches to a Pod has only the fields of `own`.
pub fn merge(from_file: &Value, own: &Value) -> Value {
    let mut merged = from_file.as_object().cloned().unwrap_or_default();
    for (field, value) in own.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        let base = merged.entry(field).or_insert(Value::Null);
        match value {
            Value::Object(entries) if BY_NAME.contains(&field.as_str()) => merge_entries(base, entries),
            _ => overlay::merge(base, value), // any other field is merged as a whole
        }
    }
    Value::Object(merged)
}

fn merge_entries(base: &mut Value, own: &Map<String, Value>) {
    if !base.is_object() {
        *base = Value::Object(Map::new());
    }
    let Value::Object(base) = base else { return };
    for (name, own) in own.iter().filter(|(_, own)| !own.is_null()) {
        let base = base.entry(name).or_insert_with(|| Value::Object(Map::new()));
        if own.get("attach").is_some_and(|attach| !attach.is_null()) {
            *base = Value::Null;
        }
        overlay::merge(base, own);
        if base.get("enabled") == Some(&Value::Bool(false)) {
            *base = serde_json::json!({"enabled": false});
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn own_fields_go_over_those_of_the_file_one_by_one() {
        let file = json!({
            "taskName": "file",
            "sandboxes": {
                "main": {"image": "file", "entrypoint": "Image", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
                         "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
                "fuzz": {"image": "file"},
            },
            "models": {"main": {"modelName": "file", "rpm": 1}},
        });
        let own = json!({
            "sandboxes": {
                "main": {"command": ["a"], "env": [{"name": "B", "value": "2"}], "resources": {"limits": {"memory": "2Gi"}}},
                "more": {"image": "own"},
            },
            "models": {"main": {"rpm": 2, "apiKeySecretRef": {"name": "k", "key": "v"}}},
            "volumes": {"data": {"size": "1Gi"}},
        });
        let expected = json!({
            "taskName": "file",
            "sandboxes": {
                "main": {"image": "file", "command": ["a"], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                         "resources": {"limits": {"cpu": "1", "memory": "2Gi"}}},
                "fuzz": {"image": "file"},
                "more": {"image": "own"},
            },
            "models": {"main": {"modelName": "file", "rpm": 2, "apiKeySecretRef": {"name": "k", "key": "v"}}},
            "volumes": {"data": {"size": "1Gi"}},
        });
        assert_eq!(merge(&file, &own), expected);
    }

    #[test]
    fn a_type_is_taken_out_by_switching_it_off_and_attached_without_what_the_file_says() {
        let file = json!({"sandboxes": {"main": {"image": "a"}, "fuzz": {"image": "b"}, "env": {"image": "c"}}});
        let own = json!({"sandboxes": {"fuzz": {"enabled": false}, "main": {"attach": {"podName": "p"}}, "env": {"workingDir": "/"}}});
        let expected = json!({"sandboxes": {
            "main": {"attach": {"podName": "p"}},
            "fuzz": {"enabled": false},
            "env": {"image": "c", "workingDir": "/"},
        }});
        assert_eq!(merge(&file, &own), expected);
    }

    #[test]
    fn null_says_nothing() {
        let file = json!({"taskName": "a", "sandboxes": {"main": {"image": "b"}}});
        assert_eq!(merge(&file, &json!({"taskName": null, "sandboxes": {"main": null}})), file);
        assert_eq!(merge(&file, &json!(null)), file);
    }

    /// A part of a specification whose fields, or those of its entries, begin with one of these letters.
    fn part(owner: &'static str) -> impl Strategy<Value = Value> {
        let own = move |letters: &'static str| (prop::sample::select(owner.chars().collect::<Vec<_>>()), letters);
        let key = move |letters| own(letters).prop_map(|(owner, rest)| format!("{owner}{rest}"));
        let template = prop::collection::btree_map(key("[a-c]"), "[a-z]{0,3}", 0..3);
        let model = prop::collection::btree_map(key("[a-c]"), 0..9, 0..3);
        let sandboxes = prop::collection::btree_map("[a-d]", template, 0..4);
        let models = prop::collection::btree_map("[a-c]", model, 0..3);
        let others = prop::collection::btree_map(key("[x-z]"), any::<bool>(), 0..3);
        (sandboxes, models, others).prop_map(|(sandboxes, models, others)| {
            let mut part = json!(others);
            part["sandboxes"] = json!(sandboxes);
            part["models"] = json!(models);
            part
        })
    }

    proptest! {
        #[test]
        fn merging_is_associative_and_of_any_order_over_disjoint_fields(a in part("a"), b in part("b"), c in part("c")) {
            prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
            prop_assert_eq!(merge(&a, &b), merge(&b, &a));
        }

        #[test]
        fn merging_the_same_again_changes_nothing(a in part("a"), b in part("ab")) {
            let merged = merge(&a, &b);
            prop_assert_eq!(merge(&merged, &b), merged);
        }
    }
}
