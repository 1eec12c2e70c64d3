//! Waiting for the files that the Initializer writes.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use crate::envoy::tls::{CERTIFICATE_FILE, KEY_FILE, PEER_CA_FILE};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
const REMINDER_INTERVAL: Duration = Duration::from_secs(15);

/// The certificate files did not appear.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificatesError {
    /// Files were still missing at the deadline.
    #[error(
        "{missing} still missing or empty after {} s; does the Initializer run and does it reach the Coordinator?",
        waited.as_secs()
    )]
    Deadline {
        /// What is missing.
        missing: MissingFiles,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A file cannot be looked at.
    #[error("cannot look at {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Files that are missing or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFiles(Vec<PathBuf>);

impl fmt::Display for MissingFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, path) in self.0.iter().enumerate() {
            let separator = if position > 0 { ", " } else { "" };
            write!(f, "{separator}{}", path.display())?;
        }
        Ok(())
    }
}

/// Waits until certificate, key and mesh CA exist in `directory`. The Initializer writes each by rename, so a file that
/// exists is complete.
///
/// # Errors
/// When a file is missing after `deadline`, or cannot be looked at.
pub async fn wait(directory: &Path, deadline: Duration) -> Result<(), CertificatesError> {
    let mut missing = missing_files(directory)?;
    let Some(first) = &missing else { return Ok(()) };
    tracing::info!(missing = %first, deadline_s = deadline.as_secs(), "waiting for the Initializer to write certificate files");
    let poll = async {
        let mut reminder = Instant::now() + REMINDER_INTERVAL;
        while let Some(files) = missing_files(directory)? {
            if Instant::now() >= reminder {
                tracing::warn!(missing = %files, "still waiting for the Initializer to write certificate files");
                reminder += REMINDER_INTERVAL;
            }
            missing = Some(files);
            sleep(POLL_INTERVAL).await;
        }
        tracing::info!("certificate files are there");
        Ok(())
    };
    match timeout(deadline, poll).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let missing = missing.unwrap_or_else(|| MissingFiles(vec![]));
            Err(CertificatesError::Deadline {
                missing,
                waited: deadline,
            })
        }
    }
}

fn missing_files(directory: &Path) -> Result<Option<MissingFiles>, CertificatesError> {
    let mut missing = Vec::new();
    for name in [CERTIFICATE_FILE, KEY_FILE, PEER_CA_FILE] {
        let path = directory.join(name);
        match path.metadata() {
            Ok(file) if file.is_file() && file.len() > 0 => {}
            Ok(_) => missing.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(path),
            Err(source) => return Err(CertificatesError::Unreadable { path, source }),
        }
    }
    Ok((!missing.is_empty()).then_some(MissingFiles(missing)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_once_the_last_file_is_there() {
        let directory = tempfile::tempdir().expect("directory");
        let put = |name: &str| std::fs::write(directory.path().join(name), "x").expect("file");
        put(CERTIFICATE_FILE);
        put(KEY_FILE);
        let late = async {
            sleep(Duration::from_millis(300)).await;
            put(PEER_CA_FILE);
        };
        let (waited, ()) = tokio::join!(wait(directory.path(), Duration::from_secs(20)), late);
        waited.expect("all files");
    }

    #[tokio::test]
    async fn deadline_names_every_missing_or_empty_file() {
        let directory = tempfile::tempdir().expect("directory");
        std::fs::write(directory.path().join(KEY_FILE), "").expect("file");
        std::fs::write(directory.path().join(PEER_CA_FILE), "x").expect("file");
        let error = wait(directory.path(), Duration::from_millis(1))
            .await
            .expect_err("deadline");
        let text = error.to_string();
        assert!(
            text.contains(CERTIFICATE_FILE) && text.contains(KEY_FILE),
            "{text}"
        );
        assert!(!text.contains(PEER_CA_FILE), "{text}");
    }
}
