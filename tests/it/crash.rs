//! The operator is killed at every single write of every life, and comes back.
//!
//! A write that outcome and whose answer nobody heard is the case that matters: one that did not land leaves what the write before
//! it left. That is tried too, on some of the lives. The third way is a write that lands when everything else is over: the plan
//! that it came from is long superseded, and must undo nothing.

use serde_json::Value;

use super::lives::{LIVES, Life, life};
use crate::support::{
    apiserver::faults::LastWrite,
    life::{World, in_fast_time, same},
};

/// Lives a life, and gives how it ended and how many writes the first operator made.
fn end_of(life: &Life, crash: Option<(usize, LastWrite)>) -> (Vec<Value>, usize) {
    in_fast_time(async {
        let mut world = World::new();
        if let Some((after, last)) = crash {
            world.crash_at(after, last);
        }
        (life.live)(&mut world).await;
        world.settle().await;
        if let Some((_, LastWrite::LandsLater)) = crash {
            world.api.land_late();
            world.settle().await;
        }
        let writes = world.api.writes().into_iter().filter(|seen| seen.client.starts_with("operator")).count();
        (world.end_state(), writes)
    })
}

fn sweep(name: &str) {
    let life = life(name);
    let (calm, writes) = end_of(life, None);
    // What outlives its session has no owner from the start. Made when the session is long gone, it stays: nobody collects it.
    let stays = ["a session leaves everything behind", "a volume outlives its session"].contains(&name);
    let also_lost = ["a session with sources", "a sandbox alone", "a container is started again"].contains(&name);
    let later = if stays { LastWrite::IsLost } else { LastWrite::LandsLater };
    for last in [LastWrite::Lands, later].into_iter().chain(also_lost.then_some(LastWrite::IsLost)) {
        for at in 1..=writes {
            let (ended, _) = end_of(life, Some((at, last)));
            same(&ended, &calm, &format!("{name}: killed at write {at} of {writes}, which {last:?}"));
        }
    }
}

macro_rules! sweeps {
    ($($test:ident: $life:literal),* $(,)?) => {
        $(#[test] fn $test() { sweep($life); })*

        #[test]
        fn every_life_is_swept() {
            assert_eq!([$($life),*].len(), LIVES.len());
        }
    };
}

sweeps! {
    a_session_starts_from_the_cache_of_another: "a session starts from the cache of another",
    a_session_with_sources: "a session with sources",
    a_sandbox_alone: "a sandbox alone",
    types_come_and_go: "types come and go",
    an_image_is_missing: "an image is missing",
    a_container_ends: "a container ends",
    a_session_is_deleted_while_it_is_staged: "a session is deleted while it is staged",
    a_session_is_made_anew_under_its_name: "a session is made anew under its name",
    a_source_comes_late: "a source comes late",
    somebody_else_has_a_name: "somebody else has a name",
    one_sandbox_waits_for_another: "one sandbox waits for another",
    a_session_is_suspended_and_goes_on: "a session is suspended and goes on",
    a_session_is_idle: "a session is idle",
    a_container_is_started_again: "a container is started again",
    a_session_is_released_at_its_end: "a session is released at its end",
    a_session_is_deleted_at_its_end: "a session is deleted at its end",
    a_session_leaves_everything_behind: "a session leaves everything behind",
    a_volume_outlives_its_session: "a volume outlives its session",
    a_bad_source_is_fixed: "a bad source is fixed",
    a_template_changes_and_is_taken_at_once: "a template changes and is taken at once",
    sandboxes_are_made_by_hand: "sandboxes are made by hand",
    an_initialiser_fails_and_is_tried_again: "an initialiser fails and is tried again",
    an_agent_has_a_pod_that_runs_it: "an agent has a Pod that runs it",
    agents_come_and_go: "agents come and go",
    a_session_comes_from_a_file: "a session comes from a file",
}
