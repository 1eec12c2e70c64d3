//! Encryption to X25519 keys with HPKE (RFC 9180).

use contrast_clock::Entropy;
use der::asn1::ObjectIdentifier;
use hpke::{
    Deserializable as _, HpkeError, Kem as _, OpModeR, OpModeS, Serializable as _,
    aead::ChaCha20Poly1305, kdf::HkdfSha256, kem::X25519HkdfSha256, single_shot_open,
    single_shot_seal_with_rng,
};

use super::{SharesError, random::Random};

/// Object identifier id-X25519 (RFC 8410, section 3).
pub(super) const X25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.110");
/// Bytes of a key, private or public, and of an encapsulated key.
pub(crate) const KEY_BYTES: usize = 32;

/// Wiped when dropped.
pub(crate) struct PrivateKey(<X25519HkdfSha256 as hpke::Kem>::PrivateKey);

impl PrivateKey {
    pub(super) fn read(scalar: &[u8]) -> Result<Self, SharesError> {
        let key = <X25519HkdfSha256 as hpke::Kem>::PrivateKey::from_bytes(scalar);
        key.map(Self).map_err(|_| SharesError::PrivateKey)
    }

    /// DeriveKeyPair (section 7.1.3).
    pub(crate) fn derive(secret: &[u8]) -> Self {
        let (private, _) = X25519HkdfSha256::derive_keypair(secret);
        Self(private)
    }

    pub(crate) fn public(&self) -> [u8; KEY_BYTES] {
        X25519HkdfSha256::sk_to_pk(&self.0).to_bytes().into()
    }

    pub(crate) fn open(
        &self,
        sealed: &[u8],
        info: &[u8],
        bound: &[u8],
    ) -> Result<Vec<u8>, SharesError> {
        let (key, ciphertext) = sealed
            .split_at_checked(KEY_BYTES)
            .ok_or(SharesError::Decrypt)?;
        let key = <X25519HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(key)
            .map_err(|_| SharesError::Decrypt)?;
        single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.0,
            &key,
            info,
            ciphertext,
            bound,
        )
        .map_err(|_| SharesError::Decrypt)
    }
}

/// Encapsulated key, ciphertext and tag. `bound` is what the ciphertext is bound to besides.
pub(crate) fn seal(
    recipient: &[u8; KEY_BYTES],
    info: &[u8],
    content: &[u8],
    bound: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, SharesError> {
    let recipient = <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(recipient)
        .map_err(|_| SharesError::PublicKey)?;
    let random = Random::new(entropy);
    let sealed = single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &recipient,
        info,
        content,
        bound,
        &mut &random,
    );
    // Before its result is looked at: without randomness it protects nothing.
    random.check()?;
    let (key, ciphertext) = sealed.map_err(|error| match error {
        HpkeError::EncapError => SharesError::SmallOrder,
        _ => SharesError::Encrypt,
    })?;
    Ok([key.to_bytes().as_slice(), &ciphertext].concat())
}
