use aws_lc_rs::{digest, hmac};
use uuid::Uuid;

use crate::{
    Filesystem, VolumeKeys,
    layout::{HEADER_BYTES, LUKS_BYTES, RESERVED_OFFSET, SEAL_BYTES},
};

const MAGIC: &[u8; 16] = b"CONTRAST-VOLUME\0";
const VERSION: u32 = 1;
const AUTHENTICATED_BYTES: usize = 104;
const TAG_BYTES: usize = 32;

/// A seal that is none, or not the one that was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// No seal begins so.
    #[error("there is no seal")]
    Absent,
    /// Of a later version of this program.
    #[error(
        "the seal is of version {found}, expected {VERSION}; open the volume with the version of Contrast that made it"
    )]
    Version {
        /// Version in the seal.
        found: u32,
    },
    /// Another key, or another content.
    #[error("the seal was not made with this workload secret, or was changed since")]
    Tag,
    /// A field of a seal that this program does not write.
    #[error("the seal's field {field} has the value {found}, which this version never writes")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: u32,
    },
}

/// How far the volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is being made, and holds nothing yet.
    Formatting,
    /// It has a file system.
    Ready,
}

/// What is authenticated with a key of the workload, and binds the LUKS2 header. Integers are big-endian.
///
/// | offset | bytes | field |
/// | --- | --- | --- |
/// | 0 | 16 | magic, `CONTRAST-VOLUME` and a zero |
/// | 16 | 4 | version, 1 |
/// | 20 | 4 | state: 1 is being made, 2 ready |
/// | 24 | 16 | UUID of the volume |
/// | 40 | 8 | generation: seals that were written before |
/// | 48 | 8 | size of the device, bytes |
/// | 56 | 8 | bytes of the decrypted device that were written once |
/// | 64 | 4 | file system: 1 ext4, 2 xfs |
/// | 68 | 4 | zeros |
/// | 72 | 32 | SHA-256 of the header without the seals |
/// | 104 | 32 | HMAC-SHA-256 of the fields above |
/// | 136 | 3960 | zeros |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// How far the volume is.
    pub state: State,
    /// Identity of the volume, drawn when it is made.
    pub uuid: Uuid,
    /// Grows by one with every seal, so that an older one is known by it.
    pub generation: u64,
    /// Size of the device, bytes.
    pub device_bytes: u64,
    /// Bytes of the decrypted device that can be read, because they were written.
    pub written_bytes: u64,
    /// What it was formatted with.
    pub filesystem: Filesystem,
    /// SHA-256 of the header without the seals.
    pub header_digest: [u8; 32],
}

impl Seal {
    /// The 4096 bytes that go to the device.
    pub fn encode(&self, keys: &VolumeKeys) -> Vec<u8> {
        let state: u32 = match self.state {
            State::Formatting => 1,
            State::Ready => 2,
        };
        let mut bytes = Vec::with_capacity(SEAL_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&state.to_be_bytes());
        bytes.extend_from_slice(self.uuid.as_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.device_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.written_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.filesystem.code().to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.header_digest);
        let tag = hmac::sign(keys.seal(), &bytes);
        bytes.extend_from_slice(tag.as_ref());
        bytes.resize(SEAL_BYTES, 0);
        bytes
    }

    /// Reads a seal that claims to be of the volume `uuid`.
    ///
    /// # Errors
    /// When it is none, of another version, or not made with these keys; nothing of it is to be believed then.
    pub fn decode(bytes: &[u8], keys: &VolumeKeys) -> Result<Self, SealError> {
        let mut rest = Fields(bytes);
        if rest.take::<16>()? != *MAGIC {
            return Err(SealError::Absent);
        }
        let version = u32::from_be_bytes(rest.take()?);
        if version != VERSION {
            return Err(SealError::Version { found: version });
        }
        let authenticated = bytes.get(..AUTHENTICATED_BYTES).ok_or(SealError::Absent)?;
        let tag_end = AUTHENTICATED_BYTES + TAG_BYTES;
        let tag = bytes.get(AUTHENTICATED_BYTES..tag_end);
        hmac::verify(keys.seal(), authenticated, tag.unwrap_or_default())
            .map_err(|_| SealError::Tag)?;
        let padding = bytes.get(tag_end..).unwrap_or_default();
        if bytes.len() != SEAL_BYTES || padding.iter().any(|byte| *byte != 0) {
            return Err(SealError::Tag);
        }
        let state = match u32::from_be_bytes(rest.take()?) {
            1 => State::Formatting,
            2 => State::Ready,
            found => {
                let field = "state";
                return Err(SealError::Field { field, found });
            }
        };
        let uuid = Uuid::from_bytes(rest.take()?);
        let generation = u64::from_be_bytes(rest.take()?);
        let device_bytes = u64::from_be_bytes(rest.take()?);
        let written_bytes = u64::from_be_bytes(rest.take()?);
        let code = u32::from_be_bytes(rest.take()?);
        let filesystem = Filesystem::of_code(code).ok_or(SealError::Field {
            field: "file system",
            found: code,
        })?;
        rest.take::<4>()?;
        let header_digest = rest.take()?;
        Ok(Self {
            state,
            uuid,
            generation,
            device_bytes,
            written_bytes,
            filesystem,
            header_digest,
        })
    }

    /// UUID that a seal claims, to derive the keys with that it is checked with.
    pub fn claimed_uuid(bytes: &[u8]) -> Option<Uuid> {
        let mut rest = Fields(bytes);
        if rest.take::<16>().ok()? != *MAGIC {
            return None;
        }
        rest.take::<8>().ok()?;
        Some(Uuid::from_bytes(rest.take().ok()?))
    }

    /// The seal that follows this one.
    pub(crate) fn next(&self) -> Self {
        Self {
            generation: self.generation.saturating_add(1),
            ..self.clone()
        }
    }
}

/// SHA-256 of a header of [`HEADER_BYTES`] without the seals.
pub fn header_digest(header: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(header.get(..LUKS_BYTES).unwrap_or_default());
    context.update(
        header
            .get(RESERVED_OFFSET..HEADER_BYTES)
            .unwrap_or_default(),
    );
    let mut found = [0; 32];
    found.copy_from_slice(context.finish().as_ref());
    found
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SealError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(SealError::Absent)?;
        self.0 = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> VolumeKeys {
        VolumeKeys::derive(&[7; 64], uuid()).expect("keys")
    }

    fn uuid() -> Uuid {
        Uuid::from_u128(0x1234)
    }

    fn seal() -> Seal {
        Seal {
            state: State::Ready,
            uuid: uuid(),
            generation: 9,
            device_bytes: 1 << 30,
            written_bytes: 1 << 29,
            filesystem: Filesystem::Xfs,
            header_digest: [3; 32],
        }
    }

    #[test]
    fn seal_is_what_was_written() {
        let bytes = seal().encode(&keys());
        assert_eq!(bytes.len(), SEAL_BYTES);
        assert_eq!(Seal::claimed_uuid(&bytes), Some(uuid()));
        assert_eq!(Seal::decode(&bytes, &keys()), Ok(seal()));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = seal().encode(&keys());
        for position in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[position / 8] ^= 1 << (position % 8);
            assert!(
                Seal::decode(&flipped, &keys()).is_err(),
                "bit {position} was accepted"
            );
        }
    }

    #[test]
    fn other_secrets_and_lengths_are_refused() {
        let bytes = seal().encode(&keys());
        let other = VolumeKeys::derive(&[8; 64], uuid()).expect("keys");
        assert_eq!(Seal::decode(&bytes, &other), Err(SealError::Tag));
        assert!(Seal::decode(&bytes[..200], &keys()).is_err());
        assert_eq!(
            Seal::decode(&[0; SEAL_BYTES], &keys()),
            Err(SealError::Absent)
        );
        assert_eq!(Seal::decode(&[], &keys()), Err(SealError::Absent));
    }

    #[test]
    fn digest_covers_all_but_the_seals() {
        let header = vec![0; HEADER_BYTES];
        let expected = header_digest(&header);
        for (position, covered) in [
            (0, true),
            (LUKS_BYTES - 1, true),
            (LUKS_BYTES, false),
            (RESERVED_OFFSET - 1, false),
            (RESERVED_OFFSET, true),
            (HEADER_BYTES - 1, true),
        ] {
            let mut changed = header.clone();
            changed[position] = 1;
            assert_eq!(header_digest(&changed) != expected, covered, "{position}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_seal(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert!(Seal::decode(&bytes, &keys()).is_err());
        }
    }
}
