//! A pod's identity at the socket, from the product's own CA code.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use contrast_atls::Identity;
use contrast_clock::{SystemEntropy, SystemWallClock, WallClock as _};
use contrast_initializer::{
    Credentials,
    spiffe::{self, Serving, Svid},
};
use contrast_pki::{LeafRequest, MeshCa, RootCa, SigningKey};
use tempfile::TempDir;
use tokio::sync::watch;
use zeroize::Zeroizing;

pub(crate) const SPIFFE_ID: &str = "spiffe://shop.example/ns/votes/deployment/api";
pub(crate) const NAME: &str = "server";
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) struct Pod {
    directory: TempDir,
    root: Arc<RootCa>,
    identity: Arc<Identity>,
    private_key: Arc<Zeroizing<String>>,
    svid: watch::Sender<Option<Arc<Svid>>>,
    now: SystemTime,
    _serving: Serving,
}

impl Pod {
    /// Serves, but nothing yet.
    pub(crate) fn start() -> Self {
        let now = SystemWallClock.now();
        let identity = Arc::new(Identity::generate(now).expect("identity"));
        let key = pem::Pem::new("PRIVATE KEY", identity.private_key_pkcs8());
        let directory = tempfile::tempdir().expect("directory");
        let svid = watch::Sender::new(None);
        let socket = directory.path().join("workload.sock");
        let root = SigningKey::generate(&SystemEntropy).expect("key");
        Self {
            _serving: spiffe::serve(&socket, svid.subscribe()).expect("serves"),
            root: Arc::new(RootCa::new(root, now).expect("root CA")),
            private_key: Arc::new(Zeroizing::new(pem::encode(&key))),
            directory,
            identity,
            svid,
            now,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("workload.sock")
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    pub(crate) fn private_key(&self) -> &[u8] {
        self.identity.private_key_pkcs8()
    }

    pub(crate) fn new_ca(&self) -> MeshCa {
        MeshCa::generate(&SystemEntropy, &self.root, self.now).expect("mesh CA")
    }

    /// Gives the pod a new certificate of `ca`, and lets it trust `previous`, too.
    pub(crate) fn install(
        &self,
        ca: &MeshCa,
        spiffe_id: Option<&str>,
        previous: Option<&MeshCa>,
    ) -> Credentials {
        let request = LeafRequest {
            public_key_spki: self.identity.spki(),
            sans: &[NAME.to_owned()],
            spiffe_id,
            lifetime: LIFETIME,
            peer_ip: None,
            workload_secret_id: None,
            extensions: &[],
        };
        let leaf = ca.issue_leaf(&request, &SystemEntropy, self.now);
        let trusted = std::iter::once(ca).chain(previous);
        let credentials = Credentials {
            trusted: trusted.map(MeshCa::self_signed_pem).collect(),
            root_ca: self.root.certificate_pem(),
            certificate_chain: leaf.expect("leaf").chain_pem,
            workload_secret: None,
            sealed: Default::default(),
        };
        let (identity, key) = (Arc::clone(&self.identity), Arc::clone(&self.private_key));
        let svid = Svid::new(&credentials, identity, key).expect("SVID");
        self.svid.send_replace(Some(Arc::new(svid)));
        credentials
    }
}
