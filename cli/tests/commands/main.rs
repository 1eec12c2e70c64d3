//! Drives the real `contrast` binary; one module for each command.

#![expect(clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod attestation;
mod collateral;
mod context;
mod generate;
mod help;
#[cfg(feature = "software-tee")]
mod insecure_tee;
mod set;
mod verify;
#[cfg(feature = "software-tee")]
mod vtpm;
