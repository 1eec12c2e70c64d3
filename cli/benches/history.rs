//! What `verify` makes of a long history: 1,000 transitions, each with a manifest of its own with ten policies, and their initdata documents.

#![allow(
    clippy::expect_used,
    reason = "a bench may panic, and measures with data of its own"
)]

use std::sync::LazyLock;

use contrast_cli::{
    transition::{TransitionHash, sha256, transition_hash},
    verify::history::{History, Memory},
};
use contrast_clock::{SeededEntropy, SystemWallClock, WallClock as _};
use contrast_manifest::ManifestDocument;
use contrast_pki::{MeshCa, RootCa, SigningKey, verify_p384_sha384};
use contrast_proto::user::{GetManifestsResponse, Transition};
use divan::Bencher;

const TRANSITIONS: usize = 1000;
const POLICIES: usize = 10;
const MANIFEST: &[u8] = include_bytes!("../tests/data/manifest.json");
const INITDATA: &str = include_str!("../tests/data/web.toml");

static HISTORY: LazyLock<GetManifestsResponse> = LazyLock::new(history);

fn main() {
    divan::main();
}

/// Every manifest replaces one workload of the manifest before, as an update does.
fn history() -> GetManifestsResponse {
    let entropy = SeededEntropy::new(1);
    let now = SystemWallClock.now();
    let key = SigningKey::generate(&entropy).expect("root key");
    let root = RootCa::new(key, now).expect("root CA");
    let mesh = MeshCa::generate(&entropy, &root, now).expect("mesh CA");
    let signing_key = SigningKey::generate(&entropy).expect("signing key");
    let first = ManifestDocument::from_json(MANIFEST).expect("manifest");
    let workload = first.policies.values().find(|entry| entry.role.is_empty());
    let workload = workload.expect("a workload").clone();
    let mut answer = GetManifestsResponse {
        root_ca: root.certificate_pem(),
        mesh_ca: mesh.self_signed_pem(),
        policies: vec![
            include_str!("../tests/data/coordinator.toml")
                .as_bytes()
                .into(),
        ],
        ..GetManifestsResponse::default()
    };
    let mut documents: Vec<String> = Vec::new();
    let mut previous = TransitionHash::NONE;
    for number in 0..TRANSITIONS + POLICIES - 2 {
        documents.push(format!("{INITDATA}# {number}\n"));
        let text = documents.last().expect("a document");
        answer.policies.push(text.clone().into_bytes().into());
        if documents.len() < POLICIES - 1 {
            continue;
        }
        let mut document = first.clone();
        document.policies.retain(|_, entry| !entry.role.is_empty());
        for text in documents.iter().rev().take(POLICIES - 1) {
            let hash = hex::encode(sha256(text.as_bytes()));
            document.policies.insert(hash, workload.clone());
        }
        let manifest = document.to_json();
        let mut transition = Transition {
            manifest_hash: sha256(manifest.as_bytes()).to_vec().into(),
            previous: previous.0.to_vec().into(),
            mesh_ca_public_key: mesh.public_key_spki().to_vec().into(),
            signature: Vec::new().into(),
            signing_public_key: signing_key.public_key_spki().to_vec().into(),
            seed_shares_digest: vec![1; 32].into(),
        };
        previous = transition_hash(&transition).expect("hash");
        let signature = signing_key.sign_sha384(&previous.0).expect("signs");
        transition.signature = signature.into();
        answer.transitions.push(transition);
        answer.manifests.push(manifest.into_bytes().into());
    }
    answer
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn check(bencher: Bencher<'_, '_>) {
    let memory = Memory::default();
    let checked = History::check(&HISTORY, &memory);
    assert!(checked.consistent.passed(), "{:?}", checked.consistent);
    assert_eq!(checked.chain.len(), TRANSITIONS);
    bencher.bench(|| History::check(divan::black_box(&HISTORY), &memory));
}

/// Baseline: the signatures alone.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn baseline_signatures(bencher: Bencher<'_, '_>) {
    bencher.bench(|| {
        for transition in &HISTORY.transitions {
            let hash = transition_hash(transition).expect("hash");
            let key = &transition.signing_public_key;
            verify_p384_sha384(key, &hash.0, &transition.signature).expect("signed");
        }
    });
}

/// Baseline: SHA-256 of all manifests and documents.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn baseline_sha256(bencher: Bencher<'_, '_>) {
    let all = HISTORY.manifests.iter().chain(&HISTORY.policies);
    bencher.bench(|| {
        all.clone()
            .map(|bytes| sha256(bytes))
            .fold(0, |sum, hash| sum ^ hash[0])
    });
}

/// Baseline: every manifest read as JSON of any shape, once.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn baseline_json(bencher: Bencher<'_, '_>) {
    bencher.bench(|| {
        let values = HISTORY.manifests.iter();
        let values = values.map(|bytes| serde_json::from_slice::<serde_json::Value>(bytes));
        values.filter(Result::is_ok).count()
    });
}
