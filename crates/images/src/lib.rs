//! Container images: references and cached configurations.
//!
//! An image is what its digest says. [`ImageReference`] refuses references without one, and [`ImageCache`] holds the parts of
//! an image's configuration that a runtime policy needs, keyed by digest, so that nothing is asked of a registry.
//!
//! What this crate never does yet: talk to a registry. The cache is a file that a person or a tool fills.

mod cache;
mod reference;

pub use cache::{Accounts, CacheError, GroupAccount, ImageCache, ImageConfig, UserAccount};
pub use reference::{ImageReference, ReferenceError};
