//! What the operator and `sandboxd` say to each other, as plain data: the planner writes it into Pods, `sandboxd` reads it there
//! and answers. Nothing here depends on Kubernetes types.

pub mod init;
pub mod staging;
