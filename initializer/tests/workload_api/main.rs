//! The Workload API and secret discovery, asked by clients that others wrote.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may panic, and says what it skips"
)]

mod clients;
mod envoy;
mod pod;
mod secrets;
