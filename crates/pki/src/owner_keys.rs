use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use contrast_clock::Entropy;
use der::pem::{LineEnding, encode_string};
use zeroize::Zeroizing;

use crate::{KeyError, SigningKey, key::check_public_key, verify_p384_sha256};

/// Separates approvals from everything else that owners may sign.
const APPROVAL_LABEL: &[u8] = b"contrast manifest update v1";

/// An owner's key could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerKeyError {
    /// Not PEM.
    #[error("not PEM")]
    Pem(#[source] pem::PemError),
    /// No PEM at all.
    #[error("found no PEM, expected `PRIVATE KEY`, `EC PRIVATE KEY` or `PUBLIC KEY`")]
    Empty,
    /// The key cannot be written as PEM; cannot happen with keys of this size.
    #[error("the key cannot be written as PEM")]
    Encode(#[source] der::Error),
    /// PEM of another kind.
    #[error("expected PEM with `PRIVATE KEY`, `EC PRIVATE KEY` or `PUBLIC KEY`, found `{found}`")]
    Label {
        /// The label.
        found: String,
    },
    /// A public key where a private key is needed.
    #[error("this is a public key; signing needs the private key")]
    PublicOnly,
    /// Not a key on P-384.
    #[error("the owner key is unusable")]
    Key(#[from] KeyError),
}

/// Key pair of a workload owner, ECDSA P-384.
#[derive(Debug)]
pub struct WorkloadOwnerKey(SigningKey);

impl WorkloadOwnerKey {
    /// Draws a key.
    ///
    /// # Errors
    /// When `entropy` fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, OwnerKeyError> {
        Ok(Self(SigningKey::generate(entropy)?))
    }

    /// Reads a private key from PEM: `PRIVATE KEY` (PKCS#8) or `EC PRIVATE KEY` (RFC 5915), also behind the `EC PARAMETERS`
    /// that `openssl ecparam -genkey` puts in front.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pem(text: &str) -> Result<Self, OwnerKeyError> {
        let parsed = parse_key(text)?;
        match parsed.tag() {
            "PRIVATE KEY" | "EC PRIVATE KEY" => {
                let der = Zeroizing::new(parsed.into_contents());
                Ok(Self(SigningKey::from_private_key_der(&der)?))
            }
            "PUBLIC KEY" => Err(OwnerKeyError::PublicOnly),
            found => Err(OwnerKeyError::Label {
                found: found.to_owned(),
            }),
        }
    }

    /// The public half of a private or public key in PEM, as `SubjectPublicKeyInfo` DER.
    ///
    /// # Errors
    /// When it is neither, or not on P-384.
    pub fn public_key_from_pem(text: &str) -> Result<Vec<u8>, OwnerKeyError> {
        let parsed = parse_key(text)?;
        match parsed.tag() {
            "PUBLIC KEY" => {
                let spki = parsed.into_contents();
                check_public_key(&spki)?;
                Ok(spki)
            }
            _ => Ok(Self::from_pem(text)?.public_key_spki().to_vec()),
        }
    }

    /// The private key as PKCS#8 PEM.
    ///
    /// # Errors
    /// When the library cannot encode it.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, OwnerKeyError> {
        let der = self.0.to_pkcs8_der()?;
        let text = encode_string("PRIVATE KEY", LineEnding::LF, &der)
            .map_err(|error| OwnerKeyError::Encode(error.into()))?;
        Ok(Zeroizing::new(text))
    }

    /// The public key, `SubjectPublicKeyInfo` DER.
    pub fn public_key_spki(&self) -> &[u8] {
        self.0.public_key_spki()
    }

    /// Approves an update: signs its [`update_approval_text`].
    ///
    /// # Errors
    /// When the library fails.
    pub fn approve_update(
        &self,
        manifest_hash: &[u8; 32],
        base_transition: &[u8; 32],
    ) -> Result<Vec<u8>, OwnerKeyError> {
        let text = update_approval_text(manifest_hash, base_transition);
        Ok(self.0.sign_sha256(text.as_bytes())?)
    }
}

/// The first PEM block that is not curve parameters.
fn parse_key(text: &str) -> Result<pem::Pem, OwnerKeyError> {
    pem::parse_many(text)
        .map_err(OwnerKeyError::Pem)?
        .into_iter()
        .find(|block| block.tag() != "EC PARAMETERS")
        .ok_or(OwnerKeyError::Empty)
}

/// SHA-256 of a public key's `SubjectPublicKeyInfo` DER: how manifests name owners by digest.
pub fn owner_digest(spki: &[u8]) -> [u8; 32] {
    sha256(&[spki])
}

/// The text whose signature approves an update: the lower-case hex of
/// SHA-256("contrast manifest update v1" || manifest hash || base transition), 64 ASCII characters, no newline.
pub fn update_approval_text(manifest_hash: &[u8; 32], base_transition: &[u8; 32]) -> String {
    hex::encode(sha256(&[APPROVAL_LABEL, manifest_hash, base_transition]))
}

/// Verifies one owner's approval of an update: ECDSA P-384 with SHA-256, ASN.1 DER.
///
/// # Errors
/// When the key is none or did not sign this update.
pub fn verify_update_approval(
    spki: &[u8],
    manifest_hash: &[u8; 32],
    base_transition: &[u8; 32],
    signature: &[u8],
) -> Result<(), KeyError> {
    let text = update_approval_text(manifest_hash, base_transition);
    verify_p384_sha256(spki, text.as_bytes(), signature)
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut output = [0; 32];
    let hash = digest(&SHA256, &parts.concat());
    for (to, from) in output.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    output
}

impl fmt::Display for WorkloadOwnerKey {
    /// The key's digest in hex, as manifests name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(owner_digest(self.public_key_spki())))
    }
}

#[cfg(test)]
#[path = "owner_keys_tests.rs"]
mod tests;
