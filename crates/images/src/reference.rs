use std::fmt;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DIGEST_HEX_CHARS: usize = 64;

/// A reference to an image by digest: `[registry/]repository[:tag]@sha256:<64 hex digits>`.
///
/// Docker Hub's short forms are written out: `nginx@sha256:…` is `docker.io/library/nginx@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    repository: String,
    tag: Option<String>,
    digest: String,
}

/// A text that is no image reference by digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReferenceError {
    /// No digest.
    #[error(
        "image `{found}` has no digest, so the host could run anything under that name; write `{found}@sha256:<digest>`"
    )]
    NoDigest {
        /// The reference.
        found: String,
    },
    /// Not a SHA-256 digest.
    #[error(
        "image `{found}` has a malformed digest; expected `sha256:` and 64 lower-case hex digits"
    )]
    Digest {
        /// The reference.
        found: String,
    },
    /// Not a repository name.
    #[error(
        "`{found}` is no image reference; expected `[registry/]repository[:tag]@sha256:<digest>`"
    )]
    Repository {
        /// The reference.
        found: String,
    },
}

impl ImageReference {
    /// Parses a reference.
    ///
    /// # Errors
    /// When it has no digest, or is malformed.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let found = || text.to_owned();
        let Some((name, digest)) = text.split_once('@') else {
            return Err(ReferenceError::NoDigest { found: found() });
        };
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != DIGEST_HEX_CHARS || !hex.bytes().all(lower_hex) {
            return Err(ReferenceError::Digest { found: found() });
        }
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.to_owned())),
            _ => (name, None),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
        let parts_named = repository.split('/').all(|part| !part.is_empty());
        if !parts_named || !repository.bytes().all(allowed) || tag.as_deref() == Some("") {
            return Err(ReferenceError::Repository { found: found() });
        }
        Ok(Self {
            repository: normalised(repository),
            tag,
            digest: digest.to_owned(),
        })
    }

    /// `sha256:<64 hex digits>`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Registry and repository, written out.
    pub fn repository(&self) -> &str {
        &self.repository
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        write!(f, "@{}", self.digest)
    }
}

pub(crate) fn normalised(repository: &str) -> String {
    match repository.split_once('/') {
        None => format!("{DEFAULT_REGISTRY}/{DEFAULT_NAMESPACE}/{repository}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => {
            repository.to_owned()
        }
        Some(_) => format!("{DEFAULT_REGISTRY}/{repository}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> String {
        format!("sha256:{}", "0a".repeat(32))
    }

    #[test]
    fn short_forms_are_written_out() {
        let shown = |name: &str| {
            ImageReference::parse(&format!("{name}@{}", digest()))
                .expect("parses")
                .to_string()
        };
        assert_eq!(
            shown("nginx"),
            format!("docker.io/library/nginx@{}", digest())
        );
        assert_eq!(shown("a/b:1"), format!("docker.io/a/b:1@{}", digest()));
        assert_eq!(
            shown("localhost:5000/b"),
            format!("localhost:5000/b@{}", digest())
        );
        assert_eq!(
            shown("ghcr.io/a/b:v1"),
            format!("ghcr.io/a/b:v1@{}", digest())
        );
    }

    #[test]
    fn missing_digest_says_what_to_write() {
        let error = ImageReference::parse("nginx:1.29")
            .expect_err("no digest")
            .to_string();
        assert!(
            error.contains("write `nginx:1.29@sha256:<digest>`"),
            "{error}"
        );
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in [
            "nginx@sha256:12",
            "nginx@md5:00",
            &format!("nginx@{}", digest().to_uppercase()),
        ] {
            assert!(
                matches!(
                    ImageReference::parse(text),
                    Err(ReferenceError::Digest { .. })
                ),
                "{text}"
            );
        }
        for name in ["", "a//b", "a b", "a:"] {
            let text = format!("{name}@{}", digest());
            let parsed = ImageReference::parse(&text);
            assert!(
                matches!(parsed, Err(ReferenceError::Repository { .. })),
                "{text}"
            );
        }
    }
}
