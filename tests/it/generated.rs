//! What is generated is what is checked in, and what must hold of it does.

use std::{collections::BTreeSet, path::Path};

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

/// A client-side apply keeps the object a second time, as JSON, in an annotation; all annotations may have 256 KiB.
#[test]
fn each_crd_is_small_enough_for_a_client_side_apply() {
    for (file, content) in crds::rendered().unwrap() {
        let kept = serde_json::to_string(&serde_yaml::from_str::<serde_json::Value>(&content).unwrap()).unwrap();
        assert!(kept.len() < 80 * 1024, "{file} has {} bytes", kept.len());
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

/// What the transcripts of the walks show, the page of conditions lists: for each reason the conditions that carry it.
#[test]
fn every_condition_of_the_walks_is_listed_with_its_reason() {
    let text = std::fs::read_to_string(root().join("docs/conditions.md")).unwrap();
    let missing: Vec<_> = seen_in_walks().into_iter().filter(|seen| !is_listed(&text, seen)).collect();
    assert!(missing.is_empty(), "docs/conditions.md does not list {missing:#?}");
}

/// The kind of an object, a condition as `Type=Status`, and its reason.
type Seen = (String, String, String);

fn seen_in_walks() -> BTreeSet<Seen> {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("tests/walks")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "snap") {
            continue;
        }
        let mut kind = String::new();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let mut words = line.split_whitespace();
            let (Some(first), Some(second)) = (words.next(), words.next()) else { continue };
            if line.contains(" says ") && ["sandbox", "session", "agent"].contains(&first) {
                kind = first.into();
            }
            let Some((condition, _)) = first.split_once('=') else { continue };
            if condition.parse::<ConditionType>().is_ok() {
                seen.insert((kind.clone(), first.into(), second.trim_end_matches(':').into()));
            }
        }
    }
    assert!(seen.len() > 50, "the transcripts are written in another way now: {seen:?}");
    seen
}

/// Whether a row of the reason says so: in the table of all kinds, or in that of this one.
fn is_listed(text: &str, (kind, condition, reason): &Seen) -> bool {
    let word = match condition.as_str() {
        "Reconciling=True" => "moving".to_string(),
        "Stalled=True" => "stalled".to_string(),
        other => format!("`{other}`"),
    };
    let of_kind = format!("Reasons of {} {kind}", if kind == "agent" { "an" } else { "a" });
    text.split("\n## ")
        .filter(|section| section.starts_with("Reasons of all kinds") || section.starts_with(&of_kind))
        .flat_map(str::lines)
        .filter(|row| row.starts_with(&format!("| `{reason}` |")))
        .any(|row| row.split('|').nth(2).is_some_and(|conditions| conditions.contains(&word)))
}
