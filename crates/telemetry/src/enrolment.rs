//! How a pod's enrolment goes, in a file: the Initializer writes it, and the sidecar, which has a port for metrics, reads it.
//!
//! Lines of `name value`, whole numbers. Nothing else gets from the file into the metrics, whoever writes it.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Name of the file, in the directory that the Initializer fills.
pub const FILE: &str = "enrolment";

/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 4096;

/// How a pod's enrolment goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enrolment {
    /// Certificates that were received since the container started.
    pub enrolments: u64,
    /// Attempts that failed since then.
    pub failures: u64,
    /// 1 while the latest attempt is one that failed.
    pub failing: u64,
    /// 1 while the latest attempt is one that failed because the active manifest does not admit the pod.
    pub not_admitted: u64,
    /// When the latest certificate was received, in seconds since 1970-01-01; 0 before the first.
    pub issued: u64,
    /// When it expires; 0 before the first.
    pub expiry: u64,
}

impl Enrolment {
    /// Notes a certificate that was received at `now` and is valid until `expiry`.
    pub fn succeeded(&mut self, now: u64, expiry: u64) {
        *self = Self {
            enrolments: self.enrolments.saturating_add(1),
            failures: self.failures,
            failing: 0,
            not_admitted: 0,
            issued: now,
            expiry,
        };
    }

    /// Notes an attempt that failed.
    pub fn failed(&mut self, not_admitted: bool) {
        self.failures = self.failures.saturating_add(1);
        self.failing = 1;
        self.not_admitted = not_admitted.into();
    }

    /// Reads what the Initializer wrote in `directory`; `None` if it did not.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        // The workload may write here, too: a pipe in the file's place must not hold up the sidecar.
        let options = rustix::fs::OFlags::RDONLY
            | rustix::fs::OFlags::NONBLOCK
            | rustix::fs::OFlags::NOFOLLOW
            | rustix::fs::OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory.join(FILE), options, rustix::fs::Mode::empty());
        let file = match opened.map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => File::from(file?),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("expected a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut bytes)?;
        Ok(Some(Self::parse(&String::from_utf8_lossy(&bytes))))
    }

    /// What is not understood is left out, so that Initializer and sidecar need not be of one version.
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else {
                continue;
            };
            let field = found.fields_mut().into_iter().find(|(own, _)| *own == name);
            if let (Some((_, field)), Ok(value)) = (field, value.parse()) {
                *field = value;
            }
        }
        found
    }

    fn fields_mut(&mut self) -> [(&'static str, &mut u64); 6] {
        [
            ("enrolments", &mut self.enrolments),
            ("failures", &mut self.failures),
            ("failing", &mut self.failing),
            ("not_admitted", &mut self.not_admitted),
            ("issued", &mut self.issued),
            ("expiry", &mut self.expiry),
        ]
    }
}

impl fmt::Display for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = *self;
        for (name, value) in copy.fields_mut() {
            writeln!(f, "{name} {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut enrolment = Enrolment::default();
        enrolment.failed(true);
        enrolment.failed(false);
        enrolment.succeeded(1_800_000_000, 1_800_003_600);
        assert_eq!((enrolment.failing, enrolment.not_admitted), (0, 0));
        enrolment.failed(true);
        let text = enrolment.to_string();
        assert_eq!(
            text,
            "enrolments 1\nfailures 3\nfailing 1\nnot_admitted 1\nissued 1800000000\nexpiry 1800003600\n"
        );
        assert_eq!(Enrolment::parse(&text), enrolment);
    }

    #[test]
    fn nothing_but_a_regular_file_is_read_and_nobody_waits_for_it() {
        let directory =
            std::env::temp_dir().join(format!("contrast-enrolment-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join(FILE);
        assert_eq!(Enrolment::read(&directory).expect("none"), None);
        let made = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(made.expect("mkfifo").success());
        let pipe = Enrolment::read(&directory).expect_err("a pipe");
        std::fs::remove_file(&file).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", &file).expect("a link");
        let link = Enrolment::read(&directory).expect_err("a link");
        std::fs::remove_dir_all(&directory).expect("removed");
        assert!(pipe.to_string().contains("regular file"), "{pipe}");
        assert_ne!(link.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_known_numbers_are_read() {
        let text = "failures 3\nsecret abcdef\nexpiry 18e9\nexpiry\n-----BEGIN PRIVATE KEY-----\nissued -1\nfailing  1\n";
        let expected = Enrolment {
            failures: 3,
            ..Enrolment::default()
        };
        assert_eq!(Enrolment::parse(text), expected);
    }

    #[test]
    fn no_file_is_no_report() {
        let missing = Path::new("/nonexistent");
        assert_eq!(Enrolment::read(missing).expect("nothing there"), None);
    }
}
