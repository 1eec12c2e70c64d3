//! The manifest: what a deployment is allowed to be.
//!
//! A manifest is a JSON file. Its identity is the SHA-256 of its exact bytes ([`ManifestHash`]), so a file is never
//! re-serialised between its author, the Coordinator and those who verify it.
//!
//! - [`Manifest`] can only be made from bytes that are valid in every respect ([`Manifest::parse`]); whoever holds one needs
//!   no further checks. A refusal ([`ManifestError`]) lists *all* problems, each with its JSON path.
//! - [`ManifestDocument`] and its parts are the JSON as it is written. Tools build and edit those; they may be incomplete.
//! - [`diff::explain`] says how two manifests differ, for people.
//!
//! ```json
//! {
//!   "Policies": {
//!     "<SHA-256 of an initdata document, 64 lower-case hex digits>": {
//!       "SANs": ["web", "*"], "WorkloadSecretID": "apps/v1/Deployment/default/web", "Role": "", "VCPUs": 3,
//!       "SPIFFEPath": "ns/default/deployment/web"
//!     }
//!   },
//!   "ReferenceValues": {
//!     "snp": [{ "ProductName": "Milan", "TrustedMeasurement": "<96 hex>", "MinimumTCB": {}, "GuestPolicy": {}, "PlatformInfo": {} }],
//!     "tdx": [{ "MrTd": "<96 hex>", "MrSeam": "<96 hex>", "Rtmrs": ["<96 hex>"], "Xfam": "<16 hex>" }],
//!     "insecure": [{ "RootSHA256": "<64 hex>", "snp": {} }]
//!   },
//!   "WorkloadOwnerPubKeys": ["<hex of SubjectPublicKeyInfo DER, P-384>"],
//!   "WorkloadOwnerThreshold": 1,
//!   "SeedshareOwnerPubKeys": ["<hex of PKCS#1 DER, RSA-4096>", "<hex of SubjectPublicKeyInfo DER, X25519>"],
//!   "SeedshareThreshold": 1,
//!   "TrustDomain": "example.org",
//!   "MeshCertLifetime": "168h",
//!   "MeshCAOverlap": "10m",
//!   "DeniedCertificateKeys": ["<SHA-256 of a certificate's SubjectPublicKeyInfo>"],
//!   "SealedSecrets": {"<name>": {"Kind": "Files", "Ciphertext": "<hex>"}}
//! }
//! ```
//!
//! At least one policy has `"Role": "coordinator"`: whoever runs under it may hold the seed and the mesh CA key. A rolling upgrade of
//! the Coordinators needs a manifest with the policies of the old and the new ones.
//!
//! An entry of `snp` or `tdx` with `"VTPM": {"PCRs": {"4": "<64 hex>"}}` is for guests whose evidence comes through a virtual TPM
//! (Azure), and for no others.
//!
//! The launch digest of SEV-SNP depends on how many vCPUs a VM has. `"TrustedMeasurements": {"1": "<96 hex>", "3": "<96 hex>"}` instead of
//! `TrustedMeasurement` has one for each number, and a policy with `VCPUs` gets the one for its own number only.
//!
//! `SPIFFEPath`, `TrustDomain`, `MeshCertLifetime` and `MeshCAOverlap` may be absent: pods then have no SPIFFE ID; the trust domain is the
//! SHA-256 of the root CA's SubjectPublicKeyInfo; certificates are valid for 168 hours; and a change of the manifest ends trust in the mesh
//! CA before at once. Durations are whole numbers with the units `d`, `h`, `m`, `s` (`7d`, `1h30m`).
//!
//! `SealedSecrets` are encrypted to the deployment; a policy lists the names of those that its pods get (`"SealedSecrets": ["<name>"]`).
//!
//! What this crate never does: fill in a security-relevant value that the author left out, or accept a field that it does not
//! know (a typing error in a demand must not silently become no demand).

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

// ring is the model of aws-lc-rs' interface, so that all code that verifies is the same text with either.
#[cfg(target_arch = "wasm32")]
extern crate ring as aws_lc_rs;

pub mod diff;
mod duration;
mod identity;
mod json;
mod manifest;
mod model;
mod owners;
mod problem;
mod reference_values;
mod roles;
mod sealed;
mod shape;
mod validate;
mod vcpus;
mod vtpm;

pub use json::JsonPath;
pub use manifest::{Manifest, ManifestHash, PolicyEntry};
pub use model::{
    InsecureReferenceValue, ManifestDocument, MinimumTcb, PolicyDocument, ReferenceValues,
    SealedSecretDocument, SnpGuestPolicyDocument, SnpPlatformInfoDocument, SnpReferenceValue,
    TdxReferenceValue, VtpmDocument,
};
pub use owners::{CertificateKeyDigest, OwnerKeyDigest, OwnerKeyError};
pub use problem::{ManifestError, Problem, ProblemKind};
pub use roles::Role;
pub use sealed::{MAX_SEALED_BYTES, SealedKind, SealedSecret, is_sealed_name};

/// Largest manifest that is read, in bytes (4 MiB).
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;
