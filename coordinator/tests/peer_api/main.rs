//! The peer API over real connections: who may ask whom, what arrives, and what happens when the other side fails.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

#[path = "../support/mod.rs"]
mod support;

mod hostile;
mod replicas;
mod transport;
mod trust;
