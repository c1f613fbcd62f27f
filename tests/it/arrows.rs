//! Modules depend strictly downward.

use std::path::{Path, PathBuf};

/// From the bottom up; a module may use those before it.
const LAYERS: [&str; 6] = ["api", "staging", "plan", "apply", "controllers", "operator"];

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
            let paths = [format!("crate::{name}"), format!("    {name}::")];
            let found = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let found = found.filter(|line| paths.iter().any(|path| line.contains(path.as_str())));
            upward.extend(
                found.map(|line| format!("{module} ({layer}) uses {name} ({above}) in {}: {line}", file.display())),
            );
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

/// It runs in other people's images: nothing of Kubernetes belongs there.
#[test]
fn the_helper_uses_nothing_of_the_operator_but_the_manifest() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join("sandboxd.rs")];
    sources(&src.join("sandboxd"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for layer in LAYERS.iter().filter(|layer| **layer != "staging") {
            assert!(!text.contains(&format!("crate::{layer}")), "{} uses {layer}", file.display());
        }
        assert!(!text.contains("k8s_openapi") && !text.contains("kube::"), "{}", file.display());
    }
}
