//! Secrets that an owner encrypts to a deployment, so that nobody on the way reads them: HPKE (RFC 9180) to an X25519 key that follows
//! from the seed.
//!
//! A ciphertext is bound to its deployment by the key, and to its kind and name by HPKE's additional data: it opens under no other
//! name and in no other deployment.

use std::{collections::BTreeSet, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use contrast_clock::Entropy;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::shares::{SharesError, spki_of_x25519, x25519, x25519_of_spki};

/// HPKE's info.
const INFO: &[u8] = b"contrast sealed secret v1";
/// PEM label of `SubjectPublicKeyInfo`.
const PEM_LABEL: &str = "PUBLIC KEY";
/// What a ciphertext is longer by than what is in it: the encapsulated key and the tag.
pub const SEALING_OVERHEAD_BYTES: usize = 48;

/// A secret could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealingError {
    /// Not a sealing key.
    #[error(
        "not a sealing key: expected PEM with `PUBLIC KEY` of an X25519 key, as `contrast set` and `contrast verify` write it to `sealing-key.pem`"
    )]
    PublicKey,
    /// The library failed, or the randomness.
    #[error("the secret cannot be encrypted")]
    Encrypt(#[source] SharesError),
    /// Another deployment's, another name's, or damaged.
    #[error(
        "the ciphertext does not open: it was sealed for another deployment or under another name, or is damaged; seal it again with this \
         deployment's sealing key"
    )]
    Decrypt,
    /// What is inside is of another version.
    #[error("the sealed secret cannot be read: {0}; seal it again with this version of `contrast`")]
    Content(String),
}

/// Public half of a deployment's sealing key.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingPublicKey([u8; x25519::KEY_BYTES]);

impl SealingPublicKey {
    /// From `SubjectPublicKeyInfo` DER.
    ///
    /// # Errors
    /// When it is no X25519 key.
    pub fn from_spki(spki: &[u8]) -> Result<Self, SealingError> {
        let key = x25519_of_spki(spki).map_err(|_| SealingError::PublicKey)?;
        Ok(Self(key))
    }

    /// From PEM.
    ///
    /// # Errors
    /// When it is no `PUBLIC KEY` of X25519.
    pub fn from_pem(text: &str) -> Result<Self, SealingError> {
        let parsed = pem::parse(text).map_err(|_| SealingError::PublicKey)?;
        match parsed.tag() {
            PEM_LABEL => Self::from_spki(parsed.contents()),
            _ => Err(SealingError::PublicKey),
        }
    }

    /// `SubjectPublicKeyInfo` DER (RFC 8410).
    ///
    /// # Errors
    /// Only when the library fails.
    pub fn to_spki(&self) -> Result<Vec<u8>, SealingError> {
        spki_of_x25519(&self.0).map_err(|_| SealingError::PublicKey)
    }

    /// PEM.
    ///
    /// # Errors
    /// Only when the library fails.
    pub fn to_pem(&self) -> Result<String, SealingError> {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        Ok(pem::encode_config(
            &pem::Pem::new(PEM_LABEL, self.to_spki()?),
            config,
        ))
    }

    /// Encrypts `content` under a kind and a name, which are not secret. The result is the encapsulated key, the ciphertext and the tag.
    ///
    /// # Errors
    /// When the key is of small order, randomness is not to be had, or the library fails.
    pub fn seal(
        &self,
        kind: &str,
        name: &str,
        content: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SealingError> {
        let bound = bound(kind, name);
        x25519::seal(&self.0, INFO, content, &bound, entropy).map_err(SealingError::Encrypt)
    }
}

impl fmt::Debug for SealingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingPublicKey({})", hex::encode(self.0))
    }
}

/// A deployment's sealing key. Wiped when dropped, hidden from `Debug`.
pub struct SealingKey(x25519::PrivateKey);

impl SealingKey {
    /// HPKE's DeriveKeyPair (RFC 9180, section 7.1.3).
    pub(crate) fn derive(secret: &[u8]) -> Self {
        Self(x25519::PrivateKey::derive(secret))
    }

    /// The half that owners encrypt to.
    pub fn public(&self) -> SealingPublicKey {
        SealingPublicKey(self.0.public())
    }

    /// Opens what was sealed under this kind and name.
    ///
    /// # Errors
    /// When it was not.
    pub fn open(
        &self,
        kind: &str,
        name: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let opened = self.0.open(sealed, INFO, &bound(kind, name));
        opened
            .map(Zeroizing::new)
            .map_err(|_| SealingError::Decrypt)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(hidden)")
    }
}

/// The length of the kind stands in front, so that no two pairs give the same bytes.
fn bound(kind: &str, name: &str) -> Vec<u8> {
    let length = u64::try_from(kind.len()).unwrap_or(u64::MAX);
    [&length.to_be_bytes(), kind.as_bytes(), name.as_bytes()].concat()
}

/// What is in a sealed secret of files: contents by key.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
pub struct SealedFiles(Vec<(String, Vec<u8>)>);

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct FilesDocument {
    files: Vec<FileDocument>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct FileDocument {
    key: String,
    /// Base64.
    content: String,
}

impl SealedFiles {
    /// Adds a file, or replaces the one of this key.
    pub fn insert(&mut self, key: &str, content: &[u8]) {
        self.0.retain_mut(|(other, old)| {
            let keep = other != key;
            if !keep {
                old.zeroize();
            }
            keep
        });
        self.0.push((key.to_owned(), content.to_vec()));
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
    }

    /// Contents by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(key, content)| (key.as_str(), content.as_slice()))
    }

    /// As it is sealed: a JSON document.
    ///
    /// # Errors
    /// Only when the library fails.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let files = self.0.iter().map(|(key, content)| FileDocument {
            key: key.clone(),
            content: BASE64_STANDARD.encode(content),
        });
        let document = FilesDocument {
            files: files.collect(),
        };
        let json = serde_json::to_vec(&document);
        json.map(Zeroizing::new)
            .map_err(|error| SealingError::Content(error.to_string()))
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. No key may be there twice, or lead out of a directory.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealingError> {
        // Not the library's text: it may quote what it read.
        let other = || SealingError::Content("it is of another form".to_owned());
        let document: FilesDocument = serde_json::from_slice(bytes).map_err(|_| other())?;
        let mut files = Self::default();
        let mut seen = BTreeSet::new();
        for file in &document.files {
            if !is_file_key(&file.key) {
                return Err(SealingError::Content(
                    "a key is no name of a file".to_owned(),
                ));
            }
            if !seen.insert(file.key.as_str()) {
                return Err(SealingError::Content("a key is there twice".to_owned()));
            }
            let content = BASE64_STANDARD.decode(&file.content).map(Zeroizing::new);
            files.insert(&file.key, &content.map_err(|_| other())?);
        }
        Ok(files)
    }
}

impl fmt::Debug for SealedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedFiles({} files)", self.0.len())
    }
}

/// What is in a sealed secret of a registry: how the guest logs in there.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct RegistryCredential {
    /// User and password, `user:password` in base64, as a Docker configuration has them.
    pub auth: String,
}

impl RegistryCredential {
    /// Of a user and a password. A user may not have `:` in its name.
    ///
    /// # Errors
    /// When one is empty, or the user's name has `:`.
    pub fn new(user: &str, password: &str) -> Result<Self, SealingError> {
        let usable = !user.is_empty() && !user.contains(':') && !password.is_empty();
        if !usable {
            let what = "expected a user without `:` and a password, neither of them empty";
            return Err(SealingError::Content(what.to_owned()));
        }
        let plain = Zeroizing::new(format!("{user}:{password}"));
        Ok(Self {
            auth: BASE64_STANDARD.encode(plain.as_bytes()),
        })
    }

    /// Of `user:password` in base64.
    ///
    /// # Errors
    /// When it is something else, or one of them is empty.
    pub fn from_auth(auth: &str) -> Result<Self, SealingError> {
        let decoded = BASE64_STANDARD.decode(auth).map(Zeroizing::new);
        let plain = decoded.unwrap_or_default();
        let text = std::str::from_utf8(&plain).unwrap_or_default();
        let (user, password) = text.split_once(':').unwrap_or_default();
        Self::new(user, password)
    }

    /// As it is sealed: a JSON document.
    ///
    /// # Errors
    /// Only when the library fails.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let json = serde_json::to_vec(self);
        json.map(Zeroizing::new)
            .map_err(|error| SealingError::Content(error.to_string()))
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealingError> {
        let other = || SealingError::Content("it is of another form".to_owned());
        let credential: Self = serde_json::from_slice(bytes).map_err(|_| other())?;
        let decoded = BASE64_STANDARD.decode(&credential.auth).map(Zeroizing::new);
        match decoded.is_ok_and(|plain| plain.contains(&b':')) {
            true => Ok(credential),
            false => Err(other()),
        }
    }
}

impl fmt::Debug for RegistryCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryCredential(hidden)")
    }
}

/// Whether a key of a secret is one that Kubernetes takes: letters, digits, `-`, `_` and `.`, at most 253, and neither `.` nor what begins with
/// `..`.
pub fn is_file_key(key: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=253).contains(&key.len()) && key.chars().all(plain) && key != "." && !key.starts_with("..")
}

#[cfg(test)]
#[path = "sealing_tests.rs"]
mod tests;
