use contrast_manifest::{Manifest, PolicyEntry, SealedKind};
use contrast_pki::{SealingError, SealingKey};
use zeroize::Zeroizing;

/// A sealed secret, opened for a pod that may have it.
pub(crate) struct Released<'a> {
    pub(crate) kind: SealedKind,
    pub(crate) name: &'a str,
    pub(crate) content: Zeroizing<Vec<u8>>,
}

/// Opens the sealed secrets that `entry` lists, and no others.
///
/// # Errors
/// The name of the first that does not open: its ciphertext is of another deployment.
pub(crate) fn release<'a>(
    manifest: &Manifest,
    entry: &'a PolicyEntry,
    key: &SealingKey,
) -> Result<Vec<Released<'a>>, (String, SealingError)> {
    let listed = entry.sealed_secrets.iter();
    // Each listed name is there: the manifest is valid.
    let listed = listed.filter_map(|name| Some((name, manifest.sealed_secrets().get(name)?)));
    let open = |(name, secret): (&'a String, &contrast_manifest::SealedSecret)| {
        let content = key.open(secret.kind.as_str(), name, &secret.ciphertext);
        Ok(Released {
            kind: secret.kind,
            name,
            content: content.map_err(|error| (name.clone(), error))?,
        })
    };
    listed.map(open).collect()
}

#[cfg(test)]
mod tests {
    use contrast_clock::SeededEntropy;
    use contrast_manifest::SealedSecretDocument;
    use contrast_pki::{Derivation, Salt, Seed};

    use super::*;
    use crate::state::tests::fixture::{document, owner_key};

    fn key(seed: u8) -> SealingKey {
        let seed = Seed::from_slice(&[seed; 64]).expect("seed");
        let salt = Salt::from_slice(&[1; 32]).expect("salt");
        let key = Derivation::new(&seed, &salt).sealing_key();
        key.expect("derives")
    }

    /// Of two secrets, which the only workload lists, `good` opens under key 1, and `odd` is as given.
    fn opened(kind: &str, odd: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut document = document("web", &[&owner_key(1)]);
        for policy in document.policies.values_mut() {
            if policy.role.is_empty() {
                policy.sealed_secrets = vec!["good".to_owned(), "odd".to_owned()];
            }
        }
        let good = seal(1, "Files", "good");
        for (name, kind, ciphertext) in [("good", "Files", &*good), ("odd", kind, odd)] {
            let secret = SealedSecretDocument {
                kind: kind.to_owned(),
                ciphertext: hex::encode(ciphertext),
            };
            document.sealed_secrets.insert(name.to_owned(), secret);
        }
        let manifest = Manifest::parse(document.to_json().as_bytes()).expect("valid");
        let mut released = Vec::new();
        for entry in manifest.policies().values() {
            let of_entry = release(&manifest, entry, &key(1)).map_err(|(name, error)| {
                assert!(matches!(error, SealingError::Decrypt), "{error}");
                name
            })?;
            assert_eq!(of_entry.len(), entry.sealed_secrets.len());
            released.extend(of_entry.iter().map(|secret| secret.content.to_vec()));
        }
        Ok(released)
    }

    fn seal(seed: u8, kind: &str, name: &str) -> Vec<u8> {
        let public = key(seed).public();
        let sealed = public.seal(kind, name, b"content", &SeededEntropy::new(1));
        sealed.expect("seals")
    }

    #[test]
    fn pod_gets_all_that_its_entry_lists_or_hears_what_does_not_open() {
        let both = Ok(vec![b"content".to_vec(); 2]);
        assert_eq!(opened("Files", &seal(1, "Files", "odd")), both);
        let unreadable = Err("odd".to_owned());
        assert_eq!(opened("Files", &seal(2, "Files", "odd")), unreadable);
        assert_eq!(opened("Files", &seal(1, "Files", "good")), unreadable);
        assert_eq!(opened("Registry", &seal(1, "Files", "odd")), unreadable);
        let whole = seal(1, "Files", "odd");
        assert_eq!(opened("Files", &whole[..whole.len() - 1]), unreadable);
    }
}
