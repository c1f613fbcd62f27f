//! Questions about one object, as it is stored. The answers depend on nothing else.

pub mod agent;
pub mod sandbox;
pub mod session;
