//! A data owner opens the page that `cargo xtask web` builds in a browser and verifies a Coordinator that runs; an operator looks at
//! what `contrast dashboard` serves.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a story that meets the unexpected has to stop, and says why it is skipped"
)]

mod browser;
mod dashboard;
mod hostile;
mod proxy;
mod scene;
mod verdicts;
