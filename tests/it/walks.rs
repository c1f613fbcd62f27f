//! The walks: what a user and the cluster do, and what the operator makes of it, as transcripts. `tests/walks/*.yaml` are the
//! scripts; a change of behaviour shows as a change of a transcript (`cargo insta review`).

use std::{fmt::Write as _, path::Path};

use serde::Deserialize;

use super::model::{Event, World};

#[derive(Deserialize)]
struct Script {
    /// What the walk shows.
    about: String,
    events: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    /// The event in words.
    when: String,
    #[serde(flatten)]
    event: serde_json::Value,
}

#[test]
fn the_walks_read_as_they_are_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/walks");
    let scripts = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut scripts: Vec<_> =
        scripts.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for path in scripts {
        let transcript = walk(&serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap());
        insta::with_settings!({ snapshot_path => "../walks", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(path.file_stem().unwrap().to_str().unwrap(), transcript);
        });
    }
}

fn walk(script: &Script) -> String {
    let mut world = World::new();
    writeln!(world.log, "{}", script.about.trim()).unwrap();
    for Step { when, event } in &script.events {
        let event: Event = serde_json::from_value(event.clone()).unwrap_or_else(|error| panic!("{when}: {error}"));
        writeln!(world.log, "\n{when}").unwrap();
        let (before, length) = (world.writes, world.log.len());
        world.happens(event);
        if world.log.len() == length {
            writeln!(world.log, "  nothing to do").unwrap();
        } else {
            writeln!(world.log, "  ({} writes)", world.writes - before).unwrap();
        }
    }
    world.log
}
