//! Seed shares: the seed, encrypted to those who may recover the deployment.
//!
//! With threshold 1 every share is the whole seed, so each owner can recover alone; that is today's format. With a threshold k above 1 the
//! seed is split by Shamir's scheme over GF(256): any k shares make it, fewer say nothing about it. Such a share says which set of shares
//! it belongs to, and the document holds its digest, so that a wrong one is told from the right ones as it comes, not when all are there.

use std::fmt;

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{
        KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
        PrivateDecryptingKey, PublicEncryptingKey,
    },
};
use contrast_clock::{Entropy, EntropyError};
use der::{
    Decode as _, Encode as _,
    asn1::BitStringRef,
    pem::{LineEnding, encode_string},
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Salt, Seed, SeedError};

mod collect;
mod rsa;
mod split;

pub use collect::{Collector, Progress};
use rsa::{
    AlgorithmIdentifier, PKCS1_PEM, RSA_ENCRYPTION, RsaPublicKey, SubjectPublicKeyInfo,
    pkcs1_from_pem, pkcs1_from_pkcs8, pkcs8_from_pkcs1, public_half,
};

/// OAEP label of seed shares.
const LABEL: &[u8] = b"seedshare";
/// Smallest modulus that is accepted, in bits; owners get 4096.
const MODULUS_BITS_MIN: usize = 2048;
/// PEM label of `SubjectPublicKeyInfo`.
const SPKI_PEM: &str = "PUBLIC KEY";

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
    /// Not an RSA public key.
    #[error("not an RSA public key: expected PKCS#1 DER, or PEM with `PUBLIC KEY`")]
    PublicKey,
    /// An RSA key that is too short to protect a seed.
    #[error("the RSA key has {found} bits, expected at least 2048")]
    ModulusTooShort {
        /// Bits of its modulus.
        found: usize,
    },
    /// Not an RSA private key.
    #[error(
        "not an RSA private key: expected PEM with `RSA PRIVATE KEY` (PKCS#1) or `PRIVATE KEY` (PKCS#8)"
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

/// RSA public key of one seed share owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedShareOwnerKey {
    pkcs1: Vec<u8>,
}

impl SeedShareOwnerKey {
    /// Reads an `RSAPublicKey` (PKCS#1, RFC 8017 appendix A.1.1) in DER.
    ///
    /// # Errors
    /// When it is none, or its modulus is shorter than 2048 bits.
    pub fn from_pkcs1_der(der: &[u8]) -> Result<Self, SharesError> {
        // Strict about DER: shares are found by comparing the bytes of public keys.
        let parsed = RsaPublicKey::from_der(der).map_err(|_| SharesError::PublicKey)?;
        // Before the library sees the key: it refuses short keys too, but does not say why.
        let modulus = parsed.modulus.as_bytes();
        let unused = modulus.first().map_or(0, |first| first.leading_zeros());
        let found = modulus
            .len()
            .saturating_mul(8)
            .saturating_sub(unused as usize);
        if found < MODULUS_BITS_MIN {
            return Err(SharesError::ModulusTooShort { found });
        }
        let key = Self {
            pkcs1: der.to_vec(),
        };
        key.encrypting_key()?;
        Ok(key)
    }

    /// Reads a PEM: a `PUBLIC KEY`, or a private key whose public half is taken.
    ///
    /// # Errors
    /// When it is neither.
    pub fn from_pem(text: &str) -> Result<Self, SharesError> {
        let parsed = pem::parse(text).map_err(|_| SharesError::PublicKey)?;
        if parsed.tag() == SPKI_PEM {
            let spki = SubjectPublicKeyInfo::from_der(parsed.contents())
                .map_err(|_| SharesError::PublicKey)?;
            if spki.algorithm.algorithm != RSA_ENCRYPTION {
                return Err(SharesError::PublicKey);
            }
            let key = spki
                .subject_public_key
                .as_bytes()
                .ok_or(SharesError::PublicKey)?;
            return Self::from_pkcs1_der(key);
        }
        Self::from_pkcs1_der(&public_half(&pkcs1_from_pem(text)?)?)
    }

    /// The key as `RSAPublicKey`, DER.
    pub fn as_pkcs1_der(&self) -> &[u8] {
        &self.pkcs1
    }

    fn encrypting_key(&self) -> Result<PublicEncryptingKey, SharesError> {
        let spki = SubjectPublicKeyInfo {
            algorithm: AlgorithmIdentifier::RSA,
            subject_public_key: BitStringRef::from_bytes(&self.pkcs1)
                .map_err(|_| SharesError::PublicKey)?,
        };
        let spki = spki.to_der().map_err(|_| SharesError::PublicKey)?;
        PublicEncryptingKey::from_der(&spki).map_err(|_| SharesError::PublicKey)
    }
}

/// A new RSA-4096 key pair of a seed share owner: private key as PKCS#1 PEM (`RSA PRIVATE KEY`), which holds the public half.
/// Takes seconds. The randomness comes from the cryptographic library: RSA keys are searched for, not computed from a secret.
///
/// # Errors
/// When the cryptographic library fails.
pub fn generate_owner_key_pem() -> Result<Zeroizing<String>, SharesError> {
    let key =
        PrivateDecryptingKey::generate(KeySize::Rsa4096).map_err(|_| SharesError::Generate)?;
    let pkcs8: Pkcs8V1Der<'_> = key.as_der().map_err(|_| SharesError::Generate)?;
    let pkcs1 = pkcs1_from_pkcs8(pkcs8.as_ref())?;
    let text =
        encode_string(PKCS1_PEM, LineEnding::LF, &pkcs1).map_err(|_| SharesError::Generate)?;
    Ok(Zeroizing::new(text))
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
    /// The owner's `RSAPublicKey`, PKCS#1 DER, hex in JSON.
    #[serde(with = "hex")]
    pub public_key: Vec<u8>,
    /// RSA-OAEP ciphertext (SHA-256, label `seedshare`), hex in JSON.
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
    let whole = |owner: &SeedShareOwnerKey| {
        Ok(EncryptedShare {
            public_key: owner.pkcs1.clone(),
            encrypted_seed: encrypt(owner, seed.expose())?,
            digest: Vec::new(),
        })
    };
    let (set, shares) = match threshold {
        1 => {
            let shares = owners.iter().map(whole);
            (Vec::new(), shares.collect::<Result<_, SharesError>>()?)
        }
        _ => {
            let parts = split::split(seed, threshold, owners.len(), entropy)?;
            let encrypted = owners.iter().zip(&parts.shares).map(|(owner, share)| {
                Ok(EncryptedShare {
                    public_key: owner.pkcs1.clone(),
                    encrypted_seed: encrypt(owner, share.expose())?,
                    digest: share.digest(),
                })
            });
            let shares = encrypted.collect::<Result<_, SharesError>>()?;
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

fn encrypt(owner: &SeedShareOwnerKey, plaintext: &[u8]) -> Result<Vec<u8>, SharesError> {
    let key = OaepPublicEncryptingKey::new(owner.encrypting_key()?)
        .map_err(|_| SharesError::PublicKey)?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    let length = key
        .encrypt(
            &OAEP_SHA256_MGF1SHA256,
            plaintext,
            &mut ciphertext,
            Some(LABEL),
        )
        .map_err(|_| SharesError::Encrypt)?
        .len();
    ciphertext.truncate(length);
    Ok(ciphertext)
}

/// Decrypts the share that belongs to the private key in `private_key_pem` (PKCS#1 or PKCS#8).
///
/// # Errors
/// When the key is none, owns no share, or the share does not decrypt.
pub fn decrypt_share(
    document: &SeedSharesDocument,
    private_key_pem: &str,
) -> Result<SeedShare, SharesError> {
    let pkcs1 = pkcs1_from_pem(private_key_pem)?;
    let own = public_half(&pkcs1)?;
    let share = document
        .shares
        .iter()
        .find(|share| share.public_key == own)
        .ok_or(SharesError::NotAnOwner {
            available: document.shares.len(),
        })?;
    let pkcs8 = pkcs8_from_pkcs1(&pkcs1)?;
    let key = PrivateDecryptingKey::from_pkcs8(&pkcs8).map_err(|_| SharesError::PrivateKey)?;
    let key = OaepPrivateDecryptingKey::new(key).map_err(|_| SharesError::PrivateKey)?;
    let mut plaintext = Zeroizing::new(vec![0; key.min_output_size()]);
    let share = key
        .decrypt(
            &OAEP_SHA256_MGF1SHA256,
            &share.encrypted_seed,
            &mut plaintext,
            Some(LABEL),
        )
        .map_err(|_| SharesError::Decrypt)?
        .to_vec();
    Ok(SeedShare(share))
}

#[cfg(test)]
mod tests;
