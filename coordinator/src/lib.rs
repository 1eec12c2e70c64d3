//! The Coordinator: attests every pod of a deployment against its manifest.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`config`], [`app`] | options; binds all ports first, then serves, drains on a signal |
//! | [`state`] | the state as an immutable snapshot, its only writer, the signed history on disk |
//! | `causes` | what errors say, in one line |
//! | `format` | versions of files, and what a later version wrote |
//! | [`cluster`] | authenticated Raft storage for a replicated history |
//! | `issue` | verified evidence and manifest to certificate and secret; pure, without I/O |
//! | [`replica`] | one replica of the Coordinator: what replicas ask of each other, and what they believe of whom |
//! | [`peer`] | the peer API: carries that over attested TLS |
//! | `api` | gRPC: user API and mesh API; requests to domain types and back |
//! | `answer` | bodies of HTTP answers that keep their part of a limit until they are sent |
//! | `attest` | the attest API: evidence, history and CA certificates over plain HTTP |
//! | `audit` | the audit stream: every decision, in records that form a chain |
//! | `transit` | the transit engine: Vault's HTTP API for encryption with a workload's own key, over mutual TLS of the mesh |
//! | `ops` | probes and metrics, on a runtime of their own |
//!
//! # Life of a Coordinator
//!
//! It starts *empty* (nothing on disk) or *sealed* (a history on disk, but no seed) and becomes *active* by the first
//! `SetManifest` or by `Recover`. Only an active Coordinator issues certificates. The seed and everything derived from it,
//! and the mesh CA's key, exist in memory only. The disk holds what any verifier may see, and is not trusted: a history is
//! used only after every signature in it has been checked with a key that follows from the recovered seed.
//!
//! # What this crate never does
//!
//! It never writes a secret to a disk or a log, never modifies a store file that it could not read completely, never answers
//! `SetManifest` before the new manifest is durable, and never derives the mesh CA's key from the seed.

#[cfg(all(
    not(debug_assertions),
    any(
        feature = "mutant-unproven-secrets",
        feature = "mutant-unconfirmed-reads",
        feature = "mutant-unguarded-recovery",
        feature = "mutant-any-cluster",
        feature = "mutant-reused-identity",
        feature = "mutant-late-key",
        feature = "mutant-unbounded-issuing",
    )
))]
compile_error!(
    "a mutant is a bug put in on purpose for the simulation; it must not be built without debug assertions, as a release is"
);

mod answer;
mod api;
pub mod app;
mod attest;
mod audit;
mod bucket;
mod causes;
pub mod cluster;
pub mod config;
mod format;
mod issue;
mod ops;
pub mod peer;
pub mod replica;
pub mod state;
mod transit;

pub use audit::{AuditError, AuditLog};
pub use format::Newer;
pub use ops::open_ingress;
pub use transit::answer_any;
