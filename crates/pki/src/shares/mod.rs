//! Seed shares: the seed, encrypted to those who may recover the deployment.
//!
//! With threshold 1 every share is the whole seed, so each owner can recover alone; that is today's format. With a threshold k above 1 the
//! seed is split by Shamir's scheme over GF(256): any k shares make it, fewer say nothing about it. Such a share says which set of shares
//! it belongs to, and the document holds its digest, so that a wrong one is told from the right ones as it comes, not when all are there.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use contrast_clock::{Entropy, EntropyError};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Salt, Seed, SeedError};

mod collect;
mod owner;
mod random;
mod rsa;
mod split;
pub(crate) mod x25519;

pub use collect::{Collector, Progress};
use owner::OwnerPrivateKey;
pub use owner::SeedShareOwnerKey;
pub(crate) use owner::{x25519_of_spki, x25519_spki as spki_of_x25519};
pub use rsa::generate_owner_key_pem;

/// Seed shares could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharesError {
    /// More owners are needed than there are, or none.
    #[error(
        "a seed share threshold of {threshold} with {owners} owner(s); expected one from 1 to the number of owners, at most 255"
    )]
    Threshold {
        /// The threshold asked for.
        threshold: u32,
        /// How many owners there are.
        owners: usize,
    },
    /// No randomness for the shares.
    #[error("the seed cannot be split")]
    Entropy(#[from] EntropyError),
    /// The library refused to split or combine.
    #[error("the seed cannot be split or put together: {0}")]
    Sharing(vsss_rs::Error),
    /// A share that is none of this document's.
    #[error(
        "this is none of the {available} seed shares of this deployment; it is damaged, or of another one"
    )]
    Unknown {
        /// How many shares the document has.
        available: usize,
    },
    /// A share of an earlier document.
    #[error(
        "this seed share was replaced when the seed was shared anew; use the latest seed shares document"
    )]
    Replaced,
    /// Nobody to encrypt to.
    #[error("there is no seed share owner; the seed could never be recovered")]
    NoOwner,
    /// Not a public key of a kind that shares can be encrypted to.
    #[error(
        "not an RSA or X25519 public key: expected PKCS#1 DER (RSA), SubjectPublicKeyInfo DER (X25519), or PEM with `PUBLIC KEY`"
    )]
    PublicKey,
    /// An X25519 key that any two parties share a secret with.
    #[error(
        "the X25519 public key is a point of small order, which protects nothing; make a new key"
    )]
    SmallOrder,
    /// An RSA key that is too short to protect a seed.
    #[error("the RSA key has {found} bits, expected at least 2048")]
    ModulusTooShort {
        /// Bits of its modulus.
        found: usize,
    },
    /// Not a private key of such a kind.
    #[error(
        "not an RSA or X25519 private key: expected PEM with `RSA PRIVATE KEY` (PKCS#1) or `PRIVATE KEY` (PKCS#8)"
    )]
    PrivateKey,
    /// The library could not encrypt.
    #[error("encrypting a seed share failed inside the cryptographic library")]
    Encrypt,
    /// No share for this key.
    #[error(
        "none of the {available} seed share(s) is encrypted to this key; use the key of one of the owners"
    )]
    NotAnOwner {
        /// How many shares the document has.
        available: usize,
    },
    /// The share does not decrypt.
    #[error("the seed share for this key does not decrypt; the document is damaged")]
    Decrypt,
    /// A share or salt has the wrong length.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The document's JSON is damaged.
    #[error("not a seed shares document")]
    Document(#[source] serde_json::Error),
    /// A key could not be generated.
    #[error("the cryptographic library could not generate an RSA key")]
    Generate,
}

/// One decrypted share. Wiped when dropped, hidden from `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SeedShare(Vec<u8>);

impl SeedShare {
    /// Takes over the bytes of a share.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The secret bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl SeedShare {
    fn digest(&self) -> Vec<u8> {
        digest(&SHA256, &self.0).as_ref().to_vec()
    }
}

impl fmt::Debug for SeedShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeedShare(hidden)")
    }
}

/// All shares of one seed, encrypted: the file `seed-shares.json`. Not secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SeedSharesDocument {
    /// Salt of the derivations, 32 bytes, hex in JSON.
    #[serde(with = "hex")]
    pub salt: Vec<u8>,
    /// Shares needed to recover; 1 where the document names none.
    #[serde(default = "threshold_default")]
    pub threshold: u32,
    /// Which sharing of the seed this is, 16 bytes, hex in JSON; empty with threshold 1.
    #[serde(with = "hex", default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<u8>,
    /// One share for each owner.
    #[serde(rename = "SeedShares")]
    pub shares: Vec<EncryptedShare>,
}

fn threshold_default() -> u32 {
    1
}

/// One owner's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EncryptedShare {
    /// The owner's public key, hex in JSON: `RSAPublicKey` (PKCS#1 DER) or `SubjectPublicKeyInfo` (DER) of X25519.
    #[serde(with = "hex")]
    pub public_key: Vec<u8>,
    /// Hex in JSON. For RSA: OAEP (SHA-256, label `seedshare`). For X25519: HPKE (RFC 9180, mode base; DHKEM(X25519, HKDF-SHA256),
    /// HKDF-SHA256, ChaCha20Poly1305; info `seedshare`, the document's salt as additional data), the encapsulated key (32 bytes)
    /// followed by ciphertext and tag (16 bytes).
    #[serde(with = "hex")]
    pub encrypted_seed: Vec<u8>,
    /// SHA-256 of the share, 32 bytes, hex in JSON; empty with threshold 1, where it would be the digest of the seed.
    #[serde(with = "hex", default, skip_serializing_if = "Vec::is_empty")]
    pub digest: Vec<u8>,
}

impl SeedSharesDocument {
    /// Parses the file's JSON.
    ///
    /// # Errors
    /// When it is no such document.
    pub fn from_json(json: &[u8]) -> Result<Self, SharesError> {
        serde_json::from_slice(json).map_err(SharesError::Document)
    }

    /// The file's JSON, indented by two spaces, with a final newline.
    ///
    /// # Errors
    /// Never for a document that was parsed or made by this crate.
    pub fn to_json(&self) -> Result<String, SharesError> {
        let mut json = serde_json::to_string_pretty(self).map_err(SharesError::Document)?;
        json.push('\n');
        Ok(json)
    }

    /// SHA-256 of the document's JSON, as [`to_json`](Self::to_json) writes it.
    ///
    /// # Errors
    /// As [`to_json`](Self::to_json).
    pub fn digest(&self) -> Result<[u8; 32], SharesError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, self.to_json()?.as_bytes()).as_ref());
        Ok(hash)
    }

    /// The salt.
    ///
    /// # Errors
    /// When it has not 32 bytes.
    pub fn salt(&self) -> Result<Salt, SharesError> {
        Ok(Salt::from_slice(&self.salt)?)
    }
}

/// Shares `seed` among `owners`, so that any `threshold` of them can recover it, and encrypts each share to its owner. Every call with a
/// threshold above 1 makes another set, whose shares do not fit those of any other.
///
/// # Errors
/// When there is no owner, the threshold is not from 1 to the number of owners, or there is no randomness.
pub fn encrypt_seed(
    seed: &Seed,
    salt: &Salt,
    owners: &[SeedShareOwnerKey],
    threshold: u32,
    entropy: &dyn Entropy,
) -> Result<SeedSharesDocument, SharesError> {
    if owners.is_empty() {
        return Err(SharesError::NoOwner);
    }
    let encrypted = |owner: &SeedShareOwnerKey, share: &[u8], digest| {
        Ok(EncryptedShare {
            public_key: owner.as_der().to_vec(),
            encrypted_seed: owner.encrypt(share, salt, entropy)?,
            digest,
        })
    };
    let (set, shares) = match threshold {
        1 => {
            let whole = |owner| encrypted(owner, seed.expose(), Vec::new());
            let shares = owners.iter().map(whole);
            (Vec::new(), shares.collect::<Result<_, SharesError>>()?)
        }
        _ => {
            let parts = split::split(seed, threshold, owners.len(), entropy)?;
            let shares = owners.iter().zip(&parts.shares);
            let shares =
                shares.map(|(owner, share)| encrypted(owner, share.expose(), share.digest()));
            let shares = shares.collect::<Result<_, SharesError>>()?;
            (parts.set.to_vec(), shares)
        }
    };
    Ok(SeedSharesDocument {
        salt: salt.as_bytes().to_vec(),
        threshold,
        set,
        shares,
    })
}

/// Decrypts the share that belongs to the private key in `private_key_pem` (PKCS#8; RSA also PKCS#1).
///
/// # Errors
/// When the key is none, owns no share, or the share does not decrypt.
pub fn decrypt_share(
    document: &SeedSharesDocument,
    private_key_pem: &str,
) -> Result<SeedShare, SharesError> {
    let key = OwnerPrivateKey::from_pem(private_key_pem)?;
    let own = key.public_key_der()?;
    let share = document
        .shares
        .iter()
        .find(|share| share.public_key == own)
        .ok_or(SharesError::NotAnOwner {
            available: document.shares.len(),
        })?;
    let share = key.decrypt(&share.encrypted_seed, &document.salt)?;
    Ok(SeedShare(share))
}

#[cfg(test)]
mod tests;
