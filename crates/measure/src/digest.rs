//! SHA-384 and SHA-256 through aws-lc-rs.

use aws_lc_rs::digest::{Context, SHA256, SHA384, digest};

/// Bytes of a SHA-384 digest.
pub const SHA384_BYTES: usize = 48;

/// A SHA-384 digest.
pub type Sha384Digest = [u8; SHA384_BYTES];

fn fixed<const N: usize>(digest: aws_lc_rs::digest::Digest) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

pub(crate) fn sha384(bytes: &[u8]) -> Sha384Digest {
    fixed(digest(&SHA384, bytes))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    fixed(digest(&SHA256, bytes))
}

/// SHA-384 over parts.
pub(crate) struct Sha384(Context);

impl Sha384 {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA384))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Sha384Digest {
        fixed(self.0.finish())
    }
}
