//! When a connection has to end although both sides are well: each takes one of few places.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

/// Longest age of a connection: a client that stays connects anew, and shows a certificate that is accepted then.
const AGE_MAX: Duration = Duration::from_mins(10);
/// Longest time in which no request begins and no answer has been sent.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How often it is looked at these, and at whether the client is still accepted.
const CHECK_PERIOD: Duration = Duration::from_secs(10);

/// When something happened last on a connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<Instant>);

impl Activity {
    pub(super) fn begin() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// A request began, or an answer was sent.
    pub(super) fn happens(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn idle(&self) -> Duration {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed()
    }
}

/// Waits until a connection that begins now has to end, and says why. `refused` tells whether its client is not accepted any more.
pub(super) async fn over<F: Future<Output = bool>>(
    activity: &Activity,
    refused: impl Fn() -> F,
) -> &'static str {
    let born = Instant::now();
    let mut checks = interval(CHECK_PERIOD);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is at once.
    checks.tick().await;
    loop {
        checks.tick().await;
        if born.elapsed() >= AGE_MAX {
            return "it is old";
        }
        if activity.idle() >= IDLE_TIMEOUT {
            return "it is idle";
        }
        if refused().await {
            return "its client is not accepted any more";
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        sync::atomic::{AtomicBool, Ordering},
    };

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_connections_end() {
        let (start, activity) = (Instant::now(), Activity::begin());
        let reason = over(&activity, || ready(false)).await;
        assert_eq!((reason, start.elapsed()), ("it is idle", IDLE_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn busy_connections_end_when_they_are_old() {
        let (start, activity) = (Instant::now(), Activity::begin());
        let busy = async {
            loop {
                activity.happens();
                sleep(IDLE_TIMEOUT / 2).await;
            }
        };
        let reason = tokio::select! {
            reason = over(&activity, || ready(false)) => reason,
            () = busy => "never",
        };
        assert_eq!((reason, start.elapsed()), ("it is old", AGE_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_end_whose_client_is_refused() {
        let (activity, refused) = (Activity::begin(), AtomicBool::new(false));
        let over = over(&activity, || ready(refused.load(Ordering::Relaxed)));
        let mut over = std::pin::pin!(over);
        timeout(CHECK_PERIOD * 3, &mut over)
            .await
            .expect_err("is accepted");
        refused.store(true, Ordering::Relaxed);
        assert_eq!(over.await, "its client is not accepted any more");
    }
}
