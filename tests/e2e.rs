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

mod e2e {
    mod admission;
    mod audit;
    mod budget;
    mod cleanup;
    mod client;
    mod entrypoints;
    mod files;
    mod ground;
    mod kubectl;
    mod names;
    mod network;
    mod objects;
    mod pods;
    mod staging;
    mod types;
}
