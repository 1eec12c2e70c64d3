use std::{
    fmt,
    io::{self, Read},
};

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::shown::shown;

const PREFIX: &str = "sha256:";
const BYTES: usize = 32;

/// SHA-256 of content (OCI image specification, "Descriptors", section "Digests"), written as `sha256:` and 64 lower-case hex
/// digits. No other algorithm is accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; BYTES]);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no digest; expected `sha256:` and 64 lower-case hex digits", shown(&self.0))]
pub struct DigestError(String);

impl Digest {
    /// Digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self::from_context(digest(&SHA256, content).as_ref())
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError(text.to_owned());
        let digits = text.strip_prefix(PREFIX).ok_or_else(wrong)?;
        if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong());
        }
        let mut bytes = [0; BYTES];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| wrong())?;
        Ok(Self(bytes))
    }

    /// The 64 hex digits alone.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Half of it, for tables in memory.
    pub(crate) fn half(&self) -> [u8; BYTES / 2] {
        let mut half = [0; BYTES / 2];
        half.copy_from_slice(self.0.split_at(BYTES / 2).0);
        half
    }

    fn from_context(bytes: &[u8]) -> Self {
        let mut own = [0; BYTES];
        own.copy_from_slice(bytes);
        Self(own)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        Self::parse(&text)
    }
}

/// Hashes and counts what is read through it.
pub(crate) struct HashingReader<R> {
    inner: R,
    context: Context,
    read: u64,
    /// The first failure: what reads later may not say it again.
    failure: Option<io::Error>,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            context: Context::new(&SHA256),
            read: 0,
            failure: None,
        }
    }

    /// Bytes that were read.
    pub(crate) fn count(&self) -> u64 {
        self.read
    }

    /// Reads what is left; returns the digest and the number of all bytes, or the first failure.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        if self.failure.is_none() {
            // A failure is kept, and returned below.
            let _ = io::copy(&mut self, &mut io::sink());
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        Ok((
            Digest::from_context(self.context.finish().as_ref()),
            self.read,
        ))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.inner.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let shown = io::Error::new(error.kind(), error.to_string());
                self.failure.get_or_insert(error);
                return Err(shown);
            }
        };
        self.context.update(buffer.get(..count).unwrap_or_default());
        self.read = self.read.saturating_add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_strict() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::parse(text), Ok(digest));
        for wrong in [
            "",
            "sha256:",
            "sha512:00",
            &text.to_uppercase(),
            &text.replace('b', "B"),
            &text[..70],
            &format!("{text}0"),
        ] {
            assert!(Digest::parse(wrong).is_err(), "{wrong}");
        }
    }
}
