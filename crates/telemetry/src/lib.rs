//! What every service of ours needs to be operated: logs, metrics, readiness, named tasks and draining.
//!
//! [`logging`] sets up structured logs once, [`exposure`] says which of them may leave the confidential VM, [`tasks::Tasks`] owns the service's long-lived tasks (a failing one stops its
//! siblings), [`drain`] tells them when to finish, [`readiness`] says what is still awaited at start, [`traces`] sends spans where the operator wants them, and [`memory`] keeps secrets out of core dumps. Metric names are
//! constants of the crate that owns the number; [`metrics`] renders a registry, and [`enrolment`] is how a pod's Initializer tells the sidecar
//! what it has no port to tell.

#[cfg(target_os = "linux")]
pub mod drain;
#[cfg(target_os = "linux")]
pub mod enrolment;
pub mod exposure;
pub mod logging;
#[cfg(target_os = "linux")]
pub mod memory;
pub mod metrics;
pub mod readiness;
pub mod tasks;
pub mod traces;
