//! Modules depend strictly downward.

use std::path::{Path, PathBuf};

/// From the bottom up; a module may use those before it.
const LAYERS: [&str; 9] =
    ["overlay", "api", "config", "protocol", "plan", "reading", "apply", "controllers", "operator"];

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

/// The first segments of all that a file imports from the crate, also within braces and over several lines, and names in full.
fn uses(text: &str) -> impl Iterator<Item = String> + '_ {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(block) = rest.strip_prefix('{') else {
            found.push(first_segment(rest));
            continue;
        };
        let mut depth = 0;
        for part in block.split_inclusive(['{', '}', ',']) {
            if depth == 0 {
                found.push(first_segment(part));
            }
            match part.chars().last() {
                Some('{') => depth += 1,
                Some('}') if depth == 0 => break,
                Some('}') => depth -= 1,
                _ => {}
            }
        }
    }
    found.into_iter()
}

fn first_segment(path: &str) -> String {
    path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "use crate::{api::{meta, x}, plan::{\n  a,\n  b::{c}}, apply};\nuse crate::operator::run; fn f() { crate::staging::g() }";
    assert_eq!(
        uses(text).filter(|word| !word.is_empty()).collect::<Vec<_>>(),
        ["api", "plan", "apply", "operator", "staging"]
    );
}

#[test]
fn no_module_uses_one_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut upward = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap().with_extension("");
        let module = relative.iter().next().unwrap().to_string_lossy().into_owned();
        let Some(layer) = LAYERS.iter().position(|name| *name == module) else { continue };
        let text = std::fs::read_to_string(&file).unwrap();
        for (above, name) in LAYERS.iter().enumerate().filter(|(above, _)| *above > layer) {
            let found = uses(&text).filter(|path| path == name);
            upward.extend(found.map(|_| format!("{module} ({layer}) uses {name} ({above}) in {}", file.display())));
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

/// It runs in other people's images: nothing of Kubernetes belongs there.
#[test]
fn the_helper_uses_nothing_of_the_operator_but_what_passes_between_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join("sandboxd.rs")];
    sources(&src.join("sandboxd"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for layer in LAYERS.iter().filter(|layer| !["protocol"].contains(layer)) {
            assert!(!text.contains(&format!("crate::{layer}")), "{} uses {layer}", file.display());
        }
        assert!(!text.contains("k8s_openapi") && !text.contains("kube::"), "{}", file.display());
    }
}
