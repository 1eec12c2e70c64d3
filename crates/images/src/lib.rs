//! Container images: what their digests are, and what a runtime policy needs of them.
//!
//! An image is what its digest says. [`ImageReference`] refuses references without one. [`Resolver`] reads images from registries, OCI
//! layouts and archives: manifests, configurations and layers are checked against their digests, layers are read once and never
//! stored. [`ImageCache`] keeps the result, keyed by digest, so that what is known is not asked for again.
//!
//! What this crate never does: run, unpack or store an image, or send credentials to another host than the one they are for.

mod accounts;
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
mod pull;
mod reference;
mod registry;
mod resolve;
mod shown;
mod store;

pub use accounts::{AccountChanges, Accounts, FileChange, GroupAccount, UserAccount};
pub use bundle::{Bundle, BundleError};
pub use cache::{CacheError, ImageCache, ImageConfig};
pub use credentials::{CredentialError, CredentialFile};
pub use digest::{Digest, DigestError};
pub use document::{DocumentError, check_document};
pub use layer::{LayerError, LayerFacts};
pub use local::LocalError;
pub use origin::OriginError;
pub use pull::{PullError, PulledImage};
pub use reference::{ImageName, ImageReference, ReferenceError};
pub use registry::{
    RegistriesConf, RegistriesConfError, RegistryError, RegistryLimits, RegistryOptions,
};
pub use resolve::{ImageError, Progress, ResolveError, Resolved, Resolver, ResolverError};
pub use store::{Store, StoreError};
