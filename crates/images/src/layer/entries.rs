//! The entries of a layer: which of them change the image's users and groups.
//!
//! Who unpacks layers follows links, and reads names that are written twice in different ways. Where that could matter, the change
//! is unknown, or the layer is refused.

use std::{collections::BTreeSet, io::Read};

use tar::{Entry, EntryType};

use super::records::Records;
use crate::{
    LayerError,
    accounts::{AccountChanges, FileChange, groups, users},
};

/// `/etc/passwd` and `/etc/group`.
const ACCOUNTS_MAX: u64 = 512 * 1024;
/// Lines, and names in lists, of such a file.
const NAMES_MAX: usize = 32 * 1024;
/// Paths of symbolic links that are remembered, bytes.
const LINKS_MAX: usize = 64 * 1024 * 1024;
/// What remembering a link costs besides.
const LINK_BYTES: usize = 64;
/// Directories around a file.
const DEPTH_MAX: usize = 64;
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Last parts of paths that can change users or groups.
const DECISIVE: [&[u8]; 7] = [
    b"etc",
    b"passwd",
    b"group",
    b".wh.etc",
    b".wh.passwd",
    b".wh.group",
    OPAQUE,
];

/// What a layer does to one file.
#[derive(Default)]
struct Change {
    /// The layers' below, by an opaque directory around it.
    hidden: bool,
    /// It has a whiteout, or its directory has.
    removed: bool,
    own: Option<FileChange<Vec<u8>>>,
}

/// What is known of a layer after some of its entries.
#[derive(Default)]
pub(super) struct Scan {
    passwd: Change,
    group: Change,
    /// The files may lie behind a link.
    elsewhere: bool,
    links: BTreeSet<Vec<u8>>,
    links_bytes: usize,
}

impl Scan {
    /// Looks at an entry and the extended header before it.
    pub(super) fn entry(
        &mut self,
        extended: &[u8],
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<(), LayerError> {
        let kind = entry.header().entry_type();
        let name = entry.path_bytes().into_owned();
        let refuse = |problem| LayerError::Entry {
            entry: String::from_utf8_lossy(&name).into_owned(),
            problem,
        };
        let path = components(&name).map_err(refuse)?;
        if kind.is_gnu_sparse() {
            return Err(refuse("is a sparse file, which layers must not have"));
        }
        let records = Records::parse(extended).map_err(refuse)?;
        if !records.are_those_of(extended, entry.size()) {
            return Err(refuse(
                "has an extended header that readers understand in different ways",
            ));
        }
        if kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default();
            components(&target)
                .map_err(|_| refuse("is a hard link with an absolute target, or one with `..`"))?;
        }
        self.elsewhere |= self.is_behind_link(&path);
        if kind.is_symlink() {
            self.remember_link(&path, &refuse)?;
        }
        match path.as_slice() {
            [OPAQUE] | [b"etc", OPAQUE] => {
                self.passwd.hidden = true;
                self.group.hidden = true;
            }
            [b".wh.etc"] => {
                self.passwd.removed = true;
                self.group.removed = true;
            }
            [b"etc", b".wh.passwd"] => self.passwd.removed = true,
            [b"etc", b".wh.group"] => self.group.removed = true,
            [b"etc"] if !kind.is_dir() => self.elsewhere = true,
            [b"etc", b"passwd"] => self.passwd.own = Some(content(kind, entry, &refuse)?),
            [b"etc", b"group"] => self.group.own = Some(content(kind, entry, &refuse)?),
            _ => {}
        }
        Ok(())
    }

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

    /// Whether an entry that could be `etc/passwd` or the like lies behind a symbolic link of this layer.
    fn is_behind_link(&self, path: &[&[u8]]) -> bool {
        let Some((last, around)) = path.split_last() else {
            return false;
        };
        if self.links.is_empty() || around.is_empty() || !DECISIVE.contains(last) {
            return false;
        }
        if around.len() > DEPTH_MAX {
            return true;
        }
        let mut directory = Vec::new();
        around.iter().any(|part| {
            directory.extend_from_slice(part);
            let found = self.links.contains(&directory);
            directory.push(b'/');
            found
        })
    }

    fn remember_link(
        &mut self,
        path: &[&[u8]],
        refuse: &impl Fn(&'static str) -> LayerError,
    ) -> Result<(), LayerError> {
        // Deeper ones are not looked for.
        if path.len() > DEPTH_MAX {
            return Ok(());
        }
        let path = path.join(&b'/');
        let bytes = path.len().saturating_add(LINK_BYTES);
        if self.links.insert(path) {
            self.links_bytes = self.links_bytes.saturating_add(bytes);
        }
        match self.links_bytes <= LINKS_MAX {
            true => Ok(()),
            false => Err(refuse("is one symbolic link too many")),
        }
    }
}

impl Change {
    fn parsed<T>(self, parse: fn(&[u8]) -> T) -> FileChange<T> {
        match (self.own, self.removed) {
            // Some go by the order of the two, some do not.
            (Some(_), true) => FileChange::Unknown,
            (Some(FileChange::Replaced(text)), false) => FileChange::Replaced(parse(&text)),
            (Some(FileChange::Unknown), false) => FileChange::Unknown,
            (Some(FileChange::Removed), false) | (None, true) => FileChange::Removed,
            (Some(FileChange::Kept) | None, false) => match self.hidden {
                true => FileChange::Removed,
                false => FileChange::Kept,
            },
        }
    }
}

fn content(
    kind: EntryType,
    entry: &mut impl Read,
    refuse: &impl Fn(&'static str) -> LayerError,
) -> Result<FileChange<Vec<u8>>, LayerError> {
    if !kind.is_file() && !kind.is_contiguous() {
        return Ok(match kind {
            EntryType::Link | EntryType::Symlink => FileChange::Unknown,
            _ => FileChange::Removed,
        });
    }
    let mut text = Vec::new();
    entry
        .take(ACCOUNTS_MAX.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(LayerError::Damaged)?;
    if text.len() as u64 > ACCOUNTS_MAX {
        return Err(refuse("has more than 512 KiB"));
    }
    let names = text.iter().filter(|byte| matches!(byte, b'\n' | b','));
    match names.count() <= NAMES_MAX {
        true => Ok(FileChange::Replaced(text)),
        false => Err(refuse("has more than 32768 lines and names")),
    }
}

/// Components of a path below the image's root; `/` and `./` are the root itself.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.contains(&0) {
        return Err("has a NUL byte in its name");
    }
    if path.starts_with(b"/") && path.iter().any(|byte| *byte != b'/') {
        return Err("has an absolute path");
    }
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    match parts.contains(&b"..".as_slice()) {
        true => Err("leaves the image's root with `..`"),
        false => Ok(parts),
    }
}
