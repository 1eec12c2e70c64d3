//! The ID block of SEV-SNP: which launch digest and policy the firmware of the processor accepts, signed.
//!
//! With an ID block, SNP_LAUNCH_FINISH refuses a guest of another digest or policy, and reports carry its ids, its SVN and
//! the digests of the signing keys. Source: AMD publication 56860, tables "ID Block" and "ID Authentication Information",
//! appendix "Digital Signatures".

use aws_lc_rs::{
    error::Unspecified,
    rand::SecureRandom,
    signature::{EcdsaKeyPair, KeyPair as _},
};

use crate::{
    Sha384Digest,
    bytes::put,
    digest::{SHA384_BYTES, sha384},
};

/// Bytes of an ID block.
pub const ID_BLOCK_BYTES: usize = 96;
/// Bytes of the ID authentication information.
pub const ID_AUTH_BYTES: usize = 4096;

const VERSION: u32 = 1;
/// Algorithm: ECDSA on P-384 with SHA-384.
const ECDSA_P384_SHA384: u32 = 1;
/// Curve of a key: P-384.
const CURVE_P384: u32 = 2;
/// Bytes of a scalar or coordinate of P-384.
const SCALAR_BYTES: usize = 48;
/// Bytes that a scalar or coordinate has in AMD's structures: little-endian, zeros above.
const FIELD_BYTES: usize = 0x48;
const SIGNATURE_BYTES: usize = 0x200;
const KEY_BYTES: usize = 0x404;

/// What a guest is allowed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdBlock {
    /// The only accepted launch digest.
    pub launch_digest: Sha384Digest,
    /// FAMILY_ID of reports; for the owner to use.
    pub family_id: [u8; 16],
    /// IMAGE_ID of reports; for the owner to use.
    pub image_id: [u8; 16],
    /// GUEST_SVN of reports.
    pub guest_svn: u32,
    /// The only accepted guest policy.
    pub policy: u64,
}

impl IdBlock {
    /// The block as firmware takes it: digest (48 bytes), family id (16), image id (16), version 1, SVN (`u32` each),
    /// policy (`u64`); integers little-endian.
    pub fn to_bytes(&self) -> [u8; ID_BLOCK_BYTES] {
        let mut bytes = [0; ID_BLOCK_BYTES];
        put(&mut bytes, 0, &self.launch_digest);
        put(&mut bytes, 48, &self.family_id);
        put(&mut bytes, 64, &self.image_id);
        put(&mut bytes, 80, &VERSION.to_le_bytes());
        put(&mut bytes, 84, &self.guest_svn.to_le_bytes());
        put(&mut bytes, 88, &self.policy.to_le_bytes());
        bytes
    }
}

/// An ID block could not be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdAuthError {
    /// The key is of another kind.
    #[error(
        "expected a key pair for ECDSA on P-384 with SHA-384 and signatures of fixed length, found one whose {what} has \
         {found} bytes instead of {expected}"
    )]
    Key {
        /// `public key` or `signature`.
        what: &'static str,
        /// Its bytes.
        found: usize,
        /// What P-384 has.
        expected: usize,
    },
    /// The library could not sign.
    #[error("aws-lc-rs could not sign")]
    Sign(#[from] Unspecified),
}

/// The ID authentication information: public keys and signatures that go with an [`IdBlock`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdAuth {
    bytes: Box<[u8; ID_AUTH_BYTES]>,
    id_key_digest: Sha384Digest,
    author_key_digest: Option<Sha384Digest>,
}

impl IdAuth {
    /// Signs a block with the ID key and, where there is one, the ID key with the author key. Keys are made with
    /// [`aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING`].
    ///
    /// An ID key that nobody keeps binds digest and policy just as well: without a trusted key digest in a verifier's
    /// hands it says nothing about who signed.
    ///
    /// # Errors
    /// When a key is not for P-384 or signing fails.
    pub fn sign(
        block: &IdBlock,
        id_key: &EcdsaKeyPair,
        author_key: Option<&EcdsaKeyPair>,
        random: &dyn SecureRandom,
    ) -> Result<Self, IdAuthError> {
        let mut bytes = Box::new([0; ID_AUTH_BYTES]);
        let public = public_key(id_key)?;
        put(&mut bytes[..], 0x000, &ECDSA_P384_SHA384.to_le_bytes());
        let signature = signature(id_key, &block.to_bytes(), random)?;
        put(&mut bytes[..], 0x040, &signature);
        put(&mut bytes[..], 0x240, &public);
        let mut author_key_digest = None;
        if let Some(author_key) = author_key {
            let author = public_key(author_key)?;
            put(&mut bytes[..], 0x004, &ECDSA_P384_SHA384.to_le_bytes());
            let signature = self::signature(author_key, &public, random)?;
            put(&mut bytes[..], 0x680, &signature);
            put(&mut bytes[..], 0x880, &author);
            author_key_digest = Some(sha384(&author));
        }
        Ok(Self {
            bytes,
            id_key_digest: sha384(&public),
            author_key_digest,
        })
    }

    /// The structure as firmware takes it.
    pub fn as_bytes(&self) -> &[u8; ID_AUTH_BYTES] {
        &self.bytes
    }

    /// ID_KEY_DIGEST of reports: SHA-384 of the ID key's 0x404 bytes.
    pub fn id_key_digest(&self) -> Sha384Digest {
        self.id_key_digest
    }

    /// AUTHOR_KEY_DIGEST of reports, which is zeros when there is no author key.
    pub fn author_key_digest(&self) -> Sha384Digest {
        self.author_key_digest.unwrap_or([0; SHA384_BYTES])
    }
}

/// A public key: curve (`u32`), then the coordinates.
fn public_key(pair: &EcdsaKeyPair) -> Result<[u8; KEY_BYTES], IdAuthError> {
    // Uncompressed point: a tag, then the coordinates.
    let point = pair.public_key().as_ref();
    let mut key = [0; KEY_BYTES];
    put(&mut key, 0, &CURVE_P384.to_le_bytes());
    let coordinates = point.get(1..).unwrap_or_default();
    put_pair(&mut key[4..], coordinates, "public key")?;
    Ok(key)
}

fn signature(
    pair: &EcdsaKeyPair,
    message: &[u8],
    random: &dyn SecureRandom,
) -> Result<[u8; SIGNATURE_BYTES], IdAuthError> {
    let mut bytes = [0; SIGNATURE_BYTES];
    let signature = pair.sign(random, message)?;
    put_pair(&mut bytes, signature.as_ref(), "signature")?;
    Ok(bytes)
}

/// Turns two big-endian numbers of 48 bytes into little-endian ones of 72.
fn put_pair(target: &mut [u8], pair: &[u8], what: &'static str) -> Result<(), IdAuthError> {
    if pair.len() != 2 * SCALAR_BYTES {
        return Err(IdAuthError::Key {
            what,
            found: pair.len(),
            expected: 2 * SCALAR_BYTES,
        });
    }
    for (index, number) in pair.chunks_exact(SCALAR_BYTES).enumerate() {
        let little: Vec<u8> = number.iter().rev().copied().collect();
        put(target, index * FIELD_BYTES, &little);
    }
    Ok(())
}
