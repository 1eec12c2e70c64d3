use std::{cell::RefCell, collections::HashMap, rc::Rc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use contrast_clock::Entropy;
use contrast_pki::{
    Derivation, DeriveError, SigningKey, TransitHmacKey, verify_p384_sha256, verify_p384_sha384,
};
use zeroize::Zeroizing;

use super::{algorithm::Hash, ciphertext::Versioned, failure::Failure, usage::Usage};

/// Bytes of an AES-GCM tag.
const TAG_LEN: usize = 16;
/// Version of a request that names none. No key has a history here, so there is no later one; see `docs/reference/transit.md`.
pub(super) const LATEST_VERSION: u32 = 1;
/// Highest version that something new is made with. It bounds the counters of uses.
const VERSION_MAX: u32 = 1024;

/// The keys of one workload, for one request: each is derived once.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    pub(super) derivation: &'a Derivation,
    pub(super) entropy: &'a dyn Entropy,
    pub(super) usage: &'a Usage,
    /// Workload secret id, not empty.
    pub(super) name: &'a str,
    aead: Derived<LessSafeKey>,
    hmac: Derived<TransitHmacKey>,
    signing: Derived<SigningKey>,
}

/// Keys by version. A batch names at most as many as it has items.
#[derive(Debug)]
struct Derived<K>(RefCell<HashMap<u32, Rc<K>>>);

impl<K> Default for Derived<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K> Derived<K> {
    fn get(
        &self,
        version: u32,
        derive: impl FnOnce() -> Result<K, Failure>,
    ) -> Result<Rc<K>, Failure> {
        if let Some(key) = self.0.borrow().get(&version) {
            return Ok(Rc::clone(key));
        }
        let key = Rc::new(derive()?);
        self.0.borrow_mut().insert(version, Rc::clone(&key));
        Ok(key)
    }
}

/// The version that a request means.
pub(super) fn version_for_new(asked: u32) -> Result<u32, Failure> {
    match asked {
        0 => Ok(LATEST_VERSION),
        asked if asked <= VERSION_MAX => Ok(asked),
        asked => Err(Failure::bad(format!(
            "key_version: expected at most {VERSION_MAX}, found {asked}"
        ))),
    }
}

fn derive_failed(error: DeriveError) -> Failure {
    Failure::internal("derivation", error)
}

impl<'a> Keys<'a> {
    pub(super) fn new(
        derivation: &'a Derivation,
        entropy: &'a dyn Entropy,
        (usage, name): (&'a Usage, &'a str),
    ) -> Self {
        Self {
            derivation,
            entropy,
            usage,
            name,
            aead: Derived::default(),
            hmac: Derived::default(),
            signing: Derived::default(),
        }
    }

    fn aead(&self, version: u32) -> Result<Rc<LessSafeKey>, Failure> {
        self.aead.get(version, || {
            let key = self.derivation.transit_key(version, self.name);
            let key = key.map_err(derive_failed)?;
            let key = UnboundKey::new(&AES_256_GCM, key.expose());
            let key = key.map_err(|error| Failure::internal("key", error))?;
            Ok(LessSafeKey::new(key))
        })
    }

    /// Nonce, ciphertext and tag, with the version that they were made with.
    pub(super) fn encrypt(
        &self,
        version: u32,
        plaintext: &[u8],
        associated_data: &[u8],
    ) -> Result<Versioned, Failure> {
        self.usage.count(self.name, version)?;
        let mut nonce = [0; NONCE_LEN];
        self.entropy
            .fill(&mut nonce)
            .map_err(|error| Failure::internal("nonce", error))?;
        let mut sealed = Zeroizing::new(plaintext.to_vec());
        let tag = self
            .aead(version)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data),
                &mut sealed,
            )
            .map_err(|error| Failure::internal("encryption", error))?;
        let bytes = [nonce.as_slice(), sealed.as_slice(), tag.as_ref()].concat();
        Ok(Versioned { version, bytes })
    }

    pub(super) fn decrypt(
        &self,
        ciphertext: &Versioned,
        associated_data: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let found = ciphertext.bytes.len();
        let split = ciphertext.bytes.split_first_chunk::<NONCE_LEN>();
        let (nonce, sealed) = split
            .filter(|(_, sealed)| sealed.len() >= TAG_LEN)
            .ok_or_else(|| {
                let least = NONCE_LEN + TAG_LEN;
                Failure::bad(format!(
                    "ciphertext: expected at least {least} bytes (nonce and tag), found {found}"
                ))
            })?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let opened = self.aead(ciphertext.version)?.open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(associated_data),
            &mut buffer,
        );
        let length = match opened {
            Ok(plaintext) => plaintext.len(),
            Err(_) => {
                return Err(Failure::bad(
                    "ciphertext: not made with this key, this version and this associated_data, or changed",
                ));
            }
        };
        buffer.truncate(length);
        Ok(buffer)
    }

    pub(super) fn hmac(&self, version: u32, hash: Hash, input: &[u8]) -> Result<Vec<u8>, Failure> {
        let key = self.hmac_key(version, hash)?;
        Ok(hmac::sign(&key, input).as_ref().to_vec())
    }

    pub(super) fn hmac_is_right(
        &self,
        hash: Hash,
        input: &[u8],
        given: &Versioned,
    ) -> Result<bool, Failure> {
        let key = self.hmac_key(given.version, hash)?;
        Ok(hmac::verify(&key, input, &given.bytes).is_ok())
    }

    fn hmac_key(&self, version: u32, hash: Hash) -> Result<hmac::Key, Failure> {
        let algorithm = hash.hmac()?;
        let key = self.hmac.get(version, || {
            let key = self.derivation.transit_hmac_key(version, self.name);
            key.map_err(derive_failed)
        })?;
        Ok(hmac::Key::new(algorithm, key.expose()))
    }

    fn signing_key(&self, version: u32) -> Result<Rc<SigningKey>, Failure> {
        self.signing.get(version, || {
            let key = self.derivation.transit_signing_key(version, self.name);
            key.map_err(derive_failed)
        })
    }

    /// ECDSA P-384, ASN.1, and the public key, SubjectPublicKeyInfo DER.
    pub(super) fn sign(
        &self,
        version: u32,
        hash: Hash,
        input: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let key = self.signing_key(version)?;
        let signature = match hash.of_signature()? {
            SignatureHash::Sha256 => key.sign_sha256(input),
            SignatureHash::Sha384 => key.sign_sha384(input),
        };
        let signature = signature.map_err(|error| Failure::internal("signature", error))?;
        Ok((signature, key.public_key_spki().to_vec()))
    }

    pub(super) fn signature_is_right(
        &self,
        hash: Hash,
        input: &[u8],
        given: &Versioned,
    ) -> Result<bool, Failure> {
        let key = self.signing_key(given.version)?;
        let spki = key.public_key_spki();
        let verified = match hash.of_signature()? {
            SignatureHash::Sha256 => verify_p384_sha256(spki, input, &given.bytes),
            SignatureHash::Sha384 => verify_p384_sha384(spki, input, &given.bytes),
        };
        Ok(verified.is_ok())
    }
}

/// What is hashed before ECDSA signs it.
#[derive(Debug, Clone, Copy)]
pub(super) enum SignatureHash {
    Sha256,
    Sha384,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_derived_once() {
        let keys = Derived::default();
        let mut derived = Vec::new();
        for version in [1, 2, 1, 1, 2] {
            let derive = || {
                derived.push(version);
                Ok(version * 10)
            };
            assert_eq!(*keys.get(version, derive).expect("a key"), version * 10);
        }
        assert_eq!(derived, [1, 2]);
        keys.get(3, || Err(Failure::Internal)).expect_err("no key");
        assert_eq!(*keys.get(3, || Ok(30)).expect("a key"), 30);
    }
}
