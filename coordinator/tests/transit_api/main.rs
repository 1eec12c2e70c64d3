//! The transit engine over real connections.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod access;
mod document;
mod limits;
mod quorum;
#[path = "../support/mod.rs"]
mod support;
mod world;
