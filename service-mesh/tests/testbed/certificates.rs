//! Certificates from the product's own CA code, installed as the Initializer does.

use std::{fs, path::Path, time::Duration};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use contrast_clock::{SystemEntropy, SystemWallClock, WallClock};
use contrast_pki::{LeafRequest, MeshCa, RootCa, SigningKey};
use contrast_service_mesh::envoy::tls::{CERTIFICATE_FILE, KEY_FILE, PEER_CA_FILE};

/// One manifest generation's CA.
pub(crate) struct Generation(MeshCa);

/// A workload's files.
pub(crate) struct Bundle {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) peer_ca: String,
}

impl Generation {
    pub(crate) fn new() -> Self {
        let now = SystemWallClock.now();
        let root =
            RootCa::new(SigningKey::generate(&SystemEntropy).expect("key"), now).expect("root");
        Self(MeshCa::generate(&SystemEntropy, &root, now).expect("mesh CA"))
    }

    /// Certificate and P-256 key for a workload of this generation.
    pub(crate) fn issue(&self) -> Bundle {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("key");
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().expect("public key");
        let request = LeafRequest {
            public_key_spki: spki.as_ref(),
            sans: &["workload".to_owned(), "backend".to_owned()],
            peer_ip: None,
            workload_secret_id: None,
            extensions: &[],
            spiffe_id: None,
            lifetime: Duration::from_secs(24 * 3600),
        };
        let now = SystemWallClock.now();
        let leaf = self
            .0
            .issue_leaf(&request, &SystemEntropy, now)
            .expect("certificate");
        let key = key.to_pkcs8v1().expect("key");
        Bundle {
            certificate: leaf.chain_pem,
            key: pem::encode(&pem::Pem::new("PRIVATE KEY", key.as_ref())),
            peer_ca: self.0.self_signed_pem(),
        }
    }
}

impl Bundle {
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
