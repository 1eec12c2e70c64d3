//! gRPC services. Nothing below this module sees a protobuf type.

mod handler;
mod mesh;
mod status;
mod user;
mod verifier;
mod volume;
mod wire;

pub(crate) use mesh::MeshService;
pub(crate) use status::{ApiError, classify, owner_failure, status};
pub(crate) use user::{UserService, forget_seed_shares};
pub(crate) use verifier::ActiveManifestVerifier;
pub(crate) use wire::{manifests_response, update_request};

/// Largest request of the user API, in bytes (32 MiB): a manifest and all policy documents.
pub(crate) const USER_REQUEST_BYTES_MAX: usize = 32 << 20;

/// Largest request of the mesh API, in bytes; no request has more than a hash in it.
pub(crate) const MESH_REQUEST_BYTES_MAX: usize = 4 << 10;

/// Requests of the user API that are in memory at the same time; further ones wait.
pub(crate) const USER_REQUESTS_MAX: usize = 8;

/// Certificates that are issued at the same time; further requests wait.
pub(crate) const MESH_ISSUING_MAX: usize = 64;
