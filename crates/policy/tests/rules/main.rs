//! The rules, request by request, as a host would send them.

#![allow(clippy::expect_used, reason = "a test may panic")]

mod copies;
mod creation;
mod host;
mod injected;
mod mesh_check;
mod running;
