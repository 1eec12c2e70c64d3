//! Encrypted volumes in a real kernel: what survives, and what is refused.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a story that meets the unexpected has to stop, and says why it is skipped"
)]

mod attack;
mod container;
mod crash;
mod life;
mod load;
mod lost_writes;
mod rollback;
mod support;
