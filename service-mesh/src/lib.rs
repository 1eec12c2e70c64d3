//! The service mesh sidecar: configures and supervises Envoy.
//!
//! Data flows one way: the annotations' text ([`annotation`]) and the environment ([`config`]) become a checked [`model::Mesh`],
//! which becomes Envoy's configuration ([`envoy`]), which a child process runs ([`supervise`]). [`app`] is the order of
//! these steps.
//!
//! In *transparent* mode rules of the kernel lead every connection to Envoy, on IPv4 and IPv6, and nothing reaches the application around
//! it. In *explicit* mode, which needs no privileges, Envoy listens on the pod's address on every declared port, and the application binds
//! loopback only; a port that it binds on the pod's address itself is outside the mesh.
//!
//! Peers are verified against the mesh CA, and their names as the entries demand ([`peer`]). The sidecar never holds a private key itself: Envoy reads the files.

pub mod app;
pub mod certificates;
pub mod check;
pub mod config;
mod contradiction;
pub mod envoy;
mod gate;
mod metrics;
pub mod model;
pub mod peer;
mod privileges;
pub mod supervise;

pub use contrast_mesh_annotation as annotation;
