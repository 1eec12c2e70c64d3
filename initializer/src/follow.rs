use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use contrast_atls::ClientConfig;
use contrast_pki::RootKey;
use contrast_proto::mesh::{WaitForTransitionRequest, mesh_api_client::MeshApiClient};
use contrast_telemetry::exposure::PUBLIC;
use contrast_telemetry::traces::Traced;
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    EnrollError, Enrolled, VolumeRecord, enroll,
    enroll::connect,
    pauses::{Pauses, millis},
    renewal_delay,
    report::Reporter,
};

/// The Coordinator answers a question for transitions within 30 s.
const POLL_TIMEOUT: Duration = Duration::from_secs(45);
/// Between two questions to a replica that does not know yet of the transition for which the pod has a certificate.
const LAGGING: Duration = Duration::from_secs(1);

/// The Coordinator that this pod enrols with.
pub(crate) struct Coordinator {
    /// `HOST:PORT` of the mesh API.
    pub(crate) address: String,
    /// The pod's side of attested TLS.
    pub(crate) client: ClientConfig,
    /// Hears of every attempt.
    pub(crate) reporter: Reporter,
}

/// A certificate that the pod has.
struct Held {
    not_after: SystemTime,
    transition: Vec<u8>,
}

impl Coordinator {
    /// What it remembers of this pod's volumes. Only answers of `deployment` count.
    pub(crate) fn volume_record(&self, deployment: RootKey) -> VolumeRecord {
        let config = Arc::new(self.client.clone());
        VolumeRecord::new(self.address.clone(), config, deployment)
    }

    /// Asks for new certificates: when `first` is about to end, and when another manifest is set. Ends when nobody takes the
    /// answers.
    pub(crate) async fn follow(&self, first: Enrolled, answers: mpsc::Sender<Enrolled>) {
        let deployment = first.root_key;
        let held = Held {
            not_after: first.not_after,
            transition: first.transition,
        };
        let known = watch::Sender::new(held.transition.clone());
        let news = Notify::new();
        tokio::select! {
            () = self.listen(known.subscribe(), &news) => {}
            () = self.renew(held, &deployment, &known, &news, answers) => {}
        }
    }

    /// Gives notice when the active transition is another than the one that is `known`, which the pod has a certificate for.
    async fn listen(&self, mut known: watch::Receiver<Vec<u8>>, news: &Notify) {
        let mut connection: Option<MeshApiClient<Traced>> = None;
        let mut pauses = Pauses::new();
        loop {
            let last = known.borrow_and_update().clone();
            match self.next_transition(&mut connection, &last).await {
                Ok(transition) => {
                    pauses = Pauses::new();
                    if transition == last {
                        continue;
                    }
                    news.notify_one();
                    if known.changed().await.is_err() {
                        return;
                    }
                    if *known.borrow() != transition {
                        tokio::time::sleep(LAGGING).await;
                    }
                }
                Err(error) => {
                    connection = None;
                    let delay = pauses.next();
                    tracing::debug!(
                        retry_in_ms = millis(delay),
                        "not told of new manifests: {:#}",
                        anyhow::Error::new(error)
                    );
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    async fn next_transition(
        &self,
        connection: &mut Option<MeshApiClient<Traced>>,
        known: &[u8],
    ) -> Result<Vec<u8>, EnrollError> {
        let client = match connection {
            Some(client) => client,
            None => {
                let client = connect(&self.address, &self.client, POLL_TIMEOUT).await?;
                connection.insert(client)
            }
        };
        let request = WaitForTransitionRequest {
            known: known.to_vec().into(),
        };
        let answer = client.wait_for_transition(request).await;
        let answer = answer.map_err(|status| EnrollError::refused(&status))?;
        Ok(answer.into_inner().transition.to_vec())
    }

    async fn renew(
        &self,
        mut held: Held,
        deployment: &RootKey,
        known: &watch::Sender<Vec<u8>>,
        news: &Notify,
        answers: mpsc::Sender<Enrolled>,
    ) {
        loop {
            let now = self.client.clock.now();
            // Without randomness the pod renews at the latest moment.
            let random = getrandom::u32().unwrap_or(0);
            let delay = renewal_delay(now, held.not_after, random);
            tracing::debug!(delay_s = delay.as_secs(), "waiting for renewal");
            let why = tokio::select! {
                () = tokio::time::sleep(delay) => "the certificate is about to end",
                () = news.notified() => "another manifest was set",
            };
            tracing::info!(exposure = PUBLIC, "asking for a new certificate: {why}");
            let until = Some(held.not_after);
            let enrolled = self.enroll_with_retries(Some(deployment), until).await;
            held = Held {
                not_after: enrolled.not_after,
                transition: enrolled.transition.clone(),
            };
            if answers.send(enrolled).await.is_err() {
                return;
            }
            known.send_replace(held.transition.clone());
        }
    }

    /// Tries until it works, with jittered exponential pauses, so that a thousand pods that start together do not knock
    /// together. `deployment` is the one that the pod belongs to, `held_until` the end of the certificate that it has.
    pub(crate) async fn enroll_with_retries(
        &self,
        deployment: Option<&RootKey>,
        held_until: Option<SystemTime>,
    ) -> Enrolled {
        let mut pauses = Pauses::new();
        let mut attempt = 1_u64;
        loop {
            let error = match enroll(&self.address, &self.client, deployment).await {
                Ok(enrolled) => {
                    let now = self.client.clock.now();
                    self.reporter.succeeded(now, enrolled.not_after);
                    return enrolled;
                }
                Err(error) => error,
            };
            self.reporter.failed(error.is_not_admitted());
            let delay = pauses.next();
            self.report(error, attempt, delay, held_until);
            tokio::time::sleep(delay).await;
            attempt = attempt.saturating_add(1);
        }
    }

    fn report(
        &self,
        error: EnrollError,
        attempt: u64,
        delay: Duration,
        held_until: Option<SystemTime>,
    ) {
        let retry_in_ms = millis(delay);
        let Some(held_until) = held_until else {
            let error = anyhow::Error::new(error);
            tracing::warn!(attempt, retry_in_ms, "not enrolled yet: {error:#}");
            return;
        };
        let valid_for_s = held_until
            .duration_since(self.client.clock.now())
            .map_or(0, |left| left.as_secs());
        let not_admitted = error.is_not_admitted();
        let error = anyhow::Error::new(error);
        if not_admitted {
            tracing::error!(
                attempt,
                retry_in_ms,
                valid_for_s,
                "the active manifest does not admit this pod; what is installed stays, but members refuse it when the overlap of the mesh CAs ends: \
                 stop this pod, or set a manifest with its policy: {error:#}"
            );
        } else if valid_for_s == 0 {
            tracing::error!(
                attempt,
                retry_in_ms,
                "the certificate has ended and is not renewed yet: {error:#}"
            );
        } else {
            tracing::warn!(
                attempt,
                retry_in_ms,
                valid_for_s,
                "not renewed yet; the certificate that is installed stays: {error:#}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use contrast_atls::{Identity, Limits};
    use contrast_clock::{SystemWallClock, WallClock as _};
    use contrast_telemetry::enrolment::Enrolment;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_that_fail_are_reported() {
        let base = tempfile::tempdir().expect("directory");
        let clock = Arc::new(SystemWallClock);
        let coordinator = Coordinator {
            // Nobody may listen there.
            address: "127.0.0.1:0".to_owned(),
            client: ClientConfig {
                identity: Arc::new(Identity::generate(clock.now()).expect("identity")),
                issuer: None,
                verifier: None,
                clock,
                limits: Limits::client(),
            },
            reporter: Reporter::new(base.path().to_owned()),
        };
        let attempts = coordinator.enroll_with_retries(None, None);
        tokio::time::timeout(Duration::from_secs(60), attempts)
            .await
            .expect_err("nobody listens");
        let report = Enrolment::read(base.path()).expect("readable");
        let report = report.expect("a report");
        assert!(report.failures > 2, "{report:?}");
        let expected = Enrolment {
            failures: report.failures,
            failing: 1,
            ..Enrolment::default()
        };
        assert_eq!(report, expected);
    }
}
