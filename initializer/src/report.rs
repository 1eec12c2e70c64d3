use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use contrast_telemetry::{
    enrolment::{Enrolment, FILE},
    metrics::unix_seconds,
};

use crate::{Target, install::PUBLIC};

/// Tells the sidecar how the enrolment goes, by a file: this container has no port.
pub(crate) struct Reporter {
    directory: PathBuf,
    enrolment: Mutex<Enrolment>,
}

impl Reporter {
    /// Reports into `directory`, once it is there.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            enrolment: Mutex::default(),
        }
    }

    /// Notes a certificate that was received at `now` and is valid until `not_after`.
    pub(crate) fn succeeded(&self, now: SystemTime, not_after: SystemTime) {
        self.note(|enrolment| enrolment.succeeded(unix_seconds(now), unix_seconds(not_after)));
    }

    /// Notes an attempt that failed.
    pub(crate) fn failed(&self, not_admitted: bool) {
        self.note(|enrolment| enrolment.failed(not_admitted));
    }

    fn note(&self, change: impl FnOnce(&mut Enrolment)) {
        let mut enrolment = self
            .enrolment
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(&mut enrolment);
        let text = enrolment.to_string();
        let target = Target::own(self.directory.clone());
        // The pod does its work without the report, and what keeps the file from being written keeps certificates from being installed.
        if let Err(error) = target.replace(&self.directory, FILE, text.as_bytes(), PUBLIC) {
            tracing::debug!("{:#}", anyhow::Error::new(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sidecar_reads_what_happened_last() {
        let base = tempfile::tempdir().expect("directory");
        let reporter = Reporter::new(base.path().join("later"));
        // Nobody made the directory yet, which is no reason to stop.
        reporter.failed(false);
        let directory = base.path().join("later");
        std::fs::create_dir(&directory).expect("directory");
        let received = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        reporter.succeeded(received, received + Duration::from_secs(3600));
        reporter.failed(true);
        let expected = Enrolment {
            enrolments: 1,
            failures: 2,
            failing: 1,
            not_admitted: 1,
            issued: 1_800_000_000,
            expiry: 1_800_003_600,
        };
        let read = Enrolment::read(&directory).expect("readable");
        assert_eq!(read, Some(expected));
    }
}
