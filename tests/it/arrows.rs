//! Modules depend strictly downward.

use std::path::{Path, PathBuf};

/// From the bottom up; a module may use those before it.
const LAYERS: [&str; 9] =
    ["overlay", "api", "config", "protocol", "plan", "reading", "apply", "controllers", "operator"];

/// The modules of `plan`, from the bottom up. What `plan.rs` itself defines is below all of them.
const PLAN: [&str; 22] = [
    "digest",
    "invalid",
    "duration",
    "quantity",
    "helper_resources",
    "name",
    "volumes",
    "reserved",
    "write",
    "ownership",
    "status",
    "pod",
    "pod_event",
    "pod_resources",
    "facts",
    "template",
    "effective",
    "pod_spec",
    "agent",
    "sandbox",
    "session",
    "collection",
];

/// The modules of `sandboxd`, from the bottom up.
const SANDBOXD: [&str; 10] = ["folder", "layer", "http", "idle", "mcp", "skills", "stage", "cache", "init", "install"];

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module of a file, as a path from the root of the crate.
fn module_of(file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(src()).unwrap().with_extension("");
    relative.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

/// All paths that a file of this module imports from the crate or names in full, from the root of the crate. Paths within braces and over
/// several lines are resolved.
fn uses(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join(" ");
    let mut found = vec![];
    for (place, _) in code.match_indices("::") {
        let before = code[..place].rfind(|letter: char| !is_of_word(letter)).map_or(0, |at| at + 1);
        let rest = &code[before..];
        // The middle of a path was found from its beginning.
        if code[..before].ends_with("::") || code[..before].ends_with(':') {
            continue;
        }
        let mut path: Vec<String> = match &code[before..place] {
            "crate" => vec![],
            "super" => module[..module.len() - 1].to_vec(),
            "self" => module.to_vec(),
            _ => continue,
        };
        let mut rest = &rest[place - before + 2..];
        while let Some(after) = rest.strip_prefix("super::") {
            path.pop();
            rest = after;
        }
        expand(&path, rest, &mut found);
    }
    found
}

/// The paths of a tree of imports, after a prefix.
fn expand(prefix: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let word: String = tree.chars().take_while(|&letter| is_of_word(letter)).collect();
    let rest = &tree[word.len()..];
    if word.is_empty() && !rest.starts_with('{') {
        return;
    }
    let path = if word.is_empty() { prefix.to_vec() } else { [prefix, &[word]].concat() };
    let Some(inner) = rest.strip_prefix("::").or(rest.strip_prefix('{').map(|_| rest)) else {
        found.push(path);
        return;
    };
    let Some(list) = inner.strip_prefix('{') else { return expand(&path, inner, found) };
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => return expand(&path, list[start..at].trim(), found),
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&path, list[start..at].trim(), found);
                start = at + 1;
            }
            _ => {}
        }
    }
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "use crate::{api::{meta, x}, plan::{\n  a,\n  b::{c}}, apply};\nuse super::d; use super::super::e; // crate::no\nuse crate::operator::run; fn f() { crate::staging::g(std::mem::take(x)) }";
    let module = ["plan", "session", "volumes"].map(String::from);
    let found: Vec<_> = uses(text, &module).iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        [
            "api::meta",
            "api::x",
            "plan::a",
            "plan::b::c",
            "apply",
            "plan::session::d",
            "plan::e",
            "operator::run",
            "staging::g"
        ]
    );
}

/// What files use of a layer above their own. A layer is a part of the path from the root of the crate, after `house`.
fn upward(house: &[&str], layers: &[&str]) -> Vec<String> {
    let mut files = vec![];
    sources(&src().join(house.join("/")), &mut files);
    let layer = |path: &[String]| {
        let within = path.strip_prefix(&house.iter().map(ToString::to_string).collect::<Vec<_>>()[..])?;
        layers.iter().position(|layer| within.first().is_some_and(|first| first == layer))
    };
    let mut upward = vec![];
    for file in files {
        let module = module_of(&file);
        let Some(own) = layer(&module) else { continue };
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let above = uses(code, &module).into_iter().filter(|path| layer(path).is_some_and(|layer| layer > own));
        upward.extend(above.map(|path| format!("{} uses {}", file.display(), path.join("::"))));
    }
    upward
}

#[test]
fn no_module_uses_one_above_it() {
    for (house, layers) in [(&[][..], &LAYERS[..]), (&["plan"], &PLAN), (&["sandboxd"], &SANDBOXD)] {
        let upward = upward(house, layers);
        assert!(upward.is_empty(), "{}", upward.join("\n"));
    }
}

/// A module that is not in the list could be used by all.
#[test]
fn every_module_has_its_layer() {
    for (house, layers) in [("plan", &PLAN[..]), ("sandboxd", &SANDBOXD)] {
        let mut found = vec![];
        sources(&src().join(house), &mut found);
        let unknown: Vec<_> = found.into_iter().filter(|file| !layers.contains(&module_of(file)[1].as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?} have no layer");
    }
}

/// It runs in other people's images: nothing of Kubernetes belongs there.
#[test]
fn the_helper_uses_nothing_of_the_operator_but_what_passes_between_them() {
    let mut files = vec![src().join("sandboxd.rs")];
    sources(&src().join("sandboxd"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for layer in LAYERS.iter().filter(|layer| !["protocol"].contains(layer)) {
            assert!(!text.contains(&format!("crate::{layer}")), "{} uses {layer}", file.display());
        }
        assert!(!text.contains("k8s_openapi") && !text.contains("kube::"), "{}", file.display());
    }
}
