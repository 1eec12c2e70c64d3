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
