//! Secrets on their way into and out of messages.
//!
//! What is sent is held by messages in memory that wipes itself, and what is received moves into such memory at once. In between,
//! gRPC, HTTP/2 and TLS have buffers of their own, which they do not wipe; like all memory of this process they are within the
//! confidential VM.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use contrast_pki::{Salt, Seed};
use zeroize::{Zeroize, Zeroizing};

use super::{KEY_BYTES_MAX, Malformed, Parsed, at_most};
use crate::replica::message::MeshCaKey;

/// Lends a secret to a message; the secret wipes itself when its last owner is gone.
struct Lent<T>(Arc<T>);

impl AsRef<[u8]> for Lent<Seed> {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

impl AsRef<[u8]> for Lent<Zeroizing<Vec<u8>>> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

pub(super) fn put_seed(seed: &Arc<Seed>) -> Bytes {
    Bytes::from_owner(Lent(Arc::clone(seed)))
}

pub(super) fn put_key(key: &MeshCaKey) -> Bytes {
    Bytes::from_owner(Lent(Arc::clone(&key.pkcs8)))
}

pub(super) fn seed(bytes: Bytes) -> Parsed<Arc<Seed>> {
    let seed = Seed::from_slice(&bytes).map_err(|error| length("seed", &error, bytes.len()));
    wipe(bytes);
    seed.map(Arc::new)
}

pub(super) fn salt(bytes: &[u8]) -> Parsed<Arc<Salt>> {
    let salt = Salt::from_slice(bytes).map_err(|error| length("salt", &error, bytes.len()));
    salt.map(Arc::new)
}

pub(super) fn key(field: &'static str, bytes: Bytes) -> Parsed<MeshCaKey> {
    if bytes.is_empty() {
        return Err(Malformed::new(field, "PKCS#8 DER", "nothing"));
    }
    at_most(field, bytes.len(), KEY_BYTES_MAX, "bytes")?;
    let pkcs8 = Arc::new(Zeroizing::new(bytes.to_vec()));
    wipe(bytes);
    Ok(MeshCaKey { pkcs8 })
}

fn length(field: &'static str, error: &dyn fmt::Display, found: usize) -> Malformed {
    Malformed::new(field, error.to_string(), format!("{found} bytes"))
}

/// Wipes the buffer unless something else of the message is in it, too.
fn wipe(bytes: Bytes) {
    if let Ok(mut buffer) = bytes.try_into_mut() {
        buffer.as_mut().zeroize();
    }
}
