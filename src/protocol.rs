//! The data that the operator and `sandboxd` exchange: the planner writes it into Pods, `sandboxd` reads it there and answers.
//! Nothing here depends on Kubernetes types.

pub mod cache;
pub mod init;
pub mod staging;
