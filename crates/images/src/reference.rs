use std::fmt;

use crate::Digest;

pub(crate) const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_REGISTRY_OLD: &str = "index.docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";
/// OCI distribution specification, "Pulling manifests".
const TAG_MAX: usize = 128;
/// Registry and repository; what the tools of the field allow.
const REPOSITORY_MAX: usize = 255;

/// A reference to an image by digest: `[registry/]repository[:tag]@sha256:<64 hex digits>`.
///
/// Docker Hub's short forms are written out: `nginx@sha256:…` is `docker.io/library/nginx@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    name: ImageName,
    digest: String,
}

/// A reference to an image by tag, digest or both: `[registry/]repository[:tag][@sha256:<64 hex digits>]`. Where there is a digest, the
/// tag is for people only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
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
        let name = ImageName::parse(text)?;
        match name.digest {
            Some(digest) => Ok(Self {
                digest: digest.to_string(),
                name,
            }),
            None => Err(ReferenceError::NoDigest {
                found: text.to_owned(),
            }),
        }
    }

    /// `sha256:<64 hex digits>`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Registry and repository, written out.
    pub fn repository(&self) -> &str {
        &self.name.repository
    }

    pub(crate) fn name(&self) -> &ImageName {
        &self.name
    }
}

impl ImageName {
    /// Parses `[registry/]repository[:tag][@sha256:<64 hex digits>]`.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let found = || text.to_owned();
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let digest =
                    Digest::parse(digest).map_err(|_| ReferenceError::Digest { found: found() })?;
                (name, Some(digest))
            }
        };
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.to_owned())),
            _ => (name, None),
        };
        let tag_allowed = |tag: &str| {
            !tag.is_empty()
                && tag.len() <= TAG_MAX
                && tag
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        let (host, path) = parts(repository);
        let well_formed = host.is_none_or(host_allowed)
            && path.split('/').all(path_part_allowed)
            && normalised(repository).len() <= REPOSITORY_MAX
            && tag.as_deref().is_none_or(tag_allowed);
        if !well_formed {
            return Err(ReferenceError::Repository { found: found() });
        }
        Ok(Self {
            repository: normalised(repository),
            tag,
            digest,
        })
    }

    /// Registry and repository, written out: `docker.io/library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The name with its tag, or with `latest`, and without its digest: `docker.io/library/nginx:latest`.
    pub fn tagged(&self) -> String {
        format!("{}:{}", self.repository, self.tag_or_default())
    }

    pub(crate) fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    pub(crate) fn tag_or_default(&self) -> &str {
        self.tag.as_deref().unwrap_or(DEFAULT_TAG)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// Host, if there is one, and path: what is before the first `/` is a host when it can be nothing else, or is `localhost`.
fn parts(repository: &str) -> (Option<&str>, &str) {
    let is_host = |first: &str| {
        first.contains(['.', ':'])
            || first == "localhost"
            || first.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    match repository.split_once('/') {
        Some((first, path)) if is_host(first) => (Some(first), path),
        _ => (None, repository),
    }
}

fn host_allowed(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    name.bytes().all(allowed)
        && name.bytes().any(|byte| byte.is_ascii_alphanumeric())
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

/// OCI distribution specification, "Pulling manifests": no upper case.
fn path_part_allowed(part: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    part.bytes().all(allowed) && part.bytes().any(|byte| byte != b'.')
}

/// Docker Hub has several names, and its own images may be named without their namespace, also after its name.
fn normalised(repository: &str) -> String {
    let (host, path) = parts(repository);
    match host {
        Some(host) if host != DEFAULT_REGISTRY && host != DEFAULT_REGISTRY_OLD => {
            repository.to_owned()
        }
        _ if path.contains('/') => format!("{DEFAULT_REGISTRY}/{path}"),
        _ => format!("{DEFAULT_REGISTRY}/{DEFAULT_NAMESPACE}/{path}"),
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
        // What is written out is a reference as well.
        let long = "a".repeat(REPOSITORY_MAX);
        assert!(ImageName::parse(&long).is_err());
        for name in ["docker.io/nginx", "index.docker.io/nginx"] {
            assert_eq!(shown(name), format!("docker.io/library/nginx@{}", digest()));
        }
        assert_eq!(shown("Host/b"), format!("Host/b@{}", digest()));
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
        for name in [
            "",
            "a//b",
            "a b",
            "a:",
            "a/../b",
            "a:b c",
            "A/B",
            "a.b:c/d",
            "a.b:1:2/d",
            "a.b:65536/d",
            "a/b:c/d",
            "Nginx",
        ] {
            let text = format!("{name}@{}", digest());
            let parsed = ImageReference::parse(&text);
            assert!(
                matches!(parsed, Err(ReferenceError::Repository { .. })),
                "{text}"
            );
        }
    }
}
