//! The keys of a deployment: seed, what is derived from it, who can recover it, and the certificates it signs.
//!
//! A [`Seed`] and a [`Salt`] are drawn once, at the first manifest. [`Derivation`] makes everything else that must survive a
//! restart: the root CA key, the transition signing key, workload secrets and transit keys. The mesh CA key does not survive:
//! [`MeshCa`] draws it anew for each transition. [`shares`] encrypts the seed to its owners.
//!
//! What is put into a certificate is in `profile`; an independent reading of the finished certificate, `conform`, must agree
//! before it leaves this crate.
//!
//! What this crate never does: read the clock, draw randomness that was not handed in (but for the nonces that ECDSA and OAEP
//! need, which come from the cryptographic library), or write anything to a disk.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod answer;
mod ca;
mod conform;
mod derive;
mod key;
#[cfg(test)]
mod openssl;
mod owner_keys;
mod profile;
mod read;
mod sealing;
mod seed;
pub mod shares;
mod volume_answer;

pub use answer::{AnswerMessage, MeshAnswer, ReleasedSecret, RootKey, RootKeyError};
pub use ca::{CertificateError, IssuedLeaf, LeafExtension, LeafRequest, MeshCa, RootCa};
pub use derive::{
    Derivation, DeriveError, StoreRecordKey, TransitHmacKey, TransitKey, VolumeRecordKey,
    WorkloadSecret,
};
pub use key::{KeyError, SigningKey, verify_p384_sha256, verify_p384_sha384};
pub use owner_keys::{
    OwnerKeyError, WorkloadOwnerKey, owner_digest, update_approval_text, verify_update_approval,
};
pub use read::LeafFacts;
pub use sealing::{
    RegistryCredential, SEALING_OVERHEAD_BYTES, SealedFiles, SealingError, SealingKey,
    SealingPublicKey, is_file_key,
};
pub use seed::{Salt, Seed, SeedError};
pub use volume_answer::VolumeAnswer;
