//! Public keys on P-384 that are read once and verify often.

#[cfg(not(target_arch = "wasm32"))]
pub use aws_lc_rs::signature::ParsedPublicKey;

#[cfg(target_arch = "wasm32")]
pub use checked::{KeyRejected, ParsedPublicKey};

/// Like aws-lc-rs' type of this name: a key whose point was found to be on its curve. ring has none, and looks at the point only
/// when it verifies, too late for a manifest that must not name an impossible owner.
#[cfg(target_arch = "wasm32")]
mod checked {
    use aws_lc_rs::{
        error::Unspecified,
        signature::{UnparsedPublicKey, VerificationAlgorithm},
    };

    /// A public key on P-384.
    #[derive(Debug, Clone)]
    pub struct ParsedPublicKey(UnparsedPublicKey<Vec<u8>>);

    /// Bytes that are no point on P-384.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
    #[error("expected an uncompressed point on P-384")]
    pub struct KeyRejected;

    impl ParsedPublicKey {
        /// Reads an uncompressed point (SEC 1, 97 bytes). `algorithm` must be one of ECDSA on P-384.
        ///
        /// # Errors
        /// When the bytes are no point on the curve.
        pub fn new(
            algorithm: &'static dyn VerificationAlgorithm,
            point: &[u8],
        ) -> Result<Self, KeyRejected> {
            let uncompressed = point.first() == Some(&4);
            match p384::PublicKey::from_sec1_bytes(point) {
                Ok(_) if uncompressed => {
                    Ok(Self(UnparsedPublicKey::new(algorithm, point.to_vec())))
                }
                _ => Err(KeyRejected),
            }
        }

        /// Checks that this key made `signature` over `message`.
        ///
        /// # Errors
        /// When it did not.
        pub fn verify_sig(&self, message: &[u8], signature: &[u8]) -> Result<(), Unspecified> {
            self.0.verify(message, signature)
        }
    }
}
