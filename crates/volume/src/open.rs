//! What is on a device, and whether it is to be believed.

use std::path::{Path, PathBuf};

use crate::{
    Seal, VolumeError, VolumeKeys,
    disk::Disk,
    layout::{SEAL_BYTES, SEAL_OFFSETS},
    luks,
    seal::{SealError, header_digest},
    tools::{self, Header, Journal, ToolError},
};

/// What a device holds.
pub(crate) enum Found {
    /// A volume of this workload; its header is not checked yet.
    Volume(Box<Sealed>),
    /// Nothing.
    Blank,
    /// Something else.
    Foreign {
        /// What `blkid` takes it for.
        recognised: Option<String>,
        /// Where its first content is.
        offset: u64,
    },
}

/// A seal that was made with the workload's secret, and the header beside it, in memory.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) seal: Seal,
    pub(crate) keys: VolumeKeys,
    /// As it was read, once. Empty while there is none.
    pub(crate) header: Vec<u8>,
}

/// Reads the header of a device once and says what it is.
pub(crate) fn look(disk: &Disk, workload_secret: &[u8]) -> Result<Found, VolumeError> {
    let header = disk.read_header()?;
    let seal = newest(&header, workload_secret).map_err(|error| match error {
        Refused::Seal(source) => VolumeError::Seal {
            path: disk.path().to_owned(),
            source,
        },
        Refused::Keys(error) => error.into(),
    })?;
    if let Some((seal, keys)) = seal {
        let sealed = Sealed { seal, keys, header };
        return Ok(Found::Volume(Box::new(sealed)));
    }
    Ok(match disk.first_content()? {
        None => Found::Blank,
        Some(offset) => Found::Foreign {
            recognised: tools::recognise(disk.path()),
            offset,
        },
    })
}

enum Refused {
    Seal(SealError),
    Keys(crate::KeysError),
}

/// The newer one of two seals. One may be torn; that none is right while one claims to be a seal is refused.
fn newest(header: &[u8], workload_secret: &[u8]) -> Result<Option<(Seal, VolumeKeys)>, Refused> {
    let mut newest: Option<(Seal, VolumeKeys)> = None;
    let mut refused = None;
    for offset in SEAL_OFFSETS {
        let bytes = header.get(offset..offset.saturating_add(SEAL_BYTES));
        let bytes = bytes.unwrap_or_default();
        let Some(uuid) = Seal::claimed_uuid(bytes) else {
            continue;
        };
        let keys = VolumeKeys::derive(workload_secret, uuid).map_err(Refused::Keys)?;
        match Seal::decode(bytes, &keys) {
            Ok(seal)
                if newest
                    .as_ref()
                    .is_some_and(|(other, _)| other.generation >= seal.generation) => {}
            Ok(seal) => newest = Some((seal, keys)),
            Err(error) => refused = Some(error),
        }
    }
    match (newest, refused) {
        (None, Some(error)) => Err(Refused::Seal(error)),
        (newest, _) => Ok(newest),
    }
}

impl Sealed {
    /// Whether the header is the one that was sealed, and one that this program makes.
    pub(crate) fn check(&self, disk: &Disk) -> Result<(), VolumeError> {
        let path = || disk.path().to_owned();
        if header_digest(&self.header) != self.seal.header_digest {
            return Err(VolumeError::HeaderChanged { path: path() });
        }
        luks::check(&self.header, self.seal.uuid).map_err(|source| VolumeError::Luks {
            path: path(),
            source,
        })
    }

    /// Name of the decrypted device.
    pub(crate) fn name(&self) -> String {
        format!("contrast-{}", self.seal.uuid.simple())
    }

    pub(crate) fn open(
        &self,
        device: &Path,
        header: &Header,
        journal: Journal,
    ) -> Result<PathBuf, ToolError> {
        let key = self.keys.volume();
        tools::luks_open(device, header, &self.name(), key, journal)
    }

    /// Writes the next generation of the seal, over the older one of the two on the disk.
    pub(crate) fn advance(&mut self, disk: &Disk) -> Result<(), VolumeError> {
        self.seal = self.seal.next();
        let slot = usize::from(self.seal.generation % 2 == 1);
        let offset = SEAL_OFFSETS.get(slot).copied().unwrap_or_default();
        disk.write(offset as u64, &self.seal.encode(&self.keys))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{Filesystem, State, layout::HEADER_BYTES};

    const SECRET: [u8; 64] = [7; 64];

    fn seal(uuid: u128, generation: u64) -> Vec<u8> {
        let uuid = Uuid::from_u128(uuid);
        let seal = Seal {
            state: State::Ready,
            uuid,
            generation,
            device_bytes: 0,
            written_bytes: 0,
            filesystem: Filesystem::Ext4,
            header_digest: [0; 32],
        };
        seal.encode(&VolumeKeys::derive(&SECRET, uuid).expect("keys"))
    }

    fn header(seals: [&[u8]; 2]) -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        for (offset, seal) in SEAL_OFFSETS.into_iter().zip(seals) {
            header[offset..offset + seal.len()].copy_from_slice(seal);
        }
        header
    }

    fn generation(header: &[u8], secret: &[u8]) -> Option<Result<u64, SealError>> {
        match newest(header, secret) {
            Ok(newest) => newest.map(|(seal, _)| Ok(seal.generation)),
            Err(Refused::Seal(error)) => Some(Err(error)),
            Err(Refused::Keys(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn newer_seal_counts_wherever_it_lies() {
        let [old, new] = [seal(1, 4), seal(1, 5)];
        for seals in [[&old[..], &new], [&new[..], &old]] {
            assert_eq!(generation(&header(seals), &SECRET), Some(Ok(5)));
        }
        assert_eq!(generation(&header([&old, &[]]), &SECRET), Some(Ok(4)));
        assert_eq!(generation(&header([&[], &[]]), &SECRET), None);
    }

    #[test]
    fn torn_seal_leaves_the_one_before() {
        let [old, mut new] = [seal(1, 4), seal(1, 5)];
        new[60] ^= 1;
        assert_eq!(generation(&header([&old, &new]), &SECRET), Some(Ok(4)));
        let mut half = seal(1, 5);
        half[512..].fill(0xff);
        assert_eq!(generation(&header([&half, &old]), &SECRET), Some(Ok(4)));
    }

    #[test]
    fn seals_of_another_secret_are_refused_and_not_taken_for_nothing() {
        let header = header([&seal(1, 4), &seal(1, 5)]);
        assert_eq!(generation(&header, &[8; 64]), Some(Err(SealError::Tag)));
    }
}
