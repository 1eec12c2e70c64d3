use std::fmt;

use aws_lc_rs::hkdf::{self, HKDF_SHA256, KeyType};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{KeyError, Salt, SealingKey, Seed, SigningKey};

/// Every derivation's output is as long as its input, 64 bytes.
const OUTPUT_BYTES: usize = 64;
/// Length of a transit key (AES-256) in bytes.
const TRANSIT_KEY_BYTES: usize = 32;

/// Labels of the derivations from the seed. They are part of the format: a deployment that moves between implementations
/// keeps its keys only if they are equal to the byte.
const WORKLOAD_SECRETS: &str = "POD STATE SECRET";
const TRANSITION_SIGNING: &str = "TRANSACTION SIGNING SECRET";
const ROOT_CA: &str = "ROOT CA SEED";
/// This implementation's own, for what others do not have: neither begins as the info of a workload secret does.
const TRANSIT_HMAC: &str = "CONTRAST TRANSIT HMAC V1";
const TRANSIT_SIGNING: &str = "CONTRAST TRANSIT SIGNING V1";
/// This implementation's own: no other has such records. A change of the records' format takes a label of its own, too.
const STORE_RECORDS: &str = "CONTRAST RAFT STORE RECORD MAC V1";
/// This implementation's own, likewise.
const SEALING: &str = "CONTRAST SEALING KEY V1";
const VOLUME_RECORDS: &str = "CONTRAST VOLUME RECORD MAC V1";

/// A key could not be derived.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeriveError {
    /// An empty workload secret id, which would give every workload without an id the same secret.
    #[error("the workload secret id is empty; a workload without an id has no secret")]
    EmptyId,
    /// HKDF failed; cannot happen with the lengths used here.
    #[error("key derivation failed inside the cryptographic library")]
    Hkdf,
    /// The derived secret made no key.
    #[error("the derived secret made no signing key")]
    Key(#[from] KeyError),
}

/// Everything that is derived from one seed and salt, with HKDF-SHA256 (RFC 5869).
#[derive(Clone)]
pub struct Derivation {
    seed: Seed,
    salt: Salt,
}

impl Derivation {
    /// Derivations of `seed` with `salt`.
    pub fn new(seed: &Seed, salt: &Salt) -> Self {
        Self {
            seed: seed.clone(),
            salt: *salt,
        }
    }

    /// Key of the deployment's root CA.
    ///
    /// # Errors
    /// Only when the cryptographic library fails.
    pub fn root_ca_key(&self) -> Result<SigningKey, DeriveError> {
        Ok(SigningKey::from_det_keygen(
            self.expand_seed(ROOT_CA)?.as_slice(),
        )?)
    }

    /// Key that signs the transitions of the history.
    ///
    /// # Errors
    /// Only when the cryptographic library fails.
    pub fn transition_signing_key(&self) -> Result<SigningKey, DeriveError> {
        Ok(SigningKey::from_det_keygen(
            self.expand_seed(TRANSITION_SIGNING)?.as_slice(),
        )?)
    }

    /// Secret of the workload with the given secret id (not empty).
    ///
    /// # Errors
    /// When the id is empty, or the cryptographic library fails.
    pub fn workload_secret(&self, id: &str) -> Result<WorkloadSecret, DeriveError> {
        if id.is_empty() {
            return Err(DeriveError::EmptyId);
        }
        let parent = self.expand_seed(WORKLOAD_SECRETS)?;
        let info = format!("WORKLOAD SECRET ID: {id}");
        Ok(WorkloadSecret(*expand(
            parent.as_slice(),
            &self.salt,
            &info,
        )?))
    }

    /// Key number `version` of the transit engine for the given workload secret id (not empty): the first 32 bytes of the
    /// workload secret with the id `<version>_<id>`.
    ///
    /// # Errors
    /// When the id is empty, or the cryptographic library fails.
    pub fn transit_key(&self, version: u32, id: &str) -> Result<TransitKey, DeriveError> {
        if id.is_empty() {
            return Err(DeriveError::EmptyId);
        }
        let secret = self.workload_secret(&format!("{version}_{id}"))?;
        let mut key = TransitKey([0; TRANSIT_KEY_BYTES]);
        for (to, from) in key.0.iter_mut().zip(secret.0.iter()) {
            *to = *from;
        }
        Ok(key)
    }

    /// HMAC key number `version` of the transit engine for the given workload secret id (not empty): HKDF-SHA256 of the parent of all
    /// workload secrets and the salt with the info `CONTRAST TRANSIT HMAC V1: <version>_<id>`, 64 bytes.
    ///
    /// # Errors
    /// When the id is empty, or the cryptographic library fails.
    pub fn transit_hmac_key(&self, version: u32, id: &str) -> Result<TransitHmacKey, DeriveError> {
        Ok(TransitHmacKey(*self.transit(TRANSIT_HMAC, version, id)?))
    }

    /// Signing key number `version` of the transit engine for the given workload secret id (not empty): ECDSA P-384, made by C2SP
    /// det-keygen from 64 bytes that are derived as the HMAC key is, with the info `CONTRAST TRANSIT SIGNING V1: <version>_<id>`.
    ///
    /// # Errors
    /// When the id is empty, or the cryptographic library fails.
    pub fn transit_signing_key(&self, version: u32, id: &str) -> Result<SigningKey, DeriveError> {
        let secret = self.transit(TRANSIT_SIGNING, version, id)?;
        Ok(SigningKey::from_det_keygen(secret.as_slice())?)
    }

    fn transit(
        &self,
        label: &str,
        version: u32,
        id: &str,
    ) -> Result<Zeroizing<[u8; OUTPUT_BYTES]>, DeriveError> {
        if id.is_empty() {
            return Err(DeriveError::EmptyId);
        }
        let parent = self.expand_seed(WORKLOAD_SECRETS)?;
        expand(
            parent.as_slice(),
            &self.salt,
            &format!("{label}: {version}_{id}"),
        )
    }

    /// Key of the MACs on the records of a Coordinator's Raft store: HKDF-SHA256 of the seed and the salt with the info
    /// `CONTRAST RAFT STORE RECORD MAC V1`, 64 bytes, which is the block of SHA-256 and so used by HMAC-SHA256 as it is
    /// (RFC 2104, section 3).
    ///
    /// # Errors
    /// Only when the cryptographic library fails.
    pub fn store_record_key(&self) -> Result<StoreRecordKey, DeriveError> {
        Ok(StoreRecordKey(*self.expand_seed(STORE_RECORDS)?))
    }

    /// Key of the MAC on the generations of encrypted volumes in a Coordinator's history file: derived as
    /// [`store_record_key`](Self::store_record_key) is, with the info `CONTRAST VOLUME RECORD MAC V1`.
    ///
    /// # Errors
    /// Only when the cryptographic library fails.
    pub fn volume_record_key(&self) -> Result<VolumeRecordKey, DeriveError> {
        Ok(VolumeRecordKey(*self.expand_seed(VOLUME_RECORDS)?))
    }

    /// Key to which owners seal secrets for this deployment: HPKE's DeriveKeyPair for DHKEM(X25519, HKDF-SHA256) of 64 bytes that are derived
    /// as [`store_record_key`](Self::store_record_key) is, with the info `CONTRAST SEALING KEY V1`.
    ///
    /// # Errors
    /// Only when the cryptographic library fails.
    pub fn sealing_key(&self) -> Result<SealingKey, DeriveError> {
        Ok(SealingKey::derive(self.expand_seed(SEALING)?.as_slice()))
    }

    fn expand_seed(&self, info: &str) -> Result<Zeroizing<[u8; OUTPUT_BYTES]>, DeriveError> {
        expand(self.seed.expose(), &self.salt, info)
    }
}

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Derivation(hidden)")
    }
}

struct OutputLength;

impl KeyType for OutputLength {
    fn len(&self) -> usize {
        OUTPUT_BYTES
    }
}

fn expand(
    secret: &[u8],
    salt: &Salt,
    info: &str,
) -> Result<Zeroizing<[u8; OUTPUT_BYTES]>, DeriveError> {
    let mut output = Zeroizing::new([0; OUTPUT_BYTES]);
    hkdf::Salt::new(HKDF_SHA256, salt.as_bytes())
        .extract(secret)
        .expand(&[info.as_bytes()], OutputLength)
        .and_then(|okm| okm.fill(output.as_mut_slice()))
        .map_err(|_| DeriveError::Hkdf)?;
    Ok(output)
}

/// Secret of one workload, 64 bytes. Wiped when dropped, hidden from `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct WorkloadSecret([u8; OUTPUT_BYTES]);

impl WorkloadSecret {
    /// The secret bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// 128 lower-case hex digits.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_slice()))
    }
}

impl fmt::Debug for WorkloadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkloadSecret(hidden)")
    }
}

/// Key of the transit engine, AES-256. Wiped when dropped, hidden from `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TransitKey([u8; TRANSIT_KEY_BYTES]);

impl TransitKey {
    /// The secret bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TransitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransitKey(hidden)")
    }
}

/// HMAC key of the transit engine, 64 bytes. Wiped when dropped, hidden from `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TransitHmacKey([u8; OUTPUT_BYTES]);

impl TransitHmacKey {
    /// The secret bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TransitHmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransitHmacKey(hidden)")
    }
}

/// Key of the MACs on the records of a Coordinator's Raft store, 64 bytes. Wiped when dropped, hidden from `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StoreRecordKey([u8; OUTPUT_BYTES]);

impl StoreRecordKey {
    /// The secret bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for StoreRecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreRecordKey(hidden)")
    }
}

/// Key of the MAC on the generations of encrypted volumes, 64 bytes. Wiped when dropped, hidden from `Debug`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct VolumeRecordKey([u8; OUTPUT_BYTES]);

impl VolumeRecordKey {
    /// The secret bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for VolumeRecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeRecordKey(hidden)")
    }
}

#[cfg(test)]
#[path = "derive_tests.rs"]
mod tests;
