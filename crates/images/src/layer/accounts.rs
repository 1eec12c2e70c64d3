//! Which entries of a layer change the image's users and groups.

use std::io::Read;

use super::{
    Visitor,
    entry::{Described, What},
};
use crate::{
    LayerError,
    accounts::{AccountChanges, FileChange, groups, users},
};

/// `/etc/passwd` and `/etc/group`.
const ACCOUNTS_MAX: u64 = 512 * 1024;
/// Lines, and names in lists, of such a file.
const NAMES_MAX: usize = 32 * 1024;

/// What a layer does to one file.
#[derive(Default)]
struct Change {
    /// The layers' below, by an opaque directory around it, or by a whiteout of it or of its directory.
    hidden: bool,
    own: Option<FileChange<Vec<u8>>>,
}

/// What is known of a layer after some of its entries.
#[derive(Default)]
pub(super) struct Scan {
    passwd: Change,
    group: Change,
    /// The directory of the files is none in this layer.
    elsewhere: bool,
}

impl Visitor for Scan {
    fn entry(&mut self, entry: &Described<'_>, content: &mut dyn Read) -> Result<(), LayerError> {
        match (entry.path.as_slice(), &entry.what) {
            ([] | [b"etc"], What::Opaque) | ([b"etc"], What::Whiteout) => {
                self.passwd.hidden = true;
                self.group.hidden = true;
            }
            ([b"etc"], What::File { .. } | What::Symlink { .. } | What::HardLink { .. }) => {
                self.elsewhere = true;
            }
            ([b"etc", b"passwd"], What::Whiteout) => self.passwd.hidden = true,
            ([b"etc", b"group"], What::Whiteout) => self.group.hidden = true,
            ([b"etc", b"passwd"], _) => self.passwd.own = Some(changed(entry, content)?),
            ([b"etc", b"group"], _) => self.group.own = Some(changed(entry, content)?),
            _ => {}
        }
        Ok(())
    }
}

impl Scan {
    pub(super) fn changes(self) -> AccountChanges {
        match self.elsewhere {
            true => AccountChanges {
                users: FileChange::Unknown,
                groups: FileChange::Unknown,
            },
            false => AccountChanges {
                users: self.passwd.parsed(users),
                groups: self.group.parsed(groups),
            },
        }
    }
}

impl Change {
    fn parsed<T>(self, parse: fn(&[u8]) -> T) -> FileChange<T> {
        match (self.own, self.hidden) {
            (Some(FileChange::Replaced(text)), _) => FileChange::Replaced(parse(&text)),
            (Some(FileChange::Unknown), _) => FileChange::Unknown,
            (Some(FileChange::Removed), _) | (Some(FileChange::Kept) | None, true) => {
                FileChange::Removed
            }
            (Some(FileChange::Kept) | None, false) => FileChange::Kept,
        }
    }
}

fn changed(
    entry: &Described<'_>,
    content: &mut dyn Read,
) -> Result<FileChange<Vec<u8>>, LayerError> {
    match entry.what {
        What::File { .. } => {}
        What::Symlink { .. } | What::HardLink { .. } => return Ok(FileChange::Unknown),
        _ => return Ok(FileChange::Removed),
    }
    let mut text = Vec::new();
    content
        .take(ACCOUNTS_MAX.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(LayerError::Damaged)?;
    if text.len() as u64 > ACCOUNTS_MAX {
        return Err(entry.refuse("has more than 512 KiB"));
    }
    let names = text.iter().filter(|byte| matches!(byte, b'\n' | b','));
    match names.count() <= NAMES_MAX {
        true => Ok(FileChange::Replaced(text)),
        false => Err(entry.refuse("has more than 32768 lines and names")),
    }
}
