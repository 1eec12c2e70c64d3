//! Deterministic simulation of a Coordinator cluster.
//!
//! The real replication code runs in one process and one thread, on a runtime whose only source of time and chance is a seed. All
//! that surrounds a replica is simulated, and the simulation plays the host of the threat model: it decides which message arrives
//! when, stops and restarts replicas at any await point, puts old disks back, and lets strangers talk.
//!
//! | part | what it simulates |
//! | --- | --- |
//! | [`runtime`] | processes: tasks that belong to one node, and end or stand still with it |
//! | [`network`] | connections: loss, delay, duplicates, partitions, replayed and forged questions |
//! | [`disk`] | disks: power loss within a flush, old copies put back, no space |
//! | [`clock`] | wall clocks that differ and jump |
//! | [`process`] | a process: one start of a replica on a machine |
//! | [`deployment`] | owners and their manifests |
//! | [`world`] | a whole run: what the host does, what clients ask, and how it must end |
//! | [`checker`] | nothing: it watches, and says which promise was broken |
//! | [`dice`], [`journal`] | chance from a seed; what happened, and its fingerprint |
//!
//! A seed fixes the whole run. What is random in the real code and not drawn from the replica's entropy (signatures and RSA
//! padding, which the cryptographic library draws itself) influences no decision.

pub mod checker;
pub mod clock;
pub mod deployment;
pub mod dice;
pub mod disk;
pub mod journal;
pub mod network;
pub mod process;
pub mod runtime;
mod types;
pub mod world;

pub use types::SimTypes;
