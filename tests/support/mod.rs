//! What the tests stand on: an API server in memory, the cluster around it, the operator as a process, and the scenarios that hold
//! the API server to the real one.

pub mod apiserver;
pub mod cluster;
pub mod life;
pub mod scenarios;
