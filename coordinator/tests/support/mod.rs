//! A deployment under a software TEE, a Coordinator in this process or as a process of its own, and clients for it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module that each test program includes and uses in part"
)]

pub mod transit;
pub mod trio;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use clap::Parser;
use contrast_atls::{ClientConfig, Connector, Identity, Limits};
use contrast_attestation::{EvidenceVerifier, Issuer, PolicyHash, Tee, software::SoftwareTee};
use contrast_clock::{Entropy, SystemEntropy, SystemWallClock, WallClock};
use contrast_collateral::Collateral;
use contrast_coordinator::{
    AuditLog,
    app::{Addresses, Bound, Surroundings},
    cluster::LogFile,
    config::Config,
    state::{Directory, Observer},
};
use contrast_manifest::{Manifest, ManifestDocument, ManifestHash, PolicyDocument};
use contrast_pki::{
    WorkloadOwnerKey,
    shares::{
        EncryptedShare, SeedShareOwnerKey, SeedSharesDocument, decrypt_share,
        generate_owner_key_pem,
    },
};
use contrast_proto::{
    mesh::mesh_api_client::MeshApiClient,
    user::{
        OwnerSignature, RecoverRequest, SeedShares, SetManifestRequest,
        user_api_client::UserApiClient,
    },
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::oneshot};
use tonic::transport::{Channel, Endpoint};

pub const COORDINATOR_INITDATA: &[u8] = b"version = \"0.1.0\"\n# coordinator\n";
pub const WEB_INITDATA: &[u8] = b"version = \"0.1.0\"\n# web\n";

/// RSA-4096 takes seconds to generate; one key serves all tests of a program.
static SEED_SHARE_OWNER: LazyLock<String> =
    LazyLock::new(|| generate_owner_key_pem().expect("RSA key").to_string());

/// As above, for the RSA keys of the software TEE.
static TEE: LazyLock<SoftwareTee> =
    LazyLock::new(|| SoftwareTee::generate(now()).expect("software TEE"));

pub fn now() -> SystemTime {
    SystemWallClock.now()
}

pub fn policy_hash(document: &[u8]) -> PolicyHash {
    PolicyHash(ManifestHash::of(document).0)
}

/// Everything around a Coordinator.
pub struct Deployment {
    pub owner: WorkloadOwnerKey,
    pub data: TempDir,
}

impl Deployment {
    pub fn new() -> Self {
        let owner = WorkloadOwnerKey::generate(&SystemEntropy).expect("owner key");
        Self {
            owner,
            data: TempDir::new().expect("directory"),
        }
    }

    pub fn tee(&self) -> &'static SoftwareTee {
        &TEE
    }

    pub fn guest(&self, initdata: &[u8]) -> Arc<dyn Issuer> {
        Arc::new(TEE.snp_guest(policy_hash(initdata)))
    }

    /// A manifest with a Coordinator and a web workload; `name` is one of the workload's names.
    pub fn document(&self, name: &str) -> ManifestDocument {
        let entry = |sans: &[&str], id: &str, role: &str| PolicyDocument {
            sans: sans.iter().map(ToString::to_string).collect(),
            workload_secret_id: id.to_owned(),
            role: role.to_owned(),
            vcpus: None,
            spiffe_path: String::new(),
            sealed_secrets: Vec::new(),
        };
        let seed_share_owner = SeedShareOwnerKey::from_pem(&SEED_SHARE_OWNER).expect("own key");
        let mut document = ManifestDocument {
            policies: BTreeMap::from([
                (
                    policy_hash(COORDINATOR_INITDATA).to_string(),
                    entry(&["coordinator"], "", "coordinator"),
                ),
                (
                    policy_hash(WEB_INITDATA).to_string(),
                    entry(
                        &[name, "*", "spiffe://example/web"],
                        "apps/v1/Deployment/default/web",
                        "",
                    ),
                ),
            ]),
            workload_owner_pub_keys: vec![hex::encode(self.owner.public_key_spki())],
            seedshare_owner_pub_keys: vec![hex::encode(seed_share_owner.as_der())],
            ..ManifestDocument::default()
        };
        document
            .reference_values
            .push(&TEE.reference_value(Tee::Snp), "Software");
        document
    }

    pub fn manifest(&self, name: &str) -> Manifest {
        Manifest::parse(self.document(name).to_json().as_bytes()).expect("valid")
    }

    /// A request to set `manifest` after `base`, signed by the owner.
    pub fn request(&self, manifest: &Manifest, base: &[u8]) -> SetManifestRequest {
        let mut base_hash = [0; 32];
        if !base.is_empty() {
            base_hash.copy_from_slice(base);
        }
        let signature = self
            .owner
            .approve_update(&manifest.hash().0, &base_hash)
            .expect("signs");
        SetManifestRequest {
            manifest: Bytes::copy_from_slice(manifest.bytes()),
            policies: vec![
                Bytes::from_static(COORDINATOR_INITDATA),
                Bytes::from_static(WEB_INITDATA),
            ],
            base_transition: Bytes::copy_from_slice(base),
            signatures: vec![OwnerSignature {
                public_key: Bytes::copy_from_slice(self.owner.public_key_spki()),
                signature: signature.into(),
            }],
        }
    }

    /// What the seed share owner sends after decrypting its share.
    pub fn recover_request(&self, shares: &SeedShares, known: &[u8]) -> RecoverRequest {
        let document = SeedSharesDocument {
            salt: shares.salt.to_vec(),
            threshold: shares.threshold,
            set: shares.set.to_vec(),
            shares: shares
                .shares
                .iter()
                .map(|share| EncryptedShare {
                    public_key: share.public_key.to_vec(),
                    encrypted_seed: share.encrypted_seed.to_vec(),
                    digest: share.digest.to_vec(),
                })
                .collect(),
        };
        let share = decrypt_share(&document, &SEED_SHARE_OWNER).expect("own share");
        RecoverRequest {
            seed_share: Bytes::copy_from_slice(share.expose()),
            salt: shares.salt.clone(),
            known_transition: Bytes::copy_from_slice(known),
            force: false,
            forget_volumes: false,
        }
    }

    /// Options for ports that are free, in the deployment's data directory.
    pub fn config(&self) -> Config {
        let directory = self.data.path().to_str().expect("UTF-8");
        Config::parse_from([
            "coordinator",
            "--user-api-address=127.0.0.1:0",
            "--mesh-api-address=127.0.0.1:0",
            "--attest-api-address=127.0.0.1:0",
            "--transit-api-address=127.0.0.1:0",
            "--ops-address=127.0.0.1:0",
            "--audit-log=off",
            "--drain-deadline=2",
            "--data-dir",
            directory,
        ])
    }

    /// A Coordinator in this process.
    pub fn start(&self) -> Coordinator {
        self.start_with(Observer::default(), Arc::new(SystemEntropy))
    }

    pub fn start_with(&self, observer: Observer, entropy: Arc<dyn Entropy>) -> Coordinator {
        self.start_in(observer, entropy, Collateral::offline())
    }

    pub fn start_in(
        &self,
        observer: Observer,
        entropy: Arc<dyn Entropy>,
        collateral: Collateral,
    ) -> Coordinator {
        self.start_at(Arc::new(SystemWallClock), (observer, entropy, collateral))
    }

    pub fn start_at(
        &self,
        clock: Arc<dyn WallClock>,
        (observer, entropy, collateral): (Observer, Arc<dyn Entropy>, Collateral),
    ) -> Coordinator {
        let surroundings = self.surroundings(clock, (observer, entropy, collateral));
        Coordinator::start(self.config(), surroundings)
    }

    /// A Coordinator in this process whose audit stream goes to `log`.
    pub fn start_audited(&self, log: PathBuf) -> Coordinator {
        let parts = (
            Observer::default(),
            Arc::new(SystemEntropy) as _,
            Collateral::offline(),
        );
        let surroundings = self.surroundings(Arc::new(SystemWallClock), parts);
        let config = Config {
            audit_log: AuditLog::File(log),
            ..self.config()
        };
        Coordinator::start(config, surroundings)
    }

    fn surroundings(
        &self,
        clock: Arc<dyn WallClock>,
        (observer, entropy, collateral): (Observer, Arc<dyn Entropy>, Collateral),
    ) -> Surroundings {
        let directory = Directory::claim(self.data.path()).expect("own directory");
        Surroundings {
            issuer: self.guest(COORDINATOR_INITDATA),
            collateral,
            log: Box::new(LogFile::new(&directory)),
            medium: Box::new(directory),
            clock,
            entropy,
            observer,
        }
    }

    /// A Coordinator as a process of its own, with the options that a pod gives it.
    pub fn command(&self) -> Command {
        let tee = self.data.path().join("tee");
        let initdata = self.data.path().join("initdata");
        if !tee.exists() {
            std::fs::create_dir(&tee).expect("creates");
            TEE.save(&tee).expect("saves");
            std::fs::write(&initdata, COORDINATOR_INITDATA).expect("writes");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command
            .env_clear()
            .env("CONTRAST_USER_API_ADDRESS", "127.0.0.1:0")
            .env("CONTRAST_MESH_API_ADDRESS", "127.0.0.1:0")
            .env("CONTRAST_ATTEST_API_ADDRESS", "127.0.0.1:0")
            .env("CONTRAST_TRANSIT_API_ADDRESS", "127.0.0.1:0")
            .env("CONTRAST_OPS_ADDRESS", "127.0.0.1:0")
            .env("CONTRAST_DATA_DIR", self.data.path())
            .env("CONTRAST_ADDRESS_FILE", self.address_file())
            .env("CONTRAST_INSECURE_SOFTWARE_TEE", tee)
            .env("CONTRAST_INSECURE_INITDATA", initdata)
            .env("CONTRAST_LOG_FORMAT", "json")
            .stderr(Stdio::piped());
        command
    }

    pub fn address_file(&self) -> PathBuf {
        self.data.path().join("addresses.json")
    }
}

/// A Coordinator on a thread of its own; told to stop when dropped.
pub struct Coordinator {
    pub addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<Result<(), contrast_coordinator::app::AppError>>>,
}

impl Coordinator {
    pub fn start(config: Config, surroundings: Surroundings) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, addresses) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = Runtime::new().expect("runtime");
            runtime.block_on(async {
                let bound = Bound::bind(&config, surroundings).await?;
                ready.send(bound.addresses()).expect("the test waits");
                bound
                    .run(async {
                        let _ = stopped.await;
                    })
                    .await
            })
        });
        let addresses = addresses.recv().expect("the Coordinator starts");
        Self {
            addresses,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Stops it and returns how it ended. The clients of the test must be able to run meanwhile: they have to close their
    /// side of the connections.
    pub async fn stop(mut self) -> Result<(), contrast_coordinator::app::AppError> {
        drop(self.stop.take());
        let thread = self.thread.take().expect("runs");
        tokio::task::spawn_blocking(move || thread.join().expect("no panic"))
            .await
            .expect("joins")
    }
}

/// A process that is killed when dropped.
pub struct Process(pub Child);

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        Self(command.spawn().expect("starts"))
    }

    /// Reads the addresses that the process wrote.
    pub fn addresses(&mut self, file: &Path) -> BTreeMap<String, SocketAddr> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Ok(json) = std::fs::read(file) {
                return serde_json::from_slice(&json).expect("written in one piece");
            }
            if let Some(status) = self.0.try_wait().expect("waits") {
                panic!("ended with {status}: {}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("no addresses after 30 s");
    }

    /// What it logged; call it after its end.
    pub fn log(&mut self) -> String {
        let Some(mut log) = self.0.stderr.take() else {
            return "its log is elsewhere".to_owned();
        };
        let mut text = String::new();
        log.read_to_string(&mut text).expect("UTF-8");
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub async fn user_client(address: SocketAddr, manifest: &Manifest) -> UserApiClient<Channel> {
    let channel = channel(address, None, Arc::new(manifest.coordinator_verifier())).await;
    UserApiClient::new(channel.expect("connects"))
}

pub async fn mesh_client(
    address: SocketAddr,
    manifest: &Manifest,
    issuer: Arc<dyn Issuer>,
) -> Result<MeshApiClient<Channel>, String> {
    let verifier = Arc::new(manifest.coordinator_verifier());
    Ok(MeshApiClient::new(
        channel(address, Some(issuer), verifier).await?,
    ))
}

/// Connects; an error is the whole cause chain.
pub async fn channel(
    address: SocketAddr,
    issuer: Option<Arc<dyn Issuer>>,
    verifier: Arc<dyn EvidenceVerifier>,
) -> Result<Channel, String> {
    let identity = Arc::new(Identity::generate(now()).expect("identity"));
    channel_as(address, identity, issuer, verifier).await
}

pub async fn channel_as(
    address: SocketAddr,
    identity: Arc<Identity>,
    issuer: Option<Arc<dyn Issuer>>,
    verifier: Arc<dyn EvidenceVerifier>,
) -> Result<Channel, String> {
    let clock = Arc::new(SystemWallClock);
    let limits = Limits::client();
    let config = ClientConfig {
        identity,
        issuer,
        verifier: Some(verifier),
        clock,
        limits,
    };
    let connector = Connector::new(config);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("address");
    match endpoint.connect_with_connector(connector.clone()).await {
        Ok(channel) => Ok(channel),
        Err(error) => Err(connector
            .last_failure()
            .map_or_else(|| error.to_string(), |failure| failure.causes().to_string())),
    }
}

/// GET over plain HTTP/1.1: status and body.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (status, _, body) = get_as(address, path, "*/*");
    (status, body)
}

/// As [`get`], for a client that accepts `accept`; also returns the headers of the answer.
pub fn get_as(address: SocketAddr, path: &str, accept: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("sets");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .expect("sends");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("receives");
    let status = response
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("status");
    let (headers, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    (status, headers.to_owned(), body.to_owned())
}

/// Waits until `path` answers with `status`.
pub fn wait_for(address: SocketAddr, path: &str, status: u16) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (found, body) = get(address, path);
        if found == status {
            return body;
        }
        assert!(Instant::now() < deadline, "{path} is still {found}: {body}");
        thread::sleep(Duration::from_millis(20));
    }
}
