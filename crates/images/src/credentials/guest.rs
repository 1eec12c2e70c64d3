//! The file in a guest.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};
use zeroize::Zeroizing;

/// Size of the file, bytes.
const SIZE_MAX: u64 = 1024 * 1024;

/// Reads a file that a container may have written: it leads nowhere else, and neither waits for a writer nor takes all memory.
pub(super) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let refused = |found: &str| {
        let expected = "expected a regular file of at most 1 MiB";
        io::Error::other(format!("{expected}, found {found}"))
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(refused("a link")),
        Err(error) => return Err(error.into()),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(refused("something else"));
    }
    // All at once, so that no copy stays behind where it grew.
    let capacity = found.len().min(SIZE_MAX).saturating_add(1);
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(capacity).unwrap_or(0)));
    file.take(SIZE_MAX + 1).read_to_end(&mut text)?;
    match text.len() as u64 > SIZE_MAX {
        true => Err(refused("a larger one")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, fs, os::unix::fs::symlink};

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;
    use crate::CredentialFile;

    #[test]
    fn guest_reads_nothing_but_a_small_regular_file() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        let auths = r#"{"auths":{"registry.example":{"username":"u","password":"p"}}}"#;
        let most = usize::try_from(SIZE_MAX).expect("a size");
        let filled = |size: usize| format!("{auths}{}", " ".repeat(size - auths.len()));
        fs::write(at("file"), filled(most)).expect("writes");
        fs::write(at("large"), filled(most + 1)).expect("writes");
        symlink("file", at("link")).expect("links");
        fs::create_dir(at("directory")).expect("directory");
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, at("fifo"), FileType::Fifo, mode, 0).expect("a fifo");
        let get = |name: &str| CredentialFile::without_helpers(&at(name)).get("registry.example");
        assert!(get("file").expect("is read").is_some());
        assert!(get("absent").expect("is none").is_none());
        for (name, found) in [
            ("large", "a larger one"),
            ("link", "a link"),
            ("directory", "something else"),
            ("fifo", "something else"),
        ] {
            let error = get(name).expect_err(name);
            let reason = error.source().expect("a reason").to_string();
            assert!(
                reason.contains("regular file of at most 1 MiB") && reason.ends_with(found),
                "{name}: {reason}"
            );
        }
        // Where one works, any file does.
        let linked = CredentialFile::new(&at("link")).get("registry.example");
        assert!(linked.expect("is read").is_some());
    }
}
