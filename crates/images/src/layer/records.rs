//! Extended headers of entries (POSIX.1-2024, pax, "pax Extended Header"), read by the lengths of their records.
//!
//! The reader of the archive, as those of some runtimes, splits them at line breaks instead, which values may contain. A name that
//! both see alike is that of the entry for everyone.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::{self, Read},
};

use tar::{Header, PaxExtensions};

use super::entry::xattr_of;

const BLOCK: usize = 512;
/// Key of a record that sets an extended attribute, before its name.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Bytes that described an entry: what was read between the contents of two entries.
#[derive(Default)]
pub(super) struct Description {
    bytes: RefCell<Vec<u8>>,
    is_content: Cell<bool>,
}

impl Description {
    pub(super) fn begin(&self) {
        self.bytes.borrow_mut().clear();
        self.is_content.set(false);
    }

    pub(super) fn end(&self) {
        self.is_content.set(true);
    }

    /// Applies `use_it` to the extended header, or to nothing; `padding` bytes belong to the entry before.
    pub(super) fn extended<T>(&self, padding: usize, use_it: impl FnOnce(&[u8]) -> T) -> T {
        let bytes = self.bytes.borrow();
        let mut rest = bytes.get(padding..).unwrap_or_default();
        while let Some((block, after)) = rest.split_at_checked(BLOCK) {
            let header = Header::from_byte_slice(block);
            let kind = header.entry_type();
            let is_extended = kind.is_pax_local_extensions();
            if !is_extended && !kind.is_gnu_longname() && !kind.is_gnu_longlink() {
                break;
            }
            let size = header.entry_size().ok();
            let size = size.and_then(|size| usize::try_from(size).ok());
            let size = size.unwrap_or(usize::MAX);
            if is_extended {
                return use_it(after.get(..size).unwrap_or_default());
            }
            let next = size.checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
            rest = after.get(next..).unwrap_or_default();
        }
        use_it(&[])
    }
}

/// Remembers descriptions that are read through it.
pub(super) struct Remembering<'a, R> {
    pub(super) inner: R,
    pub(super) description: &'a Description,
}

impl<R: Read> Read for Remembering<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if !self.description.is_content.get() {
            let read = buffer.get(..count).unwrap_or_default();
            self.description.bytes.borrow_mut().extend_from_slice(read);
        }
        Ok(count)
    }
}

/// Records that decide what an entry is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records<'a> {
    path: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    size: Option<&'a [u8]>,
    pub(super) uid: Option<&'a [u8]>,
    pub(super) gid: Option<&'a [u8]>,
    pub(super) modified: Option<&'a [u8]>,
    pub(super) xattrs: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Records<'a> {
    /// Reads records `length key=value`, each with a line break at its end.
    pub(super) fn parse(mut header: &'a [u8]) -> Result<Self, &'static str> {
        let mut records = Self::default();
        while !header.is_empty() {
            let (key, value, rest) =
                record(header).ok_or("has a malformed extended header before it")?;
            header = rest;
            let known = match key {
                b"path" => &mut records.path,
                b"linkpath" => &mut records.target,
                b"size" => &mut records.size,
                b"uid" => &mut records.uid,
                b"gid" => &mut records.gid,
                b"mtime" => &mut records.modified,
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err("is a sparse file, which layers must not have");
                }
                _ => {
                    if let Some(name) = xattr_of(key)
                        && (name.contains(&0) || records.xattrs.insert(name, value).is_some())
                    {
                        return Err(
                            "has an extended attribute twice, or one with an impossible name",
                        );
                    }
                    continue;
                }
            };
            if value.is_empty() || known.replace(value).is_some() {
                return Err(
                    "has no name, target, size, owner or time in its extended header, or more than one",
                );
            }
        }
        Ok(records)
    }

    /// Accepts what tools write for all entries that follow: a comment.
    pub(super) fn only_comment(mut header: &[u8]) -> Result<(), &'static str> {
        while !header.is_empty() {
            match record(header) {
                Some((b"comment", _, rest)) => header = rest,
                _ => {
                    return Err(
                        "is an extended header for all entries after it, which readers understand in different ways",
                    );
                }
            }
        }
        Ok(())
    }

    /// Whether somebody else, who reads `header` up to line breaks and finds that the content has `size` bytes, understands the same.
    pub(super) fn are_those_of(&self, header: &[u8], size: u64) -> bool {
        let found = |key: &[u8]| {
            let mut records = PaxExtensions::new(header).filter_map(Result::ok);
            let found = records.find(|record| record.key_bytes() == key);
            found.map(|record| record.value_bytes())
        };
        let own_size = self
            .size
            .map(|size| str::from_utf8(size).ok()?.parse().ok());
        found(b"path") == self.path
            && found(b"linkpath") == self.target
            && found(b"uid") == self.uid
            && found(b"gid") == self.gid
            && own_size.is_none_or(|own: Option<u64>| own == Some(size))
    }
}

fn record(header: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = header.iter().position(|byte| *byte == b' ')?;
    let length: usize = str::from_utf8(header.get(..blank)?).ok()?.parse().ok()?;
    let (record, rest) = header.split_at_checked(length)?;
    let record = record.get(blank.checked_add(1)?..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = record.split_at_checked(equals)?;
    Some((key, value.get(1..)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_decide_where_a_record_ends() {
        let records = Records::parse(b"22 x=\n13 path=evil\n\n \n10 path=a\n");
        assert_eq!(records.map(|records| records.path), Ok(Some(&b"a"[..])));
        for wrong in [
            &b"0 \n"[..],
            b"8 path=a\n",
            b"99 path=a\n",
            b"10 path=a",
            b"10 path=a\n10 path=b\n",
            b"8 path=\n",
            b"9 uid=1\n9 uid=2\n",
            b"23 SCHILY.xattr.user=1\n23 SCHILY.xattr.user=2\n",
            b"7 xyzw\n",
            b"24 GNU.sparse.name=abcd\n",
        ] {
            assert!(Records::parse(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
