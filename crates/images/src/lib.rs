//! Container images: what their digests are, and what a runtime policy needs of them.
//!
//! An image is what its digest says. [`ImageReference`] refuses references without one. [`Resolver`] reads images from registries, OCI
//! layouts and archives: manifests, configurations and layers are checked against their digests, and layers are read once. There are two
//! uses of what they hold:
//!
//! - For `generate`, [`Resolver::resolve`] looks for users and groups and stores nothing of a layer. [`ImageCache`] keeps the result, keyed by
//!   digest, so that what is known is not asked for again.
//! - In the guest, which is Linux, [`Resolver::pull`] unpacks layers into a [`Store`], and a [`Bundle`] mounts them as a root file system.
//!
//! What this crate never does: run an image, keep content that is not what its digest says, or send credentials to another host than the
//! one they are for.

#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, unused_imports, reason = "only the guest unpacks layers")
)]

mod accounts;
#[cfg(target_os = "linux")]
mod bundle;
mod cache;
mod chain;
mod credentials;
mod digest;
mod document;
mod layer;
mod local;
mod origin;
mod parallel;
#[cfg(target_os = "linux")]
mod pull;
mod reference;
mod registry;
mod resolve;
mod shown;
#[cfg(target_os = "linux")]
mod store;

pub use accounts::{AccountChanges, Accounts, FileChange, GroupAccount, UserAccount};
#[cfg(target_os = "linux")]
pub use bundle::{Bundle, BundleError};
pub use cache::{CacheError, ImageCache, ImageConfig};
pub use credentials::{CredentialError, CredentialFile};
pub use digest::{Digest, DigestError};
pub use document::{DocumentError, check_document};
pub use layer::{LayerError, LayerFacts};
pub use local::LocalError;
pub use origin::OriginError;
#[cfg(target_os = "linux")]
pub use pull::{PullError, PulledImage};
pub use reference::{ImageName, ImageReference, ReferenceError};
pub use registry::{
    RegistriesConf, RegistriesConfError, RegistryError, RegistryFileError, RegistryLimits,
    RegistryOptions,
};
pub use resolve::{Denied, ImageError, Progress, ResolveError, Resolved, Resolver, ResolverError};
#[cfg(target_os = "linux")]
pub use store::{Store, StoreError};
