//! What a machine wrote to a disk, in order, so that any power cut can be played afterwards: a disk keeps what was flushed, and some of the rest.
//!
//! QEMU's block driver `blklogwrites` writes the log of Linux's `dm-log-writes` (`Documentation/admin-guide/device-mapper/log-writes.rst`): a sector with
//! magic number, version, number of entries and size of a sector, then entries of one sector with position, length and flags, each before its data.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};

use super::Disk;

pub(super) const SECTOR: u64 = 512;
/// "hswfrj" and "sw", as `dm-log-writes.c` has it.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// The log of a disk.
#[derive(Debug)]
pub struct WriteLog {
    pub(super) path: PathBuf,
}

/// One entry: a write, or a flush without data, or both.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Position on the disk, bytes.
    position: u64,
    /// Position in the log, and length, bytes.
    data: u64,
    length: u64,
    flags: u64,
}

impl WriteLog {
    /// How many bytes it has; everything that was finished earlier is within them.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn length(&self) -> Result<u64> {
        Ok(fs::metadata(&self.path)?.len())
    }

    /// Makes of `disk`, which is as it was when the log began, what it may hold if the power goes when the log has `length` bytes: all that was flushed, and of
    /// each sector that was written since then, as `choose` says, the new content or the old one. Returns how many sectors were lost.
    ///
    /// # Errors
    /// When the log is not one.
    pub fn cut(&self, disk: &Disk, length: u64, mut choose: impl FnMut() -> bool) -> Result<u64> {
        let log = File::open(&self.path)?;
        let entries = entries(&log, length)?;
        let flushed = entries.iter().rposition(|entry| entry.flags & FLUSH != 0);
        let mut lost = 0;
        for (position, entry) in entries.iter().enumerate() {
            let is_flushed = flushed.is_some_and(|flushed| position <= flushed);
            let lasts = is_flushed || entry.flags & FUA != 0;
            if entry.flags & DISCARD != 0 {
                continue;
            }
            let mut offset = 0;
            while offset < entry.length {
                let size = if lasts { entry.length } else { SECTOR };
                if lasts || choose() {
                    let mut data = vec![0; usize::try_from(size)?];
                    log.read_exact_at(&mut data, entry.data + offset)?;
                    disk.write(entry.position + offset, &data)?;
                } else {
                    lost += 1;
                }
                offset += size;
            }
        }
        Ok(lost)
    }
}

/// Entries that are whole within `length` bytes.
fn entries(log: &File, length: u64) -> Result<Vec<Entry>> {
    let number = |position: u64| -> Result<u64> {
        let mut bytes = [0; 8];
        log.read_exact_at(&mut bytes, position)?;
        Ok(u64::from_le_bytes(bytes))
    };
    ensure!(number(0)? == MAGIC, "the log of writes has another format");
    let mut all = Vec::new();
    let mut position = SECTOR;
    while position + SECTOR <= length {
        let [at, sectors, flags] = [
            number(position)?,
            number(position + 8)?,
            number(position + 16)?,
        ];
        let size = match flags & DISCARD {
            0 => sectors * SECTOR,
            _ => 0,
        };
        let end = position + SECTOR + size;
        // What was not written yet is a hole.
        if end > length || (sectors == 0 && flags == 0) {
            break;
        }
        all.push(Entry {
            position: at * SECTOR,
            data: position + SECTOR,
            length: size,
            flags,
        });
        position = end;
    }
    all.first().context("the log of writes is empty")?;
    Ok(all)
}
