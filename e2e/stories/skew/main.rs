//! Programs of an earlier revision and of this one in one deployment, upgraded as `docs/how-to/upgrade.md` says: the stories type its
//! commands. `cargo xtask skew` builds the earlier programs and runs them; without those they say that they skip.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(
    clippy::print_stderr,
    reason = "says what it measured, and why it was skipped"
)]

mod alone;
mod joins;
mod page;
mod rolling;
mod world;
