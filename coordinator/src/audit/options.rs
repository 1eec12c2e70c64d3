use std::{
    convert::Infallible,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where the audit stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditLog {
    /// Standard output, which nothing else uses.
    Stdout,
    /// Nowhere; the latest records are in memory.
    Off,
    /// To the end of a file.
    File(PathBuf),
}

/// The audit stream cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot append to the audit log {what}; make it writable or set CONTRAST_AUDIT_LOG")]
pub struct AuditError {
    what: String,
    #[source]
    source: io::Error,
}

impl FromStr for AuditLog {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "-" => Self::Stdout,
            "off" => Self::Off,
            path => Self::File(path.into()),
        })
    }
}

impl AuditLog {
    /// Opens it; `None` for nowhere.
    ///
    /// # Errors
    /// When it cannot be opened, or its last line cannot be ended.
    pub(crate) fn open(&self) -> Result<Option<File>, AuditError> {
        let failed = |what: String| |source| AuditError { what, source };
        match self {
            Self::Off => Ok(None),
            Self::Stdout => {
                // A handle without the buffer of the standard library, which would hide what was not written.
                let own = io::stdout().as_fd().try_clone_to_owned();
                let own = own.map_err(failed("on standard output".to_owned()))?;
                Ok(Some(File::from(own)))
            }
            Self::File(path) => {
                let opened = append(path).map_err(failed(path.display().to_string()))?;
                Ok(Some(opened))
            }
        }
    }
}

/// A process that was killed may have left half a line.
fn append(path: &Path) -> io::Result<File> {
    let mut file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_of_a_process_before_is_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        for (before, after) in [
            ("", "x\n"),
            ("{\"audit\":1", "{\"audit\":1\nx\n"),
            ("{}\n", "{}\nx\n"),
        ] {
            std::fs::write(&path, before).expect("writes");
            let log = AuditLog::File(path.clone());
            let mut file = log.open().expect("opens").expect("a file");
            file.write_all(b"x\n").expect("writes");
            assert_eq!(std::fs::read_to_string(&path).expect("reads"), after);
        }
    }

    #[test]
    fn file_that_cannot_be_opened_is_named() {
        let log: AuditLog = "/dev/null/audit".parse().expect("a path");
        let error = log.open().expect_err("no directory").to_string();
        assert!(
            error.contains("/dev/null/audit") && error.contains("CONTRAST_AUDIT_LOG"),
            "{error}"
        );
        assert_eq!("-".parse(), Ok(AuditLog::Stdout));
        assert!(
            "off"
                .parse::<AuditLog>()
                .expect("off")
                .open()
                .expect("off")
                .is_none()
        );
    }
}
