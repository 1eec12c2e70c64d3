//! Replicas as real processes on loopback, each with a disk of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use contrast_manifest::Manifest;
use contrast_proto::user::{GetStatusRequest, Status, user_api_client::UserApiClient};
use tonic::transport::Channel;

use super::{Deployment, Process, user_client};

/// One replica.
pub struct ReplicaProcess {
    /// Its disk and options.
    pub deployment: Deployment,
    peer: SocketAddr,
    peers: String,
    process: Option<Process>,
    pub user_api: SocketAddr,
    pub mesh_api: SocketAddr,
    pub transit_api: SocketAddr,
    pub ops: SocketAddr,
}

/// An address of loopback that nobody else uses: a port that is free now may be somebody's connection before the replica starts.
fn own_address() -> SocketAddr {
    static TAKEN: AtomicU8 = AtomicU8::new(1);
    let [.., second, first] = std::process::id().to_be_bytes();
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from((Ipv4Addr::new(127, 128 | second, first, number), 7778))
}

impl ReplicaProcess {
    /// As many replicas that know of each other, started.
    pub fn start_all(count: usize) -> Vec<Self> {
        let mut replicas = Self::place_all(count);
        replicas.iter_mut().for_each(Self::start);
        replicas
    }

    /// As many replicas that know of each other, none of which runs.
    pub fn place_all(count: usize) -> Vec<Self> {
        let places: Vec<SocketAddr> = (0..count).map(|_| own_address()).collect();
        let peers: Vec<String> = places.iter().map(ToString::to_string).collect();
        let place = |peer| Self {
            deployment: Deployment::new(),
            peer,
            peers: peers.join(","),
            process: None,
            user_api: peer,
            mesh_api: peer,
            transit_api: peer,
            ops: peer,
        };
        places.into_iter().map(place).collect()
    }

    fn command(&self) -> Command {
        let mut command = self.deployment.command();
        command
            .env("CONTRAST_PEER_API_ADDRESS", self.peer.to_string())
            .env("CONTRAST_PEERS", &self.peers)
            .env("CONTRAST_LOG_LEVEL", "info")
            .env("CONTRAST_CONFIRMATION_BOUND", "3")
            .stdout(Stdio::null());
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.deployment.data.path().join("log"))
            .expect("opens");
        command.stderr(log);
        command
    }

    /// Starts it on the disk that it had.
    pub fn start(&mut self) {
        let file = self.deployment.address_file();
        let _ = std::fs::remove_file(&file);
        let mut process = Process::spawn(self.command());
        let addresses = process.addresses(&file);
        self.user_api = addresses["user_api"];
        self.mesh_api = addresses["mesh_api"];
        self.transit_api = addresses["transit_api"];
        self.ops = addresses["ops"];
        self.process = Some(process);
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("runs").0.id()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.deployment.data.path().join("log")).unwrap_or_default()
    }

    /// What it says about itself.
    pub async fn status(&self, manifest: &Manifest) -> Status {
        let mut client = self.client(manifest).await;
        let status = client.get_status(GetStatusRequest {}).await;
        status.expect("tells its status").into_inner()
    }

    /// A client of its user API.
    pub async fn client(&self, manifest: &Manifest) -> UserApiClient<Channel> {
        user_client(self.user_api, manifest).await
    }

    /// Waits until it serves.
    pub async fn serves(&self, manifest: &Manifest) {
        let start = Instant::now();
        loop {
            let status = self.status(manifest).await;
            if status.not_serving_because.is_empty() {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "{status:?}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
