//! An attested Coordinator that says what the test wants, and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use contrast_atls::{AcceptLimits, Identity, Incoming, Limits, ServerConfig};
use contrast_attestation::{PolicyHash, Tee, software::SoftwareTee};
use contrast_clock::{SystemWallClock, WallClock};
use contrast_manifest::{Manifest, ManifestDocument};
use contrast_proto::user::{
    self as wire, GetManifestsRequest, GetManifestsResponse, GetRecentDecisionsRequest,
    GetSealingKeyRequest, GetSeedSharesRequest, GetStatusRequest, ImportSeedRequest,
    RecentDecisions, RecoverRequest, RecoverResponse, SealingKey, SeedShares, SetManifestRequest,
    SetManifestResponse,
    user_api_server::{UserApi, UserApiServer},
};
use tokio::{net::TcpListener, sync::oneshot};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::context::Context;

/// What it answers.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// So many calls are answered with UNAVAILABLE and this reason first.
    pub(crate) unavailable: Option<(u32, &'static str)>,
    pub(crate) status: wire::Status,
    pub(crate) decisions: RecentDecisions,
    pub(crate) history: GetManifestsResponse,
    /// Everything but `Recover` and `GetStatus` is refused: it restarted and waits.
    pub(crate) waiting: bool,
    /// `Recover` is refused with this reason.
    pub(crate) refuses_recovery: Option<&'static str>,
}

/// What it was asked.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) calls: Vec<&'static str>,
    pub(crate) set: Vec<SetManifestRequest>,
    pub(crate) recover: Vec<RecoverRequest>,
}

/// A Coordinator in this process, on a port of its own.
pub(crate) struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Asked>>,
    _stop: oneshot::Sender<()>,
}

impl Fake {
    /// Starts it with evidence of `tee` for `policy`.
    pub(crate) fn start(tee: &SoftwareTee, policy: PolicyHash, script: Script) -> Self {
        let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
        let config = ServerConfig {
            identity: Arc::new(Identity::generate(clock.now()).expect("identity")),
            issuer: Some(Arc::new(tee.snp_guest(policy))),
            verifier: None,
            clock,
            limits: Limits::server(),
        };
        let asked = Arc::new(Mutex::new(Asked::default()));
        let service = Service {
            script: Mutex::new(script),
            asked: Arc::clone(&asked),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("address");
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("listener");
                let incoming = Incoming::new(listener, config, AcceptLimits::default());
                let server = Server::builder()
                    .add_service(UserApiServer::new(service))
                    .serve_with_incoming_shutdown(incoming, async move {
                        let _ = stopped.await;
                    });
                server.await.expect("serves");
            });
        });
        Self {
            address,
            asked,
            _stop: stop,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What it was asked since the last time.
    pub(crate) fn asked(&self) -> Asked {
        std::mem::take(&mut self.asked.lock().expect("lock"))
    }

    /// Replaces the address, which differs from run to run.
    pub(crate) fn hide_address(&self, shown: &str) -> String {
        shown.replace(&self.address(), "[ADDRESS]")
    }
}

/// A workspace whose manifest pins a new software TEE; the policies are those of `tests/data`.
pub(crate) fn workspace() -> (Context, SoftwareTee, Manifest) {
    let context = Context::new();
    let tee = SoftwareTee::generate(SystemWallClock.now()).expect("software TEE");
    let mut document =
        ManifestDocument::from_json(include_bytes!("../data/manifest.json")).expect("document");
    document.reference_values = Default::default();
    document
        .reference_values
        .push(&tee.reference_value(Tee::Snp), "");
    let text = document.to_json();
    context.file("manifest.json", &text);
    let manifest = Manifest::parse(text.as_bytes()).expect("valid");
    (context, tee, manifest)
}

/// The only Coordinator policy of `manifest`.
pub(crate) fn coordinator(manifest: &Manifest) -> PolicyHash {
    *manifest.coordinators().first().expect("one")
}

fn refusal(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "coordinator.contrast", []);
    Status::with_error_details(code, message, details)
}

struct Service {
    script: Mutex<Script>,
    asked: Arc<Mutex<Asked>>,
}

impl Service {
    fn asked(&self, call: &'static str) -> Result<(), Status> {
        self.asked.lock().expect("lock").calls.push(call);
        let mut script = self.script.lock().expect("lock");
        match &mut script.unavailable {
            Some((left, reason)) if *left > 0 => {
                *left -= 1;
                Err(refusal(Code::Unavailable, reason, "1 of 3 members answers"))
            }
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl UserApi for Service {
    async fn set_manifest(
        &self,
        request: Request<SetManifestRequest>,
    ) -> Result<Response<SetManifestResponse>, Status> {
        let request = request.into_inner();
        self.asked.lock().expect("lock").set.push(request);
        self.asked("SetManifest")?;
        Ok(Response::new(SetManifestResponse {
            transition: vec![7; 32].into(),
            ..Default::default()
        }))
    }

    async fn import_seed(
        &self,
        _: Request<ImportSeedRequest>,
    ) -> Result<Response<SetManifestResponse>, Status> {
        self.asked("ImportSeed")?;
        Ok(Response::new(SetManifestResponse::default()))
    }

    /// As a Coordinator of a version without sealed secrets.
    async fn get_sealing_key(
        &self,
        _: Request<GetSealingKeyRequest>,
    ) -> Result<Response<SealingKey>, Status> {
        Err(Status::unimplemented("unknown method"))
    }

    async fn get_manifests(
        &self,
        _: Request<GetManifestsRequest>,
    ) -> Result<Response<GetManifestsResponse>, Status> {
        self.asked("GetManifests")?;
        if self.script.lock().expect("lock").waiting {
            let message = "this Coordinator restarted";
            return Err(refusal(
                Code::FailedPrecondition,
                "RECOVERY_NEEDED",
                message,
            ));
        }
        let history = self.script.lock().expect("lock").history.clone();
        match history.transitions.is_empty() {
            true => Err(refusal(
                Code::FailedPrecondition,
                "NO_MANIFEST",
                "no manifest set yet",
            )),
            false => Ok(Response::new(history)),
        }
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RecoverResponse>, Status> {
        let request = request.into_inner();
        self.asked.lock().expect("lock").recover.push(request);
        self.asked("Recover")?;
        match self.script.lock().expect("lock").refuses_recovery {
            Some(reason) => Err(refusal(
                Code::FailedPrecondition,
                reason,
                "this history is not the one",
            )),
            None => Ok(Response::new(RecoverResponse {
                transition: vec![8; 32].into(),
                missing_shares: 0,
            })),
        }
    }

    async fn get_seed_shares(
        &self,
        _: Request<GetSeedSharesRequest>,
    ) -> Result<Response<SeedShares>, Status> {
        self.asked("GetSeedShares")?;
        Ok(Response::new(SeedShares::default()))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<wire::Status>, Status> {
        self.asked("GetStatus")?;
        Ok(Response::new(
            self.script.lock().expect("lock").status.clone(),
        ))
    }

    async fn get_recent_decisions(
        &self,
        _: Request<GetRecentDecisionsRequest>,
    ) -> Result<Response<RecentDecisions>, Status> {
        self.asked("GetRecentDecisions")?;
        Ok(Response::new(
            self.script.lock().expect("lock").decisions.clone(),
        ))
    }
}
