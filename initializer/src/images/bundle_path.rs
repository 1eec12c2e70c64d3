//! Where the agent may have a root file system mounted.

use std::{
    fs::{self, Permissions},
    io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Dir, Mode, OFlags, ResolveFlags, mkdirat, open, openat2},
    io::Errno,
};

/// A path in a request is not one of a bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundlePathError {
    /// Outside, or not plain.
    #[error(
        "bundle_path {path:?}: expected an absolute path below {} without `.`, `..` and empty parts",
        root.display()
    )]
    Outside {
        /// What was asked for.
        path: String,
        /// Where bundles are.
        root: PathBuf,
    },
    /// What is there belongs to containers.
    #[error(
        "bundle_path {path:?} goes through `{part}`, where containers write; expected a directory of the agent's own below {}: not in \
         `{}` or `{}` there, and in no `{}`, `{}` or `{}`",
        root.display(), SHARED[0], SHARED[1], OF_BUNDLES[0], OF_BUNDLES[1], OF_BUNDLES[2]
    )]
    Writable {
        /// What was asked for.
        path: String,
        /// Which part of it.
        part: String,
        /// Where bundles are.
        root: PathBuf,
    },
    /// The kernel does not go there.
    #[error("bundle_path {path:?}: cannot open `{part}` without following a link or leaving the file system of {}", root.display())]
    Open {
        /// What was asked for.
        path: String,
        /// How far it was.
        part: String,
        /// Where bundles are.
        root: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody uses it.
    #[error(
        "bundle_path {path:?} has something in it (`{found}`); expected an empty directory, or none"
    )]
    Occupied {
        /// What was asked for.
        path: String,
        /// The first entry.
        found: String,
    },
    /// The directory of bundles.
    #[error("cannot open {}, below which bundles are", root.display())]
    Root {
        /// The directory.
        root: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Bundles among layers, or layers among bundles.
    #[error("expected the store {} and the bundles {} in different places, found one in the other", store.display(), root.display())]
    Overlap {
        /// The store.
        store: PathBuf,
        /// The directory of bundles.
        root: PathBuf,
    },
}

/// Directly below the root: volumes that containers share with each other and with the host, some of them on the root's own file system.
const SHARED: [&str; 2] = ["shared", "sandbox"];
/// Of a bundle: the root file system of a container, and where the kernel keeps what the container changes in it.
const OF_BUNDLES: [&str; 3] = ["rootfs", "upper", "work"];

/// The directory that has all bundles.
#[derive(Debug)]
pub(super) struct BundleRoot {
    /// As requests begin.
    named: PathBuf,
    directory: OwnedFd,
    /// Without links.
    path: PathBuf,
}

impl BundleRoot {
    /// Opens the directory, and makes it if it is not there. `store` has to be there.
    pub(super) fn open(named: &Path, store: &Path) -> Result<Self, BundlePathError> {
        let failed = |source| BundlePathError::Root {
            root: named.to_owned(),
            source,
        };
        let made = || {
            if !named.is_dir() {
                fs::create_dir_all(named)?;
                // As the agent makes it, whatever the process's mask is.
                fs::set_permissions(named, Permissions::from_mode(0o755))?;
            }
            fs::canonicalize(named)
        };
        let path = made().map_err(failed)?;
        let store = fs::canonicalize(store).map_err(failed)?;
        if path.starts_with(&store) || store.starts_with(&path) {
            return Err(BundlePathError::Overlap { store, root: path });
        }
        let directory = open(&path, DIRECTORY, Mode::empty());
        Ok(Self {
            named: named.to_owned(),
            directory: directory.map_err(|error| failed(error.into()))?,
            path,
        })
    }

    /// Makes the directory that a request asks for, if it is not there, and opens it. Also gives its path, for messages only: by the time
    /// that something is done there, the path may lead elsewhere, but the descriptor does not.
    ///
    /// Containers write to file systems that are mounted below the root, which the kernel refuses to enter, and to directories of the
    /// root's own file system, which are refused by their names.
    pub(super) fn make(&self, requested: &str) -> Result<(OwnedFd, PathBuf), BundlePathError> {
        let outside = || BundlePathError::Outside {
            path: requested.to_owned(),
            root: self.named.clone(),
        };
        let below = self.named.to_str().and_then(|root| {
            let rest = requested.strip_prefix(root.trim_end_matches('/'))?;
            rest.strip_prefix('/')
        });
        let below = below.ok_or_else(outside)?;
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !below.split('/').all(is_plain) {
            return Err(outside());
        }
        let first = below.split('/').next().filter(|part| SHARED.contains(part));
        let of_containers = || below.split('/').find(|part| OF_BUNDLES.contains(part));
        if let Some(part) = first.or_else(of_containers) {
            return Err(BundlePathError::Writable {
                path: requested.to_owned(),
                part: part.to_owned(),
                root: self.named.clone(),
            });
        }
        let mut made: Option<OwnedFd> = None;
        for part in below.split('/') {
            let around = made.as_ref().unwrap_or(&self.directory);
            let opened = match mkdirat(around, part, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {
                    openat2(around, part, DIRECTORY, Mode::empty(), CONFINED)
                }
                Err(error) => Err(error),
            };
            let opened = opened.map_err(|error| BundlePathError::Open {
                path: requested.to_owned(),
                part: part.to_owned(),
                root: self.named.clone(),
                source: error.into(),
            })?;
            made = Some(opened);
        }
        let made = made.ok_or_else(outside)?;
        match first_entry(&made) {
            None => Ok((made, self.path.join(below))),
            Some(found) => Err(BundlePathError::Occupied {
                path: requested.to_owned(),
                found,
            }),
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Something in a directory; also what cannot be read is something.
fn first_entry(directory: &OwnedFd) -> Option<String> {
    let entries = match Dir::read_from(directory) {
        Ok(entries) => entries,
        Err(error) => return Some(error.to_string()),
    };
    for entry in entries {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Ok(entry) => return Some(entry.file_name().to_string_lossy().into_owned()),
            Err(error) => return Some(error.to_string()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsRawFd as _, unix::fs::symlink};

    use super::*;

    struct Place {
        directory: tempfile::TempDir,
        root: BundleRoot,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("directory");
            let at = |name: &str| directory.path().join(name);
            fs::create_dir(at("store")).expect("directory");
            let root = BundleRoot::open(&at("root"), &at("store")).expect("opens");
            Self { directory, root }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn make(&self, below: &str) -> Result<PathBuf, BundlePathError> {
            let path = format!("{}{below}", self.root.named.display());
            let (made, shown) = self.root.make(&path)?;
            // What is opened is what the path says.
            let opened = fs::read_link(format!("/proc/self/fd/{}", made.as_raw_fd()));
            assert_eq!(opened.expect("open"), shown);
            Ok(shown)
        }
    }

    #[test]
    fn directory_is_made_or_found_empty() {
        let place = Place::new();
        let expected = fs::canonicalize(place.at("root"))
            .expect("root")
            .join("id/images");
        assert_eq!(place.make("/id/images").expect("made"), expected);
        assert!(expected.is_dir());
        assert_eq!(place.make("/id/images").expect("found"), expected);
        fs::write(expected.join("file"), "").expect("writes");
        let error = place.make("/id/images").expect_err("occupied");
        assert!(
            error.to_string().contains("something in it (`file`)"),
            "{error}"
        );
        let error = place.make("/id").expect_err("occupied");
        assert!(error.to_string().contains("(`images`)"), "{error}");
    }

    #[test]
    fn only_plain_paths_below_the_root() {
        let place = Place::new();
        for below in [
            "",
            "/",
            "x",
            "/id/",
            "//id",
            "/id//x",
            "/.",
            "/id/.",
            "/..",
            "/id/../../x",
            "/../root/id",
            "/id\0",
        ] {
            let error = place.make(below).expect_err(below);
            assert!(
                matches!(error, BundlePathError::Outside { .. }),
                "{below}: {error}"
            );
        }
        for path in ["", "id", "/", "/etc", "root/id"] {
            let error = place.root.make(path).expect_err(path);
            assert!(
                matches!(error, BundlePathError::Outside { .. }),
                "{path}: {error}"
            );
        }
        let left = fs::read_dir(place.at("root")).expect("root");
        assert_eq!(left.count(), 0, "nothing is made for what is refused");
    }

    #[test]
    fn directories_that_containers_write_to_are_not_entered() {
        let place = Place::new();
        for (below, part) in [
            ("/id/upper/x", "upper"),
            ("/id/images/work", "work"),
            ("/rootfs", "rootfs"),
            ("/id/rootfs/x", "rootfs"),
            ("/shared", "shared"),
            ("/shared/containers/id-volume/local", "shared"),
            ("/sandbox/ephemeral/x", "sandbox"),
        ] {
            let error = place.make(below).expect_err(below);
            assert!(
                matches!(&error, BundlePathError::Writable { part: found, .. } if found == part),
                "{below}: {error}"
            );
        }
        let left = fs::read_dir(place.at("root")).expect("root");
        assert_eq!(left.count(), 0, "nothing is made for what is refused");
        for below in ["/id/shared", "/sandbox-1/upper1", "/uppe"] {
            place.make(below).expect(below);
        }
    }

    #[test]
    fn links_files_and_other_file_systems_are_not_entered() {
        let place = Place::new();
        fs::create_dir(place.at("elsewhere")).expect("directory");
        fs::create_dir(place.at("root/inside")).expect("directory");
        symlink("../elsewhere", place.at("root/out")).expect("links");
        symlink("inside", place.at("root/in")).expect("links");
        fs::write(place.at("root/file"), "").expect("writes");
        for below in ["/out", "/out/id", "/in", "/in/id", "/file", "/file/id"] {
            let error = place.make(below).expect_err(below);
            assert!(
                matches!(error, BundlePathError::Open { .. }),
                "{below}: {error}"
            );
        }
        let left = fs::read_dir(place.at("elsewhere")).expect("directory");
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn store_and_bundles_are_apart() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        for (root, store) in [("a", "a/store"), ("b/root", "b"), ("c", "c")] {
            fs::create_dir_all(at(store)).expect("directory");
            let error = BundleRoot::open(&at(root), &at(store)).expect_err(root);
            assert!(matches!(error, BundlePathError::Overlap { .. }), "{error}");
        }
    }
}
