//! What CPU vendors publish about their CPUs: certificates, revocation lists and TCB levels, without which evidence proves
//! nothing. Fetched from AMD's Key Distribution Service (KDS) and Intel's Provisioning Certification Service (PCS), kept in memory
//! and on disk, or read from a directory that was filled elsewhere, and put beside evidence that lacks it.
//!
//! | type | what it is |
//! | --- | --- |
//! | [`Item`] | the name of one publication: the VCEK of a chip, the TCB info of a platform |
//! | [`Document`] | a publication, with the time in which it is valid |
//! | [`Bundle`] | documents in a directory; also the shape of the cache on disk |
//! | [`Collateral`] | asks memory, disk, bundle and vendor, in this order |
//! | [`CompletingVerifier`], [`CompletingIssuer`] | evidence goes through with what it lacked |
//! | [`AzureImds`] | what a guest on Azure asks its host for |
//!
//! Nothing here is trusted. Every document is signed by its vendor, and the verifier in `contrast-attestation` checks that
//! up to a pinned root for every piece of evidence; a wrong document makes evidence fail, never pass. For the same reason the
//! connection to the vendor may go through any proxy, over TLS or not. The worst that a network can do is to
//! withhold news for as long as what is known stays valid.
//!
//! What this crate never does: judge evidence, or make anybody wait for a vendor while a valid document is at hand.

mod bundle;
mod client;
mod complete;
mod document;
mod endpoint;
mod fetch;
mod flight;
mod imds;
mod item;
mod memory;
mod options;
mod recognise;
mod store;

pub use bundle::{Bundle, BundleError};
pub use client::{Collateral, Found, Limits, Statistics, Unavailable};
pub use complete::{CompletingIssuer, CompletingVerifier, Completion, verify};
pub use document::{Content, Document, Validity};
pub use endpoint::{EndpointError, Endpoints};
pub use fetch::{Answer, FetchError, HttpTransport, Transport, TransportError};
pub use imds::{AzureImds, thim_certificates};
pub use item::{Item, SnpSigner};
pub use options::{Options, OptionsError};
