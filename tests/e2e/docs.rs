//! What the docs show works: every object is taken by the API server, and every page can be pasted.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};

use super::{
    client::{kubectl, run},
    ground::Ground,
    objects::session,
};

/// A fenced block of a page.
struct Block {
    /// The page, and the line that it begins on.
    place: String,
    language: String,
    text: String,
    /// The line before it is `<!-- refused -->`.
    is_refused: bool,
}

fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let mut blocks: Vec<Block> = vec![];
    let (mut is_open, mut before) = (false, "");
    for (index, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(language) if !is_open => {
                let (place, is_refused) = (format!("{page}:{}", index + 1), before == "<!-- refused -->");
                blocks.push(Block { place, language: language.into(), text: String::new(), is_refused });
                is_open = true;
            }
            Some(_) => is_open = false,
            None if is_open => writeln!(blocks.last_mut().unwrap().text, "{line}").unwrap(),
            None => before = line,
        }
    }
    blocks
}

fn pages() -> Vec<String> {
    let docs = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let docs = docs.map(|path| format!("docs/{}", path.file_name().unwrap().display()));
    let mut pages: Vec<_> = docs.chain(["README.md".into()]).collect();
    pages.sort();
    pages
}

/// The objects of a block: those that a command reads from here, and those that are shown.
fn objects(block: &Block) -> Vec<Value> {
    let texts: Vec<_> = match block.language.as_str() {
        "yaml" => vec![block.text.as_str()],
        "sh" => {
            let after = block.text.split("<<'END'\n").skip(1);
            after.map(|rest| rest.split_once("\nEND\n").expect("an end").0).collect()
        }
        _ => vec![],
    };
    let documents = texts.into_iter().flat_map(serde_yaml::Deserializer::from_str);
    let values = documents.map(|document| {
        serde::Deserialize::deserialize(document).unwrap_or_else(|error| panic!("{}: {error}", block.place))
    });
    values.filter_map(whole).collect()
}

/// A whole object, also of a part of ours. Null if it is something else.
fn whole(value: Value) -> Option<Value> {
    let says = |field| value.get(field).is_some();
    if says("status") && !says("spec") {
        // Of a status alone, as a program says it.
        None
    } else if says("kind") && says("apiVersion") {
        Some(value)
    } else if says("sandboxes") {
        Some(session("part", value))
    } else if says("allowEgress") {
        Some(session("part", json!({"sandboxes": {"main": {"image": "a"}}, "network": value})))
    } else {
        None
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn every_object_in_the_docs_is_taken_unless_it_is_marked_as_refused() {
    let ground = Ground::new("docs");
    let mut ours = 0;
    for block in pages().iter().flat_map(|page| blocks(page)) {
        for mut object in objects(&block) {
            ours += usize::from(object["apiVersion"] == "aigise.dev/v1alpha1");
            // Its own namespace is not there.
            object["metadata"].as_object_mut().unwrap().remove("namespace");
            let apply = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
            let said = ground.kubectl_reading(&apply, &object.to_string());
            assert_eq!(said.code != 0, block.is_refused, "{}: {}{}", block.place, said.stdout, said.stderr);
        }
    }
    assert!(ours > 15, "only {ours} objects of ours are found");
}

/// The namespaces that a page makes, and that go with the test.
struct Namespaces(Vec<String>);

impl Drop for Namespaces {
    fn drop(&mut self) {
        for namespace in &self.0 {
            kubectl(&["delete", "namespace", namespace, "--ignore-not-found", "--wait=false"]);
        }
    }
}

/// Runs all that a page has to paste, in its order, but for blocks that contain some NAME. Each command has to end well, except
/// one that says `# refused`.
#[track_caller]
fn paste(page: &str) {
    let mut script = "set -euo pipefail\n".to_string();
    let is_pasted = |block: &&Block| block.language == "sh" && !block.text.contains(" NAME ");
    for block in blocks(page).iter().filter(is_pasted) {
        writeln!(script, "echo '==> {}'", block.place).unwrap();
        for line in block.text.lines() {
            match line.strip_suffix("# refused") {
                Some(command) => {
                    writeln!(script, "if {command}; then echo 'that is not refused' >&2; exit 1; fi").unwrap();
                }
                None => writeln!(script, "{line}").unwrap(),
            }
        }
    }
    let namespaces = script.lines().filter_map(|line| line.strip_prefix("kubectl create namespace "));
    let _gone_with_it = Namespaces(namespaces.map(str::to_string).collect());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("page"), script).unwrap();
    // Some pages apply an example.
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    std::os::unix::fs::symlink(examples, folder.path().join("examples")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_aigise-operator")).parent().unwrap().display().to_string();
    let command = "cd \"$0\" && PATH=\"$PATH:$1\" exec bash page";
    let said = run("sh", &["-c", command, &folder.path().display().to_string(), &program], "");
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_page_of_sessions_can_be_pasted() {
    paste("docs/sessions.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_page_of_sandboxes_can_be_pasted() {
    paste("docs/sandboxes.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_page_of_volumes_can_be_pasted() {
    paste("docs/volumes.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_page_of_claims_can_be_pasted() {
    paste("docs/claims.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_page_of_caches_can_be_pasted() {
    paste("docs/caches.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_page_of_the_network_can_be_pasted() {
    paste("docs/network.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_page_of_initialisers_can_be_pasted() {
    paste("docs/initialisers.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_page_of_configuration_files_can_be_pasted() {
    paste("docs/configuration.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_page_for_those_who_come_from_the_framework_can_be_pasted() {
    paste("docs/coming-from-the-framework.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_page_of_agents_can_be_pasted() {
    paste("docs/agents.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_example_of_agents_can_be_pasted() {
    paste("examples/agents/README.md");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_example_of_kustomize_can_be_pasted() {
    paste("examples/kustomize/README.md");
}
