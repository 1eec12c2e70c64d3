use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use contrast_coordinator::{
    cluster::{Check, LogMedium, LogStoreError},
    state::{Fill, Medium, StoreError, initialise},
};
use redb::{Database, StorageBackend};

use super::image::{Fate, File, Image};
use crate::{dice::Dice, runtime::Node};

/// How many synced states of each file the host keeps.
const COPIES: usize = 32;

/// A file of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// `history.redb`.
    History,
    /// `raft.redb`.
    Log,
    /// `history.set-aside.redb`.
    HistoryAside,
    /// `raft.earlier.redb`.
    LogAside,
}

impl FileName {
    /// The files that a replica reads when it starts or recovers.
    pub const READ: [Self; 3] = [Self::History, Self::Log, Self::LogAside];
}

#[derive(Debug, Default)]
struct Content {
    files: BTreeMap<FileName, Named>,
    /// What has no name any more, and may still be open.
    unnamed: Vec<Named>,
    /// Synced states, oldest first.
    copies: BTreeMap<FileName, Vec<Image>>,
    full: bool,
    /// How long a flush takes at most.
    flush: Duration,
}

/// A file, which stays the same when its name changes.
#[derive(Debug)]
struct Named {
    number: u64,
    file: File,
}

impl Named {
    fn new(file: File) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { number, file }
    }
}

/// The disk of a place. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct Disk {
    content: Arc<Mutex<Content>>,
    dice: Arc<Dice>,
}

impl Disk {
    /// An empty disk.
    pub fn new(dice: Dice) -> Self {
        Self {
            content: Arc::default(),
            dice: Arc::new(dice),
        }
    }

    /// The disk as `node` has it.
    pub fn drive(&self, node: &Node) -> Drive {
        Drive {
            disk: self.clone(),
            node: node.clone(),
            file: FileName::History,
            number: 0,
        }
    }

    /// Lets every write fail for want of space, until it is told otherwise.
    pub fn set_full(&self, full: bool) {
        self.content().full = full;
    }

    /// Whether every write fails now.
    pub fn is_full(&self) -> bool {
        self.content().full
    }

    /// Lets every flush take up to this long.
    pub fn set_flush(&self, duration: Duration) {
        self.content().flush = duration;
    }

    /// Loses what was not synced, or parts of it. To be called when the node that wrote has ended.
    pub fn lose_power(&self) {
        let mut content = self.content();
        // One of three: nothing reached the disk, all of it did, or it is torn.
        let kind = self.dice.within(0..3);
        for Named { file, .. } in content.files.values_mut() {
            // Fates depend on the page alone, since the order in which redb writes pages is its own affair.
            let salt = self.dice.number();
            file.lose_power(|page| match kind {
                0 => Fate::Old,
                1 => Fate::New(usize::MAX),
                _ => {
                    let page = Dice::new(salt ^ page, "page");
                    match page.within(0..4) {
                        0 => Fate::Old,
                        1 => Fate::New(page.index(3)),
                        2 => Fate::New(usize::MAX),
                        _ => Fate::Torn(page.index(3), page.index(9)),
                    }
                }
            });
        }
    }

    /// Puts an earlier synced state of `file` back. Returns how many synced states were undone; 0 when there is none.
    pub fn roll_back(&self, file: FileName) -> usize {
        let mut content = self.content();
        let Some(copies) = content.copies.get(&file) else {
            return 0;
        };
        let count = copies.len();
        let at = self.dice.index(count);
        let Some(image) = copies.get(at).cloned() else {
            return 0;
        };
        content.place(file, File::holding(image));
        count - 1 - at
    }

    /// The synced states of `file` that the host has, oldest first.
    pub fn copies(&self, file: FileName) -> Vec<Image> {
        self.content()
            .copies
            .get(&file)
            .cloned()
            .unwrap_or_default()
    }

    /// Puts `image` in the place of a file.
    pub fn put_back(&self, file: FileName, image: Image) {
        self.content().place(file, File::holding(image));
    }

    /// Removes a file.
    pub fn wipe(&self, file: FileName) {
        let mut content = self.content();
        let removed = content.files.remove(&file);
        content.unnamed.extend(removed);
    }

    /// Changes one bit of a file.
    pub fn damage(&self, file: FileName) {
        if let Some(Named { file, .. }) = self.content().files.get_mut(&file) {
            let mut image = file.current.clone();
            image.damage(&self.dice);
            *file = File::holding(image);
        }
    }

    /// Exchanges all files with those of another disk.
    pub fn swap(&self, other: &Self) {
        if Arc::ptr_eq(&self.content, &other.content) {
            return;
        }
        std::mem::swap(&mut self.content().files, &mut other.content().files);
    }

    /// What would be read from `file` after the process ended and the machine kept power.
    pub fn image(&self, file: FileName) -> Option<Image> {
        self.content()
            .files
            .get(&file)
            .map(|named| named.file.current.clone())
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk as one process has it.
#[derive(Clone)]
pub struct Drive {
    disk: Disk,
    node: Node,
    file: FileName,
    /// The open file.
    number: u64,
}

impl Drive {
    fn of(&self, file: FileName) -> Self {
        Self {
            file,
            ..self.clone()
        }
    }

    fn exists(&self) -> bool {
        self.disk.content().files.contains_key(&self.file)
    }

    /// Makes the file under another name, and gives it its name when it is complete.
    fn make<E>(
        &self,
        fill: impl FnOnce(&Database) -> Result<(), E>,
        from_redb: impl Fn(redb::Error) -> E,
    ) -> Result<(), E> {
        let alone = Disk::new(Dice::new(0, "new file"));
        let draft = Self {
            disk: alone,
            ..self.clone()
        };
        let database = create(&draft).map_err(&from_redb)?;
        fill(&database)?;
        drop(database);
        let image = draft.disk.image(self.file).unwrap_or_default();
        self.node
            .disk_operation()
            .map_err(|error| from_redb(error.into()))?;
        let mut content = self.disk.content();
        if content.full {
            return Err(from_redb(
                io::Error::from(io::ErrorKind::StorageFull).into(),
            ));
        }
        content.keep(self.file, &image);
        content.place(self.file, File::holding(image));
        Ok(())
    }

    /// Copies the file to another name, durably.
    fn copy(&self, to: FileName) -> Result<(), redb::Error> {
        self.node.disk_operation()?;
        let mut content = self.disk.content();
        if content.full {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        if let Some(image) = content
            .files
            .get(&self.file)
            .map(|named| &named.file.current)
        {
            let image = image.clone();
            content.keep(to, &image);
            content.place(to, File::holding(image));
        }
        Ok(())
    }

    /// Lets `read` have a copy that goes nowhere.
    fn read_only(&self, read: &Check<'_>) -> Result<(), LogStoreError> {
        let image = self.disk.image(self.file).unwrap_or_default();
        let aside = Disk::new(Dice::new(0, "inspection"));
        aside.content().place(self.file, File::holding(image));
        let inspected = Self {
            disk: aside,
            ..self.clone()
        };
        read(&create(&inspected).map_err(LogStoreError::from_redb)?)
    }

    /// Applies an operation that writes.
    fn change<T>(&self, change: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        self.node.disk_operation()?;
        let mut content = self.disk.content();
        if content.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match content.numbered(self.number) {
            Some(named) => change(&mut named.file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn look<T>(&self, look: impl FnOnce(&Image) -> io::Result<T>) -> io::Result<T> {
        if !self.node.is_alive() {
            return Err(io::Error::other("the node has ended"));
        }
        let mut content = self.disk.content();
        match content.numbered(self.number) {
            Some(named) => look(&named.file.current),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Content {
    /// Gives `file` a name; what had it is reachable only for whoever has it open.
    fn place(&mut self, name: FileName, file: File) {
        let replaced = self.files.insert(name, Named::new(file));
        self.unnamed.extend(replaced);
    }

    fn numbered(&mut self, number: u64) -> Option<&mut Named> {
        let named = self.files.values_mut();
        named
            .chain(&mut self.unnamed)
            .find(|named| named.number == number)
    }

    fn keep(&mut self, file: FileName, image: &Image) {
        let copies = self.copies.entry(file).or_default();
        if copies.last() != Some(image) {
            copies.push(image.clone());
        }
        if copies.len() > COPIES {
            // The oldest stays: nothing is older than that.
            copies.remove(1);
        }
    }
}

pub(super) fn create(drive: &Drive) -> Result<Database, redb::Error> {
    let mut backend = drive.clone();
    let mut content = backend.disk.content();
    let file = content.files.entry(drive.file);
    backend.number = file.or_insert_with(|| Named::new(File::default())).number;
    drop(content);
    Ok(Database::builder()
        .set_cache_size(1 << 20)
        .create_with_backend(backend)?)
}

impl fmt::Debug for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drive({:?} of {:?})", self.file, self.node)
    }
}

impl StorageBackend for Drive {
    fn len(&self) -> io::Result<u64> {
        self.look(|image| Ok(image.length()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.look(|image| image.read(offset, out))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(|file| {
            file.current.set_length(length);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|file| {
            file.sync();
            Ok(())
        })?;
        let mut content = self.disk.content();
        let image = content
            .files
            .get(&self.file)
            .filter(|named| named.number == self.number)
            .map(|named| named.file.synced.clone());
        if let Some(image) = image {
            content.keep(self.file, &image);
        }
        if !content.flush.is_zero() {
            let took = self.disk.dice.duration(Duration::ZERO..content.flush);
            drop(content);
            // The caller cannot wait here, so all of its node does afterwards.
            self.node.hold(took);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|file| file.write(offset, data))
    }
}

impl Medium for Drive {
    fn open(&self) -> Result<Database, StoreError> {
        let drive = self.of(FileName::History);
        if !drive.exists() {
            drive.make(initialise, StoreError::from_redb)?;
        }
        create(&drive).map_err(StoreError::from_redb)
    }

    fn set_aside(&self, fill: &Fill<'_>) -> Result<Database, StoreError> {
        let drive = self.of(FileName::History);
        drive
            .copy(FileName::HistoryAside)
            .map_err(StoreError::from_redb)?;
        let fill = |database: &Database| {
            initialise(database)?;
            fill(database)
        };
        drive.make(fill, StoreError::from_redb)?;
        create(&drive).map_err(StoreError::from_redb)
    }

    fn free_bytes(&self) -> Option<u64> {
        match self.disk.content().full {
            true => Some(0),
            false => None,
        }
    }
}

impl LogMedium for Drive {
    fn create(&self, write: &Check<'_>) -> Result<Database, LogStoreError> {
        let drive = self.of(FileName::Log);
        if drive.exists() {
            return Err(LogStoreError::Exists { path: raft_file() });
        }
        drive.make(write, LogStoreError::from_redb)?;
        create(&drive).map_err(LogStoreError::from_redb)
    }

    fn open(&self, check: &Check<'_>) -> Result<Database, LogStoreError> {
        let drive = self.of(FileName::Log);
        if !drive.exists() {
            return Err(LogStoreError::Absent { path: raft_file() });
        }
        drive.read_only(check)?;
        create(&drive).map_err(LogStoreError::from_redb)
    }

    fn inspect(&self, read: &Check<'_>) -> Result<bool, LogStoreError> {
        let files = [FileName::Log, FileName::LogAside].map(|file| self.of(file));
        match files.into_iter().find(Self::exists) {
            Some(drive) => drive.read_only(read).map(|()| true),
            None => Ok(false),
        }
    }

    fn set_aside(&self) -> Result<(), LogStoreError> {
        let drive = self.of(FileName::Log);
        if !drive.exists() {
            return Ok(());
        }
        self.node
            .disk_operation()
            .map_err(|error| LogStoreError::from_redb(redb::Error::from(error)))?;
        // One rename: there is no state between, and whoever has the file open keeps it.
        let mut content = self.disk.content();
        if let Some(named) = content.files.remove(&FileName::Log) {
            let image = named.file.synced.clone();
            content.keep(FileName::LogAside, &image);
            let replaced = content.files.insert(FileName::LogAside, named);
            content.unnamed.extend(replaced);
        }
        Ok(())
    }
}

fn raft_file() -> PathBuf {
    PathBuf::from("raft.redb")
}
