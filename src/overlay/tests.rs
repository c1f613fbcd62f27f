use proptest::prelude::*;
use serde_json::json;

use super::*;

fn merged(base: &Value, overlay: &Value) -> Value {
    let mut merged = base.clone();
    merge(&mut merged, overlay);
    merged
}

/// Each rule as a sentence: the base, the overlay, and the result.
#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn each_rule_holds() {
    for (sentence, base, overlay, expected) in [
        (
            "maps merge deeply",
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "x": 1}),
            json!({"metadata": {"labels": {"b": "3", "c": "4"}}}),
            json!({"metadata": {"labels": {"a": "1", "b": "3", "c": "4"}}, "x": 1}),
        ),
        (
            "null keeps the base, also below what is new",
            json!({"a": 1, "b": {"c": 2}}),
            json!({"a": null, "b": {"c": null}, "d": {"e": null, "f": 3}, "g": null}),
            json!({"a": 1, "b": {"c": 2}, "d": {"f": 3}}),
        ),
        (
            "containers merge by name, the base's first",
            json!({"containers": [{"name": "sandbox", "image": "a", "tty": true}, {"name": "z"}]}),
            json!({"containers": [{"name": "a"}, {"name": "sandbox", "image": "b"}]}),
            json!({"containers": [{"name": "sandbox", "image": "b", "tty": true}, {"name": "z"}, {"name": "a"}]}),
        ),
        (
            "init containers merge by name as well",
            json!({"initContainers": [{"name": "ours", "image": "a"}]}),
            json!({"initContainers": [{"name": "theirs"}, {"name": "ours", "tty": true}]}),
            json!({"initContainers": [{"name": "ours", "image": "a", "tty": true}, {"name": "theirs"}]}),
        ),
        (
            "a variable is replaced as a whole, so no value is left beside a reference",
            json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)"}]}),
            json!({"env": [{"name": "C", "value": "3"}, {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "B", "value": "$(A)"}, {"name": "C", "value": "3"}]}),
        ),
        (
            "the last of several variables with one name counts, so that is the one that changes",
            json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
            json!({"env": [{"name": "A", "value": "3"}]}),
            json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "3"}]}),
        ),
        (
            "variables with one name may build on each other, so all of them are kept",
            json!({}),
            json!({"env": [{"name": "P", "value": "a"}, {"name": "P", "value": "$(P):b"}]}),
            json!({"env": [{"name": "P", "value": "a"}, {"name": "P", "value": "$(P):b"}]}),
        ),
        (
            "a volume has one source",
            json!({"volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "b"}]}),
            json!({"volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "c"}}]}),
            json!({"volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "b"}]}),
        ),
        (
            "mounts merge by their path",
            json!({"volumeMounts": [{"name": "a", "mountPath": "/a", "readOnly": true}]}),
            json!({"volumeMounts": [{"name": "b", "mountPath": "/b"}, {"name": "c", "mountPath": "/a"}]}),
            json!({"volumeMounts": [{"name": "c", "mountPath": "/a", "readOnly": true}, {"name": "b", "mountPath": "/b"}]}),
        ),
        (
            "pull secrets merge by name",
            json!({"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}),
            json!({"imagePullSecrets": [{"name": "c"}, {"name": "a"}]}),
            json!({"imagePullSecrets": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
        ),
        (
            "other lists replace",
            json!({"tolerations": [{"key": "a"}], "args": ["a"], "envFrom": [{"prefix": "a"}], "ports": [{"containerPort": 1}]}),
            json!({"tolerations": [{"key": "b"}], "args": [], "envFrom": [{"prefix": "b"}], "ports": [{"containerPort": 2}]}),
            json!({"tolerations": [{"key": "b"}], "args": [], "envFrom": [{"prefix": "b"}], "ports": [{"containerPort": 2}]}),
        ),
        (
            "terms of an affinity append, each once",
            json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}]}}}),
            json!({"affinity": {
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "b"}, {"topologyKey": "a"}]},
                "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]},
            }}),
            json!({"affinity": {
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}, {"topologyKey": "b"}]},
                "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]},
            }}),
        ),
        (
            "a probe asks in one way, and keeps its times",
            json!({"readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5}}),
            json!({"readinessProbe": {"exec": {"command": ["true"]}}}),
            json!({"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 5}}),
        ),
        (
            "a probe that only changes its times keeps what it asks",
            json!({"readinessProbe": {"httpGet": {"port": 80}}}),
            json!({"readinessProbe": {"exec": null, "periodSeconds": 5}}),
            json!({"readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5}}),
        ),
        (
            "a command takes the place of a default entrypoint, and the other way round",
            json!({"sandboxes": [], "entrypoint": "Image"}),
            json!({"command": ["sleep", "1"]}),
            json!({"sandboxes": [], "command": ["sleep", "1"]}),
        ),
        (
            "labels that are called like fields of a probe are labels",
            json!({"labels": {"exec": "a", "command": "b"}}),
            json!({"labels": {"httpGet": "c", "entrypoint": "d"}}),
            json!({"labels": {"exec": "a", "command": "b", "httpGet": "c", "entrypoint": "d"}}),
        ),
        (
            "a profile is replaced as a whole",
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}),
            json!({"seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"seccompProfile": {"type": "RuntimeDefault"}}),
        ),
        (
            "a value of another kind is replaced",
            json!({"a": {"b": 1}, "c": [1], "d": "x"}),
            json!({"a": [1], "c": {"e": 1}, "d": {"f": 1}}),
            json!({"a": [1], "c": {"e": 1}, "d": {"f": 1}}),
        ),
        (
            "an entry without a name is kept, and the code that knows the shape reports it",
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"image": "b"}, 7, null, {"image": "b"}]}),
            json!({"containers": [{"name": "a"}, {"image": "b"}, 7, null]}),
        ),
        ("nothing over something is something", json!({"a": 1}), json!(null), json!({"a": 1})),
        ("something over nothing is something", json!(null), json!({"a": 1, "b": null}), json!({"a": 1})),
    ] {
        assert_eq!(merged(&base, &overlay), expected, "{sentence}");
    }
}

fn node(terms: &Value) -> Value {
    json!({"nodeSelectorTerms": terms})
}

/// Terms are alternatives: a node fits if all expressions of one term hold. Here an expression is a word that a node has.
fn fits(selector: &Value, node: &BTreeSet<&str>) -> bool {
    let terms = selector["nodeSelectorTerms"].as_array().unwrap();
    terms.iter().any(|term| {
        let mut expressions = term.as_object().unwrap().values().flat_map(|list| list.as_array().unwrap()).peekable();
        expressions.peek().is_some() && expressions.all(|word| node.contains(word.as_str().unwrap()))
    })
}

#[test]
fn node_selector_terms_narrow_each_other_down() {
    let base = node(&json!([{"matchExpressions": ["amd64"]}, {"matchExpressions": ["arm64"]}]));
    let overlay = node(&json!([{"matchExpressions": ["gpu"], "matchFields": ["one"]}]));
    assert_eq!(
        merged(&base, &overlay),
        node(&json!([
            {"matchExpressions": ["amd64", "gpu"], "matchFields": ["one"]},
            {"matchExpressions": ["arm64", "gpu"], "matchFields": ["one"]},
        ]))
    );
    let nowhere = node(&json!([{}]));
    assert_eq!(merged(&base, &nowhere), nowhere, "a term without expressions fits no node");
    assert_eq!(merged(&nowhere, &base), nowhere);
    assert_eq!(merged(&base, &node(&json!([]))), base, "an empty list changes nothing");
    assert_eq!(merged(&json!({}), &overlay), overlay);
}

#[test]
fn node_selector_terms_stay_few_and_no_further_node_matches_by_that() {
    let words: Vec<String> = (0..200).map(|number| format!("w{number}")).collect();
    let many = |prefix: &str| {
        node(&words.iter().map(|word| json!({"matchExpressions": [format!("{prefix}{word}")]})).collect())
    };
    let merged = merged(&many("a"), &many("b"));
    assert_eq!(merged["nodeSelectorTerms"].as_array().unwrap().len(), MAX_NODE_TERMS);
    assert!(fits(&merged, &BTreeSet::from(["aw0", "bw0"])));
    assert!(!fits(&merged, &BTreeSet::from(["aw0"])) && !fits(&merged, &BTreeSet::from(["bw0"])));
}

/// The operator reads whatever a user may store, here a megabyte on each side. Searching one list for each entry of the other would
/// take minutes.
#[test]
fn large_lists_merge_in_proportion_to_their_size() {
    let entries = |field: &str, range: std::ops::Range<u32>| {
        range.map(|number| json!({field: format!("entry-{number}"), "x": number})).collect::<Value>()
    };
    let tree = |range: std::ops::Range<u32>| {
        json!({
            "env": entries("name", range.clone()),
            "requiredDuringSchedulingIgnoredDuringExecution": entries("topologyKey", range.clone()),
            "nodeSelectorTerms": [{"matchExpressions": entries("key", range)}],
        })
    };
    let (base, overlay) = (tree(0..20_000), tree(10_000..30_000));
    let merged = merged(&base, &overlay);
    for list in ["env", "requiredDuringSchedulingIgnoredDuringExecution"] {
        assert_eq!(merged[list].as_array().unwrap().len(), 30_000, "{list}");
    }
    assert_eq!(merged["nodeSelectorTerms"][0]["matchExpressions"].as_array().unwrap().len(), 30_000);
}

/// Trees of the words that have rules, in any place and of any shape.
fn a_tree() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3).prop_map(Value::from),
        "[ab]".prop_map(Value::from),
    ];
    let field = proptest::sample::select(vec![
        "name",
        "mountPath",
        "containers",
        "env",
        "volumes",
        "volumeMounts",
        "nodeSelectorTerms",
        "matchExpressions",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "tolerations",
        "readinessProbe",
        "exec",
        "httpGet",
        "command",
        "entrypoint",
        "seccompProfile",
        "x",
    ]);
    scalar.prop_recursive(5, 48, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((field.clone(), inner), 0..5).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(field, value)| (field.to_string(), value)).collect())
            }),
        ]
    })
}

fn some_terms() -> impl Strategy<Value = Value> {
    let words = || proptest::collection::vec("[abc]", 0..3);
    let term = (words(), words()).prop_map(|(expressions, fields)| {
        let lists = [("matchExpressions", expressions), ("matchFields", fields)];
        Value::Object(
            lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(k, v)| (k.into(), json!(v))).collect(),
        )
    });
    proptest::collection::vec(term, 1..4).prop_map(|terms| node(&Value::from(terms)))
}

proptest! {
    #[test]
    fn laid_over_twice_is_laid_over_once(base in a_tree(), overlay in a_tree()) {
        let once = merged(&base, &overlay);
        prop_assert_eq!(merged(&once, &overlay), once);
    }

    #[test]
    fn nothing_laid_over_a_tree_changes_nothing(base in a_tree()) {
        prop_assert_eq!(merged(&base, &Value::Null), base.clone());
        if base.is_object() {
            prop_assert_eq!(merged(&base, &json!({})), base);
        }
    }

    /// Every name of either side is there, the base's first and in their order.
    #[test]
    fn named_entries_are_neither_lost_nor_moved(
        base in proptest::collection::btree_set("[a-e]", 0..5),
        overlay in proptest::collection::btree_set("[a-e]", 0..5),
    ) {
        let list = |names: &BTreeSet<String>| json!({"containers": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()});
        let result = merged(&list(&base), &list(&overlay));
        let names: Vec<_> = result["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        let expected: Vec<_> = base.iter().chain(overlay.difference(&base)).map(String::as_str).collect();
        prop_assert_eq!(names, expected);
    }

    /// The oracle reads terms as the scheduler does.
    #[test]
    fn a_node_fits_both_sides_or_not_at_all(
        base in some_terms(),
        overlay in some_terms(),
        node in proptest::collection::btree_set(proptest::sample::select(vec!["a", "b", "c"]), 0..4),
    ) {
        let both = merged(&base, &overlay);
        prop_assert_eq!(fits(&both, &node), fits(&base, &node) && fits(&overlay, &node), "{}", both);
    }
}
