use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use contrast_attestation::{
    TdxCollateral,
    tdx::{CollateralKey, INTEL_TCB_SIGNING_CHAIN_2018},
};

use crate::{
    Content, Document, Item, complete,
    recognise::{Recognised, recognise},
};

/// Documents that were collected elsewhere. Files are told by what is in them, not by their names: answers of KDS, PCS and PCCS
/// as they are, PEM, DER, and what [`Document::to_file`] writes. There may be several documents for one item.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    documents: BTreeMap<Item, Vec<Arc<Document>>>,
}

/// Files that are no bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file or directory cannot be read.
    #[error("cannot read collateral in {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that was named is no collateral.
    #[error(
        "expected a VCEK, a chain of AMD's, TCB info, a QE identity, a CRL or a chain of Intel's in {}, found something else",
        path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// A directory without any collateral.
    #[error("expected collateral in {}, found none in its {files} file(s)", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
        /// How many files it has.
        files: usize,
    },
}

impl Bundle {
    /// Reads files, and all files in directories (not in directories below them). Files of other kinds are left alone in a
    /// directory and refused when they were named.
    ///
    /// # Errors
    /// When something cannot be read, is no collateral, or a directory has none.
    pub fn read(paths: &[PathBuf]) -> Result<Self, BundleError> {
        let mut bundle = Self::default();
        let mut signing_chain = None;
        for path in paths {
            if path.is_dir() {
                let files = files_in(path)?;
                let mut known: usize = 0;
                for file in &files {
                    known =
                        known.saturating_add(usize::from(bundle.take(file, &mut signing_chain)?));
                }
                if known == 0 {
                    return Err(BundleError::Empty {
                        path: path.clone(),
                        files: files.len(),
                    });
                }
            } else if !bundle.take(path, &mut signing_chain)? {
                return Err(BundleError::Unknown { path: path.clone() });
            }
        }
        let chain = signing_chain.unwrap_or_else(|| INTEL_TCB_SIGNING_CHAIN_2018.to_owned());
        bundle.complete_chains(&chain);
        Ok(bundle)
    }

    /// The document that was issued last among those that are valid at `now`; if none is, among all.
    pub fn get(&self, item: &Item, now: SystemTime) -> Option<&Arc<Document>> {
        let documents = self.documents.get(item)?.iter();
        documents.max_by_key(|document| (document.validity.contains(now), document.validity.from))
    }

    /// Everything in it.
    pub fn items(&self) -> impl Iterator<Item = (&Item, &Arc<Document>)> {
        let with_item = |(item, documents)| std::iter::repeat(item).zip(documents);
        self.documents.iter().flat_map(with_item)
    }

    /// Everything that verifying a quote of the platform `key` takes. TCB info of another platform stands in for a missing one:
    /// that it does not fit is for the verifier to say.
    ///
    /// # Errors
    /// The items that are missing.
    pub fn tdx_collateral(
        &self,
        key: &CollateralKey,
        now: SystemTime,
    ) -> Result<TdxCollateral, Vec<Item>> {
        let fmspc = key.fmspc;
        let issuer = key.pck_issuer;
        let mut tcb_info = Item::TcbInfo { fmspc };
        if !self.documents.contains_key(&tcb_info) {
            let mut items = self.documents.keys();
            let other = items.find(|item| matches!(item, Item::TcbInfo { .. }));
            tcb_info = other.cloned().unwrap_or(tcb_info);
        }
        let mut collateral = TdxCollateral::default();
        let mut missing = Vec::new();
        for item in [
            tcb_info,
            Item::QeIdentity,
            Item::PckCrl { issuer },
            Item::RootCrl,
        ] {
            match self.get(&item, now) {
                Some(document) => complete::put(&mut collateral, &item, document.content.clone()),
                None => missing.push(item),
            }
        }
        match missing.is_empty() {
            true => Ok(collateral),
            false => Err(missing),
        }
    }

    /// Whether the file was of a known kind.
    fn take(
        &mut self,
        path: &Path,
        signing_chain: &mut Option<String>,
    ) -> Result<bool, BundleError> {
        let bytes = fs::read(path).map_err(|source| BundleError::Read {
            path: path.to_owned(),
            source,
        })?;
        match recognise(&bytes) {
            Some(Recognised::Document(items, document)) => {
                let document = Arc::new(document);
                for item in items {
                    let known = self.documents.entry(item).or_default();
                    known.push(Arc::clone(&document));
                }
            }
            Some(Recognised::TcbSigningChain(chain)) => *signing_chain = Some(chain),
            Some(Recognised::PckChain) => {}
            None => return Ok(false),
        }
        Ok(true)
    }

    /// PCS sends the signer's chain in a header, which collected answers lack.
    fn complete_chains(&mut self, chain: &str) {
        for document in self.documents.values_mut().flatten() {
            if let Content::Signed {
                issuer_chain: issuer_chain @ None,
                ..
            } = &mut Arc::make_mut(document).content
            {
                *issuer_chain = Some(chain.to_owned());
            }
        }
    }
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>, BundleError> {
    let failed = |source| BundleError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // Follows links: a mounted ConfigMap consists of them.
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
