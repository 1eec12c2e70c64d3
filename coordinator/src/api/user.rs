use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use contrast_audit::{Kind, Subject};
use contrast_proto::user::{
    self as wire_user, GetManifestsRequest, GetManifestsResponse, GetRecentDecisionsRequest,
    GetSealingKeyRequest, GetSeedSharesRequest, GetStatusRequest, ImportSeedRequest,
    RecentDecisions, RecoverRequest, RecoverResponse, SealingKey, SeedShares, SetManifestRequest,
    SetManifestResponse, user_api_server::UserApi,
};
use contrast_telemetry::drain::Watcher;
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

use super::{
    handler::{answer, decide},
    status::ApiError,
    wire,
};
use crate::{
    audit::{Recorder, Refusing, subject},
    ops::Metrics,
    replica::Hosted,
    state::{Collected, Collection, SeedShareRequest, StateError, Step},
};

/// How often seed shares are looked at for whether they waited too long.
const FORGETTING: Duration = Duration::from_secs(30);

/// The user API: see `proto/contrast/v1/user.proto`.
#[derive(Debug, Clone)]
pub(crate) struct UserService {
    pub(crate) replica: Hosted,
    pub(crate) metrics: Arc<Metrics>,
    /// Hears of every decision.
    pub(crate) audit: Arc<Recorder>,
    /// Seed shares, while there are too few.
    pub(crate) collection: Arc<Mutex<Collection>>,
}

impl UserService {
    fn refusing(&self, kind: Kind, subject: Subject) -> Refusing<'_> {
        Refusing {
            recorder: &self.audit,
            kind,
            subject,
        }
    }

    async fn collect(&self, request: SeedShareRequest) -> Result<Collected, StateError> {
        // Where nothing is to be recovered, no share is kept either.
        if self.replica.confirmed().await.is_ok() {
            return Err(StateError::AlreadyRecovered);
        }
        let snapshot = self.replica.guard().snapshot();
        let history = snapshot.history().ok_or(StateError::NothingToRecover)?;
        let mut collection = self
            .collection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        collection.add(history, request, now())
    }
}

/// Forgets seed shares that waited too long for the others, or that are not needed because another replica admitted this one or was
/// recovered; all of them when draining starts.
pub(crate) async fn forget_seed_shares(
    collection: Arc<Mutex<Collection>>,
    replica: Hosted,
    drain: Watcher,
) -> Result<(), Infallible> {
    while !drain.is_draining() {
        tokio::select! {
            () = sleep(FORGETTING) => {}
            () = drain.draining() => break,
        }
        if replica.guard().snapshot().active().is_ok() && replica.confirmed().await.is_ok() {
            clear(&collection);
        }
        let mut collection = collection.lock().unwrap_or_else(PoisonError::into_inner);
        collection.expire(now());
    }
    clear(&collection);
    Ok(())
}

/// The clock that also wakes this program, so that a test can lead both.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn clear(collection: &Mutex<Collection>) {
    let mut collection = collection.lock().unwrap_or_else(PoisonError::into_inner);
    collection.clear();
}

#[tonic::async_trait]
impl UserApi for UserService {
    async fn set_manifest(
        &self,
        request: Request<SetManifestRequest>,
    ) -> Result<Response<SetManifestResponse>, Status> {
        let update = subject::update(request.get_ref());
        let refusing = self.refusing(Kind::Manifest, update.clone());
        let work = async {
            let request = wire::update_request(request.into_inner())?;
            let receipt = self.replica.set_manifest(request).await?;
            let set = subject::transition(Kind::Manifest, update, receipt.transition);
            self.audit.record(set);
            self.replica.guard().observer().step(Step::BeforeAnswer);
            Ok(wire::set_manifest_response(receipt)?)
        };
        decide(&self.metrics, "SetManifest", refusing, work).await
    }

    async fn import_seed(
        &self,
        request: Request<ImportSeedRequest>,
    ) -> Result<Response<SetManifestResponse>, Status> {
        let first = request.get_ref().first.as_ref();
        let update = first.map(subject::update).unwrap_or_default();
        let refusing = self.refusing(Kind::Manifest, update.clone());
        let work = async {
            let wire::ImportRequest { first, seed, salt } =
                wire::import_request(request.into_inner())?;
            let receipt = self.replica.import(first, seed, salt).await?;
            let set = subject::transition(Kind::Manifest, update, receipt.transition);
            self.audit.record(set);
            Ok(wire::set_manifest_response(receipt)?)
        };
        decide(&self.metrics, "ImportSeed", refusing, work).await
    }

    async fn get_manifests(
        &self,
        _request: Request<GetManifestsRequest>,
    ) -> Result<Response<GetManifestsResponse>, Status> {
        let work = async {
            let active = self.replica.confirmed().await?;
            Ok(wire::manifests_response(&active))
        };
        answer(&self.metrics, "GetManifests", work).await
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RecoverResponse>, Status> {
        let refusing = self.refusing(Kind::Recovery, Subject::default());
        let work = async {
            let request = wire::seed_share_request(request.get_ref())?;
            match self.collect(request).await? {
                Collected::Missing(missing_shares) => {
                    self.audit.record(subject::share(missing_shares));
                    Ok(RecoverResponse {
                        transition: Bytes::new(),
                        missing_shares,
                    })
                }
                Collected::Complete(request) => {
                    let transition = self.replica.recover(request).await?;
                    let subject = Subject::default();
                    let recovered = subject::transition(Kind::Recovery, subject, transition);
                    self.audit.record(recovered);
                    clear(&self.collection);
                    Ok(RecoverResponse {
                        transition: wire::transition_bytes(transition),
                        missing_shares: 0,
                    })
                }
            }
        };
        decide(&self.metrics, "Recover", refusing, work).await
    }

    async fn get_seed_shares(
        &self,
        _request: Request<GetSeedSharesRequest>,
    ) -> Result<Response<SeedShares>, Status> {
        let work = async {
            let snapshot = self.replica.guard().snapshot();
            let history = snapshot.history();
            let history = history.ok_or(ApiError::State(StateError::NoManifest))?;
            Ok(wire::seed_shares(history.seed_shares()))
        };
        answer(&self.metrics, "GetSeedShares", work).await
    }

    async fn get_sealing_key(
        &self,
        _request: Request<GetSealingKeyRequest>,
    ) -> Result<Response<SealingKey>, Status> {
        let work = async {
            let snapshot = self.replica.guard().snapshot();
            // No confirmation: the key is the same under every manifest.
            let active = snapshot.active()?;
            let public = active.keys().deployment().sealing_key().public();
            let spki = public.to_spki().map_err(ApiError::SealingKey)?;
            Ok(SealingKey {
                public_key: spki.into(),
            })
        };
        answer(&self.metrics, "GetSealingKey", work).await
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<wire_user::Status>, Status> {
        let work = async {
            let (status, head) = (self.replica.status(), self.audit.position());
            Ok(wire::status_response(status, head))
        };
        answer(&self.metrics, "GetStatus", work).await
    }

    async fn get_recent_decisions(
        &self,
        _request: Request<GetRecentDecisionsRequest>,
    ) -> Result<Response<RecentDecisions>, Status> {
        let work = async {
            let (recent, head) = self.audit.recent();
            Ok(wire::recent_decisions(&recent, head))
        };
        answer(&self.metrics, "GetRecentDecisions", work).await
    }
}
