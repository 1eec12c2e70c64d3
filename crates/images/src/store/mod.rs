//! Unpacked layers on a disk, each in a directory that is named by its diff id.
//!
//! | path | what |
//! | --- | --- |
//! | `layers/<64 hex digits>/` | a layer that was right, as overlay file systems read it |
//! | `tmp/run-…/` | what one process unpacks and did not check to its end; locked as long as that process lives |
//! | `boot` | for which boot the layers are |
//! | `lock` | held while a store is opened |

mod write;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::fstatvfs;
use tempfile::TempDir;
use write::LayerWriter;
pub(crate) use write::OPAQUE;

use crate::{Digest, LayerError, document::Descriptor, layer};

const LAYERS: &str = "layers";
const TEMPORARY: &str = "tmp";
const BOOT: &str = "boot";
const LOCK: &str = "lock";
/// One part of so many of what was free when a store was opened stays free, for what runs beside the images.
const RESERVE: u64 = 20;
/// A store holds set-user-id programs of images that nobody outside of them may run.
const PRIVATE: u32 = 0o700;

/// Unpacked layers. What is in `layers` was checked; what is not complete goes away with the process that began it, or when the next
/// one opens the store.
///
/// A store must be on a disk or in a memory that the host can neither read nor change: layers are not checked again.
#[derive(Debug)]
pub struct Store {
    layers: PathBuf,
    room: Room,
    /// Its lock tells other processes that the directory is in use.
    _lock: File,
    run: TempDir,
}

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refuses something.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Store {
    /// Opens the store in `directory`, which is made if it is not there. Layers of another `boot` are removed: whoever turned the
    /// machine off may have done so while they were written.
    ///
    /// # Errors
    /// When the file system refuses something.
    pub fn open(directory: &Path, boot: &str) -> Result<Self, StoreError> {
        let layers = directory.join(LAYERS);
        let temporary = directory.join(TEMPORARY);
        for path in [directory, &temporary] {
            make_directory(path)?;
        }
        let lock_path = directory.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .and_then(|lock| lock.lock().map(|()| lock));
        let lock = lock.map_err(at("lock", &lock_path))?;
        remove_abandoned(&temporary)?;
        let boot_path = directory.join(BOOT);
        let of_this_boot = fs::read(&boot_path).is_ok_and(|found| found == boot.as_bytes());
        if !of_this_boot {
            remove(&layers)?;
        }
        make_directory(&layers)?;
        if !of_this_boot {
            fs::write(&boot_path, boot).map_err(at("write", &boot_path))?;
        }
        let run = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&temporary)
            .map_err(at("make a directory in", &temporary))?;
        let run_lock = File::open(run.path()).and_then(|run| run.lock().map(|()| run));
        let run_lock = run_lock.map_err(at("lock", run.path()))?;
        let room = Room::of(directory)?;
        drop(lock);
        Ok(Self {
            layers,
            room,
            _lock: run_lock,
            run,
        })
    }

    /// Directory of the layer with this diff id, if it is here.
    pub fn layer(&self, diff_id: Digest) -> Option<PathBuf> {
        let path = self.path(diff_id);
        path.is_dir().then_some(path)
    }

    /// Unpacks a layer in memory, compressed with gzip or zstd, or not at all, and returns its diff id.
    ///
    /// # Errors
    /// When it is no layer, or cannot be written.
    pub fn add(&self, layer: &[u8]) -> Result<Digest, LayerError> {
        let descriptor = Descriptor::new("", Digest::of(layer), layer.len() as u64);
        self.unpack(&descriptor, None, layer)
    }

    /// Unpacks a layer from `source`. It is in the store only if its digest is that of the descriptor, and its diff id is the
    /// `expected` one.
    pub(crate) fn unpack(
        &self,
        descriptor: &Descriptor,
        expected: Option<Digest>,
        source: impl Read,
    ) -> Result<Digest, LayerError> {
        let store = |source| LayerError::Store { source };
        let staging = tempfile::Builder::new()
            .tempdir_in(self.run.path())
            .map_err(store)?;
        let mut writer = LayerWriter::new(staging.path(), &self.room).map_err(store)?;
        let diff_id = layer::read(descriptor, source, &mut writer)?;
        if let Some(expected) = expected.filter(|expected| *expected != diff_id) {
            return Err(LayerError::DiffId {
                found: Some(diff_id),
                expected,
            });
        }
        writer.finish().map_err(store)?;
        match fs::rename(staging.path(), self.path(diff_id)) {
            Ok(()) => {
                // It has another name now.
                let _ = staging.keep();
                Ok(diff_id)
            }
            // Somebody else was faster, with the same content.
            Err(error) if is_occupied(&error) => Ok(diff_id),
            Err(error) => Err(store(error)),
        }
    }

    pub(crate) fn path(&self, diff_id: Digest) -> PathBuf {
        self.layers.join(diff_id.hex())
    }
}

/// Bytes that may still be written. Others write to the same file system, so it is asked each time; what was taken and is not written yet
/// is known only here.
#[derive(Debug)]
struct Room {
    file_system: File,
    /// Stays free, whoever writes.
    reserve: u64,
    /// By all layers of this store, as much as was free when it was opened.
    left: AtomicU64,
}

enum Taken {
    Yes,
    TooLittle { left: u64 },
}

impl Room {
    fn of(directory: &Path) -> Result<Self, StoreError> {
        let file_system = File::open(directory).map_err(at("open", directory))?;
        let free = free(&file_system).map_err(at("look at the free space of", directory))?;
        let reserve = free / RESERVE;
        Ok(Self {
            file_system,
            reserve,
            left: AtomicU64::new(free.saturating_sub(reserve)),
        })
    }

    /// Takes `bytes` of it, if there are as many.
    fn take(&self, bytes: u64) -> io::Result<Taken> {
        let free = free(&self.file_system)?.saturating_sub(self.reserve);
        if free < bytes {
            return Ok(Taken::TooLittle { left: free });
        }
        let less = |left: u64| left.checked_sub(bytes);
        let order = Ordering::Relaxed;
        Ok(match self.left.fetch_update(order, order, less) {
            Ok(_) => Taken::Yes,
            Err(left) => Taken::TooLittle { left },
        })
    }
}

/// Bytes that are free in a file system.
fn free(file_system: &File) -> io::Result<u64> {
    let space = fstatvfs(file_system)?;
    // A memory-backed file system without a limit says nothing.
    Ok(match space.f_blocks {
        0 => u64::MAX,
        _ => space.f_bavail.saturating_mul(space.f_frsize),
    })
}

fn is_occupied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty
    )
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File {
        action,
        path,
        source,
    }
}

fn make_directory(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE)
        .create(path)
        .map_err(at("make the directory", path))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes what processes that are gone have begun.
fn remove_abandoned(temporary: &Path) -> Result<(), StoreError> {
    let unreadable = || at("read", temporary);
    for entry in fs::read_dir(temporary).map_err(unreadable())? {
        let path = entry.map_err(unreadable())?.path();
        let file = File::open(&path).map_err(at("open", &path))?;
        match file.try_lock() {
            Ok(()) => remove(&path)?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(at("lock", &path)(error)),
        }
    }
    Ok(())
}
