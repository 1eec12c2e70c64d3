//! Where images come from.

use std::{fmt::Debug, io::Read};

use crate::{
    Digest, DocumentError, ImageName,
    document::{Descriptor, Document, Manifest},
    local::LocalError,
    registry::RegistryError,
};

/// How deep indexes may lie in indexes.
const INDEX_DEPTH_MAX: usize = 3;

/// A place cannot give what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layout or an archive.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The image's documents.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Content that is not what its digest says.
    #[error("the {what} has the digest {found}, but {expected} was asked for")]
    Digest {
        /// What it is.
        what: &'static str,
        /// Digest of what came.
        found: Digest,
        /// What was asked for.
        expected: Digest,
    },
    /// A transfer broke off, several times.
    #[error("a transfer broke off")]
    Read {
        /// The last time's reason.
        #[source]
        source: std::io::Error,
    },
    /// Indexes in indexes.
    #[error("its indexes lie more than {INDEX_DEPTH_MAX} deep in each other")]
    Nested,
}

/// How a manifest is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By<'a> {
    Tag(&'a str),
    Digest(Digest),
}

/// An image that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// What stands behind `@` in references: digest of the index, if there is one, or else of the manifest. An archive in
    /// Docker's older format has none.
    pub(crate) digest: Option<Digest>,
    pub(crate) manifest: Manifest,
}

/// A place with images.
pub(crate) trait Origin: Debug + Send + Sync {
    /// For messages.
    fn shown(&self) -> String;

    /// Looks for an image, by its digest if it has one, and else by its tag; `None` if it is not there.
    fn find(&self, name: &ImageName) -> Result<Option<Found>, OriginError>;

    /// Opens the configuration or a layer of an image that was found here. The content is not checked; when it is not what was asked
    /// for, the next `attempt`, from 0, may find it elsewhere.
    fn blob(
        &self,
        name: &ImageName,
        blob: &Descriptor,
        attempt: usize,
    ) -> Result<Box<dyn Read + '_>, OriginError>;
}

/// Finds an image through documents that `get` gives, each of them checked against the digest by which it was asked for.
pub(crate) fn find(
    by: By<'_>,
    mut get: impl FnMut(By<'_>) -> Result<Option<Vec<u8>>, OriginError>,
) -> Result<Option<Found>, OriginError> {
    let mut top = None;
    let mut by = by;
    for _ in 0..=INDEX_DEPTH_MAX {
        let Some(text) = get(by)? else {
            return Ok(None);
        };
        let digest = Digest::of(&text);
        if let By::Digest(expected) = by {
            check("manifest", digest, expected)?;
        }
        let top = *top.get_or_insert(digest);
        match Document::parse(&text)? {
            Document::Manifest(manifest) => {
                return Ok(Some(Found {
                    digest: Some(top),
                    manifest,
                }));
            }
            Document::Index(index) => by = By::Digest(index.select()?.digest),
        }
    }
    Err(OriginError::Nested)
}

pub(crate) fn check(
    what: &'static str,
    found: Digest,
    expected: Digest,
) -> Result<(), OriginError> {
    match found == expected {
        true => Ok(()),
        false => Err(OriginError::Digest {
            what,
            found,
            expected,
        }),
    }
}
