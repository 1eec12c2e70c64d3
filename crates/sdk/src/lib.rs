//! Verify a Contrast Coordinator from a program of your own.
//!
//! [`verify_answer`] judges an answer of the attest API, [`verify`] what a Coordinator showed by other means: its evidence, bound to the caller's report data, and the history of its manifests. It is the
//! judgement of `contrast verify`, which uses this crate. Everything enters as a parameter: no clock is read, no connection opened, no
//! randomness drawn. So it also builds for `wasm32-unknown-unknown`
//! ([decision 20](../../../docs/decisions/0020-sdk.md), [reference](../../../docs/reference/sdk.md)).
//!
//! - [`Presented`] is what the Coordinator showed, [`Verified`] what holds when every check passed, [`Refused`] every check when one did not.
//! - `network`, a feature, asks a Coordinator and reaches workloads.
//! - [`history::Memory`] is what the caller saw before. Without it, nobody can tell a history that was rolled back from a young one.
//! - [`report::Report`] is the outcome of [`verify_answer`] as data, for programs that show it.
//! - [`rows::Rows`] are the checks: name, expected, found, passed, and what they mean.
//!
//! ```
//! # use std::time::SystemTime;
//! # use contrast_sdk::{AnswerError, Nonce, history::Memory, verify_answer};
//! /// `answer` is the body of `GET /v1/attest?nonce=..`, `nonce` what was drawn for it, `manifest` the file that is expected.
//! fn trusted_mesh_ca(answer: &[u8], nonce: &Nonce, manifest: &[u8], now: SystemTime) -> Result<String, AnswerError> {
//!     let (verified, _) = verify_answer(answer, nonce, manifest, &Memory::default(), now)?;
//!     assert!(!verified.insecure, "a software TEE protects nothing");
//!     Ok(verified.mesh_ca)
//! }
//! ```

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

// ring is the model of aws-lc-rs' interface, so that all code that verifies is the same text with either.
#[cfg(target_arch = "wasm32")]
extern crate ring as aws_lc_rs;

pub mod certificate;
pub mod digest;
pub mod facts;
pub mod history;
pub mod meaning;
#[cfg(feature = "network")]
pub mod network;
pub mod report;
pub mod rows;
mod signature;
pub mod transition;
mod verify;

pub use contrast_attest_document::{DocumentError, Nonce, Statement};
pub use verify::{AnswerError, Presented, Refused, Verified, verify, verify_answer};
