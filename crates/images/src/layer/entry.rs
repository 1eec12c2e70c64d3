//! One entry of a layer, as everyone who reads layers understands it. What readers understand differently is refused, and so is what
//! no image of a confidential pod needs.

use std::{collections::BTreeMap, io::Read};

use tar::{Entry, EntryType, Header};

use super::records::{Records, XATTR};
use crate::LayerError;

/// OCI image specification, "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// `NAME_MAX` and `PATH_MAX` of Linux.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;
const PERMISSIONS: u32 = 0o7777;
const NANOSECOND_DIGITS: usize = 9;
/// Attributes with a meaning that a container can rely on. Labels of security modules are the host's to choose, so they are left out.
const XATTRS_KEPT: [&[u8]; 4] = [
    b"security.capability",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"user.",
];
/// Attributes with which a layer could speak to the overlay file system.
const XATTRS_REFUSED: [&[u8]; 2] = [b"trusted.", b"user.overlay."];

/// An entry that passed every check that needs no other entry.
#[derive(Debug)]
pub(crate) struct Described<'a> {
    /// As the archive writes it.
    name: &'a [u8],
    /// Parts below the image's root, none for the root itself. Of a whiteout: what it removes. Of an opaque mark: its directory.
    pub(crate) path: Vec<&'a [u8]>,
    pub(crate) what: What<'a>,
    pub(crate) metadata: Metadata<'a>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What<'a> {
    Directory,
    File {
        size: u64,
    },
    Symlink {
        target: &'a [u8],
    },
    HardLink {
        target: Vec<&'a [u8]>,
    },
    /// Layers below have nothing of this name.
    Whiteout,
    /// Layers below have nothing in this directory.
    Opaque,
    /// A comment on the archive.
    Nothing,
}

/// What else is kept of a file or directory.
#[derive(Debug, Default)]
pub(crate) struct Metadata<'a> {
    pub(crate) permissions: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970, and nanoseconds after them.
    pub(crate) modified: (i64, u32),
    pub(crate) xattrs: BTreeMap<&'a [u8], &'a [u8]>,
}

/// Names of an entry, read from its archive.
pub(super) struct Names {
    name: Vec<u8>,
    target: Vec<u8>,
}

impl Names {
    pub(super) fn of(entry: &Entry<'_, impl Read>) -> Self {
        Self {
            name: entry.path_bytes().into_owned(),
            target: entry.link_name_bytes().unwrap_or_default().into_owned(),
        }
    }
}

impl<'a> Described<'a> {
    /// Reads an entry with these names, which has this extended header before it.
    pub(super) fn read(
        names: &'a Names,
        extended: &'a [u8],
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<Self, LayerError> {
        let refuse = |problem| refusal(&names.name, problem);
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            let mut global = Vec::new();
            entry
                .read_to_end(&mut global)
                .map_err(LayerError::Damaged)?;
            Records::only_comment(&global).map_err(refuse)?;
            return Ok(Self {
                name: &names.name,
                path: Vec::new(),
                what: What::Nothing,
                metadata: Metadata::default(),
            });
        }
        if kind.is_gnu_sparse() {
            return Err(refuse("is a sparse file, which layers must not have"));
        }
        let path = components(&names.name).map_err(refuse)?;
        let records = Records::parse(extended).map_err(refuse)?;
        if !records.are_those_of(extended, entry.size()) {
            return Err(refuse(
                "has an extended header that readers understand in different ways",
            ));
        }
        let metadata = Metadata::read(entry.header(), records).map_err(refuse)?;
        let what = What::of(kind, names, entry.size()).map_err(refuse)?;
        let (path, what) = whiteout(path, what).map_err(refuse)?;
        if path.is_empty() && !matches!(what, What::Directory | What::Opaque) {
            return Err(refuse("is the image's root, but no directory"));
        }
        Ok(Self {
            name: &names.name,
            path,
            what,
            metadata,
        })
    }

    pub(crate) fn refuse(&self, problem: &'static str) -> LayerError {
        refusal(self.name, problem)
    }

    /// The name, for people.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(self.name).into_owned()
    }
}

fn refusal(name: &[u8], problem: &'static str) -> LayerError {
    LayerError::Entry {
        entry: String::from_utf8_lossy(name).into_owned(),
        problem,
    }
}

impl<'a> What<'a> {
    fn of(kind: EntryType, names: &'a Names, size: u64) -> Result<Self, &'static str> {
        let what = match kind {
            EntryType::Regular | EntryType::Continuous => {
                if names.name.ends_with(b"/") {
                    return Err("is a file whose name ends like a directory's");
                }
                return Ok(Self::File { size });
            }
            EntryType::Directory => Self::Directory,
            EntryType::Symlink => {
                let target = names.target.as_slice();
                if target.is_empty() || target.contains(&0) || target.len() > PATH_MAX {
                    return Err("is a symbolic link with an impossible target");
                }
                Self::Symlink { target }
            }
            EntryType::Link => {
                let target = components(&names.target).map_err(|_| {
                    "is a hard link with an absolute target, or one with `..`, or too long a one"
                })?;
                Self::HardLink { target }
            }
            EntryType::Char | EntryType::Block => {
                return Err("is a device node, which images of confidential pods must not have");
            }
            _ => return Err("is neither a file nor a directory nor a link"),
        };
        // Some readers pass over it, some look for the next entry in it.
        match size {
            0 => Ok(what),
            _ => Err("has content, though it is no file"),
        }
    }
}

/// Makes a whiteout of a file that is called like one.
fn whiteout<'a>(
    mut path: Vec<&'a [u8]>,
    what: What<'a>,
) -> Result<(Vec<&'a [u8]>, What<'a>), &'static str> {
    let Some(last) = path.pop() else {
        return Ok((path, what));
    };
    if path.iter().any(|part| part.starts_with(WHITEOUT)) {
        return Err("lies in a directory that is called like a whiteout");
    }
    let Some(removed) = last.strip_prefix(WHITEOUT) else {
        path.push(last);
        return Ok((path, what));
    };
    if what != (What::File { size: 0 }) {
        return Err("is called like a whiteout, but is no empty file");
    }
    if last == OPAQUE {
        return Ok((path, What::Opaque));
    }
    if removed.is_empty() || removed == b"." || removed == b".." || removed.starts_with(WHITEOUT) {
        return Err("is a whiteout of something that cannot be there");
    }
    path.push(removed);
    Ok((path, What::Whiteout))
}

impl<'a> Metadata<'a> {
    fn read(header: &Header, records: Records<'a>) -> Result<Self, &'static str> {
        let old = header.as_old();
        let mode = number(&old.mode, header.mode().map(u64::from))?;
        let id = |record: Option<&[u8]>, field: &[u8], value| {
            let id = match record {
                Some(record) => decimal(record),
                None => number(field, value).ok(),
            };
            // The largest means "leave it" to chown(2).
            let id = id.and_then(|id| u32::try_from(id).ok());
            id.filter(|id| *id != u32::MAX)
                .ok_or("has an owner that is no user or group id")
        };
        let modified = match records.modified {
            Some(record) => time(record).ok_or("has a time that is none")?,
            None => (number(&old.mtime, header.mtime())?.cast_signed(), 0),
        };
        let mut xattrs = records.xattrs;
        let is = |name: &[u8], kinds: &[&[u8]]| kinds.iter().any(|kind| name.starts_with(kind));
        if xattrs.keys().any(|name| is(name, &XATTRS_REFUSED)) {
            return Err(
                "has an extended attribute of the overlay file system, or another trusted one",
            );
        }
        xattrs.retain(|name, _| is(name, &XATTRS_KEPT));
        Ok(Self {
            permissions: u32::try_from(mode).unwrap_or_default() & PERMISSIONS,
            uid: id(records.uid, &old.uid, header.uid())?,
            gid: id(records.gid, &old.gid, header.gid())?,
            modified,
            xattrs,
        })
    }
}

/// A number of a header; a field that was left empty is 0.
fn number(field: &[u8], value: std::io::Result<u64>) -> Result<u64, &'static str> {
    match value {
        Ok(value) => Ok(value),
        Err(_) if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
        Err(_) => Err("has a mode, owner or time that is no number"),
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with or without a fraction, also before 1970.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: i64 = seconds.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(NANOSECOND_DIGITS)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match seconds.starts_with('-') && nanoseconds > 0 {
        true => Some((
            whole.checked_sub(1)?,
            1_000_000_000_u32.checked_sub(nanoseconds)?,
        )),
        false => Some((whole, nanoseconds)),
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
    if path.len() > PATH_MAX {
        return Err("has a longer name than file systems allow");
    }
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.iter().any(|part| part.len() > NAME_MAX) {
        return Err("has a longer name than file systems allow");
    }
    match parts.contains(&b"..".as_slice()) {
        true => Err("leaves the image's root with `..`"),
        false => Ok(parts),
    }
}

/// Name of the attribute that an extended header's record sets.
pub(super) fn xattr_of(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(XATTR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_lie_before_1970() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"12.1234567899"), Some((12, 123_456_789)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-0.25"), Some((-1, 750_000_000)));
        assert_eq!(time(b"-62135596800"), Some((-62_135_596_800, 0)));
        for wrong in [
            &b""[..],
            b".5",
            b"1.x",
            b"1.-5",
            b"99999999999999999999",
            b"x",
        ] {
            assert_eq!(time(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn whiteouts_are_of_one_name_of_the_same_directory() {
        let of = |name: &'static [u8]| {
            let path = components(name).expect("a path");
            whiteout(path, What::File { size: 0 }).map(|(path, what)| (path.join(&b'/'), what))
        };
        assert_eq!(of(b"a/.wh.b"), Ok((b"a/b".to_vec(), What::Whiteout)));
        assert_eq!(of(b"a/.wh..b"), Ok((b"a/.b".to_vec(), What::Whiteout)));
        assert_eq!(of(b".wh..wh..opq"), Ok((b"".to_vec(), What::Opaque)));
        for wrong in [
            &b".wh."[..],
            b"a/.wh..",
            b"a/.wh...",
            b".wh..wh.aufs",
            b".wh.a/b",
        ] {
            assert!(of(wrong).is_err(), "{}", wrong.escape_ascii());
        }
        let directory = whiteout(vec![b".wh.a"], What::Directory);
        assert!(directory.is_err());
    }
}
