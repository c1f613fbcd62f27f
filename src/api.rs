//! The contract as types: what users write and read. Field documentation is user documentation: it becomes the CRD.
//!
//! Depends on nothing else in the crate; [`crds`] renders it.

pub mod agent;
pub mod condition;
pub mod config;
pub mod crds;
pub mod init;
pub mod limits;
pub mod meta;
pub mod raw;
pub mod sandbox;
pub mod session;
pub mod template;

/// The operator asks for objects by names that users write: nothing that could be read as a path or a query is let through.
const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// A duration: `90s`, `30m`, `1h30m`.
const DURATION: &str = "^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$";

pub use agent::{Agent, AgentSpec, AgentStatus};
pub use raw::RawJson;
pub use sandbox::{Sandbox, SandboxSpec, SandboxStatus};
pub use session::{AigiseSession, AigiseSessionSpec, AigiseSessionStatus};
pub use template::SandboxTemplate;
