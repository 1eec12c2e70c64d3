//! The wire protocol of Contrast, generated from `contrast/v1/*.proto`, and what it speaks of SPIFFE's, Envoy's and Kata's.
//!
//! This is the only crate with `.proto` files and it holds nothing else: conversions live beside the domain type that owns
//! the meaning. Read the `.proto` files for sizes, units, encodings and errors.
//!
//! On WebAssembly there are the messages of evidence and of the user API only, without services: what a verifier reads.

#![allow(
    clippy::module_inception,
    reason = "a message's oneofs are generated into a module of its name"
)]

macro_rules! include_proto {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

/// Evidence and the frames of attested TLS.
pub mod evidence {
    include_proto!("contrast.v1.evidence");
}

/// What owners ask of the Coordinator.
pub mod user {
    include_proto!("contrast.v1.user");
}

/// What the Initializer asks of the Coordinator.
#[cfg(not(target_arch = "wasm32"))]
pub mod mesh {
    include_proto!("contrast.v1.mesh");
}

/// What Coordinator replicas ask of each other.
#[cfg(not(target_arch = "wasm32"))]
pub mod peer {
    include_proto!("contrast.v1.peer");
}

/// What programs of a pod ask of its Initializer: the SPIFFE Workload API.
#[cfg(not(target_arch = "wasm32"))]
pub mod workload {
    include_proto!("_");
}

/// What an Envoy asks of the Initializer of its pod: secret discovery.
#[cfg(not(target_arch = "wasm32"))]
pub mod secret {
    include_proto!("envoy.service.secret.v3");
}

/// What the agent of a guest asks for an image.
#[cfg(not(target_arch = "wasm32"))]
pub mod image_pull {
    include_proto!("api");
}

/// Requests and responses of ttrpc, which the agent speaks.
#[cfg(not(target_arch = "wasm32"))]
pub mod ttrpc {
    include_proto!("ttrpc");
}
