//! Probes and metrics, for those who operate the Coordinator. They run on a thread of their own, so that neither a slow
//! scraper nor a busy API delays the other. Nothing here is secret, and nothing here can change the state.

mod audit_metrics;
mod cluster_metrics;
mod ingress;
mod metrics;
mod probes;
pub(crate) mod refresh;
pub(crate) mod space;

pub(crate) use audit_metrics::AuditMetrics;
pub use ingress::open_ingress;
pub(crate) use metrics::{Metrics, name as code_name};
pub(crate) use probes::{Probes, serve};
