use std::sync::Arc;

use contrast_proto::user as wire_status;
use contrast_proto::user::{
    GetManifestsRequest, GetManifestsResponse, GetSeedSharesRequest, GetStatusRequest,
    RecoverRequest, RecoverResponse, SeedShares, SetManifestRequest, SetManifestResponse,
    user_api_server::UserApi,
};
use tonic::{Request, Response, Status};

use super::{handler::answer, status::ApiError, wire};
use crate::{
    ops::Metrics,
    state::{Guard, Phase, StateError, Step},
};

/// The user API: see `proto/contrast/v1/user.proto`.
#[derive(Debug, Clone)]
pub(crate) struct UserService {
    pub(crate) guard: Arc<Guard>,
    pub(crate) metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl UserApi for UserService {
    async fn set_manifest(
        &self,
        request: Request<SetManifestRequest>,
    ) -> Result<Response<SetManifestResponse>, Status> {
        let work = async {
            let request = wire::update_request(request.into_inner())?;
            let active = self.guard.set_manifest(request).await?;
            self.guard.observer().step(Step::BeforeAnswer);
            Ok(wire::set_manifest_response(&active))
        };
        answer(&self.metrics, "SetManifest", work).await
    }

    async fn get_manifests(
        &self,
        _request: Request<GetManifestsRequest>,
    ) -> Result<Response<GetManifestsResponse>, Status> {
        let work = async { Ok(wire::manifests_response(self.guard.snapshot().active()?)) };
        answer(&self.metrics, "GetManifests", work).await
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RecoverResponse>, Status> {
        let work = async {
            let request = wire::recovery_request(request.get_ref())?;
            let active = self.guard.recover(request).await?;
            let transition = wire::transition_bytes(active.transition());
            Ok(RecoverResponse {
                transition,
                missing_shares: 0,
            })
        };
        answer(&self.metrics, "Recover", work).await
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<wire_status::Status>, Status> {
        Err(Status::unimplemented("this Coordinator is not replicated"))
    }

    async fn get_seed_shares(
        &self,
        _request: Request<GetSeedSharesRequest>,
    ) -> Result<Response<SeedShares>, Status> {
        let work = async {
            let snapshot = self.guard.snapshot();
            let history = match &*snapshot {
                Phase::Empty => return Err(ApiError::State(StateError::NoManifest)),
                Phase::Sealed(sealed) => sealed.history(),
                Phase::Active(active) => active.history(),
            };
            Ok(wire::seed_shares(history.seed_shares()))
        };
        answer(&self.metrics, "GetSeedShares", work).await
    }
}
