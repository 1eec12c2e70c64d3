use aws_lc_rs::{digest, hmac};

use super::{failure::Failure, keys::SignatureHash};

/// Hash functions by Vault's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha3_256,
    Sha3_384,
    Sha3_512,
}

const NAMES: [(&str, Hash); 7] = [
    ("sha2-224", Hash::Sha224),
    ("sha2-256", Hash::Sha256),
    ("sha2-384", Hash::Sha384),
    ("sha2-512", Hash::Sha512),
    ("sha3-256", Hash::Sha3_256),
    ("sha3-384", Hash::Sha3_384),
    ("sha3-512", Hash::Sha3_512),
];

impl Hash {
    pub(super) fn named(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, hash)| *hash)
    }

    /// The one that a request names, else `sha2-256`, as in Vault.
    pub(super) fn asked(name: Option<&str>) -> Result<Self, Failure> {
        match name {
            None | Some("") => Ok(Self::Sha256),
            Some(name) => Self::named(name).ok_or_else(|| {
                let names = NAMES.map(|(name, _)| name).join(", ");
                Failure::bad(format!("algorithm: expected one of {names}"))
            }),
        }
    }

    pub(super) fn digest(self, input: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha224 => &digest::SHA224,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
            Self::Sha3_256 => &digest::SHA3_256,
            Self::Sha3_384 => &digest::SHA3_384,
            Self::Sha3_512 => &digest::SHA3_512,
        };
        digest::digest(algorithm, input).as_ref().to_vec()
    }

    pub(super) fn hmac(self) -> Result<hmac::Algorithm, Failure> {
        match self {
            Self::Sha224 => Ok(hmac::HMAC_SHA224),
            Self::Sha256 => Ok(hmac::HMAC_SHA256),
            Self::Sha384 => Ok(hmac::HMAC_SHA384),
            Self::Sha512 => Ok(hmac::HMAC_SHA512),
            Self::Sha3_256 | Self::Sha3_384 | Self::Sha3_512 => Err(Failure::bad(
                "algorithm: HMAC is offered with sha2-224, sha2-256, sha2-384 and sha2-512",
            )),
        }
    }

    pub(super) fn of_signature(self) -> Result<SignatureHash, Failure> {
        match self {
            Self::Sha256 => Ok(SignatureHash::Sha256),
            Self::Sha384 => Ok(SignatureHash::Sha384),
            _ => Err(Failure::bad(
                "hash_algorithm: signatures are offered with sha2-256 and sha2-384",
            )),
        }
    }
}
