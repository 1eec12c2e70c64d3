use std::io::{self, Read};

use flate2::read::GzDecoder;

use crate::{
    Initdata, InitdataError,
    document::{DOCUMENT_BYTES_MAX, pack},
};

/// First bytes of the device.
pub const DEVICE_MAGIC: &[u8; 8] = b"initdata";
/// The packed document is not larger than the document may be.
const PACKED_BYTES_MAX: u64 = DOCUMENT_BYTES_MAX;

/// A device without a usable document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// It fails.
    #[error("the initdata device cannot be read")]
    Read(#[source] io::Error),
    /// Another device.
    #[error("the device does not begin with `initdata`")]
    Magic,
    /// A length that no document has.
    #[error("the initdata device says that {found} bytes follow, expected 1 to {PACKED_BYTES_MAX}")]
    Length {
        /// The length on the device.
        found: u64,
    },
    /// Less than the length says.
    #[error("the initdata device ends after {found} of {expected} bytes")]
    Short {
        /// Bytes that are there.
        found: u64,
        /// Bytes that should be.
        expected: u64,
    },
    /// Not gzip.
    #[error("the initdata device does not hold gzip")]
    Gzip(#[source] io::Error),
    /// More than a document may have.
    #[error("the initdata document has more than {DOCUMENT_BYTES_MAX} bytes")]
    Bomb,
    /// Not a document.
    #[error(transparent)]
    Document(#[from] InitdataError),
}

/// Reads the document from a device: 8 bytes magic, the length in 8 bytes little-endian, and so many bytes of gzip; what follows is padding.
///
/// # Errors
/// When it has another form, or is larger than a document may be.
pub fn read_device(mut device: impl Read) -> Result<Initdata, DeviceError> {
    let mut magic = [0; 8];
    device
        .read_exact(&mut magic)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DeviceError::Magic,
            _ => DeviceError::Read(error),
        })?;
    if magic != *DEVICE_MAGIC {
        return Err(DeviceError::Magic);
    }
    let mut length = [0; 8];
    device.read_exact(&mut length).map_err(DeviceError::Read)?;
    let length = u64::from_le_bytes(length);
    if !(1..=PACKED_BYTES_MAX).contains(&length) {
        return Err(DeviceError::Length { found: length });
    }
    let mut packed = Vec::new();
    device
        .take(length)
        .read_to_end(&mut packed)
        .map_err(DeviceError::Read)?;
    if packed.len() as u64 != length {
        return Err(DeviceError::Short {
            found: packed.len() as u64,
            expected: length,
        });
    }
    let mut bytes = Vec::new();
    GzDecoder::new(packed.as_slice())
        .take(DOCUMENT_BYTES_MAX.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(DeviceError::Gzip)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(DeviceError::Bomb);
    }
    Ok(Initdata::parse(bytes)?)
}

/// What the host's runtime puts on the device, without padding.
///
/// # Errors
/// Never: packing goes to memory.
pub fn to_device(document: &Initdata) -> Result<Vec<u8>, InitdataError> {
    let packed = pack(document.bytes())?;
    let mut device = DEVICE_MAGIC.to_vec();
    device.extend_from_slice(&(packed.len() as u64).to_le_bytes());
    device.extend_from_slice(&packed);
    Ok(device)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn device(length: u64, packed: &[u8]) -> Vec<u8> {
        [DEVICE_MAGIC.as_slice(), &length.to_le_bytes(), packed].concat()
    }

    #[test]
    fn document_survives_the_device_with_padding() {
        let document = Initdata::with_policy("package agent_policy\n").expect("fits");
        let mut device = to_device(&document).expect("packs");
        assert_eq!(read_device(device.as_slice()).expect("reads"), document);
        device.resize(1024 * 1024, 0);
        assert_eq!(read_device(device.as_slice()).expect("reads"), document);
    }

    #[test]
    fn what_is_no_device_is_named() {
        let refused = |bytes: &[u8]| read_device(bytes).expect_err("refused").to_string();
        assert!(refused(b"").contains("does not begin with `initdata`"));
        assert!(refused(b"INITDATA").contains("does not begin with `initdata`"));
        assert!(refused(b"initdata").contains("cannot be read"));
        assert!(refused(&device(0, b"")).contains("0 bytes follow"));
        assert!(refused(&device(u64::MAX, b"x")).contains("18446744073709551615 bytes follow"));
        assert!(refused(&device(9, b"short")).contains("ends after 5 of 9 bytes"));
        assert!(refused(&device(5, b"plain")).contains("does not hold gzip"));
    }

    #[test]
    fn bomb_is_refused() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..64 {
            packer.write_all(&vec![b' '; 1024 * 1024]).expect("packs");
        }
        let packed = packer.finish().expect("packs");
        let device = device(packed.len() as u64, &packed);
        assert!(matches!(
            read_device(device.as_slice()),
            Err(DeviceError::Bomb)
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_devices_are_refused(length in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(read_device(bytes.as_slice()).is_err());
            prop_assert!(read_device(device(length, &bytes).as_slice()).is_err());
            prop_assert!(read_device(device(bytes.len() as u64, &bytes).as_slice()).is_err());
        }
    }
}
