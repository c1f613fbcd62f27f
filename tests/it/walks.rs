//! The walks: what a user and the cluster do, and what the operator makes of it, as transcripts. `tests/walks/*.yaml` are the
//! scripts; a change of behaviour shows as a change of a transcript (`cargo insta review`).

use std::fmt::Write as _;

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
    insta::glob!("../walks", "*.yaml", |path| {
        let script: Script = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut world = World::new();
        writeln!(world.log, "{}", script.about.trim()).unwrap();
        for Step { when, event } in script.events {
            let event: Event = serde_json::from_value(event).unwrap_or_else(|error| panic!("{when}: {error}"));
            writeln!(world.log, "\n{when}").unwrap();
            let (before, length) = (world.writes, world.log.len());
            world.happens(event);
            if world.log.len() == length {
                writeln!(world.log, "  nothing to do").unwrap();
            }
            writeln!(world.log, "  ({} writes)", world.writes - before).unwrap();
        }
        insta::with_settings!({ snapshot_path => "../walks", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(path.file_stem().unwrap().to_str().unwrap(), world.log);
        });
    });
}
