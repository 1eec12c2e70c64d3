//! The wire protocol of Contrast, generated from `contrast/v1/*.proto`, and what it speaks of SPIFFE's and Envoy's.
//!
//! This is the only crate with `.proto` files and it holds nothing else: conversions live beside the domain type that owns
//! the meaning. Read the `.proto` files for sizes, units, encodings and errors.

#![allow(
    clippy::module_inception,
    reason = "a message's oneofs are generated into a module of its name"
)]

/// Evidence and the frames of attested TLS.
pub mod evidence {
    tonic::include_proto!("contrast.v1.evidence");
}

/// What owners ask of the Coordinator.
pub mod user {
    tonic::include_proto!("contrast.v1.user");
}

/// What the Initializer asks of the Coordinator.
pub mod mesh {
    tonic::include_proto!("contrast.v1.mesh");
}

/// What Coordinator replicas ask of each other.
pub mod peer {
    tonic::include_proto!("contrast.v1.peer");
}

/// What programs of a pod ask of its Initializer: the SPIFFE Workload API.
pub mod workload {
    tonic::include_proto!("_");
}

/// What an Envoy asks of the Initializer of its pod: secret discovery.
pub mod secret {
    tonic::include_proto!("envoy.service.secret.v3");
}
