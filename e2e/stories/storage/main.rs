//! What the Coordinator does for storage: sealed secrets, sealed credentials of registries, and generations of encrypted volumes.

#![allow(clippy::expect_used, reason = "a test may panic")]

mod sealed;
mod volumes;
