//! What is generated is what is checked in, and what must hold of it does.

use std::path::Path;

use aigise_operator::api::{
    condition::{ConditionType, Reason},
    crds,
};
use strum::IntoEnumIterator;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_crds_and_the_charts_copy_are_what_make_generate_writes() {
    for (file, content) in crds::rendered().unwrap() {
        for folder in ["crds", "charts/aigise-operator/files/crds"] {
            let path = root().join(folder).join(&file);
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(there == content, "{} has drifted: run `make generate`", path.display());
        }
    }
}

/// A client-side apply keeps the object a second time in an annotation, which may have 256 KiB in all.
#[test]
fn each_crd_is_small_enough_for_a_client_side_apply() {
    for (file, content) in crds::rendered().unwrap() {
        assert!(content.len() < 60_000, "{file} has {} bytes", content.len());
        assert!(!content.contains("nullable"), "{file}");
        assert!(!content.contains("format: uint"), "{file}");
    }
}

#[test]
fn every_condition_and_reason_is_explained() {
    let text = std::fs::read_to_string(root().join("docs/conditions.md")).unwrap();
    let words = ConditionType::iter().map(|word| word.to_string()).chain(Reason::iter().map(|word| word.to_string()));
    let missing: Vec<_> = words.filter(|word| !text.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "docs/conditions.md says nothing of {missing:?}");
}
