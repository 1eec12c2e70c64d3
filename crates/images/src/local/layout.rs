use std::io::Read;

use super::{Files, LocalError};
use crate::{
    Digest, ImageName,
    document::{Descriptor, Document, DocumentError, Index},
    origin::{By, Found, Origin, OriginError, find},
};

/// OCI image specification, "Image Layout".
pub(super) const INDEX: &str = "index.json";
/// Annotations with the name of an image: the specification's, which often has the tag only, and containerd's.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// An OCI layout.
#[derive(Debug)]
pub(super) struct Layout<F> {
    files: F,
    index: Index,
}

impl<F: Files> Layout<F> {
    pub(super) fn open(files: F) -> Result<Self, LocalError> {
        let text = files.document(INDEX)?.ok_or_else(|| LocalError::Missing {
            path: files.path().to_owned(),
            file: INDEX.to_owned(),
        })?;
        let unusable = |source| LocalError::Document {
            path: files.path().to_owned(),
            file: INDEX.to_owned(),
            source,
        };
        match Document::parse(&text).map_err(unusable)? {
            Document::Index(index) => Ok(Self { files, index }),
            Document::Manifest(_) => Err(unusable(DocumentError::Json {
                what: "index",
                source: serde::de::Error::missing_field("manifests"),
            })),
        }
    }

    /// What the index says of a name with a tag. A bare tag says nothing of the repository, so it is not enough.
    fn tagged(&self, name: &ImageName) -> Option<Digest> {
        let is_named = |descriptor: &&Descriptor| {
            let annotations = descriptor.annotations.iter().flatten();
            annotations
                .filter(|(key, value)| NAMES.contains(&key.as_str()) && value.contains(['/', ':']))
                .filter_map(|(_, value)| ImageName::parse(value).ok())
                .any(|named| named.tagged() == name.tagged())
        };
        let mut manifests = self.index.manifests.iter();
        manifests.find(is_named).map(|found| found.digest)
    }

    fn document(&self, by: By<'_>) -> Result<Option<Vec<u8>>, OriginError> {
        match by {
            By::Tag(_) => Ok(None),
            By::Digest(digest) => Ok(self.files.document(&blob_path(digest))?),
        }
    }
}

fn blob_path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl<F: Files> Origin for Layout<F> {
    fn shown(&self) -> String {
        self.files.path().display().to_string()
    }

    fn find(&self, name: &ImageName) -> Result<Option<Found>, OriginError> {
        let Some(digest) = name.digest().or_else(|| self.tagged(name)) else {
            return Ok(None);
        };
        find(By::Digest(digest), |by| self.document(by))
    }

    fn blob(
        &self,
        _: &ImageName,
        blob: &Descriptor,
        _: usize,
    ) -> Result<Box<dyn Read + '_>, OriginError> {
        let file = blob_path(blob.digest);
        let content = self.files.open(&file)?;
        Ok(content.ok_or_else(|| LocalError::Missing {
            path: self.files.path().to_owned(),
            file,
        })?)
    }
}
