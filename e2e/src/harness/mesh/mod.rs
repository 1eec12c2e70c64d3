//! Pods of which only the mesh matters: sidecar and Envoy in a network namespace, certificates without a Coordinator, and an application
//! that remembers who reached it.

mod application;
mod certificates;
mod client;
mod pod;

pub use application::{Application, Seen};
pub use certificates::{Generation, Identity, anonymous};
pub use client::{Wire, echo, open, presented, reach};
pub use pod::{Bed, MeshPod};
