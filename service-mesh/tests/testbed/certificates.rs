//! Certificates from the product's own CA code, installed as the Initializer does.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use contrast_clock::{SystemEntropy, SystemWallClock, WallClock};
use contrast_pki::{LeafRequest, MeshCa, RootCa, SigningKey};
use contrast_service_mesh::envoy::tls::{CERTIFICATE_FILE, KEY_FILE, PEER_CA_FILE};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// One manifest generation's CA.
pub(crate) struct Generation {
    mesh: MeshCa,
    root: Arc<RootCa>,
    begin: SystemTime,
}

/// A workload's files.
pub(crate) struct Bundle {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) peer_ca: String,
    pub(crate) root_ca: String,
}

impl Generation {
    pub(crate) fn new() -> Self {
        let begin = SystemWallClock.now() - 7 * DAY;
        let key = SigningKey::generate(&SystemEntropy).expect("key");
        Self::under(Arc::new(RootCa::new(key, begin).expect("root")), begin)
    }

    /// The generation that follows this one in the same deployment.
    pub(crate) fn next(&self) -> Self {
        Self::under(Arc::clone(&self.root), self.begin)
    }

    fn under(root: Arc<RootCa>, begin: SystemTime) -> Self {
        let mesh = MeshCa::generate(&SystemEntropy, &root, begin).expect("mesh CA");
        Self { mesh, root, begin }
    }

    /// Certificate and P-256 key for a workload of this generation.
    pub(crate) fn issue(&self) -> Bundle {
        self.issue_at(SystemWallClock.now(), None)
    }

    /// The same for `KIND/NAME` in the namespace `shop`.
    pub(crate) fn issue_as(&self, workload: &str) -> Bundle {
        let id = format!("spiffe://example/ns/shop/{workload}");
        self.issue_at(SystemWallClock.now(), Some(&id))
    }

    /// One that ended days ago.
    pub(crate) fn issue_expired(&self) -> Bundle {
        self.issue_at(self.begin, None)
    }

    fn issue_at(&self, start: SystemTime, spiffe_id: Option<&str>) -> Bundle {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("key");
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().expect("public key");
        let request = LeafRequest {
            public_key_spki: spki.as_ref(),
            sans: &["workload".to_owned(), "backend".to_owned()],
            peer_ip: None,
            workload_secret_id: None,
            extensions: &[],
            spiffe_id,
            lifetime: DAY,
        };
        let leaf = self
            .mesh
            .issue_leaf(&request, &SystemEntropy, start)
            .expect("certificate");
        let key = key.to_pkcs8v1().expect("key");
        Bundle {
            certificate: leaf.chain_pem,
            key: pem::encode(&pem::Pem::new("PRIVATE KEY", key.as_ref())),
            peer_ca: self.mesh.self_signed_pem(),
            root_ca: self.root.certificate_pem(),
        }
    }
}

impl Bundle {
    /// Trusts the mesh CA of `other`, too, as in an overlap.
    pub(crate) fn and_trusts(mut self, other: &Generation) -> Self {
        self.peer_ca += &other.mesh.self_signed_pem();
        self
    }

    pub(crate) fn install(&self, directory: &Path) {
        self.install_in_order(directory, [CERTIFICATE_FILE, KEY_FILE, PEER_CA_FILE]);
    }

    /// Replaces each file by rename within its directory.
    pub(crate) fn install_in_order(&self, directory: &Path, order: [&str; 3]) {
        for name in order {
            let content = match name {
                CERTIFICATE_FILE => &self.certificate,
                KEY_FILE => &self.key,
                _ => &self.peer_ca,
            };
            let temporary = directory.join(format!(".{name}.new"));
            fs::write(&temporary, content).expect("file");
            fs::rename(temporary, directory.join(name)).expect("rename");
        }
    }
}
