//! The service mesh sidecar: configures and supervises Envoy.
//!
//! Data flows one way: the annotations' text ([`annotation`]) and the environment ([`config`]) become a checked [`model::Mesh`],
//! which becomes Envoy's configuration ([`envoy`]), which a child process runs ([`supervise`]). [`app`] is the order of
//! these steps.
//!
//! This version has one ingress mode, *explicit*: Envoy listens on the pod's address on every declared port, and the
//! application binds loopback only. A declared port demands a mesh certificate of its clients unless an ingress entry says
//! otherwise. Nothing redirects traffic, so a port that the application binds on the pod's address
//! itself is outside the mesh; the sidecar neither sees nor protects it.
//!
//! The identity behind a connection is "a workload of this manifest generation": peers are verified against the mesh CA
//! and their names are not compared. The sidecar never holds a private key itself: Envoy reads the files.

pub mod app;
pub mod certificates;
pub mod config;
pub mod envoy;
pub mod model;
pub mod supervise;

pub use contrast_mesh_annotation as annotation;
