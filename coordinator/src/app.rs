//! The service as a value: [`Bound::bind`] takes every port and opens the history before anything runs, [`Bound::run`]
//! serves until it is told to stop or a part fails.

mod audit;
mod runtime;
mod transit;

use std::{
    fs,
    future::Future,
    io::{self, Write},
    net::{SocketAddr, TcpListener as StdTcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use contrast_atls::{
    AcceptLimits, AtlsError, Identity, IdentityError, Incoming, Limits, ServerConfig,
};
use contrast_attestation::{Issuer, PlatformError};
use contrast_clock::{Entropy, SystemEntropy, SystemWallClock, WallClock};
use contrast_collateral::{AzureImds, Collateral, CompletingIssuer, OptionsError};
use contrast_proto::{mesh::mesh_api_server::MeshApiServer, user::user_api_server::UserApiServer};
use contrast_telemetry::{
    drain::{self, Watcher},
    exposure::PUBLIC,
    readiness::{Pending, Readiness},
    tasks::{TaskError, Tasks},
    traces,
};
use runtime::{PeerApi, ReplicaRuntime};
use tokio::{net::TcpListener, sync::Semaphore};
use tonic::transport::Server;
use tower::limit::GlobalConcurrencyLimitLayer;
use transit::TransitApi;

use crate::{
    AuditError,
    api::{
        ActiveManifestVerifier, MESH_ISSUING_MAX, MESH_REQUEST_BYTES_MAX, MeshService,
        USER_REQUEST_BYTES_MAX, USER_REQUESTS_MAX, UserService, forget_seed_shares,
    },
    attest::{self, AttestService},
    audit::{Recorder, subject, watch},
    cluster::{LogFile, LogMedium},
    config::Config,
    ops::{self, Metrics, Probes, refresh, space},
    peer::{self, PeerClient},
    replica::{Alone, Hosted, Parts, Replica, message::Place, peers::Peers},
    state::{Directory, Medium, Observer, StateError},
};

/// Longest time for one request, from its first byte on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests at the same time on one connection.
const STREAMS_PER_CONNECTION: u32 = 16;
/// A peer that answers no ping for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long probes and metrics may take to end after everything else did.
const OPS_STOP: Duration = Duration::from_secs(1);

/// How long the threads of replication may take to end.
const REPLICATION_STOP: Duration = Duration::from_secs(2);

/// The service could not be started, or ended with an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// A port is taken or not allowed.
    #[error("cannot bind the {what} to {address}; free the port or set {variable}")]
    Bind {
        /// The service.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Variable that changes it.
        variable: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The system does not tell which port was bound.
    #[error("cannot learn the bound address")]
    LocalAddress(#[source] io::Error),
    /// The addresses could not be written.
    #[error("cannot write the bound addresses to {}", path.display())]
    AddressFile {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no TEE.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The vendors' documents cannot be used as asked.
    #[error(transparent)]
    Collateral(#[from] OptionsError),
    /// There is no history.
    #[error(transparent)]
    State(#[from] StateError),
    /// The audit stream goes nowhere.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Nothing can write the audit stream.
    #[error("cannot start the thread of the audit stream")]
    AuditThread(#[source] io::Error),
    /// There is no TLS key.
    #[error("cannot make the key for attested TLS")]
    Identity(#[source] IdentityError),
    /// Replication has no threads.
    #[error("cannot start the threads of replication")]
    Runtime(#[source] io::Error),
    /// Others cannot reach this replica as configured.
    #[error(transparent)]
    Peers(#[from] peer::OptionsError),
    /// A part failed while serving.
    #[error(transparent)]
    Task(#[from] TaskError),
}

/// What the service gets from its surroundings. Tests hand in their own.
#[derive(Debug)]
pub struct Surroundings {
    /// The TEE that proves this Coordinator.
    pub issuer: Arc<dyn Issuer>,
    /// What CPU vendors publish.
    pub collateral: Collateral,
    /// Where the history is.
    pub medium: Box<dyn Medium>,
    /// Where the log of replication is.
    pub log: Box<dyn LogMedium>,
    /// Wall clock.
    pub clock: Arc<dyn WallClock>,
    /// Randomness for keys.
    pub entropy: Arc<dyn Entropy>,
    /// Hears of the steps of each change.
    pub observer: Observer,
}

impl Surroundings {
    /// The real ones, as `config` names them.
    ///
    /// # Errors
    /// When there is no TEE to ask, or the data directory cannot be used.
    pub fn of(config: &Config) -> Result<Self, AppError> {
        let issuer = config.issuer().issuer_on(AzureImds::shared())?;
        if config.insecure_software_tee.is_some() {
            tracing::warn!(
                exposure = PUBLIC,
                "INSECURE: this Coordinator proves itself with a software TEE; whoever can read its directory can \
                 impersonate it"
            );
        }
        let medium = Directory::claim(&config.data_dir).map_err(StateError::from)?;
        let log = LogFile::new(&medium);
        Ok(Self {
            log: Box::new(log),
            issuer,
            collateral: config.collateral.open()?,
            medium: Box::new(medium),
            clock: Arc::new(SystemWallClock),
            entropy: Arc::new(SystemEntropy),
            observer: Observer::default(),
        })
    }
}

/// Addresses that the service is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Addresses {
    /// User API.
    pub user_api: SocketAddr,
    /// Mesh API.
    pub mesh_api: SocketAddr,
    /// Attest API.
    pub attest_api: SocketAddr,
    /// Transit engine.
    pub transit_api: SocketAddr,
    /// Peer API; only with peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_api: Option<SocketAddr>,
    /// Probes and metrics.
    pub ops: SocketAddr,
}

/// A service whose ports are bound and whose history is read, but which does not run yet.
#[derive(Debug)]
pub struct Bound {
    user_api: TcpListener,
    mesh_api: TcpListener,
    attest_api: TcpListener,
    transit_api: TcpListener,
    peer_api: Option<PeerApi>,
    ops: StdTcpListener,
    addresses: Addresses,
    drain_deadline: Duration,
    data_dir: PathBuf,
    replica: Hosted,
    runtime: ReplicaRuntime,
    issuer: CompletingIssuer,
    identity: Arc<Identity>,
    clock: Arc<dyn WallClock>,
    metrics: Arc<Metrics>,
    audit: Arc<Recorder>,
    startup: Readiness,
    ports_pending: Pending,
}

impl Bound {
    /// Binds all ports, opens the history, and reports the addresses in the log and in the address file.
    ///
    /// # Errors
    /// When a port is taken or the history cannot be used.
    pub async fn bind(config: &Config, surroundings: Surroundings) -> Result<Self, AppError> {
        let startup = Readiness::default();
        let ports_pending = startup.register("ports");
        let user = (
            "user API",
            config.user_api_address,
            "CONTRAST_USER_API_ADDRESS",
        );
        let mesh = (
            "mesh API",
            config.mesh_api_address,
            "CONTRAST_MESH_API_ADDRESS",
        );
        let ops = (
            "probes and metrics",
            config.ops_address,
            "CONTRAST_OPS_ADDRESS",
        );
        let user_api = listen(user).await?;
        let mesh_api = listen(mesh).await?;
        let attest = (
            "attest API",
            config.attest_api_address,
            "CONTRAST_ATTEST_API_ADDRESS",
        );
        let attest_api = listen(attest).await?;
        let transit_api = listen(transit::port(config)).await?;
        let peer_api = match config.peers.peers.0.is_empty() {
            true => None,
            false => Some(
                listen((
                    "peer API",
                    config.peers.peer_api_address,
                    "CONTRAST_PEER_API_ADDRESS",
                ))
                .await?,
            ),
        };
        let ops = listen(ops).await?;
        let local = |listener: &TcpListener| listener.local_addr().map_err(AppError::LocalAddress);
        let addresses = Addresses {
            user_api: local(&user_api)?,
            mesh_api: local(&mesh_api)?,
            attest_api: local(&attest_api)?,
            transit_api: local(&transit_api)?,
            peer_api: peer_api.as_ref().map(local).transpose()?,
            ops: local(&ops)?,
        };
        let Surroundings {
            issuer,
            collateral,
            medium,
            log,
            clock,
            entropy,
            observer,
        } = surroundings;
        let started = clock.now();
        let identity = Identity::generate(started).map_err(AppError::Identity)?;
        let issuer = CompletingIssuer {
            issuer,
            collateral: Arc::new(collateral),
            clock: Arc::clone(&clock),
        };
        let runtime = ReplicaRuntime::start()?;
        let local = peer::Local::new(issuer.clone()).map_err(AppError::Identity)?;
        let peers: Arc<dyn Peers> = match addresses.peer_api {
            None => Arc::new(Alone(Place::new("alone"))),
            Some(bound) => {
                let own = config.peers.own_place(bound)?;
                let discovery = config.peers.discovery();
                Arc::new(PeerClient::new(local.clone(), own, discovery))
            }
        };
        let parts = Parts {
            may_join: addresses.peer_api.is_some(),
            peers,
            history: medium,
            log,
            clock: Arc::clone(&clock),
            entropy,
            observer,
            timing: config.timing(),
        };
        let replica = Hosted::new(Replica::open(parts)?, runtime.handle()?);
        let peer_api = peer_api.map(|listener| PeerApi { listener, local });
        let metrics = Arc::new(Metrics::new(started));
        let own = (identity.spki(), replica.boot().0);
        let audit = audit::open(config, &clock, &metrics, own)?;
        if let Some(path) = &config.address_file {
            write_addresses(path, &addresses).map_err(|source| AppError::AddressFile {
                path: path.clone(),
                source,
            })?;
        }
        tracing::info!(
            user_api = %addresses.user_api,
            mesh_api = %addresses.mesh_api,
            attest_api = %addresses.attest_api,
            transit_api = %addresses.transit_api,
            peer_api = ?addresses.peer_api,
            ops = %addresses.ops,
            state = replica.guard().snapshot().name(),
            exposure = PUBLIC,
            "coordinator is serving"
        );
        Ok(Self {
            user_api,
            mesh_api,
            attest_api,
            transit_api,
            peer_api,
            ops: ops.into_std().map_err(AppError::LocalAddress)?,
            addresses,
            drain_deadline: config.drain_deadline,
            data_dir: config.data_dir.clone(),
            replica,
            runtime,
            issuer,
            identity: Arc::new(identity),
            clock,
            metrics,
            audit,
            startup,
            ports_pending,
        })
    }

    /// The bound addresses, with the real port where 0 was asked for.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The replica, for tests and benches.
    pub fn replica(&self) -> &Hosted {
        &self.replica
    }

    /// Serves until `shutdown` is ready, then lets requests finish until the drain deadline.
    ///
    /// # Errors
    /// When a part fails; the others are then stopped.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let (trigger, watcher) = drain::channel();
        let (stop_ops, ops_stop) = drain::channel();
        let mut ops = Tasks::default();
        let probes = Probes {
            replica: self.replica.clone(),
            metrics: Arc::clone(&self.metrics),
            collateral: Arc::clone(&self.issuer.collateral),
            startup: self.startup.clone(),
            drain: watcher.clone(),
        };
        ops.spawn("ops", ops::serve(self.ops, probes, ops_stop));

        let mut apis = Tasks::default();
        apis.spawn(
            "collateral refresh",
            refresh::keep_fresh(self.issuer.clone(), watcher.clone()),
        );
        let metrics = Arc::clone(&self.metrics);
        apis.spawn(
            "store space",
            space::measure(self.data_dir, metrics, watcher.clone()),
        );
        let attest = AttestService::new(
            self.replica.clone(),
            self.issuer.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.metrics),
        );
        apis.spawn(
            "attest API",
            attest::serve(self.attest_api, attest, watcher.clone()),
        );
        let transit = TransitApi(self.transit_api);
        let hosted = (&self.replica, &self.clock);
        transit.spawn(&mut apis, hosted, &self.metrics, &watcher);
        let collateral = Arc::clone(&self.issuer.collateral);
        let tls = ServerConfig {
            identity: self.identity,
            issuer: Some(Arc::new(self.issuer)),
            verifier: None,
            clock: self.clock,
            limits: Limits::server(),
        };
        let mesh_tls = ServerConfig {
            verifier: Some(Arc::new(ActiveManifestVerifier {
                guard: Arc::clone(self.replica.guard()),
                collateral: Arc::clone(&collateral),
            })),
            ..tls.clone()
        };
        let seed_shares = Arc::default();
        apis.spawn(
            "seed shares",
            forget_seed_shares(
                Arc::clone(&seed_shares),
                self.replica.clone(),
                watcher.clone(),
            ),
        );
        let user = UserService {
            replica: self.replica.clone(),
            metrics: Arc::clone(&self.metrics),
            audit: Arc::clone(&self.audit),
            collection: seed_shares,
        };
        let mesh = MeshService {
            replica: self.replica.clone(),
            collateral,
            metrics: Arc::clone(&self.metrics),
            audit: Arc::clone(&self.audit),
            issuing: Arc::new(Semaphore::new(MESH_ISSUING_MAX)),
            volumes: Arc::default(),
            drain: watcher.clone(),
        };
        apis.spawn(
            "user API",
            serve_user(self.user_api, tls, user, watcher.clone()),
        );
        apis.spawn(
            "mesh API",
            serve_mesh(self.mesh_api, mesh_tls, mesh, watcher.clone()),
        );
        let watching = watch(
            self.replica.clone(),
            Arc::clone(&self.audit),
            watcher.clone(),
        );
        apis.spawn("audit", watching);
        let runtime = self.runtime.handle()?;
        if let Some(api) = self.peer_api {
            let serving = api.serve(self.replica.clone(), runtime.clone(), watcher.clone());
            apis.spawn("peer API", serving);
        }
        let drained = async move { watcher.draining().await };
        let living = runtime::take_part(self.replica.clone(), runtime, drained);
        apis.spawn("replica", living);
        drop(self.ports_pending);

        let outcome = tokio::select! {
            ended = apis.join() => ended,
            ended = ops.join() => ended,
            () = shutdown => {
                tracing::info!(deadline_s = self.drain_deadline.as_secs(), exposure = PUBLIC, "draining");
                // While it still serves: others take over before connections are cut.
                self.replica.leave(self.drain_deadline / 2).await;
                trigger.drain();
                match apis.join_within(self.drain_deadline).await {
                    Err(error @ TaskError::Deadline { .. }) => {
                        // A peer that does not answer must not make a stop look like a failure.
                        tracing::warn!(%error, "connections were closed by force");
                        Ok(())
                    }
                    ended => ended,
                }
            }
        };
        self.replica.stop().await;
        self.runtime.stop(REPLICATION_STOP).await;
        stop_ops.drain();
        let ops_outcome = ops.join_within(OPS_STOP).await;
        audit::close(self.audit, outcome.is_ok()).await;
        outcome?;
        if let Err(error) = ops_outcome {
            // A scraper that keeps its connection open is no reason to call the shutdown failed.
            tracing::warn!(%error, "probes and metrics did not end in time");
        }
        tracing::info!(exposure = PUBLIC, "coordinator stopped");
        Ok(())
    }
}

async fn listen(
    (what, address, variable): (&'static str, SocketAddr, &'static str),
) -> Result<TcpListener, AppError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| AppError::Bind {
            what,
            address,
            variable,
            source,
        })
}

fn write_addresses(path: &Path, addresses: &Addresses) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let json = serde_json::to_vec(addresses).map_err(io::Error::other)?;
    let mut file = fs::File::create(&new)?;
    file.write_all(&json)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn server() -> Server {
    Server::builder()
        .timeout(REQUEST_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .trace_fn(|request| {
            let header = request.headers().get("traceparent");
            traces::request(header.and_then(|header| header.to_str().ok()))
        })
}

async fn serve_user(
    listener: TcpListener,
    tls: ServerConfig,
    service: UserService,
    drain: Watcher,
) -> Result<(), tonic::transport::Error> {
    let service = UserApiServer::new(service).max_decoding_message_size(USER_REQUEST_BYTES_MAX);
    let incoming = Incoming::new(listener, tls, AcceptLimits::default());
    server()
        .layer(GlobalConcurrencyLimitLayer::new(USER_REQUESTS_MAX))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async move { drain.draining().await })
        .await
}

async fn serve_mesh(
    listener: TcpListener,
    tls: ServerConfig,
    service: MeshService,
    drain: Watcher,
) -> Result<(), tonic::transport::Error> {
    let (metrics, audit) = (Arc::clone(&service.metrics), Arc::clone(&service.audit));
    let note_refusals = Arc::new(move |_: SocketAddr, error: &AtlsError| {
        if let AtlsError::RefusedPeer(error) = error {
            metrics.attestation_failed();
            audit.record(subject::refused_evidence(error));
        }
    });
    let service = MeshApiServer::new(service).max_decoding_message_size(MESH_REQUEST_BYTES_MAX);
    let incoming = Incoming::new(listener, tls, AcceptLimits::default()).on_failure(note_refusals);
    server()
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async move { drain.draining().await })
        .await
}
