use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::Database;

use super::{LogStoreError, journal};
use crate::{
    format,
    state::{CopyOnWrite, Directory, builder},
};

pub(super) const FILE: &str = "raft.redb";
const NEW_FILE: &str = "raft.redb.new";
const EARLIER_FILE: &str = "raft.earlier.redb";

/// Reads a database and says whether it may be used.
pub type Check<'a> = dyn Fn(&Database) -> Result<(), LogStoreError> + 'a;

/// Where a Raft store's database is.
pub trait LogMedium: fmt::Debug + Send {
    /// Makes the database, which `write` fills. It is durable and complete when this returns.
    ///
    /// # Errors
    /// When there is one already, or it cannot be made.
    fn create(&self, write: &Check<'_>) -> Result<Database, LogStoreError>;

    /// Opens the database if `check` accepts it.
    ///
    /// # Errors
    /// When there is none, or it is damaged, or `check` refuses it; the medium is then unchanged.
    fn open(&self, check: &Check<'_>) -> Result<Database, LogStoreError>;

    /// Lets `read` have the database, or without one that which was set aside last. What `read` or redb writes goes nowhere.
    /// Returns whether there was a database.
    ///
    /// # Errors
    /// When it is damaged or cannot be read, or `read` fails.
    fn inspect(&self, read: &Check<'_>) -> Result<bool, LogStoreError>;

    /// Whether this version can read what [`inspect`](Self::inspect) would, as far as it says its format. Whether it is intact is another
    /// question, which is asked when it is needed.
    ///
    /// # Errors
    /// [`LogStoreError::Newer`]. What cannot be read at all is left to whoever needs it.
    fn check_version(&self) -> Result<(), LogStoreError> {
        only_later(self.inspect(&journal::check_version))
    }

    /// Moves the database out of the way of [`LogMedium::create`], in the place of one that was set aside earlier. Does nothing when
    /// there is none. Nobody may have it open.
    ///
    /// # Errors
    /// When it cannot be moved.
    fn set_aside(&self) -> Result<(), LogStoreError>;
}

/// The file `raft.redb` in a Coordinator's directory.
#[derive(Debug)]
pub struct LogFile {
    directory: PathBuf,
    _lock: Arc<File>,
}

impl LogFile {
    /// The file in `directory`, whose lock it shares.
    pub fn new(directory: &Directory) -> Self {
        let (directory, lock) = directory.share();
        Self {
            directory,
            _lock: lock,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// The file, or without one that which was set aside last.
    fn left(&self) -> Result<Option<PathBuf>, LogStoreError> {
        for path in [self.path(), self.directory.join(EARLIER_FILE)] {
            if exists(&path)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

impl LogMedium for LogFile {
    /// Made under another name and renamed when it is complete, so that a file with the final name was complete once.
    fn create(&self, write: &Check<'_>) -> Result<Database, LogStoreError> {
        let path = self.path();
        if exists(&path)? {
            return Err(LogStoreError::Exists { path });
        }
        let new = self.directory.join(NEW_FILE);
        match fs::remove_file(&new) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(file_error("remove", &new)(source));
            }
            _ => {}
        }
        let database = builder().create(&new).map_err(LogStoreError::from_redb)?;
        write(&database)?;
        database.close().map_err(LogStoreError::from_redb)?;
        sync(&new)?;
        fs::rename(&new, &path).map_err(file_error("create", &path))?;
        sync(&self.directory)?;
        builder().open(&path).map_err(LogStoreError::from_redb)
    }

    fn open(&self, check: &Check<'_>) -> Result<Database, LogStoreError> {
        let path = self.path();
        if !exists(&path)? {
            return Err(LogStoreError::Absent { path });
        }
        inspect(&path, true, check)?;
        builder().open(&path).map_err(LogStoreError::from_redb)
    }

    fn inspect(&self, read: &Check<'_>) -> Result<bool, LogStoreError> {
        match self.left()? {
            Some(path) => inspect(&path, true, read).map(|()| true),
            None => Ok(false),
        }
    }

    /// Without a look at every page: this is asked at each start.
    fn check_version(&self) -> Result<(), LogStoreError> {
        let Ok(Some(path)) = self.left() else {
            return Ok(());
        };
        only_later(inspect(&path, false, &journal::check_version))
    }

    /// As `raft.earlier.redb`.
    fn set_aside(&self) -> Result<(), LogStoreError> {
        let path = self.path();
        match fs::rename(&path, self.directory.join(EARLIER_FILE)) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(file_error("set aside", &path)(source)),
            Ok(()) => sync(&self.directory),
        }
    }
}

fn only_later<T>(checked: Result<T, LogStoreError>) -> Result<(), LogStoreError> {
    match checked {
        Err(error) if error.is_of_a_later_version() => Err(error),
        _ => Ok(()),
    }
}

/// Reads a store without changing the file, with all of its pages if `whole`: redb repairs a file that it opens after a crash, and a file that cannot be
/// trusted must stay as it is for whoever investigates.
fn inspect(path: &Path, whole: bool, check: &Check<'_>) -> Result<(), LogStoreError> {
    let damaged = |reason: &str| LogStoreError::Database {
        reason: format!("{}: {reason}", path.display()),
    };
    let file = File::open(path).map_err(file_error("open", path))?;
    let metadata = file.metadata().map_err(file_error("open", path))?;
    if !metadata.is_file() {
        return Err(damaged("expected a regular file"));
    }
    if metadata.len() == 0 {
        return Err(damaged("expected a database, found an empty file"));
    }
    let newer = |newer| LogStoreError::Newer {
        path: path.to_owned(),
        newer,
    };
    if let Some(found) = format::check_redb(&file).map_err(file_error("read", path))? {
        return Err(newer(found));
    }
    let overlay = CopyOnWrite::new(file, metadata.len());
    let checked = journal::guarded(|| {
        let database = builder()
            .set_check_integrity_on_open(whole)
            .create_with_backend(overlay)
            .map_err(LogStoreError::from_redb)?;
        check(&database)
    });
    checked.map_err(|error| match error {
        LogStoreError::Newer { newer: found, .. } => newer(found),
        other => other,
    })
}

fn exists(path: &Path) -> Result<bool, LogStoreError> {
    fs::exists(path).map_err(file_error("look for", path))
}

fn sync(path: &Path) -> Result<(), LogStoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(file_error("sync", path))
}

fn file_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> LogStoreError {
    let path = path.to_owned();
    move |source| LogStoreError::File {
        action,
        path: path.clone(),
        source,
    }
}
