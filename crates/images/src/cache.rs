use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Accounts, Digest, ImageName, LayerFacts};

/// Version of the cache's format that is written. Version 1 has no layers and is read as well.
const VERSION: u32 = 2;
const VERSIONS_READ: [u32; 2] = [1, VERSION];

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
    /// Digests of its layers as they are transferred, the lowest first; empty where nobody looked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
}

/// Image configurations by digest: `{"Version": 2, "Images": {"sha256:…": {"Entrypoint": […], …}}}`; see
/// `docs/reference/image-cache.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ImageCache {
    version: u32,
    images: BTreeMap<String, ImageConfig>,
    /// What was found in layers, by the digest under which they are transferred.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    layers: BTreeMap<Digest, LayerFacts>,
    /// Digests of names with a tag: `{"docker.io/library/nginx:1.27": "sha256:…"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    references: BTreeMap<String, String>,
    /// Names whose digests were looked for just now: these are newer than what the file says.
    #[serde(skip)]
    looked_up: BTreeSet<String>,
    /// Digests whose configurations are somebody's word. The file is for what is known.
    #[serde(skip)]
    unproven: BTreeSet<String>,
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
    #[error("{} is an image cache of version {found}, expected {VERSION}; delete it, or use the `contrast` that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Cannot be written, or locked.
    #[error("cannot write the image cache {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a cache of any version says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    version: Option<u32>,
}

impl Default for ImageCache {
    fn default() -> Self {
        Self {
            version: VERSION,
            images: BTreeMap::new(),
            layers: BTreeMap::new(),
            references: BTreeMap::new(),
            looked_up: BTreeSet::new(),
            unproven: BTreeSet::new(),
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
        let broken = |source| CacheError::Format {
            path: path.to_owned(),
            source,
        };
        // Before all else: the rest may be anything in a later version.
        let Said { version } = serde_json::from_slice(&text).map_err(broken)?;
        if let Some(found) = version.filter(|found| !VERSIONS_READ.contains(found)) {
            let path = path.to_owned();
            return Err(CacheError::Version { path, found });
        }
        let cache: Self = serde_json::from_slice(&text).map_err(broken)?;
        Ok(Self {
            version: VERSION,
            ..cache
        })
    }

    /// Adds what this cache knows to the file. Several processes may do so at once: each waits for the lock of `<file>.lock`, reads the
    /// file again, adds, and replaces it by a rename. What the file says of a digest stays; tags that were looked for take the newer
    /// digest. Configurations of archives that have no digests are left out.
    ///
    /// # Errors
    /// When the file cannot be written, or is no cache; then it stays as it is.
    pub fn add_to(&self, path: &Path) -> Result<(), CacheError> {
        let failed = |source| CacheError::Write {
            path: path.to_owned(),
            source,
        };
        if self.added_to(&Self::read(path)?).is_none() {
            return Ok(());
        }
        // Not emptied: it may be a link to something that is worth more.
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(lock_path(path))
            .map_err(failed)?;
        // Released when the file is closed, also by the end of the process.
        lock.lock().map_err(failed)?;
        let Some(after) = self.added_to(&Self::read(path)?) else {
            return Ok(());
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut text =
            serde_json::to_vec_pretty(&after).map_err(|error| failed(io::Error::from(error)))?;
        text.push(b'\n');
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// `before` with what this cache knows; `None` if that is nothing new.
    fn added_to(&self, before: &Self) -> Option<Self> {
        let mut after = before.clone();
        let proven = self.images.iter();
        for (digest, config) in proven.filter(|(digest, _)| !self.unproven.contains(*digest)) {
            let known = after.images.entry(digest.clone());
            known.or_insert_with(|| config.clone());
        }
        for (digest, facts) in &self.layers {
            let known = after.layers.entry(*digest);
            known.or_insert_with(|| facts.clone());
        }
        for (name, digest) in &self.references {
            let known = after.references.entry(name.clone());
            let newer = self.looked_up.contains(name);
            known
                .and_modify(|known| {
                    if newer {
                        known.clone_from(digest);
                    }
                })
                .or_insert_with(|| digest.clone());
        }
        (after != *before).then_some(after)
    }

    /// Configuration of the image with this digest (`sha256:…`).
    pub fn get(&self, digest: &str) -> Option<&ImageConfig> {
        self.images.get(digest)
    }

    /// `image` with the digest that the cache knows for its tag; `None` if it has a digest already, or is not known. A name
    /// without a tag has the tag `latest`.
    pub fn pinned(&self, image: &str) -> Option<String> {
        let name = ImageName::parse(image).ok()?;
        if name.digest().is_some() {
            return None;
        }
        let digest = self.references.get(&name.tagged());
        let digest = digest.or_else(|| self.references.get(image))?;
        Some(format!("{image}@{digest}"))
    }

    /// Whether nothing has to be asked about an image.
    pub(crate) fn knows(&self, name: &ImageName) -> bool {
        let digest = self.with_digest(name).digest();
        digest.is_some_and(|digest| self.images.contains_key(&digest.to_string()))
    }

    /// The name with the digest that its tag has here.
    pub(crate) fn with_digest(&self, name: &ImageName) -> ImageName {
        let known = match name.digest() {
            Some(_) => None,
            None => self.references.get(&name.tagged()),
        };
        match known.and_then(|digest| Digest::parse(digest).ok()) {
            Some(digest) => name.with_digest(digest),
            None => name.clone(),
        }
    }

    /// Remembers the digest of a name with a tag.
    pub fn pin(&mut self, name: &ImageName, digest: Digest) {
        self.references.insert(name.tagged(), digest.to_string());
        self.looked_up.insert(name.tagged());
    }

    /// Forgets the digests of all names with tags, so that they are looked for again.
    pub fn forget_tags(&mut self) {
        self.references.clear();
    }

    pub(crate) fn layer(&self, digest: Digest) -> Option<&LayerFacts> {
        self.layers.get(&digest)
    }

    pub(crate) fn insert_layer(&mut self, digest: Digest, facts: LayerFacts) {
        self.layers.insert(digest, facts);
    }

    /// Adds a configuration of which nothing but the asker's word says that it has this digest.
    pub(crate) fn insert_unproven(&mut self, digest: Digest, config: ImageConfig) {
        self.insert(&digest.to_string(), config);
        self.unproven.insert(digest.to_string());
    }

    /// Adds or replaces a configuration.
    pub fn insert(&mut self, digest: &str, config: ImageConfig) {
        self.images.insert(digest.to_owned(), config);
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    name.into()
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
            read(r#"{"Version":3,"Images":{},"Later":[]}"#),
            Err(CacheError::Version { found: 3, .. })
        ));
        assert!(matches!(
            read(r#"{"Index":{}}"#),
            Err(CacheError::Format { .. })
        ));
    }

    #[test]
    fn processes_that_write_at_once_lose_nothing() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("image-cache.json");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for number in 0..10 {
                        let mut cache = ImageCache::default();
                        cache.insert(&format!("sha256:{writer}-{number}"), ImageConfig::default());
                        cache.add_to(path).expect("adds");
                    }
                });
            }
        });
        let cache = ImageCache::read(&path).expect("reads");
        assert_eq!(cache.images.len(), 80);
    }

    #[test]
    fn tag_that_was_only_read_does_not_replace_a_newer_one() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("image-cache.json");
        let name = ImageName::parse("nginx:1").expect("image");
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let mut first = ImageCache::default();
        first.pin(&name, old);
        first.add_to(&path).expect("adds");
        let mut slow = ImageCache::read(&path).expect("reads");
        first.pin(&name, new);
        first.add_to(&path).expect("adds");
        slow.insert("sha256:aa", ImageConfig::default());
        slow.add_to(&path).expect("adds");
        let read = ImageCache::read(&path).expect("reads");
        assert_eq!(read.pinned("nginx:1"), Some(format!("nginx:1@{new}")));
        assert!(read.get("sha256:aa").is_some());
    }

    #[cfg(unix)]
    #[test]
    fn lock_that_is_a_link_empties_nothing() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("image-cache.json");
        let precious = directory.path().join("precious");
        fs::write(&precious, "content").expect("writes");
        std::os::unix::fs::symlink(&precious, lock_path(&path)).expect("links");
        let mut cache = ImageCache::default();
        cache.insert("sha256:aa", ImageConfig::default());
        cache.add_to(&path).expect("adds");
        assert_eq!(fs::read_to_string(&precious).expect("reads"), "content");
    }

    #[test]
    fn what_people_wrote_stays() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("image-cache.json");
        let text = r#"{"Version":1,"Images":{"sha256:aa":{"Cmd":["mine"]}}}"#;
        fs::write(&path, text).expect("writes");
        let mut cache = ImageCache::default();
        cache.insert("sha256:aa", ImageConfig::default());
        cache.add_to(&path).expect("adds nothing");
        assert_eq!(fs::read_to_string(&path).expect("reads"), text);
        cache.insert("sha256:bb", ImageConfig::default());
        cache.add_to(&path).expect("adds");
        let read = ImageCache::read(&path).expect("reads");
        assert_eq!(read.get("sha256:aa").expect("there").cmd, ["mine"]);
        assert!(read.get("sha256:bb").is_some());
        fs::write(&path, "{").expect("writes");
        assert!(matches!(
            cache.add_to(&path),
            Err(CacheError::Format { .. })
        ));
        assert_eq!(fs::read_to_string(&path).expect("reads"), "{");
    }
}
