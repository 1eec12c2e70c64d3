//! Shutdown in two steps: drain (finish what you have, accept nothing new), then stop.
//!
//! A [`Watcher`] is cloned into every task. [`Trigger::drain`] starts the first step; when the deadline passes or a second
//! signal arrives, the owner drops the tasks, which is the second step.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Starts draining.
#[derive(Debug, Clone)]
pub struct Trigger(CancellationToken);

/// Learns that draining started.
#[derive(Debug, Clone)]
pub struct Watcher(CancellationToken);

/// A connected trigger and watcher.
pub fn channel() -> (Trigger, Watcher) {
    let token = CancellationToken::new();
    (Trigger(token.clone()), Watcher(token))
}

impl Trigger {
    /// Tells all watchers to finish. Idempotent.
    pub fn drain(&self) {
        self.0.cancel();
    }
}

impl Watcher {
    /// Waits until draining starts; returns at once when it already did.
    pub async fn draining(&self) {
        self.0.cancelled().await;
    }

    /// Whether draining has started.
    pub fn is_draining(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Reads a drain deadline of the command line, in seconds.
///
/// # Errors
/// When it is no whole number from 0 to an hour's.
pub fn deadline(text: &str) -> Result<Duration, String> {
    const MAX: u64 = 3600;
    match text.parse() {
        Ok(seconds @ 0..=MAX) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "expected a whole number of seconds from 0 to {MAX}"
        )),
    }
}

/// Waits for SIGTERM or SIGINT and returns the signal's name.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn termination_signal() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_watcher_learns_of_the_drain() {
        let (trigger, watcher) = channel();
        let second = watcher.clone();
        assert!(!second.is_draining());
        trigger.drain();
        watcher.draining().await;
        assert!(second.is_draining());
    }
}
