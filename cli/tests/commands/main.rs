//! Drives the real `contrast` binary; one module for each command.

#![expect(clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod attestation;
mod collateral;
mod context;
#[cfg(feature = "software-tee")]
mod fake;
mod generate;
mod generate_injection;
mod generate_modes;
mod generate_vcpus;
mod help;
mod howto;
#[cfg(feature = "software-tee")]
mod insecure_tee;
mod lint;
mod measure;
mod policy;
#[cfg(feature = "software-tee")]
mod replicas;
mod set;
#[cfg(feature = "software-tee")]
mod status;
mod verify;
#[cfg(feature = "software-tee")]
mod vtpm;
