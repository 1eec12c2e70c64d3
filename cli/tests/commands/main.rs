//! Drives the real `contrast` binary; one module for each command.

#![expect(clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod attestation;
mod audit;
mod chart;
mod collateral;
mod context;
#[cfg(feature = "software-tee")]
mod fake;
#[path = "../../../crates/images/tests/images/fixture.rs"]
#[expect(dead_code, reason = "the tests of the images' crate use more of it")]
mod fixture;
mod generate;
mod generate_injection;
mod generate_mesh;
mod generate_modes;
mod generate_vcpus;
mod help;
mod howto;
#[cfg(feature = "software-tee")]
mod insecure_tee;
#[cfg(feature = "software-tee")]
mod kube;
mod lint;
mod lint_injection;
mod measure;
mod mesh;
mod policy;
mod reference;
mod registry;
#[cfg(feature = "software-tee")]
mod replicas;
mod seal;
mod set;
#[cfg(feature = "software-tee")]
mod status;
mod verify;
mod verify_answer;
#[cfg(feature = "software-tee")]
mod verify_page;
#[cfg(feature = "software-tee")]
mod vtpm;
