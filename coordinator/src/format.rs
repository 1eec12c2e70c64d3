//! Versions of what is on a disk. What a later version wrote is left alone: it is neither damaged nor readable.

use std::{fs::File, io, os::unix::fs::FileExt};

/// The version of redb's file format that this build writes and reads.
const REDB: u8 = 3;
const REDB_MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Where a file says its version, once for each of two commits, of which one may not have been made yet.
const REDB_VERSIONS: [u64; 2] = [64, 192];

/// What a file says that it is: words, and a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) words: &'static str,
    pub(crate) version: u32,
}

/// A file is of another format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Other {
    /// Of a later version of the same one.
    Newer(Newer),
    /// Of something else, or damaged; says what was expected and found.
    Foreign(String),
}

/// What a later version wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "has the format `{found}`, this version of the Coordinator reads `{reads}`: a later version wrote it. It was not modified. Start that \
     version again; or, if other replicas serve, move the file away, and this replica joins them as a new one"
)]
pub struct Newer {
    /// What the file says.
    pub found: String,
    /// What this build reads.
    pub reads: String,
}

impl Format {
    /// How a file says it.
    pub(crate) fn name(self) -> String {
        format!("{} v{}", self.words, self.version)
    }

    /// Compares with what a file says.
    pub(crate) fn check(self, found: Option<&[u8]>) -> Result<(), Other> {
        let reads = self.name();
        if found == Some(reads.as_bytes()) {
            return Ok(());
        }
        let text = found.map_or_else(|| "nothing".to_owned(), |f| f.escape_ascii().to_string());
        let version = text
            .strip_prefix(self.words)
            .and_then(|rest| rest.strip_prefix(" v"))
            .and_then(|version| version.parse::<u32>().ok());
        Err(match version {
            Some(version) if version > self.version => Other::Newer(Newer { found: text, reads }),
            _ => Other::Foreign(format!("expected format `{reads}`, found {text}")),
        })
    }
}

/// Whether a database is in a later file format than redb reads here; then redb itself would only say that it is damaged.
pub(crate) fn check_redb(file: &File) -> io::Result<Option<Newer>> {
    let mut magic = [0; REDB_MAGIC.len()];
    match file.read_exact_at(&mut magic, 0) {
        Ok(()) if magic == REDB_MAGIC => {}
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => return Ok(None),
    }
    for at in REDB_VERSIONS {
        let mut version = [0];
        match file.read_exact_at(&mut version, at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let [version] = version;
        if version > REDB {
            return Ok(Some(Newer {
                found: format!("redb file format {version}"),
                reads: format!("redb file format {REDB}"),
            }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FORMAT: Format = Format {
        words: "contrast history",
        version: 3,
    };

    #[test]
    fn only_a_higher_number_of_the_same_words_is_a_later_version() {
        assert_eq!(FORMAT.check(Some(b"contrast history v3")), Ok(()));
        for newer in ["contrast history v4", "contrast history v10"] {
            let error = FORMAT.check(Some(newer.as_bytes())).expect_err(newer);
            let Other::Newer(newer_found) = error else {
                panic!("{newer} is not taken for a later version: {error:?}");
            };
            assert_eq!(newer_found.found, newer);
            assert!(newer_found.to_string().contains("`contrast history v3`"));
        }
        for foreign in [
            &b"contrast history v2"[..],
            b"contrast history v",
            b"contrast history vx",
            b"contrast raft store v4",
            b"contrast history v4\xff",
            b"",
        ] {
            let error = FORMAT.check(Some(foreign)).expect_err("foreign");
            assert!(matches!(error, Other::Foreign(_)), "{error:?}");
        }
        assert_eq!(
            FORMAT.check(None),
            Err(Other::Foreign(
                "expected format `contrast history v3`, found nothing".to_owned()
            ))
        );
    }

    /// A new version of redb with another file format is noticed here, before it is on anybody's disk.
    #[test]
    fn redb_writes_the_file_format_that_is_expected() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("a.redb");
        let database = redb::Database::create(&path).expect("creates");
        let transaction = database.begin_write().expect("begins");
        transaction.commit().expect("commits");
        drop(database);
        let bytes = fs::read(&path).expect("reads");
        assert!(bytes.starts_with(REDB_MAGIC));
        for at in REDB_VERSIONS {
            assert_eq!(bytes[usize::try_from(at).expect("small")], REDB);
        }
        let check = |bytes: &[u8]| {
            fs::write(&path, bytes).expect("writes");
            check_redb(&File::open(&path).expect("opens")).expect("reads")
        };
        assert_eq!(check(&bytes), None);
        for at in [64, 192] {
            let mut later = bytes.clone();
            later[at] = 4;
            let newer = check(&later).expect("later");
            assert_eq!(newer.found, "redb file format 4");
        }
        assert_eq!(check(&bytes[..100]), None);
        assert_eq!(check(b"something else"), None);
    }
}
