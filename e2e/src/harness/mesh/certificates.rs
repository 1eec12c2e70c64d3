//! Certificates from the product's own CA code, as the Coordinator would issue them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use contrast_clock::{SystemEntropy, SystemWallClock, WallClock as _};
use contrast_firewall::ENVOY_UID;
use contrast_pki::{LeafRequest, MeshCa, RootCa, SigningKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As when a manifest says nothing else.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Files that the Initializer installs.
const CERTIFICATE_FILE: &str = "certChain.pem";
const KEY_FILE: &str = "key.pem";
const MESH_CA_FILE: &str = "mesh-ca.pem";

/// The CA of one manifest generation.
#[derive(Debug)]
pub struct Generation {
    root: Arc<RootCa>,
    ca: MeshCa,
    now: SystemTime,
}

/// What the Initializer of one pod installs.
#[derive(Clone)]
pub struct Identity {
    chain: String,
    key: String,
    /// CA certificates that are trusted, PEM.
    pub trusted: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Identity");
        shown.field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Generation {
    /// A CA that was made now.
    ///
    /// # Errors
    /// When there is no entropy.
    pub fn create() -> Result<Self> {
        let now = SystemWallClock.now();
        let root = Arc::new(RootCa::new(SigningKey::generate(&SystemEntropy)?, now)?);
        let ca = MeshCa::generate(&SystemEntropy, &root, now)?;
        Ok(Self { root, ca, now })
    }

    /// The CA of the next manifest of the same deployment: another key, certified by the same root.
    ///
    /// # Errors
    /// When there is no entropy.
    pub fn next(&self) -> Result<Self> {
        let ca = MeshCa::generate(&SystemEntropy, &self.root, self.now)?;
        Ok(Self {
            root: Arc::clone(&self.root),
            ca,
            now: self.now,
        })
    }

    /// CA certificate, PEM.
    pub fn trusted(&self) -> String {
        self.ca.self_signed_pem()
    }

    /// Certificate and key of the workload `namespace/kind/name`, which carries also `names`.
    ///
    /// # Errors
    /// When a name cannot be in a certificate.
    pub fn issue(&self, workload: &str, names: &[String]) -> Result<Identity> {
        self.issue_at(workload, names, self.now)
    }

    /// The same, but it expired a day ago.
    ///
    /// # Errors
    /// When a name cannot be in a certificate.
    pub fn issue_expired(&self, workload: &str, names: &[String]) -> Result<Identity> {
        self.issue_at(workload, names, self.now - LIFETIME - DAY)
    }

    fn issue_at(&self, workload: &str, names: &[String], now: SystemTime) -> Result<Identity> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der()?;
        let id = format!("spiffe://test/ns/{workload}");
        let request = LeafRequest {
            public_key_spki: spki.as_ref(),
            sans: names,
            spiffe_id: Some(&id),
            lifetime: LIFETIME,
            peer_ip: None,
            workload_secret_id: None,
            extensions: &[],
        };
        let leaf = self.ca.issue_leaf(&request, &SystemEntropy, now)?;
        let key = key.to_pkcs8v1()?;
        Ok(Identity {
            chain: leaf.chain_pem,
            key: pem::encode(&pem::Pem::new("PRIVATE KEY", key.as_ref())),
            trusted: self.trusted(),
        })
    }
}

impl Identity {
    /// The same certificate, which trusts other CAs.
    #[must_use]
    pub fn trusting(mut self, trusted: &str) -> Self {
        trusted.clone_into(&mut self.trusted);
        self
    }

    /// Puts the files into `directory`, each by rename, readable for Envoy.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn install(&self, directory: &Path) -> Result<()> {
        let files = [
            (MESH_CA_FILE, &self.trusted, 0o444),
            (KEY_FILE, &self.key, 0o440),
            (CERTIFICATE_FILE, &self.chain, 0o444),
        ];
        for (name, content, mode) in files {
            let new = directory.join(format!(".{name}.new"));
            fs::write(&new, content)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
            chown(&new, None, Some(ENVOY_UID))?;
            fs::rename(&new, directory.join(name))?;
        }
        Ok(())
    }

    /// What the Initializer of a pod installed in `directory`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn installed(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            chain: read(CERTIFICATE_FILE)?,
            key: read(KEY_FILE)?,
            trusted: read(MESH_CA_FILE)?,
        })
    }

    /// A TLS client that presents the certificate.
    ///
    /// # Errors
    /// When the parts do not fit.
    pub fn client(&self) -> Result<Arc<ClientConfig>> {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let config = ClientConfig::builder().with_root_certificates(roots(&self.trusted)?);
        Ok(Arc::new(config.with_client_auth_cert(chain, key)?))
    }
}

/// A TLS client without a certificate that trusts `trusted`, PEM.
///
/// # Errors
/// When it holds no certificate.
pub fn anonymous(trusted: &str) -> Result<Arc<ClientConfig>> {
    let config = ClientConfig::builder().with_root_certificates(roots(trusted)?);
    Ok(Arc::new(config.with_no_client_auth()))
}

fn roots(trusted: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots
            .add(certificate?)
            .context("a CA certificate was refused")?;
    }
    Ok(roots)
}
