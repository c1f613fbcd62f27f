//! The contract as types: what users write and read. Field documentation is user documentation: it becomes the CRD.
//!
//! Depends on nothing else in the crate; [`crds`] renders it.

pub mod condition;
pub mod crds;
pub mod meta;
pub mod sandbox;
pub mod session;
pub mod template;

pub use sandbox::{Sandbox, SandboxSpec, SandboxStatus};
pub use session::{AigiseSession, AigiseSessionSpec, AigiseSessionStatus};
pub use template::SandboxTemplate;
