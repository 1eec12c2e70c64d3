//! The pod itself: its certificate files, the kernel's rules, Envoy.

use std::{fs, io, path::Path, sync::Arc, time::SystemTime};

use rustls::{RootCertStore, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};

use crate::{
    Pod,
    certificate::{Facts, Moment, Validity, leads_to, short, store, validity},
    report::{Reason, Rows},
};

const CERTIFICATE_FILE: &str = "certChain.pem";
const KEY_FILE: &str = "key.pem";
const MESH_CA_FILE: &str = "mesh-ca.pem";
const ROOT_CA_FILE: &str = "coordinator-root-ca.pem";

/// What the files hold, as far as it can be used.
pub(crate) struct Material {
    /// The pod's certificate chain and key; `None` when unusable.
    pub(crate) identity: Option<Arc<CertifiedKey>>,
    /// Mesh CAs that are trusted.
    pub(crate) mesh: RootCertStore,
    /// Identifiers of their keys.
    pub(crate) mesh_keys: Vec<String>,
    /// The deployment's root CA; empty when it is not there.
    pub(crate) root: RootCertStore,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{file} cannot be read: {source}")]
    Read {
        file: &'static str,
        source: io::Error,
    },
    #[error("{file} is no PEM of the expected kind: {source}")]
    Pem {
        file: &'static str,
        source: pem::Error,
    },
    #[error("{file} holds no certificate")]
    Empty { file: &'static str },
    #[error("{file} holds a certificate that cannot be read: {source}")]
    Certificate {
        file: &'static str,
        source: der::Error,
    },
    #[error("{file} holds a key of an unknown kind: {source}")]
    Key {
        file: &'static str,
        source: rustls::Error,
    },
}

fn certificates(
    directory: &Path,
    file: &'static str,
) -> Result<Vec<(CertificateDer<'static>, Facts)>, FileError> {
    let bytes =
        fs::read(directory.join(file)).map_err(|source| FileError::Read { file, source })?;
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|source| FileError::Pem { file, source })?;
        let facts =
            Facts::of(&certificate).map_err(|source| FileError::Certificate { file, source })?;
        all.push((certificate, facts));
    }
    match all.is_empty() {
        true => Err(FileError::Empty { file }),
        false => Ok(all),
    }
}

fn key(directory: &Path) -> Result<Arc<dyn rustls::sign::SigningKey>, FileError> {
    let file = KEY_FILE;
    // A key is `zeroize`d by its owner in rustls; the text is read by its parser straight from the file.
    let key = PrivateKeyDer::from_pem_file(directory.join(file)).map_err(|error| match error {
        pem::Error::Io(source) => FileError::Read { file, source },
        source => FileError::Pem { file, source },
    })?;
    aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|source| FileError::Key { file, source })
}

const FILES_HINT: &str = "the Initializer writes these files when the Coordinator accepts the pod: read its log, and whether a \
    manifest is set; the key is readable for root and Envoy only";

/// Reads the files of `directory` and checks them against each other.
pub(crate) fn files(directory: &Path, now: SystemTime, rows: &mut Rows) -> Material {
    let chain = certificates(directory, CERTIFICATE_FILE);
    let mesh = certificates(directory, MESH_CA_FILE);
    let key = key(directory);
    let problems = [
        chain.as_ref().err().map(ToString::to_string),
        key.as_ref().err().map(ToString::to_string),
        mesh.as_ref().err().map(ToString::to_string),
    ];
    let problems: Vec<String> = problems.into_iter().flatten().collect();
    let expected = "certificate, key and mesh CA, readable";
    match problems.is_empty() {
        true => rows.ok("certificate files", expected, "all are there"),
        false => rows.failed(
            "certificate files",
            expected,
            problems.join("; "),
            Reason::FilesUnusable,
            FILES_HINT,
        ),
    }
    let chain = chain.unwrap_or_default();
    let mesh = mesh.unwrap_or_default();
    let (mesh, mesh_facts): (Vec<_>, Vec<_>) = mesh.into_iter().unzip();
    let mesh_store = store(&mesh);
    let root = certificates(directory, ROOT_CA_FILE).unwrap_or_default();
    let root: Vec<_> = root
        .into_iter()
        .map(|(certificate, _)| certificate)
        .collect();

    if !mesh_facts.is_empty() {
        trusted(&mesh_facts, rows);
    }
    let (ders, facts): (Vec<_>, Vec<_>) = chain.into_iter().unzip();
    let mut identity = None;
    if let Some(leaf) = facts.first() {
        own_certificate(&ders, leaf, &mesh_store, now, rows);
        identity = key.ok().and_then(|key| matching(ders, key, rows));
    }
    Material {
        identity,
        mesh: mesh_store,
        mesh_keys: mesh_facts
            .into_iter()
            .filter_map(|facts| facts.own_key)
            .collect(),
        root: store(&root),
    }
}

fn trusted(mesh: &[Facts], rows: &mut Rows) {
    let keys: Vec<String> = mesh
        .iter()
        .map(|facts| short(facts.own_key.as_deref()))
        .collect();
    let found = match keys.split_first() {
        Some((current, previous)) if !previous.is_empty() => format!(
            "current {current}, previous {}: a change of the manifest is in its overlap",
            previous.join(", ")
        ),
        _ => format!("current {}", keys.join(", ")),
    };
    rows.ok(
        "trusted mesh CAs",
        "the current one, and the previous during an overlap",
        found,
    );
}

fn own_certificate(
    chain: &[CertificateDer<'static>],
    leaf: &Facts,
    mesh: &RootCertStore,
    now: SystemTime,
    rows: &mut Rows,
) {
    rows.ok("own names", "names from the manifest", leaf.names());
    let check = "own validity";
    let moment = |at| Moment { at, now };
    match validity(leaf, now) {
        Validity::Now => {
            let renewal = leaf.not_before
                + leaf
                    .not_after
                    .duration_since(leaf.not_before)
                    .unwrap_or_default()
                    / 3
                    * 2;
            rows.ok(
                check,
                "valid now",
                format!(
                    "valid until {}, renewed at the latest about {}",
                    moment(leaf.not_after),
                    moment(renewal)
                ),
            );
        }
        Validity::Expired => rows.failed(
            check,
            "valid now",
            format!("expired at {}", moment(leaf.not_after)),
            Reason::OwnExpired,
            "the Initializer renews it: read its log, and whether the Coordinator answers",
        ),
        Validity::NotYet => rows.failed(
            check,
            "valid now",
            format!("valid from {}", moment(leaf.not_before)),
            Reason::OwnNotYetValid,
            "the guest's clock is behind the Coordinator's: set the clocks of the hosts",
        ),
    }
    let check = "own issuer";
    let expected = "one of the trusted mesh CAs";
    match leads_to(chain, leaf, mesh) {
        Ok(()) => rows.ok(check, expected, leaf.issuer_text()),
        Err(error) => rows.failed(
            check,
            expected,
            format!("{} ({error})", leaf.issuer_text()),
            Reason::OwnOtherGeneration,
            "the certificate is of another mesh CA than the bundle: the manifest changed and only one of them was renewed; the Initializer's \
             log says why",
        ),
    }
}

fn matching(
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn rustls::sign::SigningKey>,
    rows: &mut Rows,
) -> Option<Arc<CertifiedKey>> {
    let pair = CertifiedKey::new(chain, key);
    let (check, expected) = ("own key", "the certificate's");
    match pair.keys_match() {
        Ok(()) => {
            rows.ok(check, expected, "the certificate's");
            Some(Arc::new(pair))
        }
        Err(error) => {
            rows.failed(
                check,
                expected,
                error.to_string(),
                Reason::KeyMismatch,
                "certificate and key are of different renewals: read the Initializer's log",
            );
            None
        }
    }
}

/// Checks the kernel's rules and whether Envoy is ready.
pub(crate) fn envoy(pod: &Pod, rows: &mut Rows) {
    if pod.transparent {
        kernel(rows);
    }
    let Some(ready) = &pod.ready_file else { return };
    let expected = "the ready file is there";
    match ready.exists() {
        true => rows.ok("Envoy", expected, "ready"),
        false => rows.failed(
            "Envoy",
            expected,
            format!("{} is not there", ready.display()),
            Reason::EnvoyNotReady,
            "Envoy did not start or is draining: read the log of contrast-service-mesh",
        ),
    }
}

const REDIRECTION: &str = "redirection to Envoy";

#[cfg(not(target_os = "linux"))]
fn kernel(rows: &mut Rows) {
    rows.unknown(
        REDIRECTION,
        "rules are there",
        "this system has no such rules".to_owned(),
        Reason::RulesHidden,
        "run the check in the container contrast-service-mesh",
    );
}

#[cfg(target_os = "linux")]
fn kernel(rows: &mut Rows) {
    let incoming = "incoming connections";
    match contrast_firewall::present() {
        Ok(present) => {
            match present.denied {
                false => rows.ok(incoming, "no default deny", "no default deny"),
                true => rows.failed(
                    incoming,
                    "no default deny",
                    "all new ones are denied (contrast_deny)",
                    Reason::InboundDenied,
                    "this ends when Envoy is ready: read the log of contrast-service-mesh",
                ),
            }
            match present.redirected {
                true => rows.ok(REDIRECTION, "rules are there", "rules are there"),
                false => rows.failed(
                    REDIRECTION,
                    "rules are there",
                    "no rules (contrast_mesh)",
                    Reason::NotRedirected,
                    "the sidecar makes them before Envoy starts: read the log of contrast-service-mesh",
                ),
            }
        }
        Err(tried) => rows.unknown(
            REDIRECTION,
            "rules are there",
            format!("cannot look: {tried}"),
            Reason::RulesHidden,
            "run the check in the container contrast-service-mesh, which has NET_ADMIN",
        ),
    }
}
