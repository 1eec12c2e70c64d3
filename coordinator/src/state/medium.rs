use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use redb::{Builder, Database, StorageBackend};

use super::{History, StoreError, store};
use crate::format;

pub(super) const FILE: &str = "history.redb";
const NEW_FILE: &str = "history.redb.new";
const SET_ASIDE_FILE: &str = "history.set-aside.redb";
const NEW_SET_ASIDE_FILE: &str = "history.set-aside.redb.new";
const LOCK_FILE: &str = "lock";

/// Memory for redb's page cache, in bytes. A history is read once and then kept in memory.
const CACHE_BYTES: usize = 8 << 20;

/// Fills a new database, whose tables exist.
pub type Fill<'a> = dyn Fn(&Database) -> Result<(), StoreError> + 'a;

/// Where a store's database is.
pub trait Medium: fmt::Debug + Send {
    /// Opens the database; makes an empty one when there is none.
    ///
    /// # Errors
    /// When it is damaged or cannot be opened; the medium is then unchanged.
    fn open(&self) -> Result<Database, StoreError>;

    /// Puts a new database, which `fill` fills, in the place of the one that is there, and keeps a copy of that one aside; a copy
    /// from an earlier time is overwritten. Nobody may have the database open. After a failure, or when the process ends in
    /// between, [`Medium::open`] finds either the old database or the new one, whole, and never an empty one.
    ///
    /// # Errors
    /// When the new database cannot be made, or the old one cannot be kept.
    fn set_aside(&self, fill: &Fill<'_>) -> Result<Database, StoreError>;

    /// How many bytes can still be written; `None` when that is unknown.
    fn free_bytes(&self) -> Option<u64>;
}

/// A directory that one Coordinator owns; the database is its file `history.redb`.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    lock: Arc<File>,
}

impl Directory {
    /// Takes the directory `path`, which must exist, for this process.
    ///
    /// # Errors
    /// When it cannot be written, or another process has it.
    pub fn claim(path: &Path) -> Result<Self, StoreError> {
        let lock_path = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                lock: Arc::new(lock),
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &lock_path)(source)),
        }
    }

    /// The path, and the lock, which holds as long as anybody has it.
    pub(crate) fn share(&self) -> (PathBuf, Arc<File>) {
        (self.path.clone(), Arc::clone(&self.lock))
    }

    /// Makes the file under another name and renames it when it is complete, so that a file with the final name was
    /// complete once: if it is empty or short, it was damaged later.
    fn create(&self, path: &Path, fill: &Fill<'_>) -> Result<(), StoreError> {
        let new = self.path.join(NEW_FILE);
        remove(&new)?;
        let database = builder().create(&new).map_err(StoreError::from_redb)?;
        store::initialise(&database)?;
        fill(&database)?;
        database.close().map_err(StoreError::from_redb)?;
        sync(&new)?;
        fs::rename(&new, path).map_err(io_error("create", path))?;
        sync(&self.path)
    }
}

impl Medium for Directory {
    fn open(&self) -> Result<Database, StoreError> {
        let path = self.path.join(FILE);
        match fs::exists(&path) {
            Ok(true) => inspect(&path)?,
            Ok(false) => self.create(&path, &|_| Ok(()))?,
            Err(source) => return Err(io_error("look for", &path)(source)),
        }
        builder().open(&path).map_err(StoreError::from_redb)
    }

    /// The old file is kept as `history.set-aside.redb`.
    fn set_aside(&self, fill: &Fill<'_>) -> Result<Database, StoreError> {
        let path = self.path.join(FILE);
        let kept = self.path.join(SET_ASIDE_FILE);
        let new_kept = self.path.join(NEW_SET_ASIDE_FILE);
        // A copy, so that there is a store under the usual name at every moment.
        fs::copy(&path, &new_kept).map_err(io_error("copy", &path))?;
        sync(&new_kept)?;
        fs::rename(&new_kept, &kept).map_err(io_error("create", &kept))?;
        sync(&self.path)?;
        self.create(&path, fill)?;
        builder().open(&path).map_err(StoreError::from_redb)
    }

    fn free_bytes(&self) -> Option<u64> {
        let file_system = rustix::fs::statvfs(&self.path).ok()?;
        file_system.f_bavail.checked_mul(file_system.f_frsize)
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(source))
        }
        _ => Ok(()),
    }
}

fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(io_error("sync", path))
}

pub(crate) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// Reads the whole store without changing the file.
///
/// Opening a database after a crash repairs it, that is, writes to the file. If the file is not what it should be, that
/// would destroy what a person might still rescue. So the file is first opened behind [`CopyOnWrite`], checked page by page
/// and read as a history; only then may redb have the file itself.
fn inspect(path: &Path) -> Result<(), StoreError> {
    let damaged = |reason: String| StoreError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let file = File::open(path).map_err(io_error("open", path))?;
    let metadata = file.metadata().map_err(io_error("open", path))?;
    if !metadata.is_file() {
        return Err(damaged("it is no regular file".to_owned()));
    }
    if metadata.len() == 0 {
        return Err(damaged(
            "it is empty; a store never is, so it was cut off".to_owned(),
        ));
    }
    let newer = |newer| StoreError::Newer {
        path: path.to_owned(),
        newer,
    };
    if let Some(found) = format::check_redb(&file).map_err(io_error("read", path))? {
        return Err(newer(found));
    }
    let overlay = CopyOnWrite::new(file, metadata.len());
    // redb promises errors for bytes that only it wrote. For anything else a panic is possible, too.
    let read = panic::catch_unwind(AssertUnwindSafe(|| {
        let database = builder()
            .set_check_integrity_on_open(true)
            .create_with_backend(overlay)
            .map_err(StoreError::from_redb)?;
        store::read(&database)
    }));
    let records = match read {
        Ok(Ok(records)) => records,
        Ok(Err(StoreError::Newer { newer: found, .. })) => return Err(newer(found)),
        Ok(Err(StoreError::Content(reason))) => return Err(damaged(reason)),
        Ok(Err(StoreError::Database(source))) => return Err(damaged(source.to_string())),
        Ok(Err(other)) => return Err(other),
        Err(_) => return Err(damaged("the database library gave up on it".to_owned())),
    };
    match records.map(History::read).transpose() {
        Ok(_) => Ok(()),
        // This version's refusal of an intact manifest is no damage; the caller will meet it again.
        Err(super::HistoryError::Manifest { .. }) => Ok(()),
        Err(error) => Err(damaged(error.to_string())),
    }
}

const BLOCK_BYTES: u64 = 4096;
type Block = [u8; BLOCK_BYTES as usize];

/// A file that is read, and blocks in memory that take what is written.
#[derive(Debug)]
pub(crate) struct CopyOnWrite {
    file: File,
    written: Mutex<Written>,
}

struct Written {
    /// Length of the whole, in bytes.
    length: u64,
    /// Bytes of the file that still count; what lies beyond was cut off and reads as zero.
    from_file: u64,
    blocks: BTreeMap<u64, Box<Block>>,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Written({} blocks of {} bytes)",
            self.blocks.len(),
            self.length
        )
    }
}

impl CopyOnWrite {
    pub(crate) fn new(file: File, length: u64) -> Self {
        let written = Written {
            length,
            from_file: length,
            blocks: BTreeMap::new(),
        };
        Self {
            file,
            written: Mutex::new(written),
        }
    }

    fn block(&self, written: &Written, index: u64) -> io::Result<Box<Block>> {
        if let Some(block) = written.blocks.get(&index) {
            return Ok(block.clone());
        }
        let mut block = Box::new([0; BLOCK_BYTES as usize]);
        let start = index * BLOCK_BYTES;
        let available = written.from_file.saturating_sub(start).min(BLOCK_BYTES);
        let (head, _) = block.split_at_mut(usize::try_from(available).unwrap_or_default());
        self.file.read_exact_at(head, start)?;
        Ok(block)
    }

    /// Calls `visit` with each block that `offset..offset + length` touches, the range within it, and the range's place in
    /// the caller's buffer.
    fn blocks(
        offset: u64,
        length: usize,
        mut visit: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let start = (at % BLOCK_BYTES) as usize;
            let count = (length - done).min(BLOCK_BYTES as usize - start);
            visit(at / BLOCK_BYTES, start..start + count, done..done + count)?;
            done += count;
        }
        Ok(())
    }
}

impl StorageBackend for CopyOnWrite {
    fn len(&self) -> io::Result<u64> {
        Ok(self
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > written.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::blocks(offset, out.len(), |index, within, place| {
            let block = self.block(&written, index)?;
            out[place].copy_from_slice(&block[within]);
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if length < written.length {
            // What is cut off must read as zero when the length grows again.
            let boundary = length / BLOCK_BYTES;
            let kept = (length % BLOCK_BYTES) as usize;
            if kept > 0 {
                let mut block = self.block(&written, boundary)?;
                block[kept..].fill(0);
                written.blocks.insert(boundary, block);
            }
            let first_gone = length.div_ceil(BLOCK_BYTES);
            written.blocks.retain(|index, _| *index < first_gone);
            written.from_file = written.from_file.min(length);
        }
        written.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > written.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::blocks(offset, data.len(), |index, within, place| {
            let mut block = self.block(&written, index)?;
            block[within].copy_from_slice(&data[place]);
            written.blocks.insert(index, block);
            Ok(())
        })
    }
}
