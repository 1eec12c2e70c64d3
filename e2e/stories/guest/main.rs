//! The units of `deploy/guest` in containers that a real systemd boots: the agent starts when what comes before it is there, and not without it.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a story that meets the unexpected has to stop, and says why it is skipped"
)]

mod boot;
mod deny;
mod images;
