//! A Kubernetes operator that runs AI security-analysis sessions: typed sandboxes over shared volumes.
//!
//! Modules depend strictly downward: `api ← config ← plan ← reading ← apply ← controllers ← operator ← main`; `overlay` is shared
//! by `config` and `plan`, `protocol` by `plan` and `sandboxd`. The modules to the left of `reading` only decide and never act:
//! they compile without a client, and a test checks the `use` lines.

pub mod api;
pub mod config;
pub mod overlay;
pub mod plan;
pub mod protocol;

#[cfg(feature = "runtime")]
pub mod apply;
#[cfg(feature = "runtime")]
pub mod controllers;
#[cfg(feature = "runtime")]
pub mod operator;
#[cfg(feature = "runtime")]
pub mod reading;
#[cfg(feature = "sandboxd")]
pub mod sandboxd;
