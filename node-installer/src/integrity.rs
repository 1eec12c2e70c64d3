//! Digests of files: what they must be (as in Subresource Integrity), and what they are.

use std::{
    fmt,
    io::{self, Read},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// How much is read at once.
const CHUNK: usize = 256 * 1024;

/// What the content of a file must hash to: `sha256-`, `sha384-` or `sha512-` and the digest in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Integrity {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// What is given is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{found}` is no digest; write `sha256-`, `sha384-` or `sha512-` and the digest in base64, as `openssl dgst -sha256 -binary FILE | base64` prints it"
)]
pub struct NotADigest {
    /// What was given.
    pub found: String,
}

impl TryFrom<String> for Integrity {
    type Error = NotADigest;

    fn try_from(found: String) -> Result<Self, NotADigest> {
        let parsed = found.split_once('-').and_then(|(name, digest)| {
            let algorithm = Algorithm::ALL
                .into_iter()
                .find(|algorithm| algorithm.name() == name)?;
            let digest = STANDARD.decode(digest).ok()?;
            (digest.len() == algorithm.length()).then_some(Self { algorithm, digest })
        });
        parsed.ok_or(NotADigest { found })
    }
}

impl From<Integrity> for String {
    fn from(integrity: Integrity) -> Self {
        integrity.to_string()
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = STANDARD.encode(&self.digest);
        write!(f, "{}-{digest}", self.algorithm.name())
    }
}

/// What some content is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// SHA-256, in hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// What was read is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the digest {expected}, found {found}")]
pub struct Differs {
    /// What the configuration says.
    pub expected: Integrity,
    /// What was read, in the same form.
    pub found: Integrity,
}

/// Hashes what is read from `from`, and gives every chunk to `each`.
///
/// # Errors
/// When reading fails, or `each` does.
pub(crate) fn hash(
    mut from: impl Read,
    expected: Option<&Integrity>,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(Content, Result<(), Differs>)> {
    let mut sha256 = Sha256::new();
    let mut sha384 = is(expected, Algorithm::Sha384).then(Sha384::new);
    let mut sha512 = is(expected, Algorithm::Sha512).then(Sha512::new);
    let mut size = 0u64;
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let chunk = buffer.get(..length).unwrap_or_default();
        if chunk.is_empty() {
            break;
        }
        sha256.update(chunk);
        if let Some(hasher) = &mut sha384 {
            hasher.update(chunk);
        }
        if let Some(hasher) = &mut sha512 {
            hasher.update(chunk);
        }
        each(chunk)?;
        size = size.saturating_add(chunk.len() as u64);
    }
    let sha256 = sha256.finalize().to_vec();
    let content = Content {
        sha256: hex::encode(&sha256),
        size,
    };
    let Some(expected) = expected else {
        return Ok((content, Ok(())));
    };
    let long = sha384
        .map(|hasher| hasher.finalize().to_vec())
        .or_else(|| sha512.map(|hasher| hasher.finalize().to_vec()));
    let found = Integrity {
        algorithm: expected.algorithm,
        digest: long.unwrap_or(sha256),
    };
    let verdict = if found == *expected {
        Ok(())
    } else {
        Err(Differs {
            expected: expected.clone(),
            found,
        })
    };
    Ok((content, verdict))
}

fn is(expected: Option<&Integrity>, algorithm: Algorithm) -> bool {
    expected.is_some_and(|expected| expected.algorithm == algorithm)
}

/// What `bytes` are.
pub(crate) fn content(bytes: &[u8]) -> Content {
    Content {
        sha256: hex::encode(Sha256::digest(bytes)),
        size: bytes.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests of `abc` in FIPS 180-4, in base64.
    const ABC: [&str; 3] = [
        "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        "sha384-ywB1P0WjXou1oD1pmsZQBycsMqsO3tFjGotgWkP/W+2AhgcroefMI1i67KE0yCWn",
        "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==",
    ];

    fn integrity(text: &str) -> Integrity {
        Integrity::try_from(text.to_owned()).expect(text)
    }

    #[test]
    fn each_algorithm_accepts_its_content_and_nothing_else() {
        for text in ABC {
            let expected = integrity(text);
            assert_eq!(expected.to_string(), text);
            let (content, verdict) = hash(&b"abc"[..], Some(&expected), |_| Ok(())).expect("reads");
            assert_eq!((content.size, verdict), (3, Ok(())));
            let (_, verdict) = hash(&b"abd"[..], Some(&expected), |_| Ok(())).expect("reads");
            let error = verdict.expect_err("other content").to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for text in [
            "",
            "sha256-",
            "sha256-AAAA",
            "md5-1B2M2Y8AsgTpgAmY7PhCfg==",
            "sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
            "sha384-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        ] {
            assert!(Integrity::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
