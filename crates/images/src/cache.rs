use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Version of the cache's format.
const VERSION: u32 = 1;

/// What a runtime policy needs of an image's configuration (OCI image specification, section "Image Configuration").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct ImageConfig {
    /// Default program and first arguments.
    pub entrypoint: Vec<String>,
    /// Default further arguments.
    pub cmd: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// User, as `uid[:gid]` or names; empty means root.
    pub user: String,
    /// Paths that the image declares as volumes.
    pub volumes: Vec<String>,
    /// Users and groups of the image's file system; absent where its layers were not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accounts: Option<Accounts>,
}

/// What an image's `/etc/passwd` and `/etc/group` say (passwd(5), group(5)); both empty when it has no such files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct Accounts {
    /// Users, in the order of the file.
    pub users: Vec<UserAccount>,
    /// Groups, in the order of the file.
    pub groups: Vec<GroupAccount>,
}

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UserAccount {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GroupAccount {
    /// Group name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Names of the users for whom it is a supplementary group.
    pub members: Vec<String>,
}

/// Image configurations by digest: `{"Version": 1, "Images": {"sha256:…": {"Entrypoint": […], …}}}`; see
/// `docs/reference/image-cache.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ImageCache {
    version: u32,
    images: BTreeMap<String, ImageConfig>,
    /// Digests of names with a tag: `{"docker.io/library/nginx:1.27": "sha256:…"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    references: BTreeMap<String, String>,
}

/// The cache file is unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Cannot be read.
    #[error("cannot read the image cache {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not a cache.
    #[error("{} is no image cache", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another version.
    #[error("{} is an image cache of version {found}, expected {VERSION}; delete it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl Default for ImageCache {
    fn default() -> Self {
        Self {
            version: VERSION,
            images: BTreeMap::new(),
            references: BTreeMap::new(),
        }
    }
}

impl ImageCache {
    /// Reads the cache file; a file that is not there is an empty cache.
    ///
    /// # Errors
    /// When there is a file that is no cache of this version.
    pub fn read(path: &Path) -> Result<Self, CacheError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                return Err(CacheError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let cache: Self = serde_json::from_slice(&text).map_err(|source| CacheError::Format {
            path: path.to_owned(),
            source,
        })?;
        match cache.version {
            VERSION => Ok(cache),
            found => Err(CacheError::Version {
                path: path.to_owned(),
                found,
            }),
        }
    }

    /// Configuration of the image with this digest (`sha256:…`).
    pub fn get(&self, digest: &str) -> Option<&ImageConfig> {
        self.images.get(digest)
    }

    /// `image` with the digest that the cache knows for its tag; `None` if it has a digest already, or is not known. A name
    /// without a tag has the tag `latest`.
    pub fn pinned(&self, image: &str) -> Option<String> {
        if image.contains('@') {
            return None;
        }
        let (repository, tag) = match image.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (image, "latest"),
        };
        let full = format!("{}:{tag}", crate::reference::normalised(repository));
        let digest = self
            .references
            .get(&full)
            .or_else(|| self.references.get(image))?;
        Some(format!("{image}@{digest}"))
    }

    /// Adds or replaces a configuration.
    pub fn insert(&mut self, digest: &str, config: ImageConfig) {
        self.images.insert(digest.to_owned(), config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ImageCache, CacheError> {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("image-cache.json");
        fs::write(&path, text).expect("writes");
        ImageCache::read(&path)
    }

    #[test]
    fn configuration_is_found_by_digest() {
        let cache = read(r#"{"Version":1,"Images":{"sha256:aa":{"Entrypoint":["/pause"]}}}"#);
        let cache = cache.expect("reads");
        assert_eq!(
            cache.get("sha256:aa").expect("there").entrypoint,
            ["/pause"]
        );
        assert_eq!(cache.get("sha256:bb"), None);
    }

    #[test]
    fn tag_is_pinned_to_the_digest_that_the_cache_knows() {
        let cache = read(
            r#"{"Version":1,"Images":{},"References":{"docker.io/library/nginx:1.27":"sha256:aa","quay.io/x/redis:latest":"sha256:bb"}}"#,
        );
        let cache = cache.expect("reads");
        let pinned = |image: &str| cache.pinned(image);
        assert_eq!(
            pinned("nginx:1.27").as_deref(),
            Some("nginx:1.27@sha256:aa")
        );
        assert_eq!(
            pinned("quay.io/x/redis").as_deref(),
            Some("quay.io/x/redis@sha256:bb")
        );
        assert_eq!(pinned("nginx"), None);
        assert_eq!(pinned("nginx:1.27@sha256:cc"), None);
    }

    #[test]
    fn absent_file_is_empty_and_foreign_files_are_refused() {
        let cache = ImageCache::read(Path::new("does/not/exist")).expect("empty");
        assert_eq!(cache, ImageCache::default());
        assert!(matches!(
            read(r#"{"Version":2,"Images":{}}"#),
            Err(CacheError::Version { found: 2, .. })
        ));
        assert!(matches!(
            read(r#"{"Index":{}}"#),
            Err(CacheError::Format { .. })
        ));
    }
}
