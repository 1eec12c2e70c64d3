//! Three Coordinators lose machines, disks and connections while clients use them. Whatever happens, what the clients saw must be
//! explained by one history that only grows, and no certificate may be older than the bound.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(
    clippy::print_stderr,
    reason = "says what it measured, and why it was skipped"
)]

mod faults;
mod join;
mod story;
