use std::{collections::BTreeMap, fmt};

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::{SeedShare, SeedSharesDocument, SharesError, split};
use crate::Seed;

/// Collects the shares of a deployment, one after the other, until they make the seed.
///
/// Whether it is the seed of the deployment is for the caller to find out: only the keys derived from it can tell.
pub struct Collector {
    document: SeedSharesDocument,
    /// By their places in the document.
    shares: BTreeMap<usize, SeedShare>,
}

/// What a further share made of it.
#[derive(Debug)]
pub enum Progress {
    /// More shares are needed.
    Missing(u32),
    /// The seed.
    Complete(Seed),
}

impl Collector {
    /// Collects shares of `document`.
    pub fn new(document: SeedSharesDocument) -> Self {
        Self {
            document,
            shares: BTreeMap::new(),
        }
    }

    /// Adds a share. One that was added before changes nothing.
    ///
    /// # Errors
    /// When it is none of the document's; what was added before stays.
    pub fn add(&mut self, share: SeedShare) -> Result<Progress, SharesError> {
        if self.document.threshold == 1 {
            // Each share is the whole seed, and the document has no digest of it.
            return Ok(Progress::Complete(Seed::from_slice(share.expose())?));
        }
        let place = self.place(&share)?;
        self.shares.insert(place, share);
        let found = u32::try_from(self.shares.len()).unwrap_or(u32::MAX);
        match self.document.threshold.saturating_sub(found) {
            0 => self.combine().map(Progress::Complete),
            missing => Ok(Progress::Missing(missing)),
        }
    }

    /// Public key (PKCS#1 DER) of the owner whose share this is; `None` with threshold 1, where all owners have the same.
    ///
    /// # Errors
    /// When it is none of the document's.
    pub fn owner(&self, share: &SeedShare) -> Result<Option<&[u8]>, SharesError> {
        match self.document.threshold {
            1 => Ok(None),
            _ => {
                let place = self.place(share)?;
                let share = self.document.shares.get(place);
                Ok(share.map(|share| share.public_key.as_slice()))
            }
        }
    }

    /// Public keys of the owners whose shares were added, in the document's order.
    pub fn owners(&self) -> impl Iterator<Item = &[u8]> {
        let added = self.shares.keys();
        added.filter_map(|place| Some(self.document.shares.get(*place)?.public_key.as_slice()))
    }

    /// Where in the document `share` is.
    fn place(&self, share: &SeedShare) -> Result<usize, SharesError> {
        let shares = &self.document.shares;
        let unknown = || SharesError::Unknown {
            available: shares.len(),
        };
        let part = split::Part::parse(share).ok_or_else(unknown)?;
        if part.set != self.document.set.as_slice() {
            return Err(SharesError::Replaced);
        }
        let digest = share.digest();
        let same =
            |known: &super::EncryptedShare| verify_slices_are_equal(&known.digest, &digest).is_ok();
        shares.iter().position(same).ok_or_else(unknown)
    }

    fn combine(&self) -> Result<Seed, SharesError> {
        let points = self.shares.values().filter_map(|share| {
            let part = split::Part::parse(share)?;
            Some(part.point.to_vec())
        });
        let needed = usize::try_from(self.document.threshold).unwrap_or(usize::MAX);
        split::combine(points.take(needed).collect())
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threshold = self.document.threshold;
        write!(f, "Collector({} of {threshold} shares)", self.shares.len())
    }
}
