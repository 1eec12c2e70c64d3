//! What a host can do within the history file: it reads and writes rows, and has no key.

use std::panic::{self, AssertUnwindSafe};

use redb::{Database, ReadableDatabase, TableDefinition};

use super::{
    Image,
    medium::{Disk, Drive, FileName, create},
};
use crate::{dice::Dice, runtime::Node};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const VOLUMES: &str = "volumes";

impl Disk {
    /// The record of encrypted volumes in a history file; `None` when it has none, or cannot be read.
    pub fn volume_record_in(history: &Image) -> Option<Vec<u8>> {
        let (record, _) = edit(history.clone(), |database| {
            let reading = database.begin_read()?;
            let row = reading.open_table(META)?.get(VOLUMES)?;
            Ok(row.map(|row| row.value().to_vec()))
        })?;
        record
    }

    /// Puts a record of encrypted volumes into the history file, or takes the one out that is there. False when the file cannot be
    /// written.
    pub fn put_volume_record(&self, record: Option<&[u8]>) -> bool {
        let edited = self.image(FileName::History).and_then(|image| {
            edit(image, |database| {
                let writing = database.begin_write()?;
                {
                    let mut meta = writing.open_table(META)?;
                    match record {
                        Some(record) => drop(meta.insert(VOLUMES, record)?),
                        None => drop(meta.remove(VOLUMES)?),
                    }
                }
                Ok(writing.commit()?)
            })
        });
        match edited {
            Some(((), image)) => {
                self.put_back(FileName::History, image);
                true
            }
            None => false,
        }
    }
}

/// Lets `change` have a copy of a file; what it came to, and the copy afterwards. `None` when the file is damaged: redb says so, or
/// panics.
fn edit<T>(
    image: Image,
    change: impl FnOnce(&Database) -> Result<T, redb::Error>,
) -> Option<(T, Image)> {
    let copy = Disk::new(Dice::new(0, "edited"));
    copy.put_back(FileName::History, image);
    let drive = copy.drive(&Node::new("the host"));
    let changed = panic::catch_unwind(AssertUnwindSafe(|| edit_at(&drive, change)));
    let changed = changed.ok()?.ok()?;
    Some((changed, copy.image(FileName::History)?))
}

fn edit_at<T>(
    drive: &Drive,
    change: impl FnOnce(&Database) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    change(&create(drive)?)
}
