//! Sealed secrets: ciphertexts that only Coordinators of the deployment can open, and which policies get them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{JsonPath, ManifestDocument, PolicyDocument, SealedSecretDocument, problem::Problems};

/// Most sealed secrets in a manifest.
const MAX_SECRETS: usize = 256;
/// Most sealed secrets of one policy.
const MAX_SECRETS_PER_POLICY: usize = 64;
/// Longest name of a sealed secret, in bytes: that of a DNS name and a port.
const MAX_NAME_BYTES: usize = 253;
/// Shortest ciphertext, in bytes: an encapsulated key and a tag around nothing.
const MIN_CIPHERTEXT_BYTES: usize = 48;
/// Longest ciphertext, in bytes.
pub const MAX_SEALED_BYTES: usize = 64 << 10;
/// Longest ciphertexts of one policy together, in bytes: they go to a pod in one answer.
const MAX_SEALED_BYTES_PER_POLICY: usize = 1 << 20;

/// What a sealed secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SealedKind {
    /// Files for the application.
    Files,
    /// Credentials of a registry, for the guest that pulls images. The name is the registry's host.
    Registry,
}

impl SealedKind {
    /// As the manifest has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "Files",
            Self::Registry => "Registry",
        }
    }

    /// The kind of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Files, Self::Registry]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for SealedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A sealed secret of a valid manifest. Whether it opens, only the deployment's Coordinators know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// What it is for.
    pub kind: SealedKind,
    /// The ciphertext.
    pub ciphertext: Vec<u8>,
}

/// Whether this can be the name of a sealed secret: letters, digits, `-`, `_`, `.` and `:`, at most 253, the first a letter or a digit. So it is
/// no path that leads anywhere else.
pub fn is_sealed_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
}

/// The sealed secrets of a document.
pub(crate) fn check(
    document: &ManifestDocument,
    root: &JsonPath,
    problems: &mut Problems,
) -> BTreeMap<String, SealedSecret> {
    let path = root.key("SealedSecrets");
    let found = document.sealed_secrets.len();
    if found > MAX_SECRETS {
        let message = format!("expected at most {MAX_SECRETS} sealed secrets, found {found}");
        problems.malformed(&path, message);
    }
    let mut secrets = BTreeMap::new();
    for (name, secret) in &document.sealed_secrets {
        let path = path.key(name);
        if !is_sealed_name(name) {
            let message = format!(
                "expected a name of letters, digits, `-`, `_`, `.` and `:`, at most {MAX_NAME_BYTES}, that begins with a letter or a digit"
            );
            problems.malformed(&path, message);
        }
        if let Some(secret) = check_secret(secret, &path, problems) {
            secrets.insert(name.clone(), secret);
        }
    }
    for (hash, policy) in &document.policies {
        let path = root.key("Policies").key(hash).key("SealedSecrets");
        check_listing(policy, &document.sealed_secrets, &path, problems);
    }
    secrets
}

fn check_secret(
    secret: &SealedSecretDocument,
    path: &JsonPath,
    problems: &mut Problems,
) -> Option<SealedSecret> {
    let kind = SealedKind::parse(&secret.kind);
    if kind.is_none() {
        let message = format!("expected `Files` or `Registry`, found `{}`", secret.kind);
        problems.malformed(&path.key("Kind"), message);
    }
    let at = path.key("Ciphertext");
    let ciphertext = hex::decode(&secret.ciphertext).ok();
    let ciphertext =
        ciphertext.filter(|bytes| (MIN_CIPHERTEXT_BYTES..=MAX_SEALED_BYTES).contains(&bytes.len()));
    if ciphertext.is_none() {
        let message = format!(
            "expected {MIN_CIPHERTEXT_BYTES} to {MAX_SEALED_BYTES} bytes in hex, as `contrast seal` writes them"
        );
        problems.malformed(&at, message);
    }
    Some(SealedSecret {
        kind: kind?,
        ciphertext: ciphertext?,
    })
}

fn check_listing(
    policy: &PolicyDocument,
    secrets: &BTreeMap<String, SealedSecretDocument>,
    path: &JsonPath,
    problems: &mut Problems,
) {
    let listed = &policy.sealed_secrets;
    if listed.len() > MAX_SECRETS_PER_POLICY {
        let found = listed.len();
        let message = format!("expected at most {MAX_SECRETS_PER_POLICY} names, found {found}");
        problems.malformed(path, message);
    }
    if policy.role == crate::Role::Coordinator.as_str() && !listed.is_empty() {
        let message = "expected none: a Coordinator gets no sealed secrets".to_owned();
        problems.malformed(path, message);
    }
    let mut seen = BTreeSet::new();
    let mut bytes = 0_usize;
    for (index, name) in listed.iter().enumerate() {
        let path = path.index(index);
        match secrets.get(name) {
            None => problems.malformed(
                &path,
                format!("`{name}` is not among SealedSecrets; seal it with `contrast seal`"),
            ),
            Some(secret) => bytes = bytes.saturating_add(secret.ciphertext.len() / 2),
        }
        if !seen.insert(name) {
            problems.malformed(&path, format!("`{name}` is there twice; keep one of them"));
        }
    }
    if bytes > MAX_SEALED_BYTES_PER_POLICY {
        let message = format!(
            "expected at most {MAX_SEALED_BYTES_PER_POLICY} bytes of sealed secrets for one policy, found {bytes}"
        );
        problems.malformed(path, message);
    }
}
