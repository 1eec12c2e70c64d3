//! What the service mesh lets through and what not: real sidecars and Envoys in network namespaces, on IPv4 and IPv6.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may panic, and says why it was skipped"
)]

mod flood;
mod identity;
mod lifetime;
mod ports;
mod protocols;
mod refusals;
mod renewal;
mod scene;
mod transfer;
mod update;
