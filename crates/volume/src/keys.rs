use std::fmt;

use aws_lc_rs::{
    hkdf::{self, HKDF_SHA256, KeyType},
    hmac,
};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Length of the key that opens the LUKS2 keyslot, bytes.
pub const VOLUME_KEY_BYTES: usize = 64;
const SEAL_KEY_BYTES: usize = 32;

/// Labels of the derivations. They are part of the format: with others no existing volume opens.
const VOLUME_KEY: &[u8] = b"CONTRAST VOLUME KEY V1";
const VOLUME_SEAL: &[u8] = b"CONTRAST VOLUME SEAL V1";

/// HKDF failed; cannot happen with the lengths used here.
#[derive(Debug, thiserror::Error)]
#[error("key derivation failed inside the cryptographic library")]
pub struct KeysError;

/// Keys of one volume: HKDF-SHA256 (RFC 5869) of the workload secret without salt; info is a label and the volume's UUID, 16 bytes.
pub struct VolumeKeys {
    volume: Zeroizing<[u8; VOLUME_KEY_BYTES]>,
    seal: hmac::Key,
}

impl VolumeKeys {
    /// Keys of the volume `uuid` of the workload with this secret.
    ///
    /// # Errors
    /// Only when the cryptographic library fails.
    pub fn derive(workload_secret: &[u8], uuid: Uuid) -> Result<Self, KeysError> {
        let mut volume = Zeroizing::new([0; VOLUME_KEY_BYTES]);
        expand(workload_secret, VOLUME_KEY, uuid, volume.as_mut())?;
        let mut seal = Zeroizing::new([0; SEAL_KEY_BYTES]);
        expand(workload_secret, VOLUME_SEAL, uuid, seal.as_mut())?;
        Ok(Self {
            volume,
            seal: hmac::Key::new(hmac::HMAC_SHA256, seal.as_ref()),
        })
    }

    /// Opens the LUKS2 keyslot.
    pub fn volume(&self) -> &[u8; VOLUME_KEY_BYTES] {
        &self.volume
    }

    /// Authenticates the seal.
    pub(crate) fn seal(&self) -> &hmac::Key {
        &self.seal
    }
}

impl fmt::Debug for VolumeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeKeys(..)")
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(secret: &[u8], label: &[u8], uuid: Uuid, output: &mut [u8]) -> Result<(), KeysError> {
    let pseudorandom_key = hkdf::Salt::new(HKDF_SHA256, &[]).extract(secret);
    let info = [label, uuid.as_bytes().as_slice()];
    let expanded = pseudorandom_key.expand(&info, Length(output.len()));
    let expanded = expanded.map_err(|_| KeysError)?;
    expanded.fill(output).map_err(|_| KeysError)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calculated with Python's `hmac` and `hashlib` from RFC 5869.
    #[test]
    fn keys_are_those_of_another_implementation() {
        let uuid = Uuid::from_bytes(*b"0123456789abcdef");
        let keys = VolumeKeys::derive(&[7; 64], uuid).expect("keys");
        let hex: String = keys
            .volume()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, VOLUME_KEY_VECTOR);
        let tag = hmac::sign(keys.seal(), b"seal");
        let hex: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, SEAL_VECTOR);
    }

    const VOLUME_KEY_VECTOR: &str = "8372967fc93cc7096ace34270a2c51c5d81b1cb774469ade264167dbc45e19aac8f6af56394aeb9d5ffb3de4e93a7e6ab106041ac76c3f1da1b49c6390d73bdf";
    const SEAL_VECTOR: &str = "55a6dce341e75669f187b931e0a5608023272e81fb59eb1f35f749b1834e3076";

    #[test]
    fn keys_differ_by_volume_and_by_secret() {
        let [one, other] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let keys = |secret: u8, uuid| {
            *VolumeKeys::derive(&[secret; 64], uuid)
                .expect("keys")
                .volume
        };
        assert_ne!(keys(1, one), keys(1, other));
        assert_ne!(keys(1, one), keys(2, one));
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = VolumeKeys::derive(&[7; 64], Uuid::from_u128(1)).expect("keys");
        assert_eq!(format!("{keys:?}"), "VolumeKeys(..)");
    }
}
