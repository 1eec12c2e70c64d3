//! What pods ask about their encrypted volumes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contrast_atls::Peer;
use contrast_audit::Subject;
use contrast_manifest::CertificateKeyDigest;
use contrast_pki::VolumeAnswer;
use contrast_proto::mesh::Volume;
use contrast_telemetry::exposure::PUBLIC;
use tokio::{sync::Semaphore, task::spawn_blocking, time::Instant};

use super::{mesh::MeshService, status::ApiError, wire::VolumeQuestion};
use crate::{
    audit::subject,
    bucket::{Bucket, Pace},
    issue::admit,
    state::{Active, Advance, Advanced, Generation, KeysError, StateError},
};

/// Questions of one workload secret id: all replicas of a StatefulSet may start at the same time, and each asks twice. Each report costs a
/// flush on a majority of the replicas.
const PACE: Pace = Pace {
    burst: 256,
    period: Duration::from_millis(50),
};
/// Buckets in memory, after which full ones are forgotten. There are never many more: secret ids come from the manifest.
const BUCKETS_MAX: usize = 1024;

/// Questions that are answered at the same time; further ones wait. They have permits of their own, so that certificates do not wait for
/// disks.
const AT_ONCE_MAX: usize = 64;

/// How often workloads ask about their volumes.
#[derive(Debug)]
pub(crate) struct VolumeRates {
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
    at_once: Semaphore,
}

impl Default for VolumeRates {
    fn default() -> Self {
        Self {
            buckets: Mutex::default(),
            at_once: Semaphore::new(AT_ONCE_MAX),
        }
    }
}

impl VolumeRates {
    fn take(&self, secret_id: &Arc<str>, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        let bucket = buckets
            .entry(Arc::clone(secret_id))
            .or_insert_with(|| Bucket::full(PACE, now));
        bucket.take(now)
    }
}

impl MeshService {
    /// Answers a question about a volume of the workload secret id of the peer's policy entry.
    pub(super) async fn volume(
        &self,
        peer: Option<Peer>,
        question: VolumeQuestion,
    ) -> Result<Volume, ApiError> {
        let peer = Arc::new(peer.ok_or(ApiError::NotAttested)?);
        // Nobody closes the semaphore.
        let _permit = self.volumes.at_once.acquire().await;
        let (active, volumes) = self.replica.confirmed_volumes().await?;
        let (secret_id, workload) = {
            let (service, active, peer) = (self.clone(), Arc::clone(&active), Arc::clone(&peer));
            let judged = spawn_blocking(move || service.secret_id(&active, &peer));
            judged.await.map_err(|_| ApiError::Panicked)??
        };
        let taken = self.volumes.take(&secret_id, Instant::now());
        taken.map_err(|wait| ApiError::VolumeRate { wait })?;
        let found = match question.reported {
            None => Found {
                generation: volumes.get(&secret_id, question.volume).map(|at| at.number),
                accepted: false,
            },
            Some(number) => {
                let advance = Advance {
                    secret_id,
                    volume: question.volume,
                    generation: Generation {
                        number,
                        reporter: CertificateKeyDigest::of(&peer.spki).0,
                    },
                };
                self.advance(advance, workload).await?
            }
        };
        let known = found.generation.is_some();
        let generation = found.generation.unwrap_or_default();
        let answer = VolumeAnswer {
            nonce: &question.nonce,
            public_key_spki: &peer.spki,
            volume_id: &question.volume.0,
            reported: question.reported.unwrap_or_default(),
            known,
            generation,
            accepted: found.accepted,
        };
        let signature = answer.message().sign(active.keys().root());
        let signature = signature.map_err(KeysError::from)?;
        Ok(Volume {
            known,
            generation,
            accepted: found.accepted,
            signature: signature.into(),
        })
    }

    async fn advance(&self, advance: Advance, workload: Subject) -> Result<Found, ApiError> {
        let (volume, number) = (advance.volume, advance.generation.number);
        match self.replica.advance_volume(advance.clone()).await? {
            Advanced::Accepted => {
                let accepted = subject::volume(workload, &advance, None);
                self.audit.record(accepted);
                Ok(Found {
                    generation: Some(number),
                    accepted: true,
                })
            }
            Advanced::Behind { recorded } => {
                let behind = subject::volume(workload, &advance, Some(recorded));
                self.audit.record(behind);
                tracing::warn!(
                    event = "volume_behind",
                    %volume,
                    reported = number,
                    recorded,
                    exposure = PUBLIC,
                    "a pod reported a generation of an encrypted volume that is not new: it has an older image of the volume, or another \
                     pod opened it at the same time"
                );
                Ok(Found {
                    generation: Some(recorded),
                    accepted: false,
                })
            }
            Advanced::Full => Err(StateError::TooManyVolumes.into()),
        }
    }

    /// The workload secret id of the peer's policy entry under the manifest of `active`, and the workload, for the audit stream.
    fn secret_id(&self, active: &Active, peer: &Peer) -> Result<(Arc<str>, Subject), ApiError> {
        let now = self.replica.guard().clock().now();
        let verified = self.verify(active, peer, now)?;
        let key = CertificateKeyDigest::of(&peer.spki);
        let admission = admit(active.manifest(), &verified, key)?;
        match admission.entry.workload_secret_id.as_str() {
            "" => Err(ApiError::NoSecretId {
                policy: verified.policy_hash(),
            }),
            id => Ok((
                id.into(),
                subject::workload(&verified, admission.entry, key),
            )),
        }
    }
}

/// What is recorded of a volume.
struct Found {
    generation: Option<u64>,
    /// Whether that is what was reported.
    accepted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_workload_does_not_use_up_the_rate_of_another() {
        let (rates, now) = (VolumeRates::default(), Instant::now());
        let (greedy, other): (Arc<str>, Arc<str>) = ("greedy".into(), "other".into());
        for _ in 0..PACE.burst {
            assert_eq!(rates.take(&greedy, now), Ok(()));
        }
        assert_eq!(rates.take(&greedy, now), Err(PACE.period));
        assert_eq!(rates.take(&other, now), Ok(()));
        assert_eq!(rates.take(&greedy, now + PACE.period), Ok(()));
    }

    #[test]
    fn buckets_of_workloads_that_ask_no_more_are_forgotten() {
        let (rates, now) = (VolumeRates::default(), Instant::now());
        for id in 0..BUCKETS_MAX {
            assert_eq!(rates.take(&id.to_string().into(), now), Ok(()));
        }
        let later = now + PACE.period;
        assert_eq!(rates.take(&"late".into(), later), Ok(()));
        assert_eq!(rates.buckets.lock().expect("locks").len(), 1);
    }
}
