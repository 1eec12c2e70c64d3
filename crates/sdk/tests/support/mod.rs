//! Deployments whose answers need no Coordinator; for the tests of the WebAssembly module as well.

use std::{sync::LazyLock, time::SystemTime};

use contrast_attest_document::{Answer, report_data};
use contrast_attestation::{
    Demands, Issuer as _, PolicyHash, ReportData, Tee, software::SoftwareTee,
};
use contrast_clock::{SeededEntropy, SystemWallClock, WallClock as _};
use contrast_manifest::{SnpReferenceValue, TdxReferenceValue};
use contrast_pki::{MeshCa, RootCa, SigningKey};
use contrast_proto::user::{GetManifestsResponse, Transition};
use contrast_sdk::{
    Nonce, Statement,
    digest::sha256,
    transition::{TransitionHash, transition_hash},
};
use serde_json::{Value, json};

const MANIFEST: &str = include_str!("../../../../cli/tests/data/manifest.json");
pub(crate) const COORDINATOR: &str = include_str!("../../../../cli/tests/data/coordinator.toml");
pub(crate) const WEB: &str = include_str!("../../../../cli/tests/data/web.toml");
pub(crate) const NONCE: Nonce = Nonce([7; 32]);

/// One for all tests: its RSA keys take seconds to make.
static TEE: LazyLock<SoftwareTee> =
    LazyLock::new(|| SoftwareTee::generate(SystemWallClock.now()).expect("software TEE"));

#[allow(dead_code, reason = "not every test that shares it asks for all")]
pub(crate) struct Deployment {
    pub(crate) kind: Tee,
    pub(crate) manifest: Vec<u8>,
    pub(crate) history: GetManifestsResponse,
    pub(crate) now: SystemTime,
}

impl Deployment {
    pub(crate) fn new(kind: Tee) -> Self {
        let tee = &*TEE;
        let now = SystemWallClock.now();
        let mut manifest: Value = serde_json::from_str(MANIFEST).expect("JSON");
        let root = hex::encode(tee.root_sha256(kind));
        let value = match tee.reference_value(kind).demands {
            Demands::Snp(demands) => {
                json!({"RootSHA256": root, "snp": SnpReferenceValue::from(&demands)})
            }
            Demands::Tdx(demands) => {
                json!({"RootSHA256": root, "tdx": TdxReferenceValue::from(&demands)})
            }
        };
        manifest["ReferenceValues"] = json!({"insecure": [value]});
        let manifest = serde_json::to_vec(&manifest).expect("JSON");
        let history = history(&manifest, now);
        Self {
            kind,
            manifest,
            history,
            now,
        }
    }

    /// What a Coordinator answers whose policy is the hash of `initdata`.
    pub(crate) fn answer(&self, initdata: &str, omit_policies: bool) -> Answer {
        let issued_at = "2026-01-01T00:00:00Z".to_owned();
        let statement = Statement::new(&NONCE, issued_at, self.history.clone(), omit_policies);
        let statement = statement.to_json().expect("statement");
        let policy = PolicyHash(sha256(initdata.as_bytes()));
        let bound = ReportData(report_data(&NONCE, &statement));
        let evidence = match self.kind {
            Tee::Tdx => TEE.tdx_guest(policy).issue(&bound),
            _ => TEE.snp_guest(policy).issue(&bound),
        };
        Answer::new(evidence.expect("evidence").encode(), statement)
    }
}

fn history(manifest: &[u8], now: SystemTime) -> GetManifestsResponse {
    let entropy = SeededEntropy::new(1);
    let root = RootCa::new(SigningKey::generate(&entropy).expect("key"), now).expect("root CA");
    let mesh = MeshCa::generate(&entropy, &root, now).expect("mesh CA");
    let key = SigningKey::generate(&entropy).expect("key");
    let mut transition = Transition {
        manifest_hash: sha256(manifest).to_vec().into(),
        previous: vec![0; 32].into(),
        mesh_ca_public_key: mesh.public_key_spki().to_vec().into(),
        signature: Vec::new().into(),
        signing_public_key: key.public_key_spki().to_vec().into(),
        seed_shares_digest: vec![1; 32].into(),
    };
    let hash = transition_hash(&transition).expect("hash");
    transition.signature = key.sign_sha384(&hash.0).expect("signs").into();
    GetManifestsResponse {
        transitions: vec![transition],
        manifests: vec![manifest.to_vec().into()],
        policies: vec![COORDINATOR.as_bytes().into(), WEB.as_bytes().into()],
        root_ca: root.certificate_pem(),
        mesh_ca: mesh.self_signed_pem(),
    }
}

pub(crate) fn latest(history: &GetManifestsResponse) -> TransitionHash {
    transition_hash(history.transitions.last().expect("a transition")).expect("hash")
}
