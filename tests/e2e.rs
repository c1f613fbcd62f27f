//! The operator on a real cluster: what a user does with kubectl, and what they see. `make e2e` brings the cluster up and runs
//! these; by hand, with KUBECONFIG set and the images loaded:
//!
//! ```sh
//! cargo test --test e2e -- --ignored files
//! ```
//!
//! Each test has a namespace of its own, which goes with it. A test that waits says for what, and gives up; none sleeps in the
//! hope that something has happened, and none is tried twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed step is a failed test"
)]

#[path = "support/scenarios.rs"]
mod scenarios;

mod e2e {
    mod admission;
    mod agents;
    mod alone;
    mod apiserver;
    mod attach;
    mod audit;
    mod budget;
    mod caches;
    mod chart;
    mod claims;
    mod cleanup;
    mod client;
    mod docs;
    mod entrypoints;
    mod files;
    mod forbidden;
    mod from_file;
    mod ground;
    mod held;
    mod initialisers;
    mod install;
    mod kubectl;
    mod launch;
    mod long;
    mod membership;
    mod names;
    mod network;
    mod objects;
    mod pods;
    mod policy;
    mod pulling;
    mod requests;
    mod restarts;
    mod resumed;
    mod roots;
    mod services;
    mod skills;
    mod sources;
    mod staging;
    mod suspend;
    mod types;
    mod why;
}
