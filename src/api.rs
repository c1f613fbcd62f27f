//! The API types: what users write and read. The doc comments of the fields are user documentation: they become the descriptions in
//! the CRDs.
//!
//! This module depends on no other module of the crate; [`crds`] renders the CRDs.

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

/// The pattern of object names that users write and that the operator requests from the API server. It matches nothing that could
/// be read as a path or a query.
const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// The pattern of a duration: `90s`, `30m`, `1h30m`.
const DURATION: &str = "^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$";

pub use agent::{Agent, AgentSpec, AgentStatus};
pub use raw::RawJson;
pub use sandbox::{Sandbox, SandboxSpec, SandboxStatus};
pub use session::{AigiseSession, AigiseSessionSpec, AigiseSessionStatus};
pub use template::SandboxTemplate;
