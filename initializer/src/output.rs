use std::{path::Path, sync::Arc, time::Instant};

use contrast_atls::Identity;
use contrast_telemetry::exposure::PUBLIC;
use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};
use zeroize::Zeroizing;

use crate::{
    Config, Credentials, Enrolled, InstallError, Rollover, SocketError, Target, install,
    pauses::{Pauses, millis},
    secret::{self, WorkloadSecret},
    spiffe::{self, Svid},
};

/// The clock that also wakes this program, so that a test can lead both.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The next attempt to install what could not be installed.
struct Retry {
    at: Instant,
    pauses: Pauses,
}

/// Where the pod's programs find their identity: files and a socket.
pub(crate) struct Output {
    pub(crate) target: Target,
    pub(crate) identity: Arc<Identity>,
    pub(crate) private_key: Arc<Zeroizing<String>>,
    pub(crate) svid: watch::Sender<Option<Arc<Svid>>>,
    pub(crate) secret: watch::Sender<WorkloadSecret>,
}

/// The sockets, until it is dropped.
pub(crate) struct Sockets {
    _identity: Option<spiffe::Serving>,
    _secret: Option<secret::Serving>,
}

impl Output {
    /// Programs that read files need no socket, so the pod starts without one, too.
    pub(crate) fn serve(&self, config: &Config) -> Sockets {
        let identity = config.workload_api_socket().filter(|_| !config.once);
        let identity = identity.map(|path| {
            self.make_room(&path, spiffe::SOCKET_OPTION)?;
            spiffe::serve(&path, self.svid.subscribe())
        });
        let secret = config.workload_secret_socket().filter(|_| !config.once);
        let secret = secret.map(|path| {
            self.make_room(&path, secret::SOCKET_OPTION)?;
            secret::serve(&path, self.target.owner, self.secret.subscribe())
        });
        Sockets {
            _identity: identity.and_then(served),
            _secret: secret.and_then(served),
        }
    }

    /// Nothing was installed yet, so the directory may be missing.
    fn make_room(&self, socket: &Path, option: &'static str) -> Result<(), SocketError> {
        std::fs::create_dir_all(&self.target.base).map_err(|source| SocketError {
            path: socket.to_owned(),
            option,
            source,
        })
    }

    pub(crate) fn put(&self, credentials: &Credentials) -> Result<(), InstallError> {
        // Before the files: whoever waits for those finds it.
        let secret = credentials.workload_secret.clone();
        self.secret.send_replace(match secret {
            Some(secret) => WorkloadSecret::Known(Arc::new(secret)),
            None => WorkloadSecret::Absent,
        });
        install(&self.target, credentials, &self.private_key)?;
        let identity = Arc::clone(&self.identity);
        match Svid::new(credentials, identity, Arc::clone(&self.private_key)) {
            Ok(svid) => {
                self.svid.send_replace(Some(Arc::new(svid)));
            }
            Err(error) => tracing::error!("{:#}", anyhow::Error::new(error)),
        }
        Ok(())
    }

    /// Puts each answer, and each change that comes by itself; what cannot be put is tried again until it can, or until something newer
    /// takes its place. Ends when there will be no more answers.
    pub(crate) async fn keep(&self, mut rollover: Rollover, mut answers: mpsc::Receiver<Enrolled>) {
        let mut retry: Option<Retry> = None;
        loop {
            let due = retry.iter().map(|retry| retry.at);
            let due = due.chain(rollover.next_change()).min();
            let answer = match due {
                None => answers.recv().await.map(Some),
                Some(due) => tokio::select! {
                    answer = answers.recv() => answer.map(Some),
                    () = sleep_until(due.into()) => Some(None),
                },
            };
            match answer {
                None => return,
                Some(Some(answer)) => rollover.receive(now(), &answer),
                Some(None) => rollover.advance(now()),
            }
            retry = self.replace(&rollover, retry);
        }
    }

    /// The pod goes on with what is there when that fails; then says when to try again, later each time.
    fn replace(&self, rollover: &Rollover, before: Option<Retry>) -> Option<Retry> {
        let credentials = rollover.credentials();
        let error = match self.put(&credentials) {
            Ok(()) => {
                tracing::info!(
                    trusted = credentials.trusted.len(),
                    changes_again = rollover.next_change().is_some(),
                    exposure = PUBLIC,
                    "certificates installed"
                );
                return None;
            }
            Err(error) => anyhow::Error::new(error),
        };
        let mut pauses = before.map_or_else(Pauses::new, |before| before.pauses);
        let pause = pauses.next();
        tracing::error!(
            retry_in_ms = millis(pause),
            trusted = credentials.trusted.len(),
            "what was installed before stays, also a mesh CA whose overlap has ended: {error:#}"
        );
        let at = now() + pause;
        Some(Retry { at, pauses })
    }
}

fn served<T>(serving: Result<T, SocketError>) -> Option<T> {
    serving
        .map_err(|error| tracing::error!("{:#}", anyhow::Error::new(error)))
        .ok()
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
