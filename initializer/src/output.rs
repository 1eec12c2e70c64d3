use std::{sync::Arc, time::Instant};

use contrast_atls::Identity;
use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};
use zeroize::Zeroizing;

use crate::{
    Config, Credentials, Enrolled, InstallError, Rollover, Target, install,
    pauses::{Pauses, millis},
    spiffe::{self, Serving, SocketError, Svid},
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
}

impl Output {
    /// Programs that read files need no socket, so the pod starts without one, too.
    pub(crate) fn serve(&self, config: &Config) -> Option<Serving> {
        let socket = config.workload_api_socket().filter(|_| !config.once)?;
        // Nothing was installed yet, so the directory may be missing.
        let made = std::fs::create_dir_all(&self.target.base).map_err(|source| SocketError {
            path: socket.clone(),
            source,
        });
        match made.and_then(|()| spiffe::serve(&socket, self.svid.subscribe())) {
            Ok(serving) => Some(serving),
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::error!("there is no Workload API: {error:#}");
                None
            }
        }
    }

    pub(crate) fn put(&self, credentials: &Credentials) -> Result<(), InstallError> {
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

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
