//! What can be tested without a cluster: the walks, the properties of the plan, and that what is generated has not drifted.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "support/mod.rs"]
mod support;

mod it {
    mod admission;
    mod apiserver;
    mod arrows;
    mod caches;
    mod collection;
    mod config;
    mod configuration;
    mod controllers;
    mod cost;
    mod crash;
    mod faults;
    mod generated;
    mod git;
    mod hostile;
    mod kustomize;
    mod lives;
    mod load;
    mod log;
    mod model;
    mod named;
    mod objects;
    mod properties;
    mod pulling;
    mod refusals;
    mod staging;
    mod stored;
    mod walks;
    mod words;
}
