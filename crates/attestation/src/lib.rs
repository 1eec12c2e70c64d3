//! Evidence of confidential VMs: issue, parse, verify.
//!
//! Data flows one way: bytes become [`Evidence`], a [`Verifier`] turns evidence into [`VerifiedEvidence`] (nothing else
//! can make one), and callers decide with that. A verifier holds [`ReferenceValue`]s; evidence is accepted when it meets
//! *all* demands of at least one of them, and a refusal lists every failed check of every reference value.
//!
//! | kind | issue | verify |
//! | --- | --- | --- |
//! | AMD SEV-SNP | [`hardware`], [`software`] (development) | [`snp`] |
//! | Intel TDX | [`hardware`], [`software`] (development) | [`tdx`] |
//! | either, below a paravisor with a virtual TPM (Azure) | [`hardware`], [`software`] (development) | [`vtpm`] |
//!
//! The [`software`] TEE emits the real binary formats under a root of its own. It is verified by the same code as hardware
//! evidence and accepted only by a reference value that pins that very root.
//!
//! On WebAssembly there is only what verifies: no guest runs there, and the provider of primitives is ring because aws-lc-rs does
//! not build for it ([decision 20](../../../docs/decisions/0020-sdk.md)).
//!
//! What this crate never does: decide about roles, names or secrets (that is the Coordinator's, from the manifest), trust a
//! certificate because it came with the evidence, read the wall clock, or open a network connection. The one stream that it opens leads from
//! a TDX guest to its own host ([`hardware::HostVsock`]).

// ring is the model of aws-lc-rs' interface, so that all code that verifies is the same text with either.
#[cfg(target_arch = "wasm32")]
extern crate ring as aws_lc_rs;

pub mod appraisal;
mod authenticity;
mod check;
mod evidence;
#[cfg(not(target_arch = "wasm32"))]
pub mod hardware;
mod issuer;
pub mod keys;
#[cfg(not(target_arch = "wasm32"))]
mod platform;
mod proof;
mod report;
pub mod snp;
#[cfg(all(feature = "software-tee", not(target_arch = "wasm32")))]
pub mod software;
pub mod specification;
pub mod tdx;
mod vcpus;
mod verifier;
pub mod vtpm;

pub use appraisal::{Demands, ReferenceValue, Root, VtpmDemands};
pub use authenticity::{Authenticity, SignedTpmQuote, authenticate, authenticate_azure};
pub use check::{Check, CheckList, is_deceptive, printable};
pub use evidence::{Evidence, EvidenceFormatError, SnpEvidence, TdxCollateral, TdxEvidence};
pub use issuer::{IssueError, Issuer};
#[cfg(not(target_arch = "wasm32"))]
pub use platform::{IssuerConfig, PlatformError};
pub use proof::{Claim, ClaimValue, PolicyHash, ReportData, Tee, VerifiedEvidence};
pub use report::{AppraisalReport, SetReport};
pub use verifier::{EvidenceVerifier, Verifier, VerifyError};
pub use vtpm::{SnpCertificates, VtpmEvidence, VtpmHardware};
