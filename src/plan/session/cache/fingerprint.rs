//! Fingerprints: digests of everything that decides what the initialisers leave. Two sessions with the same fingerprints have the same
//! state when they are initialised.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    api::{
        SandboxTemplate,
        session::{CacheSpec, MissReason},
    },
    plan::{digest, effective::cache::fingerprint},
};

/// The fingerprints of a session, or of what an entry holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprints {
    /// Of the sources of the volumes.
    pub(super) data: String,
    /// Of each type: of itself, of the data, and of the types that it depends on.
    pub(super) types: BTreeMap<String, String>,
    /// Of each type alone.
    pub(super) own: BTreeMap<String, String>,
}

/// The fingerprint of the volumes: of the digest of their sources, and of what the session says about caches.
pub(super) fn data(sources: &str, cache: &CacheSpec) -> String {
    digest::whole(&(1, sources, &cache.epoch, &cache.exclude))
}

impl Fingerprints {
    /// The fingerprints of a session, from the fingerprint of its data and the templates of its types.
    pub(super) fn of(data: String, templates: &BTreeMap<&str, &SandboxTemplate>, skills: Option<&[String]>) -> Self {
        let own: BTreeMap<_, _> =
            templates.iter().map(|(name, template)| ((*name).to_string(), fingerprint(template, skills))).collect();
        let types = templates.keys().map(|&name| {
            let needed = needed(name, templates).into_iter();
            let needed = needed.map(|needed| (needed, own.get(needed).map_or("", String::as_str)));
            (name.to_string(), digest::whole(&(&data, needed.collect::<BTreeMap<_, _>>())))
        });
        let types: BTreeMap<_, _> = types.collect();
        Self { data, types, own }
    }

    /// The types of these for which an entry with other fingerprints has nothing.
    pub(super) fn misses(&self, entry: &Self) -> BTreeMap<String, MissReason> {
        let reason = |name: &String, wanted: &String| match entry.types.get(name) {
            None => Some(MissReason::NotSaved),
            Some(saved) if saved == wanted => None,
            Some(_) if entry.own.get(name) == self.own.get(name) => Some(MissReason::DependencyChanged),
            Some(_) => Some(MissReason::InitChanged),
        };
        let misses = self.types.iter().filter_map(|(name, wanted)| Some((name.clone(), reason(name, wanted)?)));
        misses.collect()
    }

    /// Without these types.
    pub(super) fn without(mut self, types: &BTreeSet<String>) -> Self {
        self.types.retain(|name, _| !types.contains(name));
        self.own.retain(|name, _| !types.contains(name));
        self
    }

    /// Whether all types of an entry are these.
    pub(super) fn has_all_of(&self, entry: &Self) -> bool {
        entry.types.iter().all(|(name, of)| self.types.get(name) == Some(of))
    }
}

/// For each type, the types that depend on it, each once.
pub(super) fn dependents(templates: &BTreeMap<&str, &SandboxTemplate>) -> BTreeMap<String, BTreeSet<String>> {
    let mut dependents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in templates.keys() {
        for needed in needed(name, templates).into_iter().filter(|needed| needed != name) {
            dependents.entry(needed.to_string()).or_default().insert((*name).to_string());
        }
    }
    dependents
}

/// A type, and all types that it depends on, each once.
fn needed<'a>(of: &'a str, templates: &BTreeMap<&'a str, &'a SandboxTemplate>) -> BTreeSet<&'a str> {
    let (mut found, mut waiting) = (BTreeSet::from([of]), vec![of]);
    while let Some(name) = waiting.pop() {
        let needs = templates.get(name).into_iter().flat_map(|template| &template.depends_on);
        waiting.extend(needs.map(String::as_str).filter(|needed| found.insert(needed)));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn templates(of: &Value) -> BTreeMap<String, SandboxTemplate> {
        serde_json::from_value(of.clone()).expect("templates")
    }

    fn of(data: &str, templates: &BTreeMap<String, SandboxTemplate>) -> Fingerprints {
        let templates = templates.iter().map(|(name, template)| (name.as_str(), template));
        Fingerprints::of(data.into(), &templates.collect(), None)
    }

    /// A chain, and one beside it.
    fn all() -> Value {
        let steps = json!({"steps": [{"name": "build", "command": ["make"]}]});
        json!({
            "main": {"image": "a:1", "init": steps},
            "fuzz": {"image": "b:1", "init": steps, "dependsOn": ["main"]},
            "coverage": {"image": "c:1", "dependsOn": ["fuzz"]},
            "gdb_mcp": {"image": "d:1"},
        })
    }

    fn misses(change: impl FnOnce(&mut Value)) -> Vec<(String, MissReason)> {
        let mut changed = all();
        change(&mut changed);
        of("d", &templates(&changed)).misses(&of("d", &templates(&all()))).into_iter().collect()
    }

    /// A stored entry of an earlier version has to fit as long as the format has its number.
    #[test]
    fn fingerprints_stay_what_they_are() {
        let now = of(&data("sha256:00", &CacheSpec::default()), &templates(&all()));
        assert_eq!(now.data, "sha256:810ca3a1ac75ac60a28b70243f4ce9ac3c82dc69b4a300973c0b4c6ca4c4488f");
        assert_eq!(now.own["main"], "7e6b157797ac7ab5");
        assert_eq!(now.types["coverage"], "sha256:171a67bb65dc408dfef116d084fe986ea75bdf892508ac090484ae0ab791d538");
    }

    #[test]
    fn what_changes_misses_with_all_that_depend_on_it() {
        use MissReason::{DependencyChanged, InitChanged, NotSaved};
        assert_eq!(misses(|_| {}), []);
        let chain = |of_main| {
            let miss = |name: &str, reason| (name.to_string(), reason);
            vec![miss("coverage", DependencyChanged), miss("fuzz", DependencyChanged), miss("main", of_main)]
        };
        for (field, value) in [
            ("image", json!("a:2")),
            ("command", json!(["serve"])),
            ("env", json!([{"name": "A", "value": "1"}])),
            ("envFrom", json!([{"secretRef": {"name": "s"}}])),
            ("workingDir", json!("/src")),
            ("init", json!({"steps": [{"name": "build", "command": ["make", "all"]}]})),
            ("podTemplate", json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}})),
        ] {
            assert_eq!(misses(|all| all["main"][field] = value.clone()), chain(InitChanged), "{field}");
        }
        for (field, value) in [
            ("resources", json!({"limits": {"cpu": "1"}})),
            ("ports", json!([{"containerPort": 80}])),
            ("restart", json!({"limit": 1})),
            ("updatePolicy", json!("Recreate")),
        ] {
            assert_eq!(misses(|all| all["main"][field] = value.clone()), [], "{field}");
        }
        assert_eq!(misses(|all| all["main"]["dependsOn"] = json!(["gdb_mcp"])), chain(DependencyChanged));
        assert_eq!(misses(|all| all["new"] = json!({"image": "e:1"})), [("new".into(), NotSaved)]);
        // A circle, which admission and the plan refuse elsewhere, ends.
        assert_eq!(misses(|all| all["main"]["dependsOn"] = json!(["coverage"])).len(), 2);
    }

    #[test]
    fn data_differs_by_its_sources_and_by_what_the_session_says_of_it() {
        let plain = data("sha256:00", &CacheSpec::default());
        let epoch = CacheSpec { epoch: Some("2".into()), ..CacheSpec::default() };
        let exclude = CacheSpec { exclude: vec!["/shared/x".into()], ..CacheSpec::default() };
        let others = [data("sha256:01", &CacheSpec::default()), data("sha256:00", &epoch), data("sha256:00", &exclude)];
        assert!(others.iter().all(|other| *other != plain));
        let key = CacheSpec { key: Some("k".into()), save_timeout: Some("1m".into()), ..CacheSpec::default() };
        assert_eq!(data("sha256:00", &key), plain);
    }
}
